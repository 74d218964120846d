"""Both models with everything known about their making in MLflow, registered as the one in charge and the one on trial."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline

from deployments.sandbox.simulator.serving import BASELINE_TRAFFIC_PERCENT
from deployments.sandbox.simulator.training import SKEWED
from flows.adapters.registry_mlflow import MlflowRegistry
from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import Stage
from flows.settings import RegistryMode

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from deployments.sandbox.simulator.simulated_test import SimulatedTest
    from deployments.sandbox.simulator.training import TrainedModel

TRAINING_EXPERIMENT = "fraud-training"
AB_TEST_EXPERIMENT = "fraud-ab-tests"
TREES = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"  # the one type of ours that skops does not know
REQUEST_SECONDS = "60"


def register_test(test: SimulatedTest, test_id: str, tracking_uri: str) -> ABTest:
    """Log and register both models, the baseline in Production and the candidate in Staging, and open the A/B test's run.

    Args:
        test: the simulated test.
        test_id: its name from now on.
        tracking_uri: of the MLflow server, which also keeps the registry.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    registry = MlflowRegistry(tracking_uri, RegistryMode.BOTH)
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    client = MlflowClient(tracking_uri, tracking_uri)
    training = mlflow.set_experiment(TRAINING_EXPERIMENT).experiment_id
    baseline, candidate = (log_model(client, training, model) for model in (test.baseline, test.candidate))
    registry.set_stage(baseline, Stage.PRODUCTION)
    registry.set_stage(candidate, Stage.STAGING)
    return ABTest(test_id, baseline, candidate, test.test_start, _open_test_run(client, test, baseline, candidate))


def log_model(client: MlflowClient, experiment_id: str, model: TrainedModel, registered: TrainedModel | None = None) -> Model:
    """Log and register a model with everything known about its making.

    Args:
        registered: what is registered in its place, such as its trees without their preprocessing.
    """
    import mlflow
    import mlflow.sklearn as flavor
    from mlflow.models import infer_signature

    kept = registered or model
    with mlflow.start_run(experiment_id=experiment_id, run_name=f"train {model.name}") as run:
        _log_making(client, str(run.info.run_id), model)
        logged = flavor.log_model(
            kept.pipeline,
            name="model",
            registered_model_name=model.name,
            signature=infer_signature(kept.input_example, kept.predict(kept.input_example)),
            input_example=kept.input_example,
            serialization_format="skops",
            skops_trusted_types=[TREES],
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}", "skops"],
        )
    return Model(model.name, str(logged.registered_model_version), model.name.replace("_", "-"))


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


def _open_test_run(client: MlflowClient, test: SimulatedTest, baseline: Model, candidate: Model) -> str:
    """The test's own MLflow run, open for the decision document."""
    from mlflow.entities import Param

    experiment = client.get_experiment_by_name(AB_TEST_EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(AB_TEST_EXPERIMENT)
    run = client.create_run(experiment_id, run_name=f"{candidate.name} against {baseline.name}")
    facts = {
        "baseline": f"{baseline.name}/{baseline.version}",
        "candidate": f"{candidate.name}/{candidate.version}",
        "traffic_split": f"{BASELINE_TRAFFIC_PERCENT}/{100 - BASELINE_TRAFFIC_PERCENT}",
        "test_start": test.test_start.isoformat(),
        "simulated": f"{test.scenario.name}, seed {test.seed}",
    }
    client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in facts.items()])
    return str(run.info.run_id)
