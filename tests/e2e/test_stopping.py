"""What is told to stop stops, soon and with everything that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deployments.sandbox.slack import SandboxSlack

SECONDS = 120.0
KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "PREFECT_SERVER_ANALYTICS_ENABLED")
"""Of the environment; what other tests or libraries have set would replace the demo's parts."""


def until(look: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline, pause = time.monotonic() + SECONDS, threading.Event()
    while not look():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        pause.wait(0.1)


def start(command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.cli", *command.split()],
            env={**{name: os.environ[name] for name in KEPT if name in os.environ}, "PYTHONUNBUFFERED": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_for_certain(process: subprocess.Popen[bytes]) -> None:
    """Also what a failed test has left."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_the_app_ends_by_itself_when_it_is_told_to(tmp_path: Path) -> None:
    with SandboxSlack() as slack:
        environment = {
            "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{tmp_path / 'log.db'}",
            "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
            "SLACK_API_URL": slack.api_url,
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "KUBECONFIG": str(kubeconfig_of_nobody(tmp_path)),
        }
        app = start("bot", tmp_path / "bot.log", **environment)
        try:
            until(lambda: slack.sockets.count, app, tmp_path / "bot.log")
            app.send_signal(signal.SIGTERM)
            assert app.wait(20) == 0
        finally:
            stop_for_certain(app)


def kubeconfig_of_nobody(folder: Path) -> Path:
    from deployments.sandbox.kubernetes import SandboxKubernetes

    with SandboxKubernetes() as gone:
        return gone.write_kubeconfig(folder / "kubeconfig")


def test_ctrl_c_ends_the_demo_with_all_its_parts(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    demo = start("demo win --no-browser", log, TMPDIR=str(tmp_path))
    try:
        until(lambda: "Simulating card transactions" in log.read_text(), demo, log)
        parts = psutil.Process(demo.pid).children(recursive=True)
        assert len(parts) >= 4
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert psutil.wait_procs(parts, timeout=5)[1] == []
        assert list(tmp_path.glob("fraud-ab-*")) == []
        assert "Traceback" not in log.read_text()
    finally:
        stop_for_certain(demo)
