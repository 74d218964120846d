"""Why a candidate lost: the flow on real Prefect, MLflow and S3, also while parts of it fail."""

from __future__ import annotations

import sys
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

from flows import investigate_candidate as flow_module
from flows.domain.ab_test import Model
from flows.domain.decision_record import Investigation, RecordKind, latest_investigation
from flows.domain.errors import OutsideSystemError
from flows.investigate_candidate import investigate_candidate
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
    settings = world.systems.settings.__class__()
    monkeypatch.setattr(world.systems, "settings", settings)
    files = world.systems.registry.artifact_files(world.test.candidate, tmp_path / "files")
    world.systems.archive.store(world.test.candidate, files)
    _put(files, "models", "x")
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


def _put(files: Path, bucket: str, prefix: str) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=bucket)
    for path in (path for path in files.rglob("*") if path.is_file()):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(files).as_posix()}")


def investigation(world: World, decision_id: str) -> Investigation:
    found = latest_investigation(world.systems.decision_log.records(decision_id))
    assert found is not None
    return found


def statuses(found: Investigation) -> dict[str, str]:
    return {str(one["hypothesis"]): str(one["status"]) for one in found.findings}


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
    assert statuses(found)["model_changes"] == statuses(found)["label_drift"] == "not_supported", "nothing was missing"
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
    why = next(str(one["said"]) for one in found.findings if one["hypothesis"] == "artifact")
    assert "it has no manifest" in why
    assert statuses(found)["serving_skew"] == "supported"


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
    at_once = flow_module.store_report.with_options(retries=0)
    monkeypatch.setattr(flow_module, "store_report", at_once)
    decision_id = lost.decide().decision_id
    with pytest.raises(OutsideSystemError):
        investigate_candidate(decision_id)
    assert sum("features arrive broken" in line for line in lines(lost, decision_id)) == 1
    assert "/artifacts/artifact/" in investigation(lost, decision_id).report
    assert lost.kinds() == [RecordKind.INVESTIGATED]


def test_tables_that_are_not_set_are_named(world: World) -> None:
    decision_id = world.decide().decision_id
    summary = investigate_candidate(decision_id)
    found = investigation(world, decision_id)
    assert "no cause was found" in summary[0]
    why = next(str(one["said"]) for one in found.findings if one["hypothesis"] == "feature_drift")
    assert "Set FRAUD_AB_TRAINING_DATA" in why
    assert "Set FRAUD_AB_PRODUCTION_DATA" in why
