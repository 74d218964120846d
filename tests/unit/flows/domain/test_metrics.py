from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from flows.domain.counts import VECTOR, CardProducts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.intervals import precision_change, recall_ratio
from flows.domain.metrics import (
    clustered_recall_z,
    equivalence_p,
    precision_standard_error,
    quadratic_form,
    recall_design_effect,
    sample_ratio_p,
    score_z,
    transaction_products,
)
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


def test_a_card_with_all_the_disagreements_is_one_observation() -> None:
    outcomes = Outcomes(Design.PAIRED, ModelCounts(100, 70, 0, 0), ModelCounts(100, 90, 0, 0), frauds=Overlap(70, 0, 20, 10))
    products = [0] * 21
    products[VECTOR.index("candidate_caught") + 12] = 0
    names = [(one, two) for i, one in enumerate(VECTOR) for two in VECTOR[i:]]
    products[names.index(("candidate_caught", "candidate_caught"))] = 20**2  # one card, Σd² = 400
    z = clustered_recall_z(outcomes, CardProducts(1, tuple(products)))
    assert z == pytest.approx(1.0)


def test_without_variance_nothing_is_significant() -> None:
    same = Outcomes(
        Design.PAIRED, ModelCounts(9, 9, 9, 9), ModelCounts(9, 9, 9, 9), frauds=Overlap(9, 0, 0, 0), false_alerts=Overlap(0, 0, 0)
    )
    products = transaction_products(same)
    assert products is not None
    cards = CardProducts(9, products)
    assert clustered_recall_z(same, cards) == 0.0
    assert recall_design_effect(replace(same, cards=cards)) is None
    assert score_z(same.baseline, same.candidate) == 0.0
    unknown = replace(same, false_alerts=None)
    assert transaction_products(unknown) is None
    assert precision_standard_error(unknown) is None


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


def test_the_sample_ratio_of_no_cards_proves_nothing() -> None:
    assert sample_ratio_p(0, 0, Fraction(1, 5)) == 1.0
    assert sample_ratio_p(30, 100, Fraction(1, 5)) < 0.05
