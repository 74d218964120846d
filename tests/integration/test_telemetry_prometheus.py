"""The Prometheus adapter on a real Prometheus that scrapes the ingress of the Kubernetes stand-in."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.stack import free_port
from flows.adapters.telemetry_prometheus import PrometheusTelemetry
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.errors import OutsideSystemError

TEST = ABTest(
    test_id="t",
    baseline=Model("fraud_v1", "1", "fraud-v1"),
    candidate=Model("fraud_v2", "1", "fraud-v2"),
    started_at=datetime(2025, 6, 2, tzinfo=UTC),
    experiment_run_id="r",
)
CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
- job_name: seldon
  metrics_path: /prometheus
  static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SandboxKubernetes]:
    with SandboxKubernetes() as kubernetes:
        yield kubernetes


@pytest.fixture(scope="module")
def telemetry(cluster: SandboxKubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusTelemetry]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs prometheus")
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(target=cluster.metrics_url.removeprefix("http://")))
    port = free_port()
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *options], stdout=log, stderr=log)
    try:
        yield PrometheusTelemetry(f"http://127.0.0.1:{port}", deployment="fraud-predictor")
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(condition, seconds: float = 30.0):
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        try:
            value = condition()
        except OutsideSystemError:
            value = None
        if value:
            return value
        pause.wait(0.2)
    raise TimeoutError


def test_share_latency_and_errors_of_both_arms_come_from_the_executors_metrics(
    cluster: SandboxKubernetes, telemetry: PrometheusTelemetry
) -> None:
    since = wait_for(telemetry.now)
    for predictor in ("fraud-v1", "fraud-v2"):
        cluster.observe(predictor, 0.02)
        cluster.observe(predictor, 0.02, code=500)
    # the first scrape of a series is where its increase begins
    wait_for(
        lambda: telemetry._by_predictor("seldon_api_executor_server_requests_seconds_count").keys() >= {"fraud-v1", "fraud-v2"}
    )
    for number in range(400):
        cluster.observe(
            "fraud-v1" if number % 5 else "fraud-v2", 0.02 if number % 5 else 0.4, code=500 if number % 50 == 0 else 200
        )
    measured = wait_for(lambda: m if (m := telemetry.measure(TEST, since))[Arm.BASELINE].requests > 300 else None)
    baseline, candidate = measured[Arm.BASELINE], measured[Arm.CANDIDATE]
    assert baseline.share == pytest.approx(0.8, abs=0.02)
    assert candidate.share == pytest.approx(0.2, abs=0.02)
    assert baseline.p95_ms is not None
    assert baseline.p95_ms < 30
    assert candidate.p95_ms is not None
    assert candidate.p95_ms > 200
    assert candidate.errors > 0
    assert baseline.errors == 0


def test_an_arm_without_requests_has_none_and_no_latency(telemetry: PrometheusTelemetry) -> None:
    now = wait_for(telemetry.now)
    other = ABTest(TEST.test_id, Model("a", "1", "never-served"), TEST.candidate, TEST.started_at, TEST.experiment_run_id)
    measured = telemetry.measure(other, now)[Arm.BASELINE]
    assert (measured.requests, measured.p95_ms) == (0, None)


def test_a_prometheus_that_is_down_is_a_retryable_error() -> None:
    down = PrometheusTelemetry(f"http://127.0.0.1:{free_port()}", deployment="fraud-predictor")
    with pytest.raises(OutsideSystemError) as caught:
        down.now()
    assert caught.value.retryable
