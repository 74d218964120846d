"""From feedback to verdict: plain functions, used by the flow and by `fraud-ab evaluate` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flows.domain.errors import FeedbackInvalid
from flows.domain.evidence import Evidence
from flows.domain.feedback import ExposureWindow, window_due
from flows.domain.sequential import Look
from flows.domain.verdict import Verdict, decide_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from flows.domain.counts import FeedbackCounts, Outcomes, TelemetrySummary
    from flows.domain.policy import Policy
    from flows.ports import FeedbackSource


class WindowTelemetry(Protocol):
    """Latency and errors over a window, aggregated where they are."""

    def summarise(self, window: ExposureWindow, policy: Policy) -> TelemetrySummary | None:
        """None when neither is measured."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict with the evidence that it rests on; hand `evidence.looks` to the next evaluation."""

    evidence: Evidence
    verdict: Verdict


def evaluate(
    feedback: FeedbackSource,
    telemetry: WindowTelemetry | None,
    policy: Policy,
    test_start: datetime,
    now: datetime,
    previous_looks: Sequence[Look] | None = (),
) -> Evaluation:
    """Evaluate the last planned look whose labels have matured.

    Args:
        feedback: where predictions and labels are.
        telemetry: where latency and errors are; None when nothing measures them.
        policy: what a win requires.
        test_start: when exposure began (UTC, aware).
        now: the clock (UTC); events and labels later than this are impossible and mature nothing.
        previous_looks: those at which outcomes were seen before, the same look again counts once; None when nobody knows, and
            then every planned one is taken to have been used.

    Raises:
        FeedbackInvalid: the feedback cannot be used, or ends before the test began.
        OutsideSystemError: the feedback's database failed.
    """
    as_of = feedback.watermark(now)
    if as_of < test_start:
        raise FeedbackInvalid(
            f"The feedback ends on {as_of:%Y-%m-%d %H:%M} UTC, before the test began on {test_start:%Y-%m-%d %H:%M}."
        )
    window = window_due(test_start, as_of, policy)
    counts = feedback.count(window, policy, now)
    summary = telemetry.summarise(window, policy) if telemetry else None
    looks = _looks(window, counts, policy, previous_looks)
    missing = [*counts.not_checked, *([] if summary else ["telemetry"])]
    if previous_looks is None and len(looks) > 1:
        taken = " and ".join(str(look.exposure_days) for look in looks[:-1])
        missing.append(f"earlier looks (those planned for day {taken} are taken to have been used)")
    evidence = Evidence(
        feedback=counts,
        window=window,
        telemetry=summary,
        looks=looks,
        horizon_days=policy.window_days.max,
        missing=tuple(missing),
    )
    return Evaluation(evidence, decide_verdict(evidence, policy))


def frauds_seen(feedback: FeedbackSource, policy: Policy, test_start: datetime, now: datetime) -> int:
    """The labelled frauds that a verdict would rest on if it were made now: of the last planned look whose labels have matured,
    in pairs those that both models scored, in a split those of both arms. Raises as `evaluate`."""
    window = window_due(test_start, feedback.watermark(now), policy)
    return feedback.count(window, policy, now).outcomes.compared_frauds


def evaluate_counts(outcomes: Outcomes, policy: Policy) -> Evaluation:
    """Calculate a verdict from counts alone; it is no decision."""
    evidence = Evidence(counted=outcomes)
    return Evaluation(evidence, decide_verdict(evidence, policy))


def _looks(window: ExposureWindow, counts: FeedbackCounts, policy: Policy, previous: Sequence[Look] | None) -> tuple[Look, ...]:
    """The looks so far, with this one last if it is planned: at any other nothing can be won, so nothing is spent."""
    if previous is None:
        previous = [_look(day, counts, policy) for day in policy.looks]
    earlier = [look for look in previous if policy.window_days.min <= look.exposure_days < window.exposure_days]
    now = [_look(window.exposure_days, counts, policy)] if window.exposure_days in policy.looks else []
    return (*earlier, *now)


def _look(exposure_days: int, counts: FeedbackCounts, policy: Policy) -> Look:
    frauds = sum(day.compared_frauds for day in counts.days if day.day < exposure_days)
    return Look(exposure_days, frauds, min(1.0, exposure_days / policy.window_days.max))
