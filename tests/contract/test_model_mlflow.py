"""Registered models of several kinds as an investigation asks them: what counts as a flag, and whatever they may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from flows.adapters.model_mlflow import as_flags
from flows.adapters.registry_mlflow import MlflowRegistry
from flows.domain.ab_test import Model
from flows.domain.errors import OutsideSystemError
from flows.settings import RegistryMode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flows.ports import LoadedModel

ROWS = pd.DataFrame({"amount": [100.0, 900.0, 300.0], "items": [1, 2, 3]})


class Answering(mlflow.pyfunc.PythonModel):
    """The amount decides; `kind` is what it answers with."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        score = model_input["amount"].to_numpy() / 1000
        match self.kind:
            case "flags":
                return score > 0.5
            case "scores":
                return score
            case "text":
                return np.where(score > 0.5, "fraud", "fine")
            case _:
                raise AssertionError("no weights")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("models", (folder / "artifacts").as_uri()))
    return MlflowRegistry(uri, RegistryMode.BOTH)


@pytest.fixture
def load(registry: MlflowRegistry, tmp_path: Path) -> Callable[..., LoadedModel]:
    def of_kind(kind: str, *, threshold: object = None, example: bool = True) -> LoadedModel:
        with mlflow.start_run():
            if threshold is not None:
                mlflow.log_param("threshold", threshold)
            logged = {"name": "model", "registered_model_name": kind, "pip_requirements": ["mlflow"]}
            logged |= {"signature": infer_signature(ROWS), "input_example": ROWS if example else None}
            if kind == "classifier":
                made = mlflow.sklearn.log_model(LogisticRegression(C=1e6).fit(ROWS, [0, 1, 0]), **logged)
            else:
                made = mlflow.pyfunc.log_model(python_model=Answering(kind), **logged)
        model = Model(kind, str(made.registered_model_version), kind)
        return registry.load(model, registry.artifact_files(model, tmp_path))

    return of_kind


@pytest.mark.parametrize(
    "answers",
    [
        [False, True, False],
        [0, 1, 0],
        [0.0, 1.0, 0.0],
        [0.2, 0.5, 0.4999],
        [[0.2], [0.9], [0.1]],
        np.array([False, True, False], dtype=object),
        pd.Series([False, True, False], dtype="boolean"),
        pd.DataFrame({"fraud": np.array([0.2, 0.9, 0.1], dtype=np.float32)}),
    ],
)
def test_flags_are_true_or_one_or_a_score_that_reaches_the_threshold(answers: object) -> None:
    found = as_flags(answers, lambda: 0.5)
    assert (found.dtype, found.tolist()) == (np.bool_, [False, True, False])


@pytest.mark.parametrize(
    "answers",
    [
        ["fraud", "fine"],
        ["1", "0"],
        [1, 2],
        [-1, 1],
        [0.2, float("nan")],
        [0.2, None],
        [[0.8, 0.2], [0.1, 0.9]],
        {"fraud": [0.2, 0.9]},
    ],
)
def test_other_answers_are_no_flags(answers: object) -> None:
    with pytest.raises(ValueError, match=r"has to return true or false \(1 or 0\) for each row, or a score from 0 to 1"):
        as_flags(answers, lambda: 0.5)


def test_of_no_rows_there_are_no_flags() -> None:
    assert as_flags(np.array([]), lambda: None).tolist() == []


def test_a_model_that_answers_with_flags_needs_no_threshold(load: Callable[..., LoadedModel]) -> None:
    loaded = load("flags")
    assert (loaded.features, loaded.scores) == (("amount", "items"), None)
    assert loaded.flags(ROWS).tolist() == [False, True, False]


def test_scores_are_flags_from_the_logged_threshold_on(load: Callable[..., LoadedModel]) -> None:
    assert load("scores", threshold=0.3).flags(ROWS).tolist() == [False, True, True]


@pytest.mark.parametrize("threshold", [None, "high", "nan", 30])
def test_scores_without_a_threshold_are_refused_when_the_model_is_loaded(
    load: Callable[..., LoadedModel], threshold: object
) -> None:
    with pytest.raises(OutsideSystemError, match=r"loading scores version [0-9]+: its predict returns scores: log .* threshold"):
        load("scores", threshold=threshold)


def test_without_an_example_they_are_refused_at_the_first_question(load: Callable[..., LoadedModel]) -> None:
    loaded = load("scores", example=False)
    with pytest.raises(OutsideSystemError, match=r"asking scores version [0-9]+: its predict returns scores"):
        loaded.flags(ROWS)


@pytest.mark.parametrize(("kind", "why"), [("text", "has to return true or false"), ("broken", "no weights")])
def test_a_model_that_gives_no_flags_is_refused_with_its_reason(load: Callable[..., LoadedModel], kind: str, why: str) -> None:
    with pytest.raises(OutsideSystemError, match=why) as refused:
        load(kind)
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "rows", [ROWS[["items"]], ROWS.assign(items=[1, np.nan, 3]), ROWS.assign(amount="much")], ids=["lacking", "null", "text"]
)
def test_whatever_a_model_raises_on_rows_is_one_error_with_its_reason(
    load: Callable[..., LoadedModel], rows: pd.DataFrame
) -> None:
    loaded = load("classifier")
    assert loaded.flags(ROWS).tolist() == [False, True, False]
    assert loaded.scores is not None
    assert (loaded.scores(ROWS) > 0.5).tolist() == [False, True, False]
    for ask in (loaded.flags, loaded.scores):
        with pytest.raises(OutsideSystemError, match=r"asking classifier version [0-9]+: .+"):
            ask(rows)
