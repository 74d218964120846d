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
    previous_looks: Sequence[Look] = (),
) -> Evaluation:
    """Evaluate the last planned look whose labels have matured.

    Args:
        feedback: where predictions and labels are.
        telemetry: where latency and errors are; None when nothing measures them.
        policy: what a win requires.
        test_start: when exposure began (UTC, aware).
        previous_looks: those at which outcomes were seen before; the same look again counts once.

    Raises:
        FeedbackInvalid: the feedback cannot be used, or ends before the test began.
        OutsideSystemError: the feedback's database failed.
    """
    as_of = feedback.watermark()
    if as_of < test_start:
        raise FeedbackInvalid(
            f"The feedback ends on {as_of:%Y-%m-%d %H:%M} UTC, before the test began on {test_start:%Y-%m-%d %H:%M}."
        )
    window = window_due(test_start, as_of, policy)
    counts = feedback.count(window, policy)
    summary = telemetry.summarise(window, policy) if telemetry else None
    evidence = Evidence(
        feedback=counts,
        window=window,
        telemetry=summary,
        looks=_looks(window, counts, policy, previous_looks),
        horizon_days=policy.window_days.max,
        missing=counts.not_checked if summary else (*counts.not_checked, "telemetry"),
    )
    return Evaluation(evidence, decide_verdict(evidence, policy))


def evaluate_counts(outcomes: Outcomes, policy: Policy) -> Evaluation:
    """Calculate a verdict from counts alone; it is no decision."""
    evidence = Evidence(counted=outcomes)
    return Evaluation(evidence, decide_verdict(evidence, policy))


def _looks(window: ExposureWindow, counts: FeedbackCounts, policy: Policy, previous: Sequence[Look]) -> tuple[Look, ...]:
    """The looks so far with this one last. Before the first planned look nothing can be won, so nothing is spent."""
    fraction = min(1.0, window.exposure_days / policy.window_days.max)
    frauds = counts.baseline.frauds + counts.candidate.frauds
    earlier = [look for look in previous if policy.window_days.min <= look.exposure_days < window.exposure_days]
    return (*earlier, Look(window.exposure_days, frauds, fraction))
