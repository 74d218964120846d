"""The simulated models in a real MLflow server: registered, in their stages, and answering as in the simulation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from deployments.sandbox.processes import START_SECONDS, free_port
from deployments.sandbox.simulator import SimulatedTest, simulate_test
from deployments.sandbox.simulator.registration import register_test
from flows.domain.ab_test import ABTest


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"http://127.0.0.1:{free_port()}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", address.rpartition(":")[2], "--workers", "1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        )
    try:
        wait_until_healthy(address, server, folder / "log")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=20)


def wait_until_healthy(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"mlflow server did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def test_and_models(tracking_uri: str) -> tuple[SimulatedTest, ABTest]:
    test = simulate_test("win", 7, cache=None)
    return test, register_test(test, "ab-1", tracking_uri)


@pytest.fixture
def client(tracking_uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri, tracking_uri)


def test_the_baseline_is_in_production_and_the_candidate_in_staging(
    test_and_models: tuple[SimulatedTest, ABTest], client: mlflow.MlflowClient
) -> None:
    _, models = test_and_models
    for logged, stage, alias in ((models.baseline, "Production", "champion"), (models.candidate, "Staging", "challenger")):
        version = client.get_model_version(logged.name, logged.version)
        assert (version.current_stage, list(version.aliases)) == (stage, [alias])
    assert [model.name for model in models.models] == ["fraud_v1", "fraud_v2"]
    assert [model.predictor for model in models.models] == ["fraud-v1", "fraud-v2"]


def test_the_registered_models_answer_as_in_the_simulation_without_a_warning(
    test_and_models: tuple[SimulatedTest, ABTest],
) -> None:
    test, _ = test_and_models
    for model in (test.baseline, test.candidate):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = mlflow.sklearn.load_model(f"models:/{model.name}/1")
        rows = test.production[list(model.features)].iloc[:5_000]
        assert (loaded.predict(rows) == model.predict(rows)).all()
        assert model.predict(rows).any()


def test_each_model_answers_its_logged_input_example_by_its_signature(
    test_and_models: tuple[SimulatedTest, ABTest],
) -> None:
    test, _ = test_and_models
    for model in (test.baseline, test.candidate):
        served = mlflow.pyfunc.load_model(f"models:/{model.name}/1")
        assert served.metadata.signature.inputs.input_names() == list(model.features)
        assert (np.asarray(served.predict(served.input_example)) == model.predict(model.input_example)).all()


def test_the_making_of_each_model_is_in_its_run(
    test_and_models: tuple[SimulatedTest, ABTest], client: mlflow.MlflowClient, tracking_uri: str
) -> None:
    test, models = test_and_models
    for model, logged in ((test.baseline, models.baseline), (test.candidate, models.candidate)):
        run_id = client.get_model_version(logged.name, logged.version).run_id
        run = client.get_run(run_id).data
        assert float(run.params["threshold"]) == model.threshold
        assert run.params["training_end"] == model.training_window[1].isoformat()
        assert run.metrics["holdout_recall"] == pytest.approx(model.offline_metrics["holdout_recall"])
        curve = [metric.value for metric in client.get_metric_history(run_id, "validation_loss")]
        assert curve == pytest.approx(model.validation_loss)
        document = mlflow.artifacts.load_dict(f"runs:/{run_id}/preprocessing.json")
        assert document["features"] == list(model.features)
        assert document["scaling"]["amount"]["log1p"] is True
        assert set(document["scaling"]) == set(model.features)


def test_the_ab_test_has_an_open_run_of_its_own(
    test_and_models: tuple[SimulatedTest, ABTest], client: mlflow.MlflowClient
) -> None:
    _, models = test_and_models
    run = client.get_run(models.experiment_run_id)
    assert run.info.status == "RUNNING"
    assert client.get_experiment(run.info.experiment_id).name == "fraud-ab-tests"
    assert (run.data.params["baseline"], run.data.params["candidate"]) == ("fraud_v1/1", "fraud_v2/1")
    assert run.data.params["traffic_split"] == "80/20"
