"""What the requests since a promotion say about the promoted model: looks that remember nothing and change nothing.

A look compares two adjacent windows of the same width, and only what is wrong in both of them is a breach: one noisy stretch of
time must not call anybody at night. Where traffic is thin the windows are wider.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.bake import Breach, BreachKind, Findings, sustained
from flows.domain.flag_rate import describe_flag_rate_change
from flows.watch import MIN_REQUESTS, SHARE_TOLERANCE, error_breach, latency_breach, poll, unmeasured

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flows.domain.ab_test import ABTest
    from flows.domain.counts import FlagCounts
    from flows.domain.policy import Policy
    from flows.ports import ArmTelemetry, FeedbackSource, Serving, Telemetry

WIDTHS = tuple(timedelta(minutes=minutes) for minutes in (10, 60, 360))
FLAG_WIDTHS = WIDTHS[1:]
"""Flags are rare: ten minutes of them say little."""
ERRORS_BEFORE = timedelta(days=1)
FLAGS_BEFORE = timedelta(days=7)
ROUTER_SECONDS = 15.0
TELEMETRY, ROUTER, FLAGS = "latency, errors and traffic", "router", "flag rate"


def judge_requests(measured: Mapping[Arm, ArmTelemetry], policy: Policy, *, usual_error_share: float) -> Findings:
    """One window of requests after a promotion, when all of them should reach the candidate.

    Args:
        usual_error_share: the baseline's share of failed requests before the promotion, 0..1.
    """
    candidate, total = measured[Arm.CANDIDATE], sum(arm.requests for arm in measured.values())
    if total < MIN_REQUESTS:
        return Findings(missing=((TELEMETRY, f"{total} of at least {MIN_REQUESTS} requests seen"),))
    found = {BreachKind.TRAFFIC: "", BreachKind.LATENCY: "", BreachKind.ERRORS: ""}
    if candidate.share < 1 - SHARE_TOLERANCE:
        found[BreachKind.TRAFFIC] = f"{100 * candidate.share:.1f} % of {total:,} requests reach the candidate instead of all"
    missing = ""
    if candidate.requests >= MIN_REQUESTS:
        found[BreachKind.LATENCY] = latency_breach(candidate, policy)
        found[BreachKind.ERRORS] = error_breach(candidate, policy, usual_error_share)
        missing = unmeasured(candidate, policy)
    p95 = "not measured" if candidate.p95_ms is None else f"{candidate.p95_ms:.0f} ms"
    return Findings(
        breaches=tuple(Breach(kind, found[kind]) for kind in BreachKind if found.get(kind)),
        missing=((TELEMETRY, missing),) if missing else (),
        measured=(f"{100 * candidate.share:.1f} % of {total:,} requests, {candidate.errors} failed, p95 {p95}",),
    )


def judge_flags(test: FlagCounts, now: FlagCounts, policy: Policy) -> Findings:
    """One window of the candidate's predictions against those of the test."""
    if now.requests < MIN_REQUESTS:
        return Findings(missing=((FLAGS, f"{now.requests} of at least {MIN_REQUESTS} predictions are in the feedback"),))
    if not test.requests:
        return Findings(missing=((FLAGS, "no prediction of the test is in the feedback"),))
    changed = describe_flag_rate_change(test, now, policy)
    rates = [f"{100 * one.flagged / one.requests:.2f} %" for one in (now, test)]
    return Findings(
        breaches=(Breach(BreachKind.FLAG_RATE, changed),) if changed else (),
        measured=(f"{rates[0]} flagged ({rates[1]} in the test)",),
    )


@dataclass(frozen=True)
class Bake:
    """The time after one promotion. `decided_at`: when the promotion was decided; until then the test ran undisturbed."""

    test: ABTest
    decided_at: datetime
    promoted_at: datetime
    serving: Serving
    telemetry: Telemetry
    feedback: FeedbackSource
    policy: Policy

    def look(self, now: datetime) -> Findings:
        """What is wrong at this moment: by the router, and by the latest windows as soon as two fit into the time so far."""
        if now - self.promoted_at < 2 * WIDTHS[0]:
            return self._router()
        return self._requests(now) + self._router() + self._flags(now)

    def whole(self, now: datetime) -> Findings:
        """The whole bake time as one window, once it is over."""
        end = self.promoted_at + timedelta(hours=self.policy.bake_hours)
        requests = self._judged(self.promoted_at, min(end, self.telemetry.now()))
        known = max(self.promoted_at, min(end, self._flags_known(now)))
        return (
            requests
            + self._router()
            + judge_flags(self._flags_in_test, self.feedback.flags(self.promoted_at, known), self.policy)
        )

    def _requests(self, now: datetime) -> Findings:
        until = self.telemetry.now()
        if now - until > timedelta(hours=self.policy.feedback_delay_hours) + WIDTHS[0]:
            return Findings(missing=((TELEMETRY, f"the newest request that is known is of {until:%Y-%m-%d %H:%M} UTC"),))
        last = Findings()
        for width in WIDTHS:
            if until - 2 * width < self.promoted_at:
                break
            last = self._judged(until - width, until)
            if last.measured:
                return self._with_earlier(last, self._judged(until - 2 * width, until - width))
        return last

    def _judged(self, since: datetime, until: datetime) -> Findings:
        return judge_requests(
            self.telemetry.measure(self.test, since, until), self.policy, usual_error_share=self._usual_error_share
        )

    def _flags(self, now: datetime) -> Findings:
        until, last = self._flags_known(now), Findings()
        for width in FLAG_WIDTHS:
            if until - 2 * width < self.promoted_at:
                break
            last = judge_flags(self._flags_in_test, self.feedback.flags(until - width, until), self.policy)
            if last.measured:
                earlier = self.feedback.flags(until - 2 * width, until - width)
                return self._with_earlier(last, judge_flags(self._flags_in_test, earlier, self.policy))
        return last

    def _flags_known(self, now: datetime) -> datetime:
        """Up to when rows have arrived, by the policy's own word."""
        return now - timedelta(hours=self.policy.feedback_delay_hours)

    def _router(self) -> Findings:
        """Whether the router agrees; it is asked again for a moment, since it may just be changing."""
        predictor = self.test.candidate.predictor
        routed: list[Mapping[str, int]] = []

        def agrees() -> bool:
            readiness = self.serving.readiness()
            routed[:] = [readiness.routed or {}]
            return readiness.routed is None or readiness.routes_all_to(predictor)

        if poll(agrees, ROUTER_SECONDS):
            return Findings()
        if not routed:
            return Findings(missing=((ROUTER, "Kubernetes does not answer"),))
        shares = ", ".join(f"{name} {share} %" for name, share in routed[-1].items())
        return Findings((Breach(BreachKind.TRAFFIC, f"the router sends {shares} instead of all to {predictor}"),))

    @staticmethod
    def _with_earlier(later: Findings, earlier: Findings) -> Findings:
        return Findings(sustained(earlier.breaches, later.breaches), later.missing, later.measured)

    @cached_property
    def _usual_error_share(self) -> float:
        since = max(self.test.started_at, self.decided_at - ERRORS_BEFORE)
        before = self.telemetry.measure(self.test, since, self.decided_at)[Arm.BASELINE]
        return before.errors / before.requests if before.requests else 0.0

    @cached_property
    def _flags_in_test(self) -> FlagCounts:
        """Those of its last whole week, so that every weekday counts alike."""
        return self.feedback.flags(max(self.test.started_at, self.decided_at - FLAGS_BEFORE), self.decided_at)
