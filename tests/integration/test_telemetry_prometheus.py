"""The Prometheus adapter on a real Prometheus that scrapes the ingress of the Kubernetes stand-in."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.processes import free_port
from flows.adapters.feedback_ibis import IbisFeedback
from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.adapters.telemetry_prometheus import METRIC, PrometheusTelemetry, PrometheusWindow
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.criteria import CriterionName, CriterionStatus
from flows.domain.errors import OutsideSystemError
from flows.domain.policy import Policy, Traffic, load_policy
from flows.domain.verdict import Verdict, VerdictKind
from flows.evaluate_ab_test import WindowTelemetry, evaluate
from tests.feedback_tables import START, feedback_frame, written
from tests.prometheus_server import running

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
    configuration = CONFIGURATION.format(target=cluster.metrics_url.removeprefix("http://"))
    with running(tmp_path_factory.mktemp("prometheus"), configuration) as url:
        yield PrometheusTelemetry(url, deployment="fraud-predictor")


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
        lambda: (
            telemetry._by_predictor("seldon_api_executor_server_requests_seconds_count", telemetry.now()).keys()
            >= {"fraud-v1", "fraud-v2"}
        )
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
    before = telemetry.measure(TEST, since - timedelta(seconds=60), since)
    assert [before[arm].requests for arm in Arm] == [0, 0], "what came later is not in it"


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


POLICY = load_policy("[latency]\nbucket_minutes = 60\nbucket_requests = 10", "policy.toml")
BOUNDARIES_MS = (50, 100, 250)
LATER = datetime(2026, 6, 1, tzinfo=UTC)


def requests_of(case: str) -> pd.DataFrame:
    """Feedback of one story of latency and errors, 20 requests of the candidate an hour."""
    frame = feedback_frame(70_000).assign(pod="a")
    day, hour = (frame.event_time - START).dt.days, (frame.event_time - START).dt.total_seconds() // 3600
    candidate = frame.arm == "candidate"
    # few false alerts, so that the precisions are known well and the telemetry decides
    frame.loc[~frame.is_fraud & (frame.index % 8 > 0), ["baseline_prediction", "candidate_prediction"]] = False
    slow = {"slow": candidate & (day == 20), "one slow hour": candidate & (hour == 400), "both slow": day >= 0}
    if case in slow:
        frame.loc[slow[case], "latency_ms"] = 200.0
    if case == "errors":
        frame.loc[candidate & (np.arange(len(frame)) % 8 == 0), "error"] = True
    # the pod is replaced on day 10, and restarts on day 15
    frame.loc[day >= 10, "pod"] = "b"
    frame.loc[day >= 15, "pod"] = "b again"
    return frame


def open_metrics(case: str, frame: pd.DataFrame) -> list[str]:
    """The executor's counters at every full hour, as they stood for each pod since its start."""
    hours = ((frame.event_time - START).dt.total_seconds() // 3600).astype(int)
    life = hours.groupby(frame.pod).agg(["min", "max"])
    lines: list[str] = []
    for (arm, pod, error), rows in frame.groupby(["arm", "pod", "error"], observed=True):
        names = {"deployment_name": case, "predictor_name": TEST.model(Arm(arm)).predictor, "service": "predictions"}
        names |= {"code": "500" if error else "200", "pod": pod[0]}
        labels = ",".join(f'{name}="{value}"' for name, value in names.items())
        counted = {f'_bucket{{{labels},le="{bound / 1000:g}"}}': rows.latency_ms <= bound for bound in BOUNDARIES_MS}
        everything = rows.latency_ms.notna()
        counted |= {f'_bucket{{{labels},le="+Inf"}}': everything, f"_count{{{labels}}}": everything}
        for name, is_counted in counted.items():
            total = np.bincount(hours[rows.index[is_counted]], minlength=28 * 24).cumsum()
            ends = range(life["min"][pod] + 1, life["max"][pod] + 2)
            lines += [f"{METRIC}{name} {total[end - 1]} {int(START.timestamp()) + end * 3600}" for end in ends]
    return lines


def copied(frame: pd.DataFrame) -> pd.DataFrame:
    """The requests of a shadow test as the executors count them: each by the baseline, and its copy by the candidate."""
    return pd.concat([frame.assign(arm="baseline"), frame.assign(arm="candidate")], ignore_index=True)


CASES = {
    "healthy": VerdictKind.PROMOTE,
    "slow": VerdictKind.KEEP_BASELINE,
    "one slow hour": VerdictKind.PROMOTE,
    "both slow": VerdictKind.NOT_EVALUABLE,
    "errors": VerdictKind.KEEP_BASELINE,
}


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that holds the requests of every case, as deployments of that name."""
    folder, promtool = tmp_path_factory.mktemp("backfilled"), shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool")
    lines = [line for case in CASES for line in open_metrics(case, requests_of(case))]
    lines += open_metrics("shadow", copied(requests_of("healthy")))
    (folder / "metrics").write_text("\n".join([*lines, "# EOF", ""]))
    create = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=1440h", "openmetrics"]
    subprocess.run([*create, folder / "metrics", folder / "data"], check=True, capture_output=True, timeout=120)
    with running(folder, "scrape_configs: []") as url:
        wait_for(PrometheusTelemetry(url, deployment="").now)
        yield url


@pytest.mark.parametrize("case", CASES)
def test_prometheus_and_the_feedback_give_the_same_verdict_on_the_same_requests(
    case: str, backfilled: str, tmp_path: Path
) -> None:
    source = written(requests_of(case).drop(columns="pod"), tmp_path)
    feedback, began = IbisFeedback(source, POLICY), START.to_pydatetime()
    by_feedback = FeedbackTelemetry(source, POLICY)
    by_prometheus = PrometheusWindow(PrometheusTelemetry(backfilled, deployment=case), TEST, by_feedback.served)
    found = [evaluate(feedback, telemetry, POLICY, began, LATER) for telemetry in (by_feedback, by_prometheus)]
    counted = [evaluation.evidence.telemetry for evaluation in found]
    assert counted[0] is not None
    assert counted[1] is not None
    assert replace(counted[0], baseline_p95_ms=0, candidate_p95_ms=0) == replace(
        counted[1], baseline_p95_ms=0, candidate_p95_ms=0
    )
    statuses = [[criterion.status for criterion in evaluation.verdict.criteria] for evaluation in found]
    assert statuses[0] == statuses[1]
    assert [evaluation.verdict.kind for evaluation in found] == [CASES[case]] * 2, found[0].verdict.reasons


def test_a_shadow_is_judged_by_the_copies_that_it_answered(backfilled: str, tmp_path: Path) -> None:
    """The feedback knows a shadow's predictions and nothing of its latency: that is in Prometheus alone."""
    source = written(requests_of("healthy").drop(columns="pod").assign(arm="baseline"), tmp_path)
    shadow = POLICY.model_copy(update={"traffic": Traffic(baseline=100, candidate=0)})
    by_feedback = FeedbackTelemetry(source, shadow)

    def verdict(telemetry: WindowTelemetry, policy: Policy) -> Verdict:
        return evaluate(IbisFeedback(source, policy), telemetry, policy, START.to_pydatetime(), LATER).verdict

    by_prometheus = PrometheusWindow(PrometheusTelemetry(backfilled, deployment="shadow"), TEST, by_feedback.served)
    found = verdict(by_prometheus, shadow)
    assert (found.kind, found.design) == (VerdictKind.PROMOTE, "paired"), found.reasons
    unseen = verdict(by_feedback, shadow)
    assert unseen.kind is VerdictKind.NOT_EVALUABLE
    assert "latency is known for only 0 of the candidate's" in " ".join(unseen.reasons)
    split = verdict(PrometheusWindow(PrometheusTelemetry(backfilled, deployment="shadow"), TEST, by_feedback.served), POLICY)
    assert "the policy sends 20 %" in " ".join(split.reasons)


def test_without_a_boundary_at_the_limit_latency_is_not_checked_or_settled_by_the_neighbours(
    backfilled: str, tmp_path: Path
) -> None:
    source = written(requests_of("healthy").drop(columns="pod"), tmp_path)

    def latency(limit_ms: int) -> tuple[CriterionStatus, str]:
        policy = load_policy(f"[latency]\np95_ms = {limit_ms}\nbucket_minutes = 60\nbucket_requests = 10", "p")
        served = FeedbackTelemetry(source, policy).served
        window = PrometheusWindow(PrometheusTelemetry(backfilled, deployment="healthy"), TEST, served)
        verdict = evaluate(IbisFeedback(source, policy), window, policy, START.to_pydatetime(), LATER).verdict
        found = verdict.criterion(CriterionName.LATENCY)
        return found.status, found.reason

    assert latency(60)[0] is CriterionStatus.NOT_CHECKED
    assert "no histogram boundary lies at 60 ms, only at 50 and 100 ms" in latency(60)[1]
    assert latency(200)[0] is CriterionStatus.PASSED
    assert latency(40)[0] is CriterionStatus.FAILED
    assert "only at 250 ms" in latency(900)[1]


def test_requests_that_prometheus_never_saw_are_missing(backfilled: str, tmp_path: Path) -> None:
    source = written(requests_of("healthy").drop(columns="pod"), tmp_path)
    nowhere = PrometheusWindow(PrometheusTelemetry(backfilled, deployment="x"), TEST, FeedbackTelemetry(source, POLICY).served)
    verdict = evaluate(IbisFeedback(source, POLICY), nowhere, POLICY, START.to_pydatetime(), LATER).verdict
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert "latency is known for only 0 of the" in verdict.reasons[1]
