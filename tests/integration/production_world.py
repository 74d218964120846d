"""The embedded systems that production changes are tested on: a World with a running test, and the fixtures that build it.

Kubernetes, Slack and S3 are the stand-ins over HTTP; MLflow, git, the decision log and Prefect with its server are real. Only
the telemetry is made here: it asks the router which predictor serves each of 1,000 cards now.

A test module names it in `pytest_plugins`. With `ON_BOTH_SERVERS` as its mark it runs on the real Kubernetes API server too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import mlflow
import pandas as pd
import pytest
import yaml
from kubernetes import client, config
from mlflow import MlflowClient
from mlflow.models import infer_signature
from moto.server import ThreadedMotoServer
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings
from sklearn.linear_model import LogisticRegression

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.kubernetes.seldon_operator import SeldonOperator
from deployments.sandbox.prefect_server import PrefectServer
from deployments.sandbox.slack import SandboxSlack
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import Stage, plan_model_in_charge
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, DecisionRequest, Links, Person
from flows.domain.decision_record import RecordKind, chain_problems
from flows.domain.evidence import Evidence
from flows.domain.serving_state import ServingState
from flows.domain.start_plan import plan_start
from flows.domain.verdict import decide_verdict
from flows.emergency_revert import revert_traffic
from flows.ports import ArmTelemetry
from flows.production_steps import change_serving
from flows.reports.dossier import document_folder
from flows.wiring import Systems, systems
from tests import real_api_server

if TYPE_CHECKING:
    from flows.domain.decision import Decision

WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
EXAMPLE = pd.DataFrame({"amount": [1.0, 900.0, 3.0]})
POLICY = 'watch_minutes = 0\ntraffic_steps = [50]\npromoters = ["U0ANA"]\nrollbackers = ["U0ANA"]\n'
ANA = Person("U0ANA", "Ana")
CANDIDATE_IS_BETTER = Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 880, 968, 880))


STAND_IN, REAL = "stand-in", "real-api-server"
ON_BOTH_SERVERS = pytest.mark.parametrize("cluster", [STAND_IN, REAL], indirect=True, scope="module")


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes of a World; `route` tells which predictor serves a card now."""

    admin: Path
    promoter: Path
    route: Callable[[str], str]
    sandbox: SandboxKubernetes | None = None

    @property
    def operator(self) -> SeldonOperator:
        """Of the pods; where there are none, the test is skipped."""
        if self.sandbox is None:
            pytest.skip(f"needs Deployments and a VirtualService: {real_api_server.CUSTOM_RESOURCES_ONLY}")
        return self.sandbox.operator


@dataclass
class RouterTelemetry:
    """What the router serves at this moment, with latency and errors as a test wants them."""

    kubernetes: Cluster
    test: ABTest
    ahead: timedelta = timedelta(0)
    p95_ms: float = 60.0
    errors: int = 0
    on_measure: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def measure(self, test: ABTest, since: datetime, until: datetime | None = None) -> dict[Arm, ArmTelemetry]:
        self.on_measure()
        served = [self.kubernetes.route(f"card-{number}") for number in range(1000)]
        counted = {arm: served.count(self.test.model(arm).predictor) for arm in Arm}
        return {
            arm: ArmTelemetry(count, count / 1000, self.p95_ms if count else None, self.errors * (arm is Arm.CANDIDATE))
            for arm, count in counted.items()
        }


@dataclass
class World:
    systems: Systems
    kubernetes: Cluster
    slack: SandboxSlack
    test: ABTest
    telemetry: RouterTelemetry
    repository: Path
    rounds: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def decide(
        self, choice: Choice = Choice.CONFIRM, until: datetime | None = None, counts: Outcomes = CANDIDATE_IS_BETTER
    ) -> Decision:
        """A claimed decision of this test at the deployment's present epoch."""
        decision = self.ask(counts)
        return self.systems.decision_log.claim(
            decision.decision_id,
            evidence_digest=decision.request.verdict.evidence_digest,
            choice=choice,
            actor=ANA,
            reason="looks good",
            postponed_until=until,
        )

    def ask(self, counts: Outcomes = CANDIDATE_IS_BETTER) -> Decision:
        """The next question about this test."""
        self.rounds += 1
        state, registry = self.systems.serving.read(), self.systems.registry
        entries = tuple(registry.entry(model) for model in self.test.models)
        evidence = Evidence(counted=counts)
        request = DecisionRequest(
            test=self.test,
            round=self.rounds,
            flow_run_id="run",
            verdict=decide_verdict(evidence, self.systems.policy),
            plan=plan_model_in_charge(self.test, Arm.CANDIDATE, state, entries, (*self.systems.policy.traffic_steps, 100)),
            rollback_plan=plan_model_in_charge(self.test, Arm.BASELINE, state, entries, (100,)),
            epoch=state.epoch,
            links=Links(),
            decide_within_hours=1,
            next_look_at=None,
            postponements_left=1,
            evidence=evidence,
            policy=self.systems.policy,
        )
        return self.systems.decision_log.open(request)

    @property
    def state(self) -> ServingState:
        return self.systems.serving.read()

    def is_still(self, before: ServingState) -> bool:
        """Whether nobody has changed the deployment; the operator, which writes its status at any time, is nobody."""
        return replace(self.state, resource_version="") == replace(before, resource_version="")

    def read_settings(self) -> None:
        """Those of the environment as it is now."""
        self.systems.settings = self.systems.settings.__class__()

    def serve_files(self, files: Path) -> None:
        """Put a model's files where both predictors load theirs from."""
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="models")
        for path in (path for path in files.rglob("*") if path.is_file()):
            s3.upload_file(str(path), "models", f"x/{path.relative_to(files).as_posix()}")

    def report(self, decision_id: str) -> str:
        """The root-cause report in Markdown, as it is on the test's MLflow run."""
        folder = f"runs:/{self.test.experiment_run_id}/investigations/{decision_id}"
        return Path(mlflow.artifacts.download_artifacts(f"{folder}/root_cause.md")).read_text(encoding="utf-8")

    def registry(self) -> list[str]:
        return [str(self.systems.registry.entry(model)).partition(" v1: ")[2] for model in self.test.models]

    def kinds(self) -> list[RecordKind]:
        records = list(self.systems.decision_log.records())
        assert chain_problems(records) == ()
        return [record.kind for record in records if record.kind not in (RecordKind.DECIDED, RecordKind.DOCUMENTED)]

    def page(self) -> dict[str, Any]:
        text = (self.repository / "docs" / "model_lifecycle.md").read_text()
        return yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["model_lifecycle"]

    def document(self, decision_id: str) -> str:
        """The decision document in Markdown, as it is on the test's MLflow run."""
        folder = f"runs:/{self.test.experiment_run_id}/{document_folder(decision_id)}"
        return Path(mlflow.artifacts.download_artifacts(f"{folder}/decision_document.md")).read_text(encoding="utf-8")

    def summaries(self) -> list[str]:
        """What the stakeholders have read about this test's models."""
        return [one["text"] for one in self.slack.messages("C0BUSINESS") if self.test.candidate.name in one["text"]]

    def patch(self, operations: list[dict[str, Any]]) -> None:
        """What somebody else does to the SeldonDeployment."""
        self.kept["api"].patch_namespaced_custom_object(
            *WHERE, "fraud-predictor", operations, _content_type="application/json-patch+json"
        )

    def emergency(self, revert_id: str = "revert-1") -> None:
        revert_traffic(self.systems.serving, revert_id=revert_id, actor="U0CHI", reason="wrong alerts", at=datetime.now(UTC))


@pytest.fixture(scope="module")
def prefect(prefect_server: PrefectServer) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: f"{prefect_server.url}/api"}):
        yield


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The stand-in, unless the module asks for the real API server."""
    folder = tmp_path_factory.mktemp("kubernetes")
    if getattr(request, "param", STAND_IN) == STAND_IN:
        with SandboxKubernetes(delay_seconds=0.02) as sandbox:
            promoter = sandbox.write_kubeconfig(folder / "promoter", user="promoter")
            yield Cluster(sandbox.write_kubeconfig(folder / "admin"), promoter, sandbox.route, sandbox)
        return
    if not real_api_server.is_here():
        pytest.skip(real_api_server.MISSING)
    with real_api_server.running(folder) as server, real_api_server.LittleOperator(server.admin) as operator:
        yield Cluster(server.admin, server.promoter, operator.route)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SandboxSlack, str, Path]]:
    folder = tmp_path_factory.mktemp("mlflow")
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    with SandboxSlack() as slack:
        yield slack, f"http://{host}:{port}", folder
    s3.stop()


@pytest.fixture(scope="module")
def logged(servers: tuple[SandboxSlack, str, Path]) -> tuple[str, str, str]:
    """A tracking URI, a real model in it and the experiment of the tests."""
    uri = f"sqlite:///{servers[2] / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    experiment = MlflowClient(uri).create_experiment("ab", artifact_location=(servers[2] / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        model = mlflow.sklearn.log_model(
            LogisticRegression().fit(EXAMPLE, [0, 1, 0]),
            name="model",
            signature=infer_signature(EXAMPLE, [0, 1, 0]),
            input_example=EXAMPLE,
            pip_requirements=["scikit-learn"],
        )
    return uri, model.model_uri, experiment


@pytest.fixture
def world(
    prefect: None,
    cluster: Cluster,
    servers: tuple[SandboxSlack, str, Path],
    logged: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    slack, s3, _ = servers
    uri, model_uri, experiment = logged
    mlflow.set_tracking_uri(uri)
    number = abs(hash(request.node.name)) % 10**8
    models = [Model(f"fraud_{side}_{number}", "1", f"fraud-{side}") for side in ("v1", "v2")]
    for model in models:
        mlflow.register_model(model_uri, model.name)
    run = MlflowClient(uri).create_run(experiment).info.run_id
    test = ABTest(f"t{number}", models[0], models[1], datetime(2026, 11, 1, tzinfo=UTC), run)
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", repository], check=True, timeout=30)
    (tmp_path / "policy.toml").write_text(POLICY)
    for name, value in {
        "KUBECONFIG": str(cluster.promoter),
        "MLFLOW_TRACKING_URI": uri,
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_API_URL": slack.api_url,
        "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
        "FRAUD_AB_STAKEHOLDER_CHANNEL": "C0BUSINESS",
        "FRAUD_AB_POLICY_FILE": str(tmp_path / "policy.toml"),
        "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{tmp_path / 'log.db'}",
        "FRAUD_AB_FEEDBACK_URL": str(tmp_path / "none.parquet"),
        "FRAUD_AB_LIFECYCLE_REPOSITORY": str(repository),
        "FRAUD_AB_ARCHIVE_BUCKET": "archive",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{s3}/moto-api/reset", timeout=10).raise_for_status()  # its buckets outlive a test, even the server itself
    boto3.client("s3").create_bucket(Bucket="archive")
    api = client.CustomObjectsApi(config.new_client_from_config(str(cluster.admin)))
    api.create_namespaced_custom_object(*WHERE, manifest(models))
    systems.cache_clear()
    telemetry = RouterTelemetry(cluster, test)
    systems().__dict__["telemetry"] = telemetry
    found = World(systems(), cluster, slack, test, telemetry, repository)
    found.systems.registry.set_in_charge(test.baseline)
    found.systems.registry.set_stage(test.candidate, Stage.STAGING)
    change_serving(lambda state: plan_start(state, test, found.systems.policy))  # the operator writes its status meanwhile
    found.kept["api"] = api
    yield found
    api.delete_namespaced_custom_object(*WHERE, "fraud-predictor")
    systems.cache_clear()


def manifest(models: list[Model]) -> dict[str, Any]:
    predictors = [
        {
            "name": model.predictor,
            "traffic": 100 * (place == 0),
            "graph": {"name": model.predictor, "implementation": "MLFLOW_SERVER", "modelUri": "s3://models/x"},
        }
        for place, model in enumerate(models)
    ]
    kind = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment"}
    return {**kind, "metadata": {"name": "fraud-predictor"}, "spec": {"predictors": predictors}}


def run(act: Callable[[str], str], decision_id: str) -> str:
    """One execution in a flow run, as the finalizing flow does it."""

    @flow(name="act", persist_result=True)
    def body() -> str:
        return act(decision_id)

    return body()


def shown(key: str) -> list[tuple[str, str, str]]:
    """What the latest artifact of this key shows in Prefect: what, before, after."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    assert found, f"no artifact {key}"
    rows = json.loads(str(max(found, key=lambda one: str(one.created)).data))
    return [(row["what"], row["before"], row["after"]) for row in rows]


def lines(world: World, decision_id: str) -> list[str]:
    parent = next(
        m
        for m in world.slack.messages("C0FRAUD")
        if m.get("metadata", {}).get("event_payload", {}).get("key") == f"decision:{decision_id}"
    )
    return [message["text"] for message in world.slack.thread(parent["ts"]) if message["ts"] != parent["ts"]]
