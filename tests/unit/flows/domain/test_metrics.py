from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import binom, binomtest, hypergeom, norm

from flows.domain.counts import VECTOR, CardProducts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.intervals import precision_change, precision_error, recall_ratio
from flows.domain.metrics import (
    McNemar,
    boschloo,
    equivalence_p,
    mcnemar,
    paired_ratio_z,
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


@pytest.mark.parametrize(
    ("b", "c", "ratio", "z"),
    [
        (0, 0, 1.0, 0.0),  # nothing varies
        (0, 1, 1.0, 1.0),  # McNemar's (c - b)/√(b + c), however small the variance is
        (4, 1, 1.0, -3 / 5**0.5),
        (0, 3, 1.25, (13 - 12.5) / (13 + 1.25**2 * 10 - 2.5 * 10) ** 0.5),
    ],
)
def test_the_ratio_of_paired_recalls(b: int, c: int, ratio: float, z: float) -> None:
    """Ten frauds are caught by both; the sum of what each fraud adds is compared with its own squares."""
    parts = np.repeat([1 - ratio, -ratio, 1.0], [10, b, c])
    assert paired_ratio_z(10, b, c, ratio) == pytest.approx(z)
    assert z == pytest.approx(parts.sum() / ((parts**2).sum() or 1.0) ** 0.5)
    assert ratio != 1 or paired_ratio_z(10, b, c) == paired_ratio_z(10, b, c, 1.0)


@pytest.mark.parametrize("design", list(Design))
def test_the_design_effect_and_the_error_of_precision_are_sums_over_cards(design: Design) -> None:
    """Random cards; the same from each card's own sum in NumPy."""
    rng = np.random.default_rng(11)
    rows = rng.integers(0, 2, (600, len(VECTOR)))
    rows[:, 3] = rows[:, 0]
    rows[:, 1] = rows[:, 0] & rows[:, 2]
    rows[:, 4] = rows[:, 3] & rows[:, 5]
    if design is Design.SPLIT:
        rows[:400, 3:] = 0
        rows[400:, :3] = 0
    cards = rng.integers(0, 60, 600) if design is Design.PAIRED else np.arange(600) // 10
    sums = np.zeros((60, len(VECTOR)), dtype=np.int64)
    np.add.at(sums, cards, rows)
    f1, c1, a1, f2, c2, a2 = (int(total) for total in rows.sum(axis=0))
    overlap = (int(np.sum(rows[:, 1] & rows[:, 4])), int(np.sum(rows[:, 2] & rows[:, 5])))
    frauds = Overlap(overlap[0], c1 - overlap[0], c2 - overlap[0], f1 - c1 - c2 + overlap[0])
    both_false = overlap[1] - overlap[0]
    false = Overlap(both_false, a1 - c1 - both_false, a2 - c2 - both_false)
    outcomes = Outcomes(design, ModelCounts(f1, c1, a1, c1), ModelCounts(f2, c2, a2, c2), cards=products_of(rows, cards))
    if design is Design.PAIRED:
        outcomes = replace(outcomes, frauds=frauds, false_alerts=false)
        expected = ((sums[:, 4] - sums[:, 1]) ** 2).sum() / (frauds.baseline_only + frauds.candidate_only)
    else:
        common = (c1 + c2) / (f1 + f2)
        residual = sums[:, 1] + sums[:, 4] - common * (sums[:, 0] + sums[:, 3])
        expected = (residual**2).sum() / ((f1 + f2) * common * (1 - common))
    assert recall_design_effect(outcomes) == pytest.approx(expected)
    assert recall_design_effect(replace(outcomes, cards=None)) is None
    assert transaction_products(outcomes) == upper(rows.T @ rows)
    variances = [
        (((part[:, 4] - c2 / a2 * part[:, 5]) / a2 - (part[:, 1] - c1 / a1 * part[:, 2]) / a1) ** 2).sum()
        for part in (rows, sums)
    ]
    assert precision_standard_error(outcomes) == pytest.approx(max(variances) ** 0.5)
    assert precision_standard_error(replace(outcomes, cards=None)) == pytest.approx(variances[0] ** 0.5)


@pytest.mark.parametrize("unknown", ["frauds", "false_alerts"])
def test_pairs_without_an_overlap_have_no_products(unknown: str) -> None:
    models = ModelCounts(9, 6, 8, 6), ModelCounts(9, 7, 9, 7)
    known = Outcomes(Design.PAIRED, *models, frauds=Overlap(5, 1, 2, 1), false_alerts=Overlap(1, 1, 1))
    assert transaction_products(known) is not None
    assert transaction_products(replace(known, **{unknown: None})) is None


@pytest.mark.parametrize("difference", [-0.013, -0.01, -0.004, 0.0, 0.004, 0.01, 0.013])
def test_equivalence_is_the_larger_of_two_one_sided_tests(difference: float) -> None:
    error, band = 0.006, 0.01
    down, up = norm.cdf(-(difference + band) / error), norm.cdf((difference - band) / error)
    assert equivalence_p(difference, error, band) == pytest.approx(max(down, up))
    assert equivalence_p(difference, error, band, Sides.LOWER) == pytest.approx(down)


def test_what_is_known_without_error_is_equivalent_inside_the_band_only() -> None:
    found = [equivalence_p(difference, 0.0, 0.25, sides) for sides in Sides for difference in (-0.3, -0.25, -0.2, 0.25, 0.3)]
    assert found == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def boschloo_by_enumeration(n1: int, x1: int, n2: int, x2: int) -> float:
    """Every table, each with its own Fisher p-value; the common recall on a fine grid of its Clopper-Pearson interval."""
    i, j = np.arange(n1 + 1)[:, None], np.arange(n2 + 1)
    possible = binomtest(x1 + x2, n1 + n2).proportion_ci(1 - 1e-6, "exact")
    recalls = np.linspace(possible.low, possible.high, 2001)
    sides: list[float] = []
    for tail in (hypergeom.sf(j - 1, n1 + n2, i + j, n2), hypergeom.cdf(j, n1 + n2, i + j, n2)):
        region = (tail <= tail[x1, x2] * (1 + 1e-9)).astype(float)
        sides.append(float(np.max(np.sum(binom.pmf(i, n1, recalls) * (region @ binom.pmf(j[:, None], n2, recalls)), axis=0))))
    return min(1.0, 2 * (min(sides) + 1e-6))


@pytest.mark.parametrize("table", [(20, 11, 300, 240), (300, 292, 15, 11), (290, 3, 20, 2), (40, 40, 300, 281), (6, 1, 400, 220)])
def test_boschloo_on_larger_tables_is_that_of_every_table(table: tuple[int, int, int, int]) -> None:
    n1, x1, n2, x2 = table
    found = boschloo(ModelCounts(n1, x1, 0, 0), ModelCounts(n2, x2, 0, 0))
    assert found == pytest.approx(boschloo_by_enumeration(n1, x1, n2, x2), rel=1e-5)


def test_boschloos_p_value_is_never_below_the_error_of_its_search() -> None:
    """What lies outside of the searched recalls is added, not taken away: 2 · 1e-6, however clear the table is."""
    assert boschloo(ModelCounts(400, 5, 0, 0), ModelCounts(400, 395, 0, 0)) == pytest.approx(2e-6)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_models_that_disagree_equally_often_show_no_difference(count: int) -> None:
    assert mcnemar(count, count) == McNemar(0.0, 0.0, 1.0, 1.0, 1.0)
