"""Intervals: how far off a share, a difference of shares or a ratio of recalls may be."""

from __future__ import annotations

from dataclasses import dataclass
from math import acos, copysign, cos, exp, pi, sqrt
from typing import cast

import scipy

from flows.domain.counts import Outcomes, Overlap
from flows.domain.metrics import precision_standard_error, quadratic_form, recall_design_effect, score_z, two_sided_z

_FURTHEST = 40.0  # the search for a ratio spans e^-40 to e^40


@dataclass(frozen=True, slots=True)
class Interval:
    """What is known of a number: `low` to `high` (None: unbounded) at a confidence 0..1."""

    what: str
    low: float
    high: float | None
    confidence: float


def wilson(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Source:
        Wilson 1927; Newcombe 1998, Statistics in Medicine 17:857-872, method 3.

    Example:
        >>> tuple(round(end, 4) for end in wilson(81, 263))
        (0.2553, 0.3662)
    """
    z = two_sided_z(confidence)
    share, denominator = count / total, 1 + z * z / total
    centre = share + z * z / (2 * total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = (centre - half) / denominator, (centre + half) / denominator
    # none of a count is exactly 0 and all of it exactly 1, which rounding would miss: the interval holds the share itself
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def newcombe(x1: int, n1: int, x2: int, n2: int, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's hybrid score interval of x1/n1 - x2/n2, for separate groups.

    Source:
        Newcombe 1998, Statistics in Medicine 17:873-890, method 10.

    Example:
        >>> tuple(round(end, 4) for end in newcombe(56, 70, 48, 80))
        (0.0524, 0.3339)
    """
    p1, p2 = x1 / n1, x2 / n2
    (l1, u1), (l2, u2) = wilson(x1, n1, confidence), wilson(x2, n2, confidence)
    low = p1 - p2 - sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2)
    return low, p1 - p2 + sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2)


def fieller(
    before: float, after: float, variances: tuple[float, float, float], confidence: float = 0.95
) -> tuple[float, float | None]:
    """All ratios θ that "after = θ × before" does not reject: |after - θ before| ≤ z √(V2 + θ² V1 - 2θ C).

    Args:
        before, after: the two estimates, from 0.
        variances: V1 of `before`, V2 of `after` and their covariance C, as they are under that hypothesis.
        confidence: 0..1.

    Returns:
        (low, high), from 0; high is None when no upper end can be told.

    Source:
        Fieller 1954; with a paired table's own sums it inverts Lachenbruch & Lynch 1998, at θ = 1 McNemar's test.

    Example:
        >>> low, high = fieller(944, 880, (944, 880, 794))
        >>> round(low, 3), round(high, 3)
        (0.902, 0.963)
    """
    v1, v2, covariance = variances
    z2 = two_sided_z(confidence) ** 2
    a, b, c = before**2 - z2 * v1, before * after - z2 * covariance, after**2 - z2 * v2
    furthest = b + sqrt(max(0.0, b * b - a * c))
    low = max(0.0, c / furthest) if furthest > 0 else 0.0
    return low, furthest / a if a > 0 else None  # a <= 0: the baseline's own recall cannot be told from 0


def paired_difference(frauds: Overlap, confidence: float = 0.95) -> tuple[float, float]:
    """Wald's interval of the candidate's recall minus the baseline's over the same frauds (Agresti 1990, section 10.1).

    Example:
        >>> tuple(round(end, 2) for end in paired_difference(Overlap(794, 150, 86, 570)))
        (-0.06, -0.02)
    """
    total = frauds.total
    more = frauds.candidate_only - frauds.baseline_only
    variance = frauds.candidate_only + frauds.baseline_only - more**2 / total
    half = two_sided_z(confidence) * sqrt(variance)
    return (more - half) / total, (more + half) / total


def score_difference(
    x1: int, n1: int, x2: int, n2: int, confidence: float = 0.95, *, is_corrected: bool = True
) -> tuple[float, float]:
    """Score interval of x1/n1 - x2/n2, for separate groups.

    Args:
        x1, n1, x2, n2: successes of trials; at least one trial each.
        confidence: 0..1.
        is_corrected: with Miettinen and Nurminen's factor n/(n-1) of the variance; without it the interval is Mee's.

    Source:
        Miettinen & Nurminen 1985, Statistics in Medicine 4:213-226; Mee 1984, Biometrics 40:1175-1176.

    Example:
        >>> tuple(round(end, 4) for end in score_difference(56, 70, 48, 80))
        (0.0528, 0.3382)
    """
    z = two_sided_z(confidence) * (sqrt((n1 + n2) / (n1 + n2 - 1)) if is_corrected else 1.0)
    estimate = x1 / n1 - x2 / n2

    def excess(difference: float, wanted: float) -> float:
        variance = _difference_variance(x1, n1, x2, n2, difference)
        return estimate - difference - wanted * sqrt(variance)

    def end(edge: float, wanted: float) -> float:
        if estimate == edge:
            return edge
        beside = estimate + edge * 1e-9  # at the estimate itself nothing may vary
        return cast("float", scipy.optimize.brentq(excess, edge, beside, args=(wanted,)))

    return end(-1.0, z), end(1.0, -z)


def _difference_variance(x1: int, n1: int, x2: int, n2: int, difference: float) -> float:
    """Variance of the difference of shares at the likeliest shares that differ by `difference` (a cubic's middle root)."""
    total, caught = n1 + n2, x1 + x2
    square = ((n1 + 2 * n2) * difference - total - caught) / total
    linear = ((n2 * difference - total - 2 * x2) * difference + caught) / total
    constant = x2 * difference * (1 - difference) / total
    half = (square / 3) ** 3 - square * linear / 6 + constant / 2
    radius = copysign(sqrt(max(0.0, (square / 3) ** 2 - linear / 3)), half)
    angle = (pi + acos(min(1.0, half / radius**3 if radius else 0.0))) / 3
    p2 = min(1.0, max(0.0, 2 * radius * cos(angle) - square / 3))
    p1 = min(1.0, max(0.0, p2 + difference))
    return p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2


def recall_ratio(outcomes: Outcomes, *, clustered: bool, confidence: float = 0.95) -> Interval | None:
    """Interval of the candidate's recall over the baseline's; None without frauds, or when the baseline caught none.

    Pairs: by inverting z(θ) of the paired table, with the sums over cards where `clustered`; split: Miettinen and Nurminen's
    score, its z widened by the root of the design effect where `clustered`. At a ratio of 1 it agrees with the test.
    """
    one, two, cards = outcomes.baseline, outcomes.candidate, outcomes.cards if clustered else None
    if not one.caught or not two.frauds:
        return None
    if outcomes.frauds is None:
        effect = (recall_design_effect(outcomes) or 1.0) if cards else 1.0
        return Interval("recall ratio", *_score_ratio(outcomes, confidence, sqrt(effect)), confidence)
    v1, v2, covariance = float(one.caught), float(two.caught), float(outcomes.frauds.both)
    if cards:
        first, second = {"baseline_caught": 1.0}, {"candidate_caught": 1.0}
        v1, v2 = quadratic_form(cards.products, first), quadratic_form(cards.products, second)
        covariance = (quadratic_form(cards.products, {**first, **second}) - v1 - v2) / 2
    return Interval("recall ratio", *fieller(one.caught, two.caught, (v1, v2, covariance), confidence), confidence)


def _score_ratio(outcomes: Outcomes, confidence: float, widening: float) -> tuple[float, float]:
    """Miettinen and Nurminen's score interval of the ratio, searched on the logarithm."""
    one, two = outcomes.baseline, outcomes.candidate
    z = two_sided_z(confidence) * widening

    def excess(log_ratio: float, wanted: float) -> float:
        return score_z(one, two, exp(log_ratio)) - wanted

    def ratio_at(wanted: float) -> float:
        return exp(cast("float", scipy.optimize.brentq(excess, -_FURTHEST, _FURTHEST, args=(wanted,))))

    return ratio_at(z) if two.caught else 0.0, ratio_at(-z)


def precision_error(outcomes: Outcomes) -> float | None:
    """Standard error of the precisions' difference (absolute); None without alerts of both.

    For separate groups, and where the overlap of alerts is unknown, it is at least what Newcombe's interval says: with only
    true alerts the plain one is 0, however few they are.
    """
    known, hybrid = precision_standard_error(outcomes), _hybrid_precision(outcomes, 0.95)
    if hybrid is None or (known and outcomes.frauds is not None):
        return known
    return max(known or 0.0, (hybrid[1] - hybrid[0]) / (2 * two_sided_z(0.95)))


def precision_change(outcomes: Outcomes, confidence: float = 0.95) -> Interval | None:
    """Interval of the candidate's precision minus the baseline's (absolute); None without alerts of both."""
    one, two, error = outcomes.baseline, outcomes.candidate, precision_error(outcomes)
    hybrid = _hybrid_precision(outcomes, confidence)
    if error is None or hybrid is None:
        return None
    if error != precision_standard_error(outcomes):
        return Interval("precision difference", *hybrid, confidence)
    centre = two.true_alerts / two.alerts - one.true_alerts / one.alerts
    half = two_sided_z(confidence) * error
    return Interval("precision difference", centre - half, centre + half, confidence)


def _hybrid_precision(outcomes: Outcomes, confidence: float) -> tuple[float, float] | None:
    one, two = outcomes.baseline, outcomes.candidate
    if not one.alerts or not two.alerts:
        return None
    return newcombe(two.true_alerts, two.alerts, one.true_alerts, one.alerts, confidence)
