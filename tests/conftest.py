"""What every test shares: quiet tools, and optional real parts that are skipped by name where they are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# suites that can also be pointed at somebody's own server, and what the shared API server does not serve
OTHER_SERVERS = ("FRAUD_AB_CONTRACT_KUBECONFIG", "SLACK_API_URL", "serves custom resources only")

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, or the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium")
    return found


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
