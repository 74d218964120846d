"""`/healthz`, `/readyz` and `/metrics` on a port of their own: nothing of it belongs on the address that Slack calls."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from prometheus_client import make_wsgi_app
from waitress.server import create_server

from flows.domain.errors import SettingsInvalid
from slackbot.metrics import DECISION_LOG, Inquiries, LogMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

    from flows.ports import DecisionLog

PROBE_SECONDS = 2.0
THREADS = 4


@dataclass(frozen=True, slots=True)
class Receiver:
    """One way in, `where` as words; `threads` as in `Health`."""

    where: str
    threads: Mapping[str, Callable[[], bool]]
    is_receiving: Callable[[], bool]
    port: int | None = None


@dataclass(slots=True)
class Health:
    """What the probes look at.

    `threads`: whether each still runs; without one of them only a new process helps. `is_receiving`: whether Slack reaches the
    app now.
    """

    threads: dict[str, Callable[[], bool]] = field(default_factory=dict[str, "Callable[[], bool]"])
    is_receiving: Callable[[], bool] = lambda: False


class Monitoring:
    """The WSGI application. The decision log is asked at each look, for two seconds at most."""

    def __init__(self, health: Health, decision_log: DecisionLog, registry: CollectorRegistry) -> None:
        self._health = health
        self._decision_log = decision_log
        self._inquiries = Inquiries(DECISION_LOG, answer_seconds=PROBE_SECONDS)
        registry.register(LogMetrics(decision_log))
        self._metrics = make_wsgi_app(registry)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/healthz":
                return _told(self._alive(), start_response)
            case "/readyz":
                return _told(self._alive() | self._ready(), start_response)
            case "/metrics":
                return self._metrics(environ, start_response)
            case _:
                start_response("404 Not Found", [("content-type", "text/plain")])
                return [b"there are /healthz, /readyz and /metrics\n"]

    def _alive(self) -> dict[str, bool]:
        return {f"thread {name}": is_alive() for name, is_alive in self._health.threads.items()}

    def _ready(self) -> dict[str, bool]:
        now = self._inquiries.ask(DECISION_LOG, self._decision_log.now)
        return {"Slack": self._health.is_receiving(), "decision log": now is not None}


def _told(signs: Mapping[str, bool], start_response: StartResponse) -> Iterable[bytes]:
    status = HTTPStatus.OK if all(signs.values()) else HTTPStatus.SERVICE_UNAVAILABLE
    start_response(f"{status.value} {status.phrase}", [("content-type", "text/plain"), ("cache-control", "no-store")])
    return ["".join(f"{name}: {'yes' if is_so else 'no'}\n" for name, is_so in signs.items()).encode()]


@contextmanager
def serving_monitoring(monitoring: Monitoring, *, host: str, port: int | None) -> Generator[None]:
    """Answer probes and Prometheus until the block ends; without a port nobody is answered.

    Raises:
        SettingsInvalid: the address cannot be listened on.
    """
    if port is None:
        yield
        return
    try:
        server: Any = create_server(monitoring, host=host, port=port, threads=THREADS, ident=None)
    except OSError as error:
        problem = f"{host}:{port} cannot be listened on: {error.strerror}"
        raise SettingsInvalid("FRAUD_AB_BOT_METRICS_PORT", [problem]) from error
    threading.Thread(target=server.run, name="monitoring", daemon=True).start()
    try:
        yield
    finally:
        server.close()
