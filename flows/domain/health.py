"""The health of a running test, seen without its outcomes, so that seeing it every day spends nothing of the test's error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import exp, log
from typing import TYPE_CHECKING

import scipy

from flows.domain.criteria import CriterionStatus, check_stability
from flows.domain.guardrails import percent
from flows.domain.policy import TelemetryKind
from flows.domain.requests import is_shared_breach

if TYPE_CHECKING:
    from flows.domain.counts import CardCounts, FeedbackHealth, TelemetrySummary
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

_PRIOR_CARDS = 100


class HealthCheck(StrEnum):
    """What is looked at every day, in the order in which it is shown."""

    SAMPLE_RATIO = "sample_ratio"
    CROSSOVER = "crossover"
    LABELS = "labels"
    LATENCY = "latency"
    ERROR_RATE = "error_rate"


@dataclass(frozen=True, slots=True)
class Health:
    """One check: what was found, in a sentence, and whether it is a problem (None: it could not be checked, and need not be)."""

    check: HealthCheck
    is_problem: bool | None
    found: str


def check_health(
    feedback: FeedbackHealth, telemetry: TelemetrySummary | None, window: ExposureWindow, policy: Policy
) -> tuple[Health, ...]:
    """Every daily check of a running test, in the order of `HealthCheck`.

    Args:
        feedback: cards and labels of the test so far.
        telemetry: latency and errors so far; None when nothing measures them.
        window: from the start of the test to the end of what the feedback knows.
        policy: the limits of a valid test.
    """
    return (*_split(feedback.cards, policy), _labels(feedback, window, policy), *_stability(telemetry, policy))


def sample_ratio_evidence(candidate: int, total: int, expected_share: Fraction) -> float:
    """Natural logarithm of the Bayes factor against the expected split: a beta-binomial mixture over the binomial.

    The chance that it ever exceeds ln(1/α) in a test with the right split is at most α, however often one looks (Ville).

    Args:
        candidate: cards that met the candidate alone.
        total: cards that met one arm alone.
        expected_share: the candidate's share by the policy, 0..1 (both excluded).

    Source:
        Robbins 1970, Annals of Mathematical Statistics 41:1397-1409; Lindon & Malek 2022, arXiv:2011.03567.

    Example:
        >>> round(sample_ratio_evidence(200, 1000, Fraction(1, 5)), 2), round(sample_ratio_evidence(300, 1000, Fraction(1, 5)), 1)
        (-1.2, 24.5)
    """
    share, others = float(expected_share), total - candidate
    one, two = _PRIOR_CARDS * share, _PRIOR_CARDS * (1 - share)
    mixture = float(scipy.special.betaln(one + candidate, two + others) - scipy.special.betaln(one, two))
    return mixture - candidate * log(share) - others * log(1 - share)


def _split(cards: CardCounts | None, policy: Policy) -> tuple[Health, Health]:
    checks = HealthCheck.SAMPLE_RATIO, HealthCheck.CROSSOVER
    expected = Fraction(policy.traffic.candidate, 100)
    if cards is None or not 0 < expected < 1:
        return Health(checks[0], None, "the split cannot be tested at the card"), Health(checks[1], None, "cards are unknown")
    alone, met = cards.baseline + cards.candidate, cards.baseline + cards.candidate + cards.crossover
    if not met:
        return Health(checks[0], None, "no card was seen yet"), Health(checks[1], None, "no card was seen yet")
    evidence = sample_ratio_evidence(cards.candidate, alone, expected)
    seen = percent(Fraction(cards.candidate, alone)) if alone else "none"
    factor = "over 1e+100" if evidence > log(1e100) else f"{exp(evidence):.2g}"
    ratio = f"{seen} of {alone:,} cards met the candidate, the policy sends {policy.traffic.candidate} % (evidence {factor} to 1)"
    share = Fraction(cards.crossover, met)
    return (
        Health(checks[0], evidence >= -log(policy.validity.sample_ratio_p_value), ratio),
        Health(checks[1], share > policy.validity.max_crossover, f"{percent(share)} of {met:,} cards met both arms"),
    )


def _labels(feedback: FeedbackHealth, window: ExposureWindow, policy: Policy) -> Health:
    """Labels that have stopped, and matured days that are not labelled; younger days cannot be complete yet."""
    check, least, silence = HealthCheck.LABELS, policy.validity.min_label_coverage, feedback.last_label_days
    known = (window.as_of - window.start).days
    if not feedback.days:
        return Health(check, True, f"the feedback holds no row of the test up to {window.as_of:%Y-%m-%d %H:%M} UTC")
    quiet = known if silence is None and not any(day.labelled for day in feedback.days) else silence or 0
    if quiet >= policy.validity.max_label_silence_days:
        return Health(check, True, f"no label has arrived for {quiet} days")
    matured = [day for day in feedback.days if known - day.day >= policy.label_maturity_days]
    for day in matured:
        share = Fraction(day.labelled, day.rows)
        if share < least:
            return Health(
                check, True, f"only {percent(share)} of the {day.arm}'s transactions of day {day.day} have a label by now"
            )
    labelled = sum(day.labelled for day in feedback.days)
    rows = sum(day.rows for day in feedback.days)
    return Health(check, False, f"{percent(Fraction(labelled, rows))} of {rows:,} transactions have a label so far")


def _stability(telemetry: TelemetrySummary | None, policy: Policy) -> tuple[Health, Health]:
    latency, errors = check_stability(telemetry, policy, is_final=False)
    shared = telemetry is not None and is_shared_breach(telemetry, policy.latency)
    found: list[Health] = []
    for check, criterion, kind in (
        (HealthCheck.LATENCY, latency, TelemetryKind.LATENCY),
        (HealthCheck.ERROR_RATE, errors, TelemetryKind.ERRORS),
    ):
        is_problem = criterion.status is CriterionStatus.FAILED or (shared and check is HealthCheck.LATENCY)
        if criterion.status is CriterionStatus.NOT_CHECKED:
            is_problem = True if kind in policy.required_telemetry else None
        found.append(Health(check, is_problem, criterion.reason))
    return found[0], found[1]
