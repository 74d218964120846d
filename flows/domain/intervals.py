"""Intervals: how far off a share, a difference of shares or a ratio of recalls may be."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt
from typing import cast

from scipy.optimize import brentq
from scipy.stats import norm

from flows.domain.counts import Design, Outcomes
from flows.domain.metrics import precision_standard_error, recall_variances, score_z, transaction_products

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
    z = float(norm.isf((1 - confidence) / 2))
    share, denominator = count / total, 1 + z * z / total
    centre = share + z * z / (2 * total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (centre - half) / denominator), min(1.0, (centre + half) / denominator)


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
    z2 = float(norm.isf((1 - confidence) / 2)) ** 2
    a, b, c = before**2 - z2 * v1, before * after - z2 * covariance, after**2 - z2 * v2
    furthest = b + sqrt(max(0.0, b * b - a * c))
    low = max(0.0, c / furthest) if furthest > 0 else 0.0
    return low, furthest / a if a > 0 else None  # a <= 0: the baseline's own recall cannot be told from 0


def recall_ratio(outcomes: Outcomes, *, clustered: bool, confidence: float = 0.95) -> Interval | None:
    """Interval of the candidate's recall over the baseline's; None without frauds, or when the baseline caught none.

    Pairs: by inverting z(θ) of the paired table; split: Miettinen and Nurminen's score; `clustered`: with cards as units.
    """
    one, two = outcomes.baseline, outcomes.candidate
    if not one.caught or not two.frauds:
        return None
    if clustered and outcomes.cards is not None:
        variances = recall_variances(outcomes, outcomes.cards.products)
    elif outcomes.design is Design.PAIRED and outcomes.frauds is not None:
        n2 = one.frauds**2
        variances = (one.caught / n2, two.caught / n2, outcomes.frauds.both / n2)
    else:
        return Interval("recall ratio", *_score_ratio(outcomes, confidence), confidence)
    low, high = fieller(one.caught / one.frauds, two.caught / two.frauds, variances, confidence)
    return Interval("recall ratio", low, high, confidence)


def _score_ratio(outcomes: Outcomes, confidence: float) -> tuple[float, float]:
    """Miettinen and Nurminen's score interval of the ratio, searched on the logarithm."""
    one, two = outcomes.baseline, outcomes.candidate
    z = float(norm.isf((1 - confidence) / 2))

    def excess(log_ratio: float, wanted: float) -> float:
        return score_z(one, two, exp(log_ratio)) - wanted

    def ratio_at(wanted: float) -> float:
        return exp(cast("float", brentq(excess, -_FURTHEST, _FURTHEST, args=(wanted,))))

    return ratio_at(z) if two.caught else 0.0, ratio_at(-z)


def precision_change(outcomes: Outcomes, confidence: float = 0.95) -> Interval | None:
    """Interval of the candidate's precision minus the baseline's (absolute); None without alerts of both.

    With a known overlap of alerts by its standard error; for separate groups, or where the overlap is unknown, Newcombe's.
    """
    one, two = outcomes.baseline, outcomes.candidate
    if not one.alerts or not two.alerts:
        return None
    error = precision_standard_error(outcomes)
    if error is None or (
        transaction_products(outcomes) is not None and outcomes.design is Design.SPLIT and outcomes.cards is None
    ):
        return Interval(
            "precision difference", *newcombe(two.true_alerts, two.alerts, one.true_alerts, one.alerts, confidence), confidence
        )
    centre = two.true_alerts / two.alerts - one.true_alerts / one.alerts
    half = float(norm.isf((1 - confidence) / 2)) * error
    return Interval("precision difference", centre - half, centre + half, confidence)
