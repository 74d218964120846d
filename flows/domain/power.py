"""How likely a test that is not settled yet is still to be won, and how many more frauds that would take."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log, sqrt
from typing import TYPE_CHECKING

import scipy

from flows.domain.guardrails import percent
from flows.domain.metrics import relative_improvement, two_sided_z
from flows.domain.policy import Sides
from flows.domain.sequential import Look, boundaries

if TYPE_CHECKING:
    from flows.domain.criteria import Criterion, Significance
    from flows.domain.evidence import Evidence
    from flows.domain.intervals import Interval
    from flows.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an unsettled test may still become if today's estimates are the truth; None where that cannot be told.

    `win_probability`: 0..1, that recall and precision meet the whole rule at the horizon. `more_frauds`: labelled frauds beyond
    today's (of both arms together in a split) with which recall does so as often as the policy's `power` says; `more_days` of
    exposure for them at today's rate.
    """

    win_probability: float | None
    more_frauds: int | None
    more_days: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate, its standard error and the `fraction` (0..1] of the horizon's information that it rests on."""

    value: float
    error: float
    fraction: float

    def chance_of_reaching(self, edge: float) -> float:
        """Probability that the estimate at the horizon is at least `edge`, if today's is the truth.

        Source:
            Lan & Wittes 1988, Biometrics 44:579-585: the estimate at the horizon averages today's with a new one of the same
            mean, so its standard deviation from here is error·√(fraction·(1 - fraction)).
        """
        spread = self.error * sqrt(self.fraction * (1 - self.fraction))
        return float(scipy.stats.norm.cdf((self.value - edge) / spread)) if spread > 0 else float(self.value >= edge)


def frauds_needed_split(
    baseline: float, candidate: float, *, ratio: float = 1.0, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Frauds that the candidate must have scored for a split's test of two recalls to be significant.

    Args:
        baseline, candidate: the true recalls, 0..1, different.
        ratio: frauds scored by the baseline for each one scored by the candidate, above 0.
        alpha, power: two-sided level, and how often the test is then significant; 0..1.

    Returns:
        the number before rounding up; in all, (1 + ratio) times as many frauds are needed.

    Source:
        Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, section 4.2.

    Example:
        >>> round(frauds_needed_split(0.50, 0.75, power=0.90), 1)
        76.7
    """
    common = (ratio * baseline + candidate) / (ratio + 1)
    under_equality = sqrt(common * (1 - common) * (1 + 1 / ratio))
    in_truth = sqrt(baseline * (1 - baseline) / ratio + candidate * (1 - candidate))
    z_alpha, z_power = float(scipy.stats.norm.isf(alpha / 2)), float(scipy.stats.norm.ppf(power))
    return ((z_alpha * under_equality + z_power * in_truth) / (candidate - baseline)) ** 2


def frauds_needed_pairs(baseline_only: float, candidate_only: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Frauds that both models must have scored for McNemar's test to be significant.

    Args:
        baseline_only, candidate_only: the shares of frauds that one model alone catches in truth, 0..1, different.
        alpha, power: two-sided level, and how often the test is then significant; 0..1.

    Returns:
        the number before rounding up.

    Source:
        Connor 1987, Biometrics 43:207-211.

    Example:
        >>> round(frauds_needed_pairs(0.02, 0.07))
        280
    """
    disagreements, difference = baseline_only + candidate_only, candidate_only - baseline_only
    z_alpha, z_power = float(scipy.stats.norm.isf(alpha / 2)), float(scipy.stats.norm.ppf(power))
    return ((z_alpha * sqrt(disagreements) + z_power * sqrt(disagreements - difference**2)) / difference) ** 2


def look_ahead(evidence: Evidence, policy: Policy, significance: Significance | None, precision: Criterion) -> Outlook:
    """The outlook of a test that is not settled.

    Args:
        evidence: of the look, or counts alone (which have no horizon, so no probability and no days).
        policy: the rule that must be met.
        significance: with the interval of the ratio of recalls.
        precision: the criterion with the interval of the precisions' difference.

    Returns:
        probability, further frauds and days, and a sentence; None wherever an estimate or its error is unknown.
    """
    recall = _recall(evidence, significance)
    if recall is None:
        return Outlook(None, None, None, "Too few frauds were seen to tell how many more are needed.")
    required, last_z = log(1 + policy.recall_improvement.relative), _last_boundary(evidence, policy)
    chance = _chance(policy, recall, precision, last_z) if evidence.window else None
    if recall.value <= required or not isfinite(last_z):
        return Outlook(chance, None, None, "At today's estimate more data does not win.")
    z_power = float(scipy.stats.norm.ppf(float(policy.statistics.power)))
    error = min(recall.value / (last_z + z_power), (recall.value - required) / z_power)
    seen = evidence.outcomes.compared_frauds
    more = max(0, ceil(seen * (recall.error / error) ** 2) - seen)
    days = ceil(more * evidence.window.exposure_days / seen) if evidence.window else None
    return Outlook(chance, more, days, _sentence(evidence, policy, chance, more, days))


def _recall(evidence: Evidence, significance: Significance | None) -> Estimate | None:
    """Logarithm of the ratio of recalls, its error taken from the interval."""
    improvement = relative_improvement(evidence.outcomes)
    interval = significance.interval if significance else None
    if improvement is None or improvement <= -1 or interval is None or not interval.low or not interval.high:
        return None
    return Estimate(log(1 + improvement), _half(log(interval.low), log(interval.high), interval), _fraction(evidence))


def _half(low: float, high: float, interval: Interval) -> float:
    """The standard error that an interval of this confidence stands for."""
    return (high - low) / (2 * two_sided_z(interval.confidence))


def _fraction(evidence: Evidence) -> float:
    if evidence.window is None or not evidence.horizon_days:
        return 1.0
    return min(1.0, evidence.window.exposure_days / evidence.horizon_days)


def _last_boundary(evidence: Evidence, policy: Policy) -> float:
    """The z that the last planned look will require, if frauds keep arriving at today's rate."""
    if evidence.window is None or not evidence.window.exposure_days:
        return two_sided_z(float(1 - policy.alpha))
    days, frauds = evidence.window.exposure_days, evidence.outcomes.compared_frauds
    if evidence.looks:
        days, frauds = evidence.looks[-1].exposure_days, evidence.looks[-1].frauds
    planned = [Look(day, frauds * day // days, day / policy.window_days.max) for day in policy.looks if day > days]
    looks = [*evidence.looks, *planned]
    return boundaries(float(policy.alpha), looks)[-1] if looks else two_sided_z(float(1 - policy.alpha))


def _chance(policy: Policy, recall: Estimate, precision: Criterion, last_z: float) -> float | None:
    """Probability that recall and precision meet the whole rule at the horizon, as if they were independent."""
    interval, band = precision.interval, float(policy.precision_band.absolute)
    if precision.observed is None or interval is None or interval.high is None:
        return None
    error_at_horizon = recall.error * sqrt(recall.fraction)
    wins = recall.chance_of_reaching(max(log(1 + policy.recall_improvement.relative), last_z * error_at_horizon))
    change = Estimate(precision.observed, _half(interval.low, interval.high, interval), recall.fraction)
    stable = change.chance_of_reaching(-band)
    if policy.precision_band.sides is Sides.TWO:
        stable -= change.chance_of_reaching(band)
    return wins * max(0.0, stable)


def _sentence(evidence: Evidence, policy: Policy, chance: float | None, more: int, days: int | None) -> str:
    win = f"to win with a probability of {float(policy.statistics.power) * 100:g} %"
    start = (
        "At today's estimates "
        if chance is None
        else f"At today's estimates the test is won at its end with a probability of {percent(chance, 0)}; "
    )
    if not more:
        return f"{start}recall needs no more frauds {win}."
    if days is None or evidence.window is None or evidence.horizon_days is None:
        return f"{start}recall needs {more} more frauds {win}."
    left = evidence.horizon_days - evidence.window.exposure_days
    end = f", more than the {left} that are left" if days > left else ""
    return f"{start}recall needs {more} more frauds {win}, which takes about {days} days{end}."
