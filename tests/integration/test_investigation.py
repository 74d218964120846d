"""Why a candidate lost: the flow on real Prefect, MLflow and S3, also while parts of it fail."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deployments.sandbox.fault_proxy import HttpFaultProxy, Mishap
from flows import investigate_candidate as flow_module
from flows.adapters.archive_s3 import S3Archive
from flows.domain.ab_test import Model
from flows.domain.decision_record import Investigation, RecordKind
from flows.domain.errors import DataInvalid, OutsideSystemError
from flows.investigate_candidate import investigate_candidate
from flows.investigation_material import Gathering
from slackbot.messages.block_kit import escape
from tests.integration.investigations import investigation, retry_in_prefect
from tests.integration.production_world import World, lines

pytest_plugins = ("tests.integration.production_world",)

FEATURES = ["amount", "speed", "distance"]
ROWS = {"training": 12_000, "holdout": 6_000, "production": 8_000}


def transactions(rows: int, seed: int) -> pd.DataFrame:
    """Two features tell fraud from honest payments; the third is noise."""
    random = np.random.default_rng(seed)
    fraud = random.random(rows) < 0.1
    return pd.DataFrame(
        {
            "transaction_id": [f"{seed}-{number}" for number in range(rows)],
            "event_time": pd.date_range("2026-01-05", periods=rows, freq="3min", tz="UTC"),
            "is_fraud": fraud,
            "amount": random.lognormal(3 + 0.8 * fraud, 0.7, rows),
            "speed": random.gamma(2 + 5 * fraud, 1.0, rows),
            "distance": random.exponential(10, rows),
        }
    )


@pytest.fixture
def lost(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A candidate whose online pipeline has zeroed `speed` since the test began, with everything that is known of it."""
    tables = {name: transactions(rows, seed) for seed, (name, rows) in enumerate(ROWS.items(), 1)}
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        tables["training"][FEATURES], tables["training"]["is_fraud"]
    )
    served = tables["production"].assign(speed=0.0)
    served["baseline_prediction"] = model.predict(tables["production"][FEATURES])
    served["candidate_prediction"] = model.predict(served[FEATURES])
    tables["production"] = served
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
        monkeypatch.setenv(f"FRAUD_AB_{name.upper()}_DATA", str(tmp_path / f"{name}.parquet"))
    world.test = replace(world.test, candidate=_register(world, model, tables))
    world.read_settings()
    files = world.systems.registry.artifact_files(world.test.candidate, tmp_path / "files")
    world.systems.archive.store(world.test.candidate, files)
    world.serve_files(files)
    return world


def _register(world: World, model: object, tables: dict[str, pd.DataFrame]) -> Model:
    example = tables["training"][FEATURES].head(3)
    name = world.test.candidate.name
    with mlflow.start_run(experiment_id=MlflowClient().get_experiment_by_name("ab").experiment_id):  # type: ignore[union-attr]
        recall = {part: float(model.predict(rows[FEATURES])[rows["is_fraud"]].mean()) for part, rows in tables.items()}  # type: ignore[attr-defined]
        mlflow.log_metrics({"train_recall": recall["training"], "holdout_recall": recall["holdout"]})
        mlflow.log_params({"C": 1.0, "training_start": "2025-10-01T00:00:00+00:00", "training_end": "2025-12-01T00:00:00+00:00"})
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=infer_signature(example, np.array([True])),
            input_example=example,
            pip_requirements=["scikit-learn"],
        )
    return Model(name, str(logged.registered_model_version), world.test.candidate.predictor)


@pytest.fixture
def mishap_of_s3(lost: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mishap]]:
    """What is put into this list happens to every request to S3 from then on; the step that needs it tries once."""
    happening: list[Mishap] = []
    with HttpFaultProxy(os.environ["AWS_ENDPOINT_URL"], lambda _: happening[0] if happening else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setitem(lost.systems.__dict__, "archive", S3Archive("archive"))
        try_once(monkeypatch, "compare_artifacts")
        yield happening


def try_once(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Let a step of the investigation fail without its pauses."""
    monkeypatch.setattr(flow_module, step, getattr(flow_module, step).with_options(retries=0))


def statuses(found: Investigation) -> dict[str, str]:
    return {str(one["hypothesis"]): str(one["status"]) for one in found.findings}


def said_of(found: Investigation, hypothesis: str) -> str:
    return next(str(one["said"]) for one in found.findings if one["hypothesis"] == hypothesis)


def stored(world: World, decision_id: str) -> set[str]:
    run = world.test.experiment_run_id
    return {Path(file.path).name for file in MlflowClient().list_artifacts(run, f"investigations/{decision_id}")}


def test_a_lost_test_gets_its_cause_a_report_and_a_record(lost: World) -> None:
    decision_id = lost.decide().decision_id
    summary = investigate_candidate(decision_id)
    assert len(summary) <= 10
    assert "features arrive broken at the candidate" in summary[0]
    assert "speed" in summary[2]
    assert any("artifact" in line for line in summary if line.startswith("Ruled out"))
    found = investigation(lost, decision_id)
    assert found.summary == tuple(summary)
    assert statuses(found)["serving_skew"] == "supported"
    assert statuses(found)["label_drift"] == "not_supported", "nothing was missing"
    assert statuses(found)["model_changes"] == "not_testable", "the models' runs logged nothing of their making"
    explained = next(one["explained_recall"] for one in found.findings if one["hypothesis"] == "serving_skew")
    assert explained > 0.1
    assert {"root_cause.md", "root_cause.html", "evidently.html", "findings.png", "drift.png"} <= stored(lost, decision_id)
    told = lines(lost, decision_id)
    assert sum("features arrive broken" in line for line in told) == 1
    assert any(line.startswith("root-cause report: ") for line in told)
    assert lost.kinds() == [RecordKind.INVESTIGATED]


def test_without_evidently_the_report_says_so(lost: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evidently", None)
    decision_id = lost.decide().decision_id
    summary = investigate_candidate(decision_id)
    assert "features arrive broken at the candidate" in summary[0]
    assert any("Evidently's drift report" in line for line in summary if line.startswith("Could not be tested"))
    assert "root_cause.html" in stored(lost, decision_id)
    assert "evidently.html" not in stored(lost, decision_id)


def test_without_an_archive_the_artifact_is_not_testable_and_the_rest_is(lost: World) -> None:
    s3 = boto3.client("s3")
    for key in [item["Key"] for item in s3.list_objects_v2(Bucket="archive")["Contents"]]:
        s3.delete_object(Bucket="archive", Key=key)
    decision_id = lost.decide().decision_id
    investigate_candidate(decision_id)
    found = investigation(lost, decision_id)
    assert statuses(found)["artifact"] == "not_testable"
    assert "it has no manifest" in said_of(found, "artifact")
    assert statuses(found)["serving_skew"] == "supported"


@pytest.mark.parametrize("mishap", [Mishap.REFUSED, Mishap.SERVER_ERROR])
def test_while_s3_fails_the_artifact_is_not_testable_and_the_rest_is(
    lost: World, mishap_of_s3: list[Mishap], mishap: Mishap
) -> None:
    mishap_of_s3.append(mishap)
    decision_id = lost.decide().decision_id
    summary = investigate_candidate(decision_id)
    assert "features arrive broken at the candidate" in summary[0]
    assert any("artifact" in line for line in summary if line.startswith("Could not be tested"))
    found = investigation(lost, decision_id)
    assert statuses(found)["artifact"] == "not_testable"
    assert "S3 failed while reading s3://models/x" in said_of(found, "artifact")
    assert statuses(found)["serving_skew"] == "supported"
    untested = lost.report(decision_id).partition("## What could not be tested")[2].partition("\n## ")[0]
    assert "S3 failed while reading s3://models/x" in untested


def test_without_the_models_files_nothing_is_replayed_and_the_drift_is_still_told(lost: World) -> None:
    source = lost.systems.registry.provenance(lost.test.candidate).source
    for file in (path for path in Path(source.removeprefix("file://")).rglob("*") if path.is_file()):
        file.unlink()
    decision_id = lost.decide().decision_id
    investigate_candidate(decision_id)
    found = investigation(lost, decision_id)
    broken = next(one for one in found.findings if one["hypothesis"] == "serving_skew")
    assert (broken["status"], broken["explained_recall"]) == ("supported", None)


def test_a_report_that_cannot_be_stored_is_told_all_the_same(lost: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run fails, so that *Retry* stores it; people know the cause already, and can read the report in Prefect."""
    MlflowClient().delete_run(lost.test.experiment_run_id)
    try_once(monkeypatch, "store_report")
    decision_id = lost.decide().decision_id
    with pytest.raises(OutsideSystemError):
        investigate_candidate(decision_id)
    assert sum("features arrive broken" in line for line in lines(lost, decision_id)) == 1
    assert "/artifacts/artifact/" in investigation(lost, decision_id).report
    assert lost.kinds() == [RecordKind.INVESTIGATED]


def test_a_retry_tells_once_what_it_finds_and_also_what_it_finds_anew(
    lost: World, mishap_of_s3: list[Mishap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 and the test's run are away; at the retry both are back, so that there is more to tell than before."""
    mishap_of_s3.append(Mishap.REFUSED)
    MlflowClient().delete_run(lost.test.experiment_run_id)
    try_once(monkeypatch, "store_report")
    decision_id = lost.decide().decision_id
    failed = investigate_candidate(decision_id, return_state=True)
    assert failed.is_failed()
    [first] = [line for line in lines(lost, decision_id) if "features arrive broken" in line]
    assert "Could not be tested: artifact" in first

    mishap_of_s3.clear()
    MlflowClient().restore_run(lost.test.experiment_run_id)
    summary = retry_in_prefect(failed, decision_id)
    told = lines(lost, decision_id)
    assert [line for line in told if "features arrive broken" in line] == [first, "\n".join(map(escape, summary))]
    assert "artifact" not in first.partition("Ruled out: ")[2]
    assert "artifact" in "\n".join(summary).partition("Ruled out: ")[2]
    assert sum(line.startswith("root-cause report: ") for line in told) == 1
    assert lost.kinds() == [RecordKind.INVESTIGATED, RecordKind.INVESTIGATED], "first in Prefect, then in MLflow"
    assert investigation(lost, decision_id).summary == tuple(summary)


def test_a_retry_of_the_documents_tells_nothing_twice(lost: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page could not be published, and before the retry another investigation of the decision has been recorded."""
    decision_id = lost.decide().decision_id
    with monkeypatch.context() as failing:
        failing.setattr(lost.systems.lifecycle_docs, "edit", away)
        failed = investigate_candidate(decision_id, return_state=True)
    assert failed.is_failed()
    before = [line for line in lines(lost, decision_id) if line]
    other = investigation(lost, decision_id).to_payload()
    lost.systems.decision_log.append_record(RecordKind.INVESTIGATED, decision_id, other, occurrence=1)
    retry_in_prefect(failed, decision_id)
    after = [line for line in lines(lost, decision_id) if line]
    assert after[:-1] == before
    assert after[-1].startswith("lifecycle page: ")
    assert lost.kinds() == [RecordKind.INVESTIGATED, RecordKind.INVESTIGATED]


def away(*_: object) -> str:
    raise OutsideSystemError("git", "a test", retryable=False)


def test_a_table_is_named_by_model_version_and_test(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = world.test
    transactions(100, 1).to_parquet(tmp_path / f"{test.candidate.name}-{test.candidate.version}-{test.test_id}.parquet")
    monkeypatch.setenv("FRAUD_AB_TRAINING_DATA", str(tmp_path / "{model}-{version}-{test}.parquet"))
    world.read_settings()
    with Gathering(world.decide()) as gathering:
        assert gathering.table("training").rows == 100


def test_what_else_stands_in_braces_is_refused_with_what_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = world.decide()
    for place in ("{week}.parquet", "{}.parquet", "{model.parquet", "{model.week}.parquet", "{model[week]}.parquet"):
        monkeypatch.setenv("FRAUD_AB_TRAINING_DATA", place)
        world.read_settings()
        why = re.escape("FRAUD_AB_TRAINING_DATA may name {model}, {version} and {test} only.")
        with Gathering(decision) as gathering, pytest.raises(DataInvalid, match=why):
            gathering.table("training")


def test_tables_that_are_not_set_are_named(world: World) -> None:
    decision_id = world.decide().decision_id
    summary = investigate_candidate(decision_id)
    found = investigation(world, decision_id)
    assert "no cause was found" in summary[0]
    why = said_of(found, "feature_drift")
    assert "Set FRAUD_AB_TRAINING_DATA" in why
    assert "Set FRAUD_AB_PRODUCTION_DATA" in why
