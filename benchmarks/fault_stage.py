"""Where fault cases are played: the embedded stack, and for each lane of cases a proxy in front of every outside system.

Everything runs in processes of its own or in threads of this one, so that the lanes' processes stay without threads and may fork.
What a lane plans and what its proxies see goes through small files in the lane's folder.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
from sqlalchemy.engine import make_url
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deployments.sandbox.fault_proxy import HttpFaultProxy, Mishap, PostgresFaultProxy
from deployments.sandbox.http_server import Startable, ThreadedServer
from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.kubernetes.kinds import SELDON_DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.store import ObjectStore
from deployments.sandbox.stack import EmbeddedStack

OPERATOR_SECONDS = 0.02
SILENT_SECONDS = 2.0
REQUESTS_SEEN = 1000
EXAMPLE = pd.DataFrame({"amount": [1.0, 900.0, 3.0]})
OURS = re.compile(r"FRAUD_AB_|SLACK_|AWS_|KUBECONFIG$|MLFLOW_TRACKING_URI$|PREFECT_API_URL$")
NOT_NEEDED = dict.fromkeys(  # no case asks for events or for task runs that are over
    (f"PREFECT_SERVER_SERVICES_{name}_ENABLED" for name in ("EVENT_PERSISTER", "TASK_RUN_RECORDER", "TRIGGERS")), "false"
)
SLACK_WRITES = ("chat.postMessage", "chat.update", "files.completeUpload")


@dataclass(frozen=True, slots=True)
class Plan:
    """One fault: at which step, and of which system.

    Args:
        fault: a `Mishap`, `killed before` or `killed after` (the step's body; its result is not stored yet).
        on_write: the first request that changes something meets it, not the first of all.
        is_lasting: so does every later request of the execution: an outage.
    """

    step: str
    fault: str
    system: str = ""
    on_write: bool = False
    is_lasting: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that passed a proxy."""

    step: str
    system: str
    is_write: bool
    is_hit: bool


class LaneFiles:
    """What a lane's process, its workers and its proxies tell each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plan, self._step, self._trace, self._hit = (folder / name for name in ("plan", "step", "trace", "hit"))

    def begin(self, plan: Plan | None) -> None:
        """From now on this is planned, and nothing has been seen."""
        self.announce("")
        self._plan.write_text(json.dumps(plan and asdict(plan)), encoding="utf-8")
        self._trace.write_text("", encoding="utf-8")
        self._hit.unlink(missing_ok=True)

    def announce(self, step: str) -> None:
        self._step.write_text(step, encoding="utf-8")

    @property
    def step(self) -> str:
        return self._step.read_text(encoding="utf-8")

    @property
    def plan(self) -> Plan | None:
        found = json.loads(self._plan.read_text(encoding="utf-8"))
        return Plan(**found) if found else None

    @property
    def was_hit(self) -> bool:
        return self._hit.exists()

    def mark_hit(self) -> None:
        self._hit.touch()

    def seen(self) -> list[Seen]:
        return [Seen(*json.loads(line)) for line in self._trace.read_text(encoding="utf-8").splitlines()]

    def choose(self, system: str, line: str) -> Mishap | None:
        """What the plan has for a request; every request is noted."""
        plan, step, is_write = self.plan, self.step, _is_write(system, line)
        is_hit = plan is not None and plan.system == system and self._is_due(plan, step, is_write=is_write)
        if is_hit:
            self.mark_hit()
        with self._trace.open("a", encoding="utf-8") as trace:
            trace.write(json.dumps([step, system, is_write, is_hit]) + "\n")
        return Mishap(plan.fault) if plan is not None and is_hit else None

    def _is_due(self, plan: Plan, step: str, *, is_write: bool) -> bool:
        if self.was_hit:
            return plan.is_lasting
        return step == plan.step and (is_write or not plan.on_write)


def end_on_sigterm() -> None:
    """As Ctrl-C does, so that nothing is left running."""

    def stop(_number: int, _frame: object) -> None:
        sys.exit("stopped")

    signal.signal(signal.SIGTERM, stop)


def _is_write(system: str, line: str) -> bool:
    """Whether a request changes something; a dry run does not, and Slack's methods are all POST."""
    method = line.partition(" ")[0]
    match system:
        case "database":
            return line == "COMMIT"
        case "Slack":
            return any(name in line for name in SLACK_WRITES)
        case _:
            return method in ("PATCH", "PUT", "POST", "DELETE") and "dryRun" not in line and "search" not in line


class Stage(Startable):
    """The servers. `environment` is for every process, `lanes` are the folders in which each lane finds the rest of its own.

    What the environment gives of other systems is not used: nothing real is ever disturbed.
    """

    def __init__(self, lanes: int) -> None:
        for name in [name for name in os.environ if OURS.match(name)]:
            del os.environ[name]
        self._kubernetes = SandboxKubernetes(delay_seconds=OPERATOR_SECONDS)
        self._api = ThreadedServer(self._kubernetes.faults, name="kubernetes-without-tls")
        self._measured = ThreadedServer(_measurements(self._kubernetes.store), name="measurements")
        self._stack = EmbeddedStack()
        self._proxies: list[HttpFaultProxy | PostgresFaultProxy] = []
        self.lanes = [self._stack.folder / f"lane-{number}" for number in range(lanes)]
        self.environment: dict[str, str] = {}

    def start(self) -> Self:
        end_on_sigterm()
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Self:
        self._kubernetes.start()
        self._api.start()
        self._measured.start()
        kubeconfig = str(self._kubernetes.write_kubeconfig(self._stack.folder / "kubeconfig"))
        os.environ["KUBECONFIG"] = self._stack.environment["KUBECONFIG"] = kubeconfig
        self._stack.environment |= NOT_NEEDED
        self._stack.start()
        quiet = {"PREFECT_LOGGING_TO_API_ENABLED": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
        self.environment = {**self._stack.environment, **quiet, "FAULTS_VERSIONS_URL": f"{self._measured.url}/versions"}
        self.environment["no_proxy"] = "127.0.0.1"  # asked for at each request: without it every variable is looked at
        self.environment["SSL_CERT_FILE"] = self._one_certificate(kubeconfig)
        for folder in self.lanes:
            folder.mkdir()
            (folder / "environment").write_text(json.dumps(self._open_lane(LaneFiles(folder))), encoding="utf-8")
        return self

    def _one_certificate(self, kubeconfig: str) -> str:
        """Nothing here talks TLS, but every client reads all authorities first: a tenth of a forked process's time."""
        cluster = json.loads(Path(kubeconfig).read_text(encoding="utf-8"))["clusters"][0]["cluster"]
        file = self._stack.folder / "authorities.pem"
        file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        return str(file)

    def stop(self) -> None:
        for proxy in self._proxies:
            proxy.stop()
        self._stack.stop()
        for server in (self._measured, self._api, self._kubernetes):
            server.stop()

    def _open_lane(self, files: LaneFiles) -> dict[str, str]:
        """Start the lane's proxies; returns the addresses with which its processes go through them."""
        files.begin(None)
        stack = self._stack.environment
        kubeconfig = json.loads(Path(stack["KUBECONFIG"]).read_text(encoding="utf-8"))
        kubeconfig["clusters"][0]["cluster"] = {"server": self._proxy(files, "Kubernetes", self._api.url)}
        (files.folder / "kubeconfig").write_text(json.dumps(kubeconfig), encoding="utf-8")
        socket_folder = Path(str(make_url(stack["FRAUD_AB_DECISION_LOG_URL"]).query["host"]))
        database = PostgresFaultProxy(
            socket_folder, lambda line: files.choose("database", line), silent_seconds=SILENT_SECONDS
        ).start()
        self._proxies.append(database)
        return {
            "KUBECONFIG": str(files.folder / "kubeconfig"),
            "MLFLOW_TRACKING_URI": self._proxy(files, "MLflow", stack["MLFLOW_TRACKING_URI"]),
            "AWS_ENDPOINT_URL": self._proxy(files, "S3", stack["AWS_ENDPOINT_URL"]),
            "SLACK_API_URL": self._proxy(files, "Slack", stack["SLACK_API_URL"].removesuffix("/api/")) + "/api/",
            "FRAUD_AB_PROMETHEUS_URL": self._proxy(files, "Prometheus", self._measured.url),
            "FAULTS_DATABASE": f"127.0.0.1:{database.port}",
        }

    def _proxy(self, files: LaneFiles, system: str, upstream: str) -> str:
        proxy = HttpFaultProxy(upstream, lambda line: files.choose(system, line)).start()
        self._proxies.append(proxy)
        return proxy.url


def _measurements(store: ObjectStore) -> Starlette:
    """What Prometheus would measure if each deployment got 1,000 requests, and every version that a deployment had."""

    def query(request: Request) -> JSONResponse:
        asked = request.query_params["query"]
        if asked == "time()":
            return JSONResponse({"data": {"result": [pd.Timestamp.now("UTC").timestamp()] * 2}})
        name = re.findall(r'deployment_name="([^"]+)"', asked)[0]
        measured = _measure(store, name, asked)
        result = [{"metric": {"predictor_name": name}, "value": [0, str(value)]} for name, value in measured.items()]
        return JSONResponse({"data": {"result": result}})

    def versions(request: Request) -> JSONResponse:
        events = store.events_after(SELDON_DEPLOYMENTS, 1000)
        name = request.path_params["name"]
        return JSONResponse([event.thing for event in events if event.thing["metadata"]["name"] == name])

    return Starlette(routes=[Route("/api/v1/query", query), Route("/versions/{name}", versions)])


def _measure(store: ObjectStore, deployment: str, query: str) -> dict[str, float]:
    """By predictor, from what the router has now: requests, failed requests (none), or the p95 in milliseconds."""
    if "code!~" in query:
        return {}
    service = store.find(VIRTUAL_SERVICES, "models", f"{deployment}-http")
    routes: list[dict[str, Any]] = service["spec"]["http"][0]["route"] if service else []
    shares = {one["destination"]["subset"]: 100 if len(routes) == 1 else one.get("weight", 0) for one in routes}
    measure: Callable[[int], float] = lambda share: 60.0 if "histogram_quantile" in query else share * REQUESTS_SEEN / 100  # noqa: E731
    return {name: measure(share) for name, share in shares.items() if share}
