"""The cache of trained models: reused when whole, rebuilt when damaged or foreign."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import FixedThresholdClassifier

from deployments.sandbox.simulator import model_cache
from deployments.sandbox.simulator.model_cache import cached_model
from deployments.sandbox.simulator.timeline import TEST_START
from deployments.sandbox.simulator.training import BASELINE, OVERFITTED_CANDIDATE, TrainedModel


def a_model(threshold: float) -> TrainedModel:
    return TrainedModel(
        name="fraud_v1",
        pipeline=FixedThresholdClassifier(DummyClassifier()),
        threshold=threshold,
        features=("amount",),
        parameters={},
        training_window=(TEST_START, TEST_START),
        offline_metrics={},
        training_loss=(),
        validation_loss=(),
        input_example=pd.DataFrame(),
    )


def threshold(cache: Path | None, trained: float, *, seed: int = 1, recipe: object = BASELINE) -> float:
    return cached_model(recipe, seed, cache, lambda: a_model(trained)).threshold  # type: ignore[arg-type]


def test_a_model_is_trained_once(tmp_path: Path) -> None:
    assert threshold(tmp_path / "new", 0.1) == 0.1
    assert threshold(tmp_path / "new", 0.2) == 0.1


def test_another_seed_or_recipe_is_another_model(tmp_path: Path) -> None:
    threshold(tmp_path, 0.1)
    assert threshold(tmp_path, 0.2, seed=2) == 0.2
    assert threshold(tmp_path, 0.3, recipe=OVERFITTED_CANDIDATE) == 0.3


def test_without_a_cache_every_call_trains() -> None:
    assert [threshold(None, 0.1), threshold(None, 0.2)] == [0.1, 0.2]


@pytest.mark.parametrize("damage", [b"", b"not a model", b"\x00" * 500])
def test_a_damaged_file_is_trained_over(tmp_path: Path, damage: bytes) -> None:
    threshold(tmp_path, 0.1)
    (file,) = tmp_path.rglob("output.pkl")
    file.write_bytes(damage)
    assert threshold(tmp_path, 0.2) == 0.2
    assert threshold(tmp_path, 0.3) == 0.2


def test_another_source_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threshold(tmp_path, 0.1)
    monkeypatch.setattr(model_cache, "_source_digest", lambda: "changed")
    assert threshold(tmp_path, 0.2) == 0.2
