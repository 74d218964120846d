"""The registry against a real MLflow: its SQLite store directly, and once through a server with its artifact proxy."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from deployments.sandbox.processes import Child, free_port, stop_all
from flows.adapters.registry_mlflow import MlflowRegistry
from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import Stage
from flows.domain.errors import OutsideSystemError
from flows.settings import RegistryMode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLE = pd.DataFrame({"amount": [1.0, 900.0, 3.0], "night": [0.0, 1.0, 0.0]})


@dataclass
class Tracking:
    uri: str
    client: MlflowClient
    run_id: str
    logged: dict[bool, str] = field(default_factory=dict)

    def version(self, name: str | None = None, *, example: bool = True) -> Model:
        """A new registered model version with a real model behind it; each kind of model is logged once."""
        mlflow.set_tracking_uri(self.uri)
        if example not in self.logged:
            self.logged[example] = self._log(example)
        name = name or f"fraud_{uuid.uuid4().hex[:8]}"
        return Model(name, str(mlflow.register_model(self.logged[example], name).version), name)

    def _log(self, example: bool) -> str:  # noqa: FBT001 - a key of `logged`
        with mlflow.start_run(self.run_id):
            return mlflow.sklearn.log_model(
                LogisticRegression().fit(EXAMPLE, [0, 1, 0]),
                name="model",
                signature=infer_signature(EXAMPLE, [0, 1, 0]),
                input_example=EXAMPLE if example else None,
                pip_requirements=["scikit-learn"],
            ).model_uri


def open_tracking(uri: str, artifacts: Path | None) -> Tracking:
    client = MlflowClient(uri, registry_uri=uri)
    location = artifacts.as_uri() if artifacts else None
    experiment = client.create_experiment("fraud", artifact_location=location)
    return Tracking(uri, client, client.create_run(experiment).info.run_id)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    return open_tracking(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    folder, port = tmp_path_factory.mktemp("mlflow-server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += [
        "--artifacts-destination",
        str(folder / "artifacts"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    child = Child("mlflow", command, environment=dict(os.environ), log=folder / "log", folder=folder)
    try:
        child.wait_until(f"http://127.0.0.1:{port}/health", seconds=120)
        yield open_tracking(f"http://127.0.0.1:{port}", None)
    finally:
        stop_all([child])


def a_test(tracking: Tracking) -> ABTest:
    return ABTest("t", tracking.version(), tracking.version(), datetime(2026, 11, 1, tzinfo=UTC), tracking.run_id)


@pytest.mark.parametrize("mode", list(RegistryMode))
def test_a_promotion_leaves_one_model_in_production_and_the_other_archived(tracking: Tracking, mode: RegistryMode) -> None:
    registry = MlflowRegistry(tracking.uri, mode)
    baseline, candidate = tracking.version(), tracking.version()
    registry.set_in_charge(baseline)
    registry.set_stage(candidate, Stage.STAGING)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for _ in range(2):  # twice: each call may be repeated
            registry.set_in_charge(candidate)
            registry.set_archived(baseline, previous=True)
    found = [registry.entry(baseline), registry.entry(candidate)]
    assert [entry.stage for entry in found] == [Stage.ARCHIVED, Stage.PRODUCTION]
    aliases = [entry.aliases for entry in found]
    assert aliases == ([(), ()] if mode is RegistryMode.STAGES else [("previous",), ("champion",)])
    stages = [tracking.client.get_model_version(one.name, one.version).current_stage for one in (baseline, candidate)]
    assert stages == (["None", "None"] if mode is RegistryMode.ALIASES else ["Archived", "Production"])


@pytest.mark.parametrize("mode", list(RegistryMode))
def test_a_promotion_can_be_taken_back(tracking: Tracking, mode: RegistryMode) -> None:
    registry = MlflowRegistry(tracking.uri, mode)
    baseline, candidate = tracking.version(), tracking.version()
    registry.set_in_charge(candidate)
    registry.set_archived(baseline, previous=True)
    registry.set_in_charge(baseline)
    registry.set_stage(candidate, Stage.STAGING)
    found = [registry.entry(baseline), registry.entry(candidate)]
    assert [entry.stage for entry in found] == [Stage.PRODUCTION, Stage.STAGING]
    assert [entry.aliases for entry in found] == ([(), ()] if mode is RegistryMode.STAGES else [("champion",), ("challenger",)])
    assert registry.set_archived(candidate, previous=False).aliases == ()


def test_two_versions_of_one_registered_model_can_be_exchanged(tracking: Tracking) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    first = tracking.version()
    second = tracking.version(first.name)
    registry.set_in_charge(first)
    registry.set_in_charge(second)
    registry.set_archived(first, previous=True)
    assert str(registry.entry(first)) == f"{first.name} v1: Archived (previous)"
    assert str(registry.entry(second)) == f"{first.name} v2: Production (champion)"


def test_a_model_loads_and_predicts_on_its_logged_example(tracking: Tracking, tmp_path: Path) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    model = tracking.version()
    files = registry.artifact_files(model, tmp_path)
    assert (files / "MLmodel").is_file()
    assert registry.try_out(model, files) == 3


def test_a_model_that_is_broken_or_has_no_example_is_refused(tracking: Tracking, tmp_path: Path) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    blind = tracking.version(example=False)
    with pytest.raises(OutsideSystemError, match="input_example") as refused:
        registry.try_out(blind, registry.artifact_files(blind, tmp_path / "blind"))
    assert not refused.value.retryable
    broken = tracking.version()
    files = registry.artifact_files(broken, tmp_path / "broken")
    for path in files.glob("model.*"):
        path.write_bytes(b"not a model")
    with pytest.raises(OutsideSystemError, match="trying out") as refused:
        registry.try_out(broken, files)
    assert not refused.value.retryable


def test_what_is_not_there_is_no_passing_fault(tracking: Tracking) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    with pytest.raises(OutsideSystemError, match="fraud_v9") as missing:
        registry.entry(Model("fraud_v9", "1", "fraud-v9"))
    assert not missing.value.retryable


def test_a_server_that_does_not_answer_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry(f"http://127.0.0.1:{free_port()}", RegistryMode.BOTH)
    with pytest.raises(OutsideSystemError, match="MLflow failed") as silent:
        registry.entry(Model("fraud_v1", "1", "fraud-v1"))
    assert silent.value.retryable


def test_a_document_carries_its_checksum_and_the_run_its_tags(tracking: Tracking) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    test = a_test(tracking)
    uri = registry.log_document(test, "decisions/t-1.md", "# Decision — ✓\n")
    registry.tag_test(test, {"fraud-ab.outcome": "promoted"})
    tags = tracking.client.get_run(tracking.run_id).data.tags
    assert tags["sha256.decisions/t-1.md"] == hashlib.sha256("# Decision — ✓\n".encode()).hexdigest()
    assert tags["fraud-ab.outcome"] == "promoted"
    assert mlflow.artifacts.load_text(uri) == "# Decision — ✓\n"
    assert registry.run_url(test) == ""


def test_a_stored_document_is_read_with_what_run_and_both_versions_note_of_it(tracking: Tracking) -> None:
    registry = MlflowRegistry(tracking.uri, RegistryMode.BOTH)
    test = a_test(tracking)
    registry.log_document(test, "decisions/t-1.md", "# One\n")
    stored = registry.stored_document(test, "decisions/t-1.md")
    assert (stored.text, stored.sha256) == ("# One\n", hashlib.sha256(b"# One\n").hexdigest())
    places = {f"run {tracking.run_id}", str(test.baseline), str(test.candidate)}
    assert stored.noted == dict.fromkeys(places, stored.sha256)
    tracking.client.log_text(tracking.run_id, "# Two\n", "decisions/t-1.md")
    tracking.client.delete_model_version_tag(test.candidate.name, test.candidate.version, "sha256.decisions/t-1.md")
    changed = registry.stored_document(test, "decisions/t-1.md")
    assert changed.sha256 != stored.sha256
    assert changed.noted == {**stored.noted, str(test.candidate): ""}
    with pytest.raises(OutsideSystemError, match="reading decisions/other"):
        registry.stored_document(test, "decisions/other.md")


def test_all_of_it_through_a_server_that_hides_the_bucket(server: Tracking, tmp_path: Path) -> None:
    registry = MlflowRegistry(server.uri, RegistryMode.BOTH)
    baseline, candidate = server.version(), server.version()
    assert registry.set_in_charge(candidate).stage is Stage.PRODUCTION
    assert registry.set_archived(baseline, previous=True).aliases == ("previous",)
    assert registry.try_out(candidate, registry.artifact_files(candidate, tmp_path)) == 3
    test = a_test(server)
    assert registry.log_document(test, "decisions/t-1.md", "text") == f"runs:/{server.run_id}/decisions/t-1.md"
    assert registry.run_url(test) == f"{server.uri}/#/experiments/1/runs/{server.run_id}"
    assert registry.run_url(test, "decisions/t-1.md") == f"{registry.run_url(test)}/artifacts/decisions/t-1.md"


def test_the_run_of_a_test_is_opened_once_and_found_again(tracking: Tracking) -> None:
    registry, experiment = MlflowRegistry(tracking.uri, RegistryMode.BOTH), f"tests-{uuid.uuid4().hex[:8]}"
    run = registry.open_test_run("v1-v2", experiment, {"fraud-ab.candidate": "fraud_v2/1"})
    assert registry.open_test_run("v1-v2", experiment, {}) == run
    assert registry.open_test_run("v1-v3", experiment, {}) != run
    tags = tracking.client.get_run(run).data.tags
    assert (tags["fraud-ab.test"], tags["fraud-ab.candidate"]) == ("v1-v2", "fraud_v2/1")
    registry.require_run(run)
    with pytest.raises(OutsideSystemError, match="reading run 0123456789"):
        registry.require_run("0123456789")
