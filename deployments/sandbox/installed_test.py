"""The simulated A/B test put into the (embedded) systems: models registered, feedback loaded, traffic split, flow started."""

from __future__ import annotations

import contextlib
import io
import logging
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from deployments.sandbox.feedback_database import FeedbackDatabase
from deployments.sandbox.live_traffic import LiveTraffic
from deployments.sandbox.simulator import SimulatedTest
from deployments.sandbox.simulator.registration import register_test
from flows.deployment_names import FINALIZE
from flows.domain.ab_test import ABTest, Model
from flows.domain.errors import SettingsInvalid
from flows.start_ab_test import start_ab_test
from flows.watch import poll

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.sandbox.stack import EmbeddedStack
    from flows.ports import Serving
    from flows.wiring import Systems

FIRST_LOOK_DAY = 21
READY_SECONDS = 30.0
API_SECONDS = 10
MADE_BY_DEMO = "fraud-ab/demo"
DEPLOYMENT_SECONDS = 90.0


class InstalledTest:
    """A simulated test that is in the systems, and its life there."""

    def __init__(
        self,
        simulated: SimulatedTest,
        test: ABTest,
        database: FeedbackDatabase,
        *,
        known_until: datetime,
        route: Callable[[str], str],
        remove: Callable[[], None],
    ) -> None:
        self.test = test
        self._simulated = simulated
        self._database = database
        self._known_until = known_until
        self._route = route
        self._remove = remove
        self._run_id: uuid.UUID | None = None
        self._load()
        self._traffic = self._new_traffic()

    def summary(self) -> str:
        known = self._simulated.feedback(self._known_until)
        frauds = int((known["is_fraud"] == True).to_numpy(dtype=bool, na_value=False).sum())  # noqa: E712 - unknown is neither
        return f"Both models trained and registered; {len(known):,} predictions with {frauds:,} known frauds are in the feedback"

    def start_live_traffic(self) -> None:
        self._traffic.start()

    def advance(self, *, days: int) -> None:
        """Let days pass in the world: their transactions and labels become known. Live traffic starts anew from there."""
        self._traffic.stop()
        self._known_until += timedelta(days=days)
        self._load()
        self._traffic = self._new_traffic()
        self._traffic.start()

    def start_flow(self) -> str:
        """Start `finalize-ab-test` for this test as soon as its deployment is registered; returns the run's id."""
        from prefect.deployments import run_deployment
        from prefect.exceptions import ObjectNotFound

        def is_started() -> bool:
            try:
                run: Any = run_deployment(FINALIZE, parameters={"test": self.test}, timeout=0, as_subflow=False)
            except (ObjectNotFound, ValueError):
                return False
            self._run_id = run.id
            return True

        if not poll(is_started, DEPLOYMENT_SECONDS):
            raise TimeoutError(f"{FINALIZE} was not registered within {DEPLOYMENT_SECONDS:.0f} s")
        return str(self._run_id)

    def flow_ended(self) -> str | None:
        """The name of the run's final state, None while it goes on."""
        from prefect.client.orchestration import get_client

        if self._run_id is None:
            raise LookupError("the flow was not started")
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(self._run_id).state
        return state.name if state is not None and state.is_final() else None

    def stop(self) -> None:
        self._traffic.stop()
        self._remove()

    def _load(self) -> None:
        self._database.load(self._simulated.feedback(self._known_until))

    def _new_traffic(self) -> LiveTraffic:
        future = self._simulated.feedback(self._simulated.test_start + timedelta(days=365))
        future = future.loc[future["event_time"] >= self._known_until]
        arms = {self.test.baseline.predictor: "baseline", self.test.candidate.predictor: "candidate"}
        return LiveTraffic(self._database, future, route=self._route, arms=arms, now=self._known_until)


def install_test(simulated: SimulatedTest, systems: Systems, stack: EmbeddedStack) -> InstalledTest:
    """Register the models, load what is known at the look on exposure day 21, deploy both predictors, open the test at 80/20."""
    if "MLFLOW_TRACKING_URI" in stack.given:
        _refuse_known_models(systems.settings.mlflow_tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints a line for each registered version
        test = register_test(simulated, f"fraud-v1-v2-{uuid.uuid4().hex[:6]}", systems.settings.mlflow_tracking_uri)
    remove = deploy(systems, {model.predictor: _storage_uri(systems, model) for model in test.models})
    start_ab_test(systems.serving, test, systems.policy)
    if stack.features is not None:
        _write_features(simulated, stack.features)
    wait_until_ready(systems.serving)
    return InstalledTest(
        simulated,
        test,
        FeedbackDatabase(systems.settings.feedback_url),
        known_until=simulated.test_start + timedelta(days=FIRST_LOOK_DAY + systems.policy.label_maturity_days),
        route=stack.kubernetes.route if stack.kubernetes else _router_of(systems.serving),
        remove=remove,
    )


def _write_features(simulated: SimulatedTest, folder: Path) -> None:
    """What an investigation compares. Of production the features only: labels and predictions are in the feedback."""
    production = simulated.production.drop(columns=["is_fraud"])
    for name, table in {"training": simulated.training, "holdout": simulated.holdout, "production": production}.items():
        table.to_parquet(folder / f"{name}.parquet")


def _refuse_known_models(tracking_uri: str) -> None:
    """On somebody's own MLflow the demo must not touch models that it did not make."""
    from mlflow import MlflowClient

    known = {model.name for model in MlflowClient(tracking_uri).search_registered_models(max_results=1000)} & {
        "fraud_v1",
        "fraud_v2",
    }
    if known:
        problem = f"its registry already has {' and '.join(sorted(known))}, which the demo would change"
        raise SettingsInvalid("MLFLOW_TRACKING_URI", [f"{problem}: unset it for the embedded MLflow"])


def _storage_uri(systems: Systems, model: Model) -> str:
    """Where the version's files are: `models:/…` means nothing to Seldon."""
    from mlflow import MlflowClient

    return str(MlflowClient(systems.settings.mlflow_tracking_uri).get_model_version_download_uri(model.name, model.version))


def deploy(systems: Systems, sources: dict[str, str]) -> Callable[[], None]:
    """Create the SeldonDeployment with all traffic on the baseline; returns what removes it again."""
    from kubernetes import client, config

    settings = systems.settings
    name = settings.seldon_deployment
    api = client.CustomObjectsApi(config.new_client_from_config(str(settings.kubeconfig)))
    where = ("machinelearning.seldon.io", "v1", settings.namespace, "seldondeployments")
    try:
        found: Any = api.get_namespaced_custom_object(*where, name, _request_timeout=API_SECONDS)
    except client.ApiException as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
    else:
        if MADE_BY_DEMO not in found["metadata"].get("annotations", {}):
            problem = f"its cluster has a SeldonDeployment {settings.namespace}/{name} that the demo did not make"
            raise SettingsInvalid("KUBECONFIG", [f"{problem}: unset it, or set FRAUD_AB_SELDON_DEPLOYMENT to another name"])
        api.delete_namespaced_custom_object(*where, name, _request_timeout=API_SECONDS)
    api.create_namespaced_custom_object(*where, _manifest(name, sources), _request_timeout=API_SECONDS)
    wait_until_ready(systems.serving)

    def remove() -> None:
        api.delete_namespaced_custom_object(*where, name, _request_timeout=API_SECONDS)

    return remove


def wait_until_ready(serving: Serving) -> None:
    """Wait until what the spec says is what runs."""
    if not poll(lambda: serving.readiness().is_done, READY_SECONDS):
        raise TimeoutError(f"the SeldonDeployment is not ready after {READY_SECONDS:.0f} s ({serving.readiness()})")


def _manifest(name: str, sources: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": name, "annotations": {MADE_BY_DEMO: "true"}},
        "spec": {
            "protocol": "v2",
            "predictors": [
                {
                    "name": predictor,
                    "replicas": 1,
                    "traffic": 100 if number == 0 else 0,
                    "graph": {"name": predictor, "type": "MODEL", "implementation": "MLFLOW_SERVER", "modelUri": source},
                }
                for number, (predictor, source) in enumerate(sources.items())
            ],
        },
    }


def _router_of(serving: Serving) -> Callable[[str], str]:
    """Where no router of ours serves: route by the deployment's own weights."""
    from deployments.sandbox.traffic_split import split_bucket

    def route(card: str) -> str:
        bucket = split_bucket(card)
        for predictor, share in serving.read().traffic.items():
            if bucket < share:
                return predictor
            bucket -= share
        raise LookupError("no predictor has traffic")

    return route
