"""Homogeneity: whether the models differ by the same amount in each week of the test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import scipy

from flows.domain.counts import Design
from flows.domain.metrics import precision_standard_error, recall_design_effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flows.domain.counts import DayCounts, FeedbackCounts, Outcomes
    from flows.domain.policy import Policy

_WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Homogeneity:
    """p-values of "the difference of recalls (precisions) is the same every week"; None without two weeks to compare."""

    recall_p_value: float | None
    precision_p_value: float | None

    def problems(self, policy: Policy) -> list[str]:
        """What differs so severely that one number for the whole test would mislead."""
        tested = {"recall": self.recall_p_value, "precision": self.precision_p_value}
        return [
            f"the models' difference in {what} changes from week to week (p = {p_value:.2g}): find out what changed"
            for what, p_value in tested.items()
            if p_value is not None and p_value < policy.validity.unequal_p_value
        ]


@dataclass(frozen=True, slots=True)
class _Week:
    """A week's sums: for each model how many, of them how many were right, and in pairs the frauds that it caught alone."""

    totals: tuple[int, int]
    right: tuple[int, int]
    alone: tuple[int, int] = (0, 0)

    def __add__(self, other: _Week) -> _Week:
        pairs = ((self.totals, other.totals), (self.right, other.right), (self.alone, other.alone))
        return _Week(*((one[0] + two[0], one[1] + two[1]) for one, two in pairs))


def compare_weeks(feedback: FeedbackCounts, policy: Policy) -> Homogeneity:
    """Test whether each week shows the same difference between the models, in recall and in precision.

    Args:
        feedback: its days, added up to weeks.
        policy: a week with fewer frauds (alerts) of a model than `min_counts.in_a_week` joins its neighbour.

    Returns:
        both p-values, 0..1.

    Source:
        Cochran's Q of the weekly differences (Cochran 1954, Biometrics 10:101-129), their variances pooled under the hypothesis
        and multiplied by the design effect of the cards.
    """
    outcomes = feedback.outcomes
    recall, precision = (_weeks(feedback.days, read, policy.min_counts.in_a_week) for read in (_frauds, _alerts))
    is_paired = outcomes.design is Design.PAIRED
    has_frauds = outcomes.baseline.frauds and outcomes.candidate.frauds
    effect = max(1.0, (recall_design_effect(outcomes) if has_frauds else None) or 1.0)
    variances = _paired_variances(recall) if is_paired else _pooled_variances(recall)
    return Homogeneity(
        _p_value(recall, variances, effect),
        _p_value(precision, _pooled_variances(precision), _precision_effect(outcomes)),
    )


def _frauds(day: DayCounts) -> _Week:
    alone = (day.frauds.baseline_only, day.frauds.candidate_only) if day.frauds else (0, 0)
    return _Week((day.baseline.frauds, day.candidate.frauds), (day.baseline.caught, day.candidate.caught), alone)


def _alerts(day: DayCounts) -> _Week:
    return _Week((day.baseline.alerts, day.candidate.alerts), (day.baseline.true_alerts, day.candidate.true_alerts))


def _weeks(days: Iterable[DayCounts], read: Callable[[DayCounts], _Week], least: int) -> list[_Week]:
    weeks: list[_Week] = []
    for _, group in groupby(days, key=lambda day: day.day // _WEEK_DAYS):
        week = _summed([read(day) for day in group])
        if weeks and min(weeks[-1].totals) < least:
            week = weeks.pop() + week
        weeks.append(week)
    if len(weeks) > 1 and min(weeks[-1].totals) < least:
        last = weeks.pop()
        weeks[-1] += last
    return weeks


def _summed(weeks: Sequence[_Week]) -> _Week:
    return sum(weeks, _Week((0, 0), (0, 0)))


def _paired_variances(weeks: Sequence[_Week]) -> list[float]:
    whole = _summed(weeks)
    frauds = whole.totals[0]
    if not frauds:
        return [0.0] * len(weeks)
    difference = (whole.alone[1] - whole.alone[0]) / frauds
    return [(sum(whole.alone) / frauds - difference**2) / week.totals[0] if week.totals[0] else 0.0 for week in weeks]


def _pooled_variances(weeks: Sequence[_Week]) -> list[float]:
    whole = _summed(weeks)
    share = sum(whole.right) / max(1, sum(whole.totals))
    return [share * (1 - share) * (1 / week.totals[0] + 1 / week.totals[1]) if min(week.totals) else 0.0 for week in weeks]


def _p_value(weeks: Sequence[_Week], variances: Sequence[float], effect: float) -> float | None:
    if len(weeks) < 2 or min(variances) <= 0:
        return None
    differences = [week.right[1] / week.totals[1] - week.right[0] / week.totals[0] for week in weeks]
    weights = [1 / variance for variance in variances]
    mean = sum(weight * difference for weight, difference in zip(weights, differences, strict=True)) / sum(weights)
    q = sum(weight * (difference - mean) ** 2 for weight, difference in zip(weights, differences, strict=True))
    return float(scipy.stats.chi2.sf(q / effect, len(weeks) - 1))


def _precision_effect(outcomes: Outcomes) -> float:
    by_card, plain = precision_standard_error(outcomes), precision_standard_error(replace(outcomes, cards=None))
    return max(1.0, (by_card / plain) ** 2) if by_card and plain else 1.0
