from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from flows.domain.counts import VECTOR, CardProducts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.intervals import precision_change, precision_error, recall_ratio
from flows.domain.metrics import (
    comparison_information,
    equivalence_p,
    precision_standard_error,
    quadratic_form,
    recall_design_effect,
    recall_z,
    sample_ratio_p,
    score_z,
    transaction_products,
    two_sided_p,
)
from flows.domain.policy import Sides
from tests.strategies import outcomes as any_outcomes
from tests.strategies import paired_outcomes


def rows_of(outcomes: Outcomes) -> np.ndarray:
    """Each transaction's own vector, rebuilt from a paired table."""
    frauds, false = outcomes.frauds, outcomes.false_alerts
    assert frauds is not None
    assert false is not None
    kinds = [
        (frauds.both, (1, 1, 1, 1, 1, 1)),
        (frauds.baseline_only, (1, 1, 1, 1, 0, 0)),
        (frauds.candidate_only, (1, 0, 0, 1, 1, 1)),
        (frauds.neither, (1, 0, 0, 1, 0, 0)),
        (false.both, (0, 0, 1, 0, 0, 1)),
        (false.baseline_only, (0, 0, 1, 0, 0, 0)),
        (false.candidate_only, (0, 0, 0, 0, 0, 1)),
    ]
    return np.array([vector for number, vector in kinds for _ in range(number)]).reshape(-1, len(VECTOR))


def upper(matrix: np.ndarray) -> tuple[int, ...]:
    return tuple(int(matrix[i, j]) for i in range(len(VECTOR)) for j in range(i, len(VECTOR)))


@given(paired_outcomes())
def test_products_of_transactions_follow_from_the_paired_table(outcomes: Outcomes) -> None:
    rows = rows_of(outcomes)
    assert transaction_products(outcomes) == upper(rows.T @ rows)


@given(paired_outcomes())
def test_the_precision_error_is_that_of_the_sum_over_transactions(outcomes: Outcomes) -> None:
    rows, one, two = rows_of(outcomes), outcomes.baseline, outcomes.candidate
    error = precision_standard_error(outcomes)
    if error is not None:
        p1, p2 = one.true_alerts / one.alerts, two.true_alerts / two.alerts
        parts = (rows[:, 4] - p2 * rows[:, 5]) / two.alerts - (rows[:, 1] - p1 * rows[:, 2]) / one.alerts
        assert error**2 == pytest.approx(float((parts**2).sum()), abs=1e-12)  # a root would blow up the rounding near 0


def test_a_split_has_no_products_between_the_arms() -> None:
    outcomes = Outcomes(Design.SPLIT, ModelCounts(100, 80, 90, 80), ModelCounts(50, 45, 60, 45))
    products = transaction_products(outcomes)
    assert products is not None
    assert quadratic_form(products, {"baseline_frauds": 1, "candidate_frauds": 1}) == 150
    assert precision_standard_error(outcomes) == pytest.approx((80 / 90 * 10 / 90 / 90 + 45 / 60 * 15 / 60 / 60) ** 0.5)


def products_of(rows: np.ndarray, cards: np.ndarray) -> CardProducts:
    """The sums that the feedback's query makes, from each transaction's vector and card."""
    sums = np.zeros((int(cards.max()) + 1, len(VECTOR)), dtype=np.int64)
    np.add.at(sums, cards, rows)
    return CardProducts(len(sums), upper(sums.T @ sums))


def test_a_card_with_all_the_disagreements_is_one_observation() -> None:
    outcomes = Outcomes(Design.PAIRED, ModelCounts(100, 70, 0, 0), ModelCounts(100, 90, 0, 0), frauds=Overlap(70, 0, 20, 10))
    outcomes = replace(outcomes, false_alerts=Overlap(0, 0, 0))
    rows = rows_of(outcomes)
    cards = np.where((rows[:, 1] == 0) & (rows[:, 4] == 1), 0, np.arange(len(rows)) + 1)
    effect = recall_design_effect(replace(outcomes, cards=products_of(rows, cards)))
    assert effect == pytest.approx(20.0)
    assert recall_z(outcomes) / effect**0.5 == pytest.approx(1.0)


def split_in_bunches(size: int) -> Outcomes:
    """A split in which each card has `size` frauds that are all caught or all missed."""
    outcomes = Outcomes(Design.SPLIT, ModelCounts(400 * size, 320 * size, 0, 0), ModelCounts(100 * size, 90 * size, 0, 0))
    rows = np.zeros((500 * size, len(VECTOR)), dtype=np.int64)
    cards = np.arange(500).repeat(size)
    rows[: 400 * size, 0], rows[: 320 * size, 1] = 1, 1
    rows[400 * size :, 3], rows[400 * size : 490 * size, 4] = 1, 1
    return replace(outcomes, cards=products_of(rows, cards))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_split_of_bunches_is_worth_its_number_of_bunches(size: int) -> None:
    outcomes, alone = split_in_bunches(size), split_in_bunches(1)
    effect = recall_design_effect(outcomes)
    assert effect == pytest.approx(size)
    assert recall_z(outcomes) / size**0.5 == pytest.approx(recall_z(alone), rel=2e-3)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_interval_of_bunches_agrees_with_their_test(size: int) -> None:
    outcomes = split_in_bunches(size)
    p_value = two_sided_p(recall_z(outcomes) / (recall_design_effect(outcomes) or 0) ** 0.5)
    inside = recall_ratio(outcomes, clustered=True, confidence=1 - p_value * 0.999)
    outside = recall_ratio(outcomes, clustered=True, confidence=1 - p_value * 1.001)
    assert inside is not None
    assert outside is not None
    assert inside.low < 1 < outside.low


@given(paired_outcomes())
def test_cards_of_one_transaction_each_change_nothing(outcomes: Outcomes) -> None:
    products = transaction_products(outcomes)
    assert products is not None
    single = replace(outcomes, cards=CardProducts(1, products))
    assert recall_ratio(single, clustered=True) == recall_ratio(outcomes, clustered=False)
    if outcomes.frauds and outcomes.frauds.baseline_only + outcomes.frauds.candidate_only:
        assert recall_design_effect(single) == pytest.approx(1.0)


def test_without_variance_nothing_is_significant() -> None:
    same = Outcomes(
        Design.PAIRED, ModelCounts(9, 9, 9, 9), ModelCounts(9, 9, 9, 9), frauds=Overlap(9, 0, 0, 0), false_alerts=Overlap(0, 0, 0)
    )
    products = transaction_products(same)
    assert products is not None
    assert recall_z(same) == 0.0
    assert recall_design_effect(same) is None
    assert recall_design_effect(replace(same, cards=CardProducts(9, products))) is None
    assert score_z(same.baseline, same.candidate) == 0.0
    assert recall_z(replace(same, design=Design.SPLIT, frauds=None)) == 0.0
    nobody = Outcomes(Design.SPLIT, ModelCounts(0, 0, 0, 0), ModelCounts(0, 0, 0, 0), cards=CardProducts(0, (0,) * 21))
    assert recall_design_effect(nobody) is None
    unknown = replace(same, false_alerts=None)
    assert transaction_products(unknown) is None
    assert precision_standard_error(unknown) is None


def test_alerts_that_are_all_true_are_not_known_without_error() -> None:
    perfect = ModelCounts(100, 40, 40, 40)
    few = Outcomes(Design.SPLIT, perfect, perfect)
    assert precision_standard_error(few) == 0.0
    assert precision_error(few) == pytest.approx(0.0876 / 1.96, abs=1e-4)  # Wilson: 40 of 40 may be 0.9124
    pairs = Outcomes(Design.PAIRED, perfect, perfect, frauds=Overlap(40, 0, 0, 60), false_alerts=Overlap(0, 0, 0))
    assert precision_error(pairs) == precision_error(few)
    change = precision_change(few)
    assert change is not None
    assert change.low == pytest.approx(-0.0876, abs=1e-3)


def test_the_precision_error_of_a_split_is_the_larger_of_two() -> None:
    large = Outcomes(Design.SPLIT, ModelCounts(9000, 9000, 10_000, 9000), ModelCounts(900, 900, 1000, 900))
    plain = precision_standard_error(large)
    assert plain == pytest.approx((0.09 / 10_000 + 0.09 / 1000) ** 0.5)
    assert precision_error(large) == pytest.approx(plain, rel=2e-2)
    products = transaction_products(large)
    assert products is not None
    bunched = replace(large, cards=CardProducts(1, tuple(9 * product for product in products)))
    assert precision_error(bunched) == pytest.approx(3 * plain)
    change = precision_change(bunched)
    assert change is not None
    assert (change.low, change.high) == pytest.approx((-1.96 * 3 * plain, 1.96 * 3 * plain), rel=1e-3)


def test_the_precision_of_no_alerts_has_no_error() -> None:
    quiet = Outcomes(Design.SPLIT, ModelCounts(9, 0, 0, 0), ModelCounts(9, 5, 5, 5))
    assert precision_error(quiet) is None
    assert precision_change(quiet) is None


def test_information_is_what_a_comparison_rests_on() -> None:
    assert comparison_information(Outcomes(Design.SPLIT, ModelCounts(4000, 9, 0, 0), ModelCounts(1000, 9, 0, 0))) == 800
    assert comparison_information(Outcomes(Design.SPLIT, ModelCounts(0, 0, 0, 0), ModelCounts(0, 0, 0, 0))) == 0
    pairs = Outcomes(Design.PAIRED, ModelCounts(70, 9, 0, 0), ModelCounts(70, 9, 0, 0), frauds=Overlap(9, 0, 0, 61))
    assert comparison_information(pairs) == 70


@given(any_outcomes)
def test_intervals_hold_their_own_estimate(outcomes: Outcomes) -> None:
    ratio, change = recall_ratio(outcomes, clustered=False), precision_change(outcomes)
    if ratio is not None:
        estimate = float((outcomes.candidate.recall or 0) / (outcomes.baseline.recall or 1))
        assert ratio.low <= estimate * (1 + 1e-9)
        assert ratio.high is None or ratio.high >= estimate * (1 - 1e-9)
    if change is not None and outcomes.baseline.precision is not None and outcomes.candidate.precision is not None:
        assert change.low - 1e-9 <= float(outcomes.candidate.precision - outcomes.baseline.precision) <= (change.high or 0) + 1e-9


def test_equivalence_is_shown_by_a_small_error_inside_the_band() -> None:
    assert equivalence_p(0.0, 0.001, 0.01) < 1e-6
    assert equivalence_p(0.0099, 0.01, 0.01) == pytest.approx(0.496, abs=1e-3)
    assert (equivalence_p(0.0, 0.0, 0.01), equivalence_p(0.02, 0.0, 0.01)) == (0.0, 1.0)


def test_a_welcome_rise_is_no_reason_against_equivalence() -> None:
    assert equivalence_p(0.03, 0.01, 0.01) > 0.9
    assert equivalence_p(0.03, 0.01, 0.01, Sides.LOWER) == pytest.approx(3.167e-5, rel=1e-3)
    assert equivalence_p(-0.03, 0.01, 0.01, Sides.LOWER) == equivalence_p(-0.03, 0.01, 0.01)


def test_the_sample_ratio_of_no_cards_proves_nothing() -> None:
    assert sample_ratio_p(0, 0, Fraction(1, 5)) == 1.0
    assert sample_ratio_p(30, 100, Fraction(1, 5)) < 0.05
