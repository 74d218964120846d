from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from flows.domain.counts import CardProducts, DayCounts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.homogeneity import Homogeneity, compare_weeks
from flows.domain.metrics import transaction_products
from flows.domain.policy import MinCounts, Policy, Validity
from flows.domain.verdict import VerdictKind, decide_verdict


def weekly(feedback, policy: Policy = Policy()) -> Homogeneity:  # noqa: B008 - frozen
    return compare_weeks(feedback, policy)


def split_day(day: int, before: tuple[int, int], after: tuple[int, int]) -> DayCounts:
    models = [ModelCounts(total, right, right, right) for right, total in (before, after)]
    return DayCounts(day, models[0], models[1], None)


def in_split(build, *days: DayCounts):
    sums = [
        ModelCounts(
            *(sum(getattr(getattr(day, arm), name) for day in days) for name in ("frauds", "caught", "alerts", "true_alerts"))
        )
        for arm in ("baseline", "candidate")
    ]
    return build.feedback(days=days, outcomes=Outcomes(Design.SPLIT, *sums))


def test_weeks_of_a_split_are_compared_by_cochrans_q(build) -> None:
    feedback = in_split(build, split_day(3, (60, 100), (70, 100)), split_day(8, (70, 100), (60, 100)))
    share = 260 / 400
    q = 2 * 0.1**2 / (share * (1 - share) * 2 / 100)
    assert weekly(feedback).recall_p_value == pytest.approx(chi2.sf(q, 1))


def test_weeks_of_pairs_are_compared_by_what_one_model_caught_alone(build) -> None:
    days = (build.day(0, Overlap(50, 10, 20, 20)), build.day(7, Overlap(50, 20, 10, 20)))
    feedback = build.feedback(days=days, outcomes=build.outcomes(frauds=Overlap(100, 30, 30, 40)))
    assert weekly(feedback).recall_p_value == pytest.approx(chi2.sf(2 * 0.1**2 / (0.3 / 100), 1))


def test_a_thin_week_joins_its_neighbour(build) -> None:
    thick = split_day(0, (60, 100), (70, 100)), split_day(7, (70, 100), (60, 100))
    thin_last = weekly(in_split(build, *thick, split_day(14, (3, 9), (3, 9))))
    joined = weekly(in_split(build, thick[0], split_day(7, (73, 109), (63, 109))))
    assert thin_last == joined
    stricter = Policy(min_counts=MinCounts(in_a_week=101))
    assert weekly(in_split(build, *thick), stricter).recall_p_value is None
    thin_first = weekly(in_split(build, split_day(0, (3, 9), (3, 9)), *(replace(day, day=day.day + 7) for day in thick)))
    assert thin_first.recall_p_value == weekly(in_split(build, split_day(0, (63, 109), (73, 109)), thick[1])).recall_p_value


def test_one_week_and_no_frauds_have_nothing_to_compare(build) -> None:
    assert weekly(in_split(build, split_day(0, (60, 100), (70, 100)))).recall_p_value is None
    assert weekly(build.feedback(days=())).recall_p_value is None
    assert weekly(in_split(build, split_day(0, (0, 0), (0, 0)), split_day(9, (0, 0), (0, 0)))).recall_p_value is None


def test_bunched_cards_make_weeks_less_surprising(build) -> None:
    feedback = in_split(build, split_day(3, (60, 100), (70, 100)), split_day(8, (70, 100), (60, 100)))
    products = transaction_products(feedback.outcomes)
    assert products is not None
    bunched = replace(feedback.outcomes, cards=CardProducts(50, tuple(4 * product for product in products)))
    assert weekly(replace(feedback, outcomes=bunched)).recall_p_value > weekly(feedback).recall_p_value
    assert weekly(replace(feedback, outcomes=bunched)).precision_p_value is None


def test_under_the_same_difference_each_p_value_is_as_likely_as_any(build) -> None:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(400):
        days = [split_day(7 * week, (int(rng.binomial(400, 0.8)), 400), (int(rng.binomial(100, 0.85)), 100)) for week in range(4)]
        found.append(weekly(in_split(build, *days)).recall_p_value)
    assert kstest(found, "uniform").pvalue > 0.001


@pytest.mark.parametrize(("days", "expected"), [(14, VerdictKind.INCONCLUSIVE), (28, VerdictKind.KEEP_BASELINE)])
def test_severe_differences_between_weeks_win_nothing(build, days: int, expected: VerdictKind) -> None:
    changing = tuple(build.day(day, Overlap(278, 0, 28, 50) if day < 7 else Overlap(278, 14, 14, 50)) for day in range(28))
    verdict = decide_verdict(build.evidence(days, feedback=build.feedback(days=changing)), Policy())
    assert verdict.kind is expected
    assert "recall changes from week to week" in verdict.reasons[1]
    assert verdict.homogeneity is not None
    assert verdict.homogeneity.recall_p_value < 0.001
    never = Policy(validity=Validity(unequal_p_value=Fraction(0)))
    assert verdict.homogeneity.problems(never) == []
