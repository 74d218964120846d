"""A real Prometheus for tests, and what they ask it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.sandbox.processes import free_port


@contextmanager
def running(folder: Path, configuration: str) -> Iterator[str]:
    """A Prometheus on the data of a folder; yields its URL."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs prometheus")
    (folder / "prometheus.yml").write_text(configuration)
    port = free_port()
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *options], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """The instant vector of an expression; a wrong expression fails, a Prometheus that is starting has nothing."""
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10)
    except httpx.TransportError:
        return []
    found: Any = answer.json() if answer.status_code != 503 else {"status": "success", "data": {"result": []}}
    assert found["status"] == "success", f"{expression}: {found}"
    return [(one["metric"], float(one["value"][1])) for one in found["data"]["result"]]


def scrape_troubles(url: str) -> str:
    """What Prometheus says of its targets, for the message of a test that waited for nothing."""
    try:
        targets: Any = httpx.get(f"{url}/api/v1/targets", timeout=10).json()["data"]["activeTargets"]
    except httpx.TransportError as error:
        return f"Prometheus itself does not answer, {error}"
    return "; ".join(f"{one['scrapeUrl']} is {one['health']} {one['lastError']}" for one in targets)
