"""What a look at a promoted model finds: in recorded requests and predictions, with two windows for each breach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from flows.bake import FLAGS, ROUTER, TELEMETRY, Bake, judge_flags, judge_requests
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.bake import BreachKind, Findings
from flows.domain.counts import FlagCounts
from flows.domain.errors import OutsideSystemError
from flows.domain.policy import Policy
from flows.ports import ArmTelemetry, Readiness

AT = datetime(2026, 11, 3, 4, 5, tzinfo=UTC)
TEST = ABTest("t", Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2"), AT - timedelta(days=20), "run")
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Request:
    """One request of the recorded traffic."""

    at: datetime
    arm: Arm = Arm.CANDIDATE
    ms: float | None = 60.0
    failed: bool = False
    flagged: bool = False


@dataclass
class Recorded:
    """Telemetry and predictions of recorded requests; its clock stands at the newest one."""

    requests: list[Request]

    def now(self) -> datetime:
        return max(request.at for request in self.requests)

    def measure(self, test: ABTest, since: datetime, until: datetime | None = None) -> Mapping[Arm, ArmTelemetry]:
        seen = [request for request in self.requests if since <= request.at < (until or self.now())]
        measured: dict[Arm, ArmTelemetry] = {}
        for arm in Arm:
            own = [request for request in seen if request.arm is arm]
            timed = [request.ms for request in own if request.ms is not None]
            p95 = float(np.quantile(timed, 0.95)) if timed else None
            measured[arm] = ArmTelemetry(len(own), len(own) / max(1, len(seen)), p95, sum(request.failed for request in own))
        return measured

    def flags(self, since: datetime, until: datetime) -> FlagCounts:
        seen = [request for request in self.requests if since <= request.at < until]
        return FlagCounts(len(seen), sum(request.flagged for request in seen))


@dataclass
class Cluster:
    """What its router sends where; None where that cannot be seen, an error where Kubernetes is down."""

    routed: Mapping[str, int] | OutsideSystemError | None = field(default_factory=lambda: {"fraud-v2": 100})

    def readiness(self) -> Readiness:
        if isinstance(self.routed, OutsideSystemError):
            raise self.routed
        return Readiness({"ready": True}, self.routed)


def traffic(until: datetime, per_minute: int = 30, **after: Callable[[datetime], Any]) -> list[Request]:
    """Requests from an hour before the promotion on, one in ten flagged; `after` changes those after it."""
    requests: list[Request] = []
    for number in range(int((until - AT + HOUR).total_seconds() / 60 * per_minute)):
        at = AT - HOUR + timedelta(minutes=number / per_minute)
        arm = Arm.CANDIDATE if at >= AT or number % 5 == 0 else Arm.BASELINE
        changes = {name: change(at) for name, change in after.items()} if at >= AT else {}
        requests.append(Request(**({"at": at, "arm": arm, "flagged": number % 10 == 0} | changes)))
    return requests


def bake(recorded: Recorded, cluster: Cluster | None = None, **policy: Any) -> Bake:
    serving: Any = cluster or Cluster()
    feedback: Any = recorded
    return Bake(TEST, AT, AT, serving, recorded, feedback, Policy.model_validate(policy))


def look(hours: float, per_minute: int = 30, *, cluster: Cluster | None = None, **after: Callable[[datetime], Any]) -> Findings:
    now = AT + timedelta(hours=hours)
    return bake(Recorded(traffic(now, per_minute, **after)), cluster).look(now)


def kinds(findings: Findings) -> list[BreachKind]:
    return [breach.kind for breach in findings.breaches]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.bake.ROUTER_SECONDS", 0.0)


def test_a_healthy_model_has_no_breach_and_is_measured() -> None:
    found = look(3)
    assert (found.breaches, found.missing) == ((), ())
    assert found.measured == ("100.0 % of 300 requests, 0 failed, p95 60 ms", "10.00 % flagged (10.00 % in the test)")


def test_before_two_windows_fit_only_the_router_is_looked_at() -> None:
    assert look(0.3, ms=lambda _: 500.0) == Findings()
    assert bake(Recorded(traffic(AT))).look(AT + 0.3 * HOUR) == Findings(), "nothing is missing yet"
    assert kinds(look(0.1, cluster=Cluster({"fraud-v1": 100}))) == [BreachKind.TRAFFIC]


def test_flags_are_looked_at_only_in_wide_windows() -> None:
    assert [len(look(hours).measured) for hours in (0.5, 1.9, 2.1)] == [1, 1, 2]


def last(minutes: float, hours: float = 3) -> datetime:
    return AT + timedelta(hours=hours) - timedelta(minutes=minutes)


def test_one_noisy_window_is_no_breach_and_two_after_one_another_are() -> None:
    assert kinds(look(3, ms=lambda at: 140.0 if at >= last(9) else 60.0)) == []
    assert kinds(look(3, ms=lambda at: 140.0 if last(20) <= at < last(10.1) else 60.0)) == []
    assert kinds(look(3, ms=lambda at: 140.0 if at >= last(20) else 60.0)) == [BreachKind.LATENCY]


def test_an_old_breach_that_is_over_is_none() -> None:
    assert kinds(look(3, ms=lambda at: 500.0 if at < last(30) else 60.0)) == []


def test_errors_are_compared_with_what_was_usual_before_the_promotion() -> None:
    def fails(at: datetime) -> bool:
        return int(at.timestamp()) // 2 % 7 == 0

    assert kinds(look(3, failed=fails)) == [BreachKind.ERRORS]
    always = [replace(request, failed=fails(request.at)) for request in traffic(AT + 3 * HOUR)]
    assert kinds(bake(Recorded(always)).look(AT + 3 * HOUR)) == []


def test_requests_that_still_reach_the_baseline_are_a_breach_also_when_none_reach_the_candidate() -> None:
    some = look(3, arm=lambda at: Arm.BASELINE if at.second % 10 == 0 else Arm.CANDIDATE)
    assert kinds(some) == [BreachKind.TRAFFIC]
    none = look(3, arm=lambda _: Arm.BASELINE)
    assert [breach.found for breach in none.breaches] == ["0.0 % of 300 requests reach the candidate instead of all"]


def test_a_router_that_does_not_agree_is_a_breach_and_one_that_cannot_be_seen_is_none() -> None:
    found = look(3, cluster=Cluster({"fraud-v1": 20, "fraud-v2": 80}))
    assert [breach.found for breach in found.breaches] == [
        "the router sends fraud-v1 20 %, fraud-v2 80 % instead of all to fraud-v2"
    ]
    assert kinds(look(3, cluster=Cluster(None))) == []


def test_a_cluster_that_does_not_answer_is_not_healthy() -> None:
    found = look(3, cluster=Cluster(OutsideSystemError("Kubernetes", "reading", retryable=True)))
    assert found.missing == ((ROUTER, "Kubernetes does not answer"),)


@pytest.mark.parametrize("every", [4, 10_000])
def test_a_flag_rate_that_changed_for_two_hours_is_a_breach_in_either_direction(every: int) -> None:
    found = look(3, flagged=lambda at: (at.minute * 60 + at.second) // 2 % every == 0)
    assert kinds(found) == [BreachKind.FLAG_RATE]
    assert "10.00 % in the test" in found.breaches[0].found


def test_an_hour_of_other_flags_is_no_breach() -> None:
    assert kinds(look(3, flagged=lambda at: at.second % 4 == 0 if at >= last(60) else at.second % 20 == 0)) == []


def test_thin_traffic_is_looked_at_in_wider_windows() -> None:
    found = look(13, per_minute=1, ms=lambda _: 140.0)
    assert found.measured[0].startswith("100.0 % of 360 requests")
    assert kinds(found) == [BreachKind.LATENCY]


def test_too_few_requests_even_in_the_widest_window_are_missing() -> None:
    found = look(3, per_minute=1)
    assert found.missing == (
        (TELEMETRY, "60 of at least 200 requests seen"),
        (FLAGS, "60 of at least 200 predictions are in the feedback"),
    )
    assert found.measured == ()


def test_latency_that_nobody_measures_is_missing_only_where_the_policy_requires_it() -> None:
    silent = Recorded(traffic(AT + 3 * HOUR, ms=lambda _: None))
    found = bake(silent).look(AT + 3 * HOUR)
    assert found.missing == ((TELEMETRY, "no latency is measured, and the policy requires it"),)
    assert found.measured[0].endswith("p95 not measured")
    assert bake(silent, required_telemetry=()).look(AT + 3 * HOUR).missing == ()


def test_telemetry_that_has_stopped_is_missing_and_a_known_delay_is_not() -> None:
    stopped = Recorded(traffic(AT + 3 * HOUR))
    found = bake(stopped).look(AT + 5 * HOUR)
    assert (TELEMETRY, "the newest request that is known is of 2026-11-03 07:04 UTC") in found.missing
    assert bake(stopped, feedback_delay_hours=2).look(AT + 5 * HOUR).missing == ()


def test_without_predictions_of_the_test_the_flag_rate_is_missing() -> None:
    assert judge_flags(FlagCounts(0, 0), FlagCounts(1_000, 10), Policy()).missing == (
        (FLAGS, "no prediction of the test is in the feedback"),
    )


def test_without_errors_before_none_are_usual() -> None:
    only_after = Recorded(
        [request for request in traffic(AT + 3 * HOUR, failed=lambda at: at.second % 10 == 0) if request.at >= AT]
    )
    assert BreachKind.ERRORS in kinds(bake(only_after).look(AT + 3 * HOUR))


def test_one_window_is_judged_by_its_own_limits() -> None:
    measured = {Arm.CANDIDATE: ArmTelemetry(980, 0.98, 100.0, 5), Arm.BASELINE: ArmTelemetry(20, 0.02, 500.0, 20)}
    assert judge_requests(measured, Policy(), usual_error_share=0.0).breaches == ()


def test_the_whole_time_is_one_window_and_ends_with_the_bake_time() -> None:
    recorded = Recorded(traffic(AT + 5 * HOUR, ms=lambda at: 140.0 if at >= AT + 2 * HOUR else 60.0))
    found = bake(recorded, bake_hours=2).whole(AT + 5 * HOUR)
    assert found.measured == ("100.0 % of 3,600 requests, 0 failed, p95 60 ms", "10.00 % flagged (10.00 % in the test)")
    assert found.breaches == ()
    late = bake(recorded, bake_hours=2, feedback_delay_hours=6).whole(AT + 5 * HOUR)
    assert late.missing == ((FLAGS, "0 of at least 200 predictions are in the feedback"),)
