"""Both models with everything known about their making in MLflow, registered as the one in charge and the one on trial."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline

from deployments.sandbox.simulator.serving import BASELINE_TRAFFIC_PERCENT
from deployments.sandbox.simulator.training import SKEWED

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from deployments.sandbox.simulator.simulated_test import SimulatedTest
    from deployments.sandbox.simulator.training import TrainedModel

TRAINING_EXPERIMENT = "fraud-training"
AB_TEST_EXPERIMENT = "fraud-ab-tests"
TREES = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"  # the one type of ours that skops does not know
REQUEST_SECONDS = "60"


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A registered model version and the training run behind it."""

    name: str
    version: str
    run_id: str


@dataclass(frozen=True, slots=True)
class ABTestModels:
    """The two registered models of an A/B test and the test's own MLflow run, still open for the decision document."""

    baseline: LoggedModel
    candidate: LoggedModel
    experiment_id: str
    experiment_run_id: str


def log_models(test: SimulatedTest, tracking_uri: str) -> ABTestModels:
    """Log and register both models, the baseline in Production and the candidate in Staging, and open the A/B test's run.

    Args:
        test: the simulated test.
        tracking_uri: of the MLflow server, which also keeps the registry.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    client = MlflowClient(tracking_uri, tracking_uri)
    training = mlflow.set_experiment(TRAINING_EXPERIMENT).experiment_id
    baseline, candidate = (_log_model(client, training, model) for model in (test.baseline, test.candidate))
    _give_place(client, baseline, stage="Production", alias="champion")
    _give_place(client, candidate, stage="Staging", alias="challenger")
    experiment = client.get_experiment_by_name(AB_TEST_EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(AB_TEST_EXPERIMENT)
    run_id = _open_test_run(client, experiment_id, test, (baseline, candidate))
    return ABTestModels(baseline, candidate, experiment_id, run_id)


def _log_model(client: MlflowClient, experiment_id: str, model: TrainedModel) -> LoggedModel:
    import mlflow
    import mlflow.sklearn as flavor
    from mlflow.models import infer_signature

    with mlflow.start_run(experiment_id=experiment_id, run_name=f"train {model.name}") as run:
        run_id = str(run.info.run_id)
        _log_making(client, run_id, model)
        logged = flavor.log_model(
            model.pipeline,
            name="model",
            registered_model_name=model.name,
            signature=infer_signature(model.input_example, model.predict(model.input_example)),
            input_example=model.input_example,
            serialization_format="skops",
            skops_trusted_types=[TREES],
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}", "skops"],
        )
    return LoggedModel(model.name, str(logged.registered_model_version), run_id)


def _log_making(client: MlflowClient, run_id: str, model: TrainedModel) -> None:
    """Parameters, offline metrics and loss curves in one request, and the preprocessing as a document."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    curves = {"training_loss": model.training_loss, "validation_loss": model.validation_loss}
    metrics = [Metric(name, value, now, step) for name, curve in curves.items() for step, value in enumerate(curve)]
    metrics += [Metric(name, value, now, 0) for name, value in model.offline_metrics.items()]
    start, end = model.training_window
    facts = {
        **model.parameters,
        "threshold": model.threshold,
        "training_start": start.isoformat(),
        "training_end": end.isoformat(),
    }
    client.log_batch(run_id, metrics=metrics, params=[Param(name, str(value)) for name, value in facts.items()])
    client.log_dict(run_id, preprocessing_of(model), "preprocessing.json")


def preprocessing_of(model: TrainedModel) -> dict[str, Any]:
    """What the pipeline does to each feature before the trees see it: logarithm of the skewed ones, mean and scale."""
    preprocessing: Any = model.pipeline.estimator_.estimator.named_steps["preprocessing"]
    scaled: dict[str, dict[str, float | bool]] = {}
    for _, step, names in preprocessing.transformers_:
        scaler: Any = step[-1] if isinstance(step, Pipeline) else step
        for name, mean, deviation in zip(names, scaler.mean_, scaler.scale_, strict=True):
            scaled[name] = {"log1p": name in SKEWED, "mean": float(mean), "scale": float(deviation)}
    return {"features": list(model.features), "scaling": scaled}


def _give_place(client: MlflowClient, model: LoggedModel, *, stage: str, alias: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, and still what many teams read
        client.transition_model_version_stage(model.name, model.version, stage)
    client.set_registered_model_alias(model.name, alias, model.version)


def _open_test_run(client: MlflowClient, experiment: str, test: SimulatedTest, models: tuple[LoggedModel, LoggedModel]) -> str:
    from mlflow.entities import Param

    baseline, candidate = models
    run = client.create_run(experiment, run_name=f"{candidate.name} against {baseline.name}")
    facts = {
        "baseline": f"{baseline.name}/{baseline.version}",
        "candidate": f"{candidate.name}/{candidate.version}",
        "traffic_split": f"{BASELINE_TRAFFIC_PERCENT}/{100 - BASELINE_TRAFFIC_PERCENT}",
        "test_start": test.test_start.isoformat(),
        "simulated": f"{test.scenario.name}, seed {test.seed}",
    }
    client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in facts.items()])
    return str(run.info.run_id)
