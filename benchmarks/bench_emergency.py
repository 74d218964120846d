"""How long an emergency takes until the API server has accepted the change: `make bench-emergency` (QUICK=1: fewer runs).

Every way is measured alike: from sending the command to the moment at which a watch, opened before, shows the baseline with all
traffic. The server is the real Kubernetes API server of the shared folder where that is there, else the project's stand-in.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes import client, config, watch
from rich.console import Console
from rich.table import Table
from urllib3.exceptions import HTTPError

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.prefect_server import PrefectServer
from deployments.sandbox.processes import START_SECONDS, Child, stop_all
from deployments.sandbox.slack import SandboxSlack
from deployments.sandbox.stack import QUIET
from flows.adapters.serving_seldon import SeldonServing
from flows.domain.ab_test import ABTest, Model
from flows.domain.policy import Policy
from flows.domain.serving_state import OPERATION, UNRECORDED, ServingChange
from flows.start_ab_test import start_ab_test
from tests import real_api_server

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
WHERE = real_api_server.SELDON_DEPLOYMENTS
NAME, BASELINE, CANDIDATE = "fraud-predictor", "fraud-v1", "fraud-v2"
SPLIT = {BASELINE: 80, CANDIDATE: 20}
CHIARA = "U0CHI"
DEPLOYMENT = "revert-by-deployment/bench"
SEEN_SECONDS, END_SECONDS = 120.0, 90.0


class Arrivals:
    """A watch on the SeldonDeployment that notes when each of its versions was there."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._seen: queue.Queue[tuple[float, dict[str, int]]] = queue.Queue()
        threading.Thread(target=self._look, name="arrivals", daemon=True).start()

    def _look(self) -> None:
        with contextlib.suppress(HTTPError):  # at the end the server goes away
            for event in watch.Watch().stream(self._api.list_namespaced_custom_object, *WHERE):
                now = time.monotonic()
                traffic = {one["name"]: int(one.get("traffic", 0)) for one in event["object"]["spec"]["predictors"]}
                self._seen.put((now, traffic))

    def of(self, traffic: dict[str, int]) -> float:
        """When (monotonic seconds) the deployment had this traffic; everything before is forgotten."""
        while True:
            at, seen = self._seen.get(timeout=SEEN_SECONDS)
            if seen == traffic:
                return at


@dataclass(frozen=True)
class Bench:
    """The running systems. `environment` is that of every measured process."""

    server: str
    serving: SeldonServing
    arrivals: Arrivals
    slack: SandboxSlack
    environment: dict[str, str]

    def measure(self, act: Callable[[], Callable[[], object]], runs: int) -> list[float]:
        """Milliseconds of each run. `act` sends the command and returns what waits for the rest of it, which is not measured."""
        found: list[float] = []
        for _ in range(runs):
            self._split_again()
            begin = time.monotonic()
            finish = act()
            found.append(1000 * (self.arrivals.of({BASELINE: 100, CANDIDATE: 0}) - begin))
            finish()
        return found

    def _split_again(self) -> None:
        """A test at 80/20 with an operation under way and nothing to be recorded."""
        state = self.serving.read()
        annotations = {OPERATION: "bench-1", UNRECORDED: None}
        self.serving.apply(state, ServingChange("a measurement", annotations=annotations, traffic=SPLIT))
        self.arrivals.of(SPLIT)

    def by_slack(self) -> Callable[[], object]:
        """Until the channel has been told, which is the last that the listener does."""
        before = len(self.slack.messages("C0FRAUD"))
        outcome = self.slack.slash(CHIARA, "/fraud-rollback now a measurement")
        if not outcome.acked:
            raise RuntimeError(f"the app did not take the command: {outcome.error}")
        return lambda: self.slack.wait_for(lambda: len(self.slack.messages("C0FRAUD")) > before, seconds=END_SECONDS)

    def by_shell(self) -> Callable[[], object]:
        return self._started([sys.executable, "-m", "deployments.cli", "rollback", "--reason", "a measurement"])

    def by_kubectl(self) -> Callable[[], object]:
        """The same change, written by hand before; without the note of who, when and why."""
        traffic = [{"op": "replace", "path": f"/spec/predictors/{place}/traffic", "value": 100 - 100 * place} for place in (0, 1)]
        epoch = [{"op": "add", "path": "/metadata/annotations/fraud-ab~1epoch", "value": str(self.serving.read().epoch + 1)}]
        closed = [{"op": "remove", "path": "/metadata/annotations/fraud-ab~1operation"}]
        body = json.dumps([*traffic, *epoch, *closed])
        return self._started(["kubectl", "-n", "models", "patch", "seldondeployment", NAME, "--type=json", "-p", body])

    def _started(self, command: list[str]) -> Callable[[], object]:
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL)

        def finish() -> None:
            if process.wait(END_SECONDS):
                raise RuntimeError(f"{command[0]} ended with exit code {process.returncode}")

        return finish

    def by_deployment(self) -> Callable[[], object]:
        from prefect.deployments import run_deployment

        run_deployment(DEPLOYMENT, parameters={"revert_id": str(uuid.uuid4())}, timeout=0, as_subflow=False)
        return lambda: None


def start_kubernetes(folder: Path, ends: ExitStack) -> tuple[str, Path, Path]:
    """Which server it is, and the kubeconfigs of an admin and of the promoter."""
    if real_api_server.is_here():
        server = ends.enter_context(real_api_server.running(folder))
        ends.enter_context(real_api_server.LittleOperator(server.admin))
        return "real Kubernetes API server", server.admin, server.promoter
    sandbox = ends.enter_context(SandboxKubernetes(delay_seconds=0.02))
    promoter = sandbox.write_kubeconfig(folder / "promoter", user="promoter")
    return "the project's stand-in (no real API server here)", sandbox.write_kubeconfig(folder / "admin"), promoter


def deploy(admin: Path) -> tuple[SeldonServing, Arrivals]:
    """A running test, and who watches it."""
    predictors = [
        {"name": name, "traffic": traffic, "graph": {"name": name, "implementation": "MLFLOW_SERVER", "modelUri": "s3://m/x"}}
        for name, traffic in ((BASELINE, 100), (CANDIDATE, 0))
    ]
    kind = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "metadata": {"name": NAME}}
    api: Any = client.CustomObjectsApi(config.new_client_from_config(str(admin)))
    api.create_namespaced_custom_object(*WHERE, {**kind, "spec": {"predictors": predictors}})
    serving = SeldonServing(kubeconfig=admin, namespace="models", name=NAME)
    models = (Model("fraud_v1", "1", BASELINE), Model("fraud_v2", "1", CANDIDATE))
    start_ab_test(serving, ABTest("bench", *models, datetime.now(UTC), "run"), Policy())
    return serving, Arrivals(api)


def start_processes(folder: Path, kubeconfig: Path, slack: SandboxSlack, ends: ExitStack) -> dict[str, str]:
    """Prefect's server, the Slack app and the deployment that is compared with it; returns their environment."""
    (folder / "policy.toml").write_text(f'rollbackers = ["{CHIARA}"]\n', encoding="utf-8")
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "FRAUD_AB_", "SLACK_"))}
    prefect = PrefectServer(folder / "prefect", given | QUIET)
    children = [prefect.child]
    ends.callback(stop_all, children)
    environment = (
        given
        | QUIET
        | {
            "KUBECONFIG": str(kubeconfig),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"{prefect.url}/api",
            "FRAUD_AB_POLICY_FILE": str(folder / "policy.toml"),
            "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{folder / 'log.db'}",
            "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
            "SLACK_API_URL": slack.api_url,
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
        }
    )

    def start(name: str, *arguments: str) -> None:
        command, log = [sys.executable, *arguments], folder / f"{name}.log"
        children.append(Child(name, command, environment=environment, log=log, folder=ROOT))

    start("bot", "-m", "deployments.cli", "bot")
    prefect.wait()
    os.environ |= {name: environment[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")}
    start("deployment", "-m", "benchmarks.revert_deployment")
    wait_for("the app in Slack", lambda: slack.sockets.count > 0)
    wait_for("the deployment in Prefect", is_deployed)
    return environment


def wait_for(what: str, is_there: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + START_SECONDS, threading.Event()
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} is not there after {START_SECONDS:g} s")
        pause.wait(0.2)


def is_deployed() -> bool:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as api:
        try:
            api.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return False
    return True


def p50(found: list[float]) -> int | None:
    return round(statistics.median(found)) if found else None


def p95(found: list[float]) -> int | None:
    return round(statistics.quantiles(found, n=20, method="inclusive")[-1]) if found else None


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    runs, shells, deployments = (50, 6, 3) if is_quick else (200, 50, 10)
    has_kubectl = shutil.which("kubectl") is not None
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-emergency-", ignore_cleanup_errors=True)))
        server, admin, promoter = start_kubernetes(folder, ends)
        slack = ends.enter_context(SandboxSlack())
        environment = start_processes(folder, promoter, slack, ends)
        bench = Bench(server, *deploy(admin), slack, environment)
        found = {
            "`/fraud-rollback now` in Slack": bench.measure(bench.by_slack, runs),
            "`fraud-ab rollback`, a new process": bench.measure(bench.by_shell, shells),
            "`kubectl patch` of the same change": bench.measure(bench.by_kubectl, shells if has_kubectl else 0),
            "run of a Prefect deployment, default polling": bench.measure(bench.by_deployment, deployments),
        }
    show(server, found)
    in_slack, by_shell, kubectl, by_deployment = found.values()
    result = {
        "runs": len(in_slack),
        "p50_ms": p50(in_slack),
        "p95_ms": p95(in_slack),
        "kubectl_p50_ms": p50(kubectl),
        "deployment_run_p50_ms": p50(by_deployment),
        "deployment_runs": len(by_deployment),
        "cli_runs": len(by_shell),
        "cli_p50_ms": p50(by_shell),
        "cli_p95_ms": p95(by_shell),
        "server": server,
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
    }
    Console().print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


def show(server: str, found: dict[str, list[float]]) -> None:
    table = Table("from the command to the accepted patch", "runs", "p50 ms", "p95 ms", title=f"An emergency on: {server}")
    for what, times in found.items():
        values = (f"{p50(times):,}", f"{p95(times):,}") if times else ("not installed", "")
        table.add_row(what, str(len(times)), *values)
    Console(width=120).print(table, "p50_ms and p95_ms of the result are those of the command in Slack.", sep="\n")


if __name__ == "__main__":
    main()
