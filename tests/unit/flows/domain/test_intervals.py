"""Intervals on whole sets of small tables, and against what a formula or a search says."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import sqrt
from typing import Any, cast

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlog1py, xlogy
from scipy.stats import norm
from statsmodels.stats.proportion import confint_proportions_2indep

from flows.domain.counts import CardProducts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.intervals import newcombe, paired_difference, precision_change, recall_ratio, score_difference, wilson
from flows.domain.metrics import transaction_products


@pytest.mark.parametrize("frauds", [Overlap(40, 3, 17, 20), Overlap(40, 25, 2, 5), Overlap(0, 1, 9, 0), Overlap(10, 4, 4, 2)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_paired_difference_is_a_mean_and_its_standard_error(frauds: Overlap, confidence: float) -> None:
    """Each fraud counts +1, -1 or 0: caught by the candidate alone, by the baseline alone, or alike."""
    parts = np.repeat([0, -1, 1, 0], [frauds.both, frauds.baseline_only, frauds.candidate_only, frauds.neither])
    half = norm.isf((1 - confidence) / 2) * parts.std() / sqrt(len(parts))
    assert paired_difference(frauds, confidence) == pytest.approx((parts.mean() - half, parts.mean() + half), abs=1e-12)
    if confidence == 0.95:
        assert paired_difference(frauds) == paired_difference(frauds, 0.95)


def variance_at(table: tuple[int, int, int, int], difference: float) -> float:
    """Of the difference, at the likeliest shares that differ so, which are searched and not solved for."""
    x1, n1, x2, n2 = table

    def unlikely(p2: float) -> float:
        p1 = p2 + difference
        return -float(xlogy(x1, p1) + xlog1py(n1 - x1, -p1) + xlogy(x2, p2) + xlog1py(n2 - x2, -p2))

    bounds = max(0.0, -difference), min(1.0, 1 - difference)
    p2: float = cast("Any", minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-10})).x
    p1 = p2 + difference
    return p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2


@pytest.mark.parametrize("table", [(56, 70, 48, 80), (9, 10, 3, 10), (5, 300, 40, 41), (2, 7, 6, 9)])
@pytest.mark.parametrize(("confidence", "is_corrected"), [(0.95, True), (0.9, True), (0.95, False)])
def test_the_score_interval_inverts_the_score_test(
    table: tuple[int, int, int, int], confidence: float, *, is_corrected: bool
) -> None:
    x1, n1, x2, n2 = table
    more = (n1 + n2) / (n1 + n2 - 1) if is_corrected else 1.0
    ends = score_difference(*table, confidence, is_corrected=is_corrected)
    found = [(x1 / n1 - x2 / n2 - end) / sqrt(variance_at(table, end) * more) for end in ends]
    z = norm.isf((1 - confidence) / 2)
    assert found == pytest.approx([z, -z], rel=1e-4)
    assert score_difference(*table) == score_difference(*table, 0.95, is_corrected=True)


def test_the_score_interval_of_every_small_table_turns_with_the_arms() -> None:
    """Also where all or none are caught, where rounding alone leaves a share or a cosine outside of its range."""
    for n1, n2 in product((1, 2, 4, 5), repeat=2):
        for x1, x2 in product(range(n1 + 1), range(n2 + 1)):
            low, high = score_difference(x1, n1, x2, n2)
            assert -1 <= low <= x1 / n1 - x2 / n2 <= high <= 1
            assert (-high, -low) == pytest.approx(score_difference(x2, n2, x1, n1), abs=1e-6)
            assert (low, high) == pytest.approx(score_difference(n2 - x2, n2, n1 - x1, n1), abs=1e-6)
            assert (low == -1) is (x1 == 0 and x2 == n2)
            assert (high == 1) is (x1 == n1 and x2 == 0)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_newcombes_interval_has_its_confidence_on_both_sides(confidence: float) -> None:
    expected = confint_proportions_2indep(56, 70, 48, 80, compare="diff", method="newcomb", alpha=1 - confidence)
    assert newcombe(56, 70, 48, 80, confidence) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_the_interval_of_precisions_in_a_split_has_its_confidence(confidence: float) -> None:
    """With only true alerts the plain standard error is 0, and Newcombe's interval is the one that counts."""
    outcomes = Outcomes(Design.SPLIT, ModelCounts(40, 20, 20, 20), ModelCounts(40, 30, 30, 30))
    found = precision_change(outcomes, confidence)
    assert found is not None
    expected = confint_proportions_2indep(30, 30, 20, 20, compare="diff", method="newcomb", alpha=1 - confidence)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert found.confidence == confidence


def test_cards_widen_the_ratio_only_where_they_are_the_units() -> None:
    plain = Outcomes(Design.SPLIT, ModelCounts(900, 700, 800, 700), ModelCounts(800, 680, 760, 680))
    products = transaction_products(plain)
    assert products is not None
    bunched = replace(plain, cards=CardProducts(400, tuple(4 * product for product in products)))
    assert recall_ratio(bunched, clustered=False) == recall_ratio(plain, clustered=False)
    narrow, wide = recall_ratio(bunched, clustered=False), recall_ratio(bunched, clustered=True)
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low


def test_wilson_holds_the_share_itself_also_where_all_or_none_is_counted() -> None:
    for total in range(1, 500):
        for count in (0, 1, total - 1, total):
            low, high = wilson(count, total)
            assert low <= count / total <= high
        assert wilson(0, total)[0] == 0
        assert wilson(total, total)[1] == 1
