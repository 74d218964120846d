"""Drift: distances beside scipy's, and that chance, size and shape of a change are each told apart."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from flows.domain.column_summary import LEAST_VALUES, ColumnSummary, summarise_numbers
from flows.domain.distances import ks_chance, ks_distance, ks_p_value, population_stability, shares_by_decile
from flows.domain.drift import (
    CHANCE,
    MAX_Q_VALUE,
    MOST_CATEGORIES,
    FeatureDrift,
    FeatureKind,
    Severity,
    Shape,
    category_distance,
    compare_feature,
    feature_drifts,
)
from flows.domain.errors import DataInvalid

Column = NDArray[Any]
numbers = arrays(np.float32, st.integers(1, 60), elements=st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6, width=32)))
categories = st.lists(st.sampled_from([*"abcd", None]), min_size=1, max_size=60).map(lambda values: np.array(values, object))


def random(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def with_share(value: float, share: float, column: Column) -> Column:
    """The column with a share of its rows, spread evenly, set to the value."""
    changed = column.copy()
    changed[np.linspace(0, len(column) - 1, round(share * len(column))).astype(int)] = value
    return changed


@given(numbers, numbers)
def test_distance_and_p_value_of_small_samples_are_scipys(first: Column, second: Column) -> None:
    one, two = np.sort(first), np.sort(second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = stats.ks_2samp(first, second, method="exact")
    assert ks_distance(one, two) == pytest.approx(theirs.statistic, abs=1e-12)
    assert ks_p_value(one, two, ks_distance(one, two)) == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(("rows", "others"), [(1_001, 300), (2_500, 4_000)])
@pytest.mark.parametrize("decimals", [0, 2, 9])
def test_distance_and_p_value_of_large_samples_are_scipys(rows: int, others: int, decimals: int) -> None:
    first, second = random().normal(size=rows).round(decimals), random(2).normal(0.05, size=others).round(decimals)
    theirs = stats.ks_2samp(first, second, method="asymp")
    distance = ks_distance(np.sort(first), np.sort(second))
    assert distance == pytest.approx(theirs.statistic, abs=1e-12)
    assert ks_p_value(np.sort(first), np.sort(second), distance) == pytest.approx(theirs.pvalue, rel=1e-9)


@given(numbers, numbers, st.permutations(range(60)))
def test_neither_order_nor_side_matters_to_the_distance(first: Column, second: Column, order: list[int]) -> None:
    shuffled = first[[place for place in order if place < len(first)]]
    there, back = compare_feature("x", first, second), compare_feature("x", second, shuffled)
    assert (there.distance, there.p_value, there.training) == (back.distance, back.p_value, back.production)


@given(numbers)
def test_a_feature_does_not_drift_from_itself(column: Column) -> None:
    drift = compare_feature("x", column, column)
    assert (drift.distance, drift.psi, drift.p_value, drift.shapes) == (0, 0, 1, ())


@given(numbers, numbers)
def test_every_number_is_within_its_range(first: Column, second: Column) -> None:
    (drift,) = feature_drifts([("x", first, second)])
    assert drift.distance is not None
    assert drift.psi is not None
    assert 0 <= drift.distance <= 1
    assert drift.psi >= 0
    assert drift.q_value == drift.p_value
    assert drift.scale_ratio is None or drift.scale_ratio > 0


@given(numbers)
def test_a_columns_summary_is_numpys(column: Column) -> None:
    found = summarise_numbers(len(column) + 2, np.sort(column))
    assert (found.rows, found.nulls, found.zeros) == (len(column) + 2, 2, (column == 0).sum())
    assert found.mean == pytest.approx(column.mean(dtype=float), rel=1e-6, abs=1e-9)
    assert found.deviation == pytest.approx(column.std(dtype=float), rel=1e-6, abs=1e-9)
    low, middle, high = np.quantile(column.astype(float), (0.25, 0.5, 0.75), method="inverted_cdf")
    assert (found.median, found.iqr, found.minimum, found.maximum) == (middle, high - low, column.min(), column.max())
    assert found.null_share == 2 / (len(column) + 2)
    others = column[column != 0].astype(float)
    if len(others) < LEAST_VALUES:
        assert found.spread is None
    else:
        assert (found.spread or 0) == np.subtract(*np.quantile(others, (0.75, 0.25), method="inverted_cdf"))


def test_a_spread_needs_a_few_values_that_are_not_zero() -> None:
    values = np.r_[np.zeros(5), np.arange(1.0, LEAST_VALUES + 1)]
    assert summarise_numbers(len(values), values).spread == LEAST_VALUES / 2
    assert summarise_numbers(len(values) - 1, values[:-1]).spread is None


def test_infinity_counts_as_a_value_and_not_in_the_moments() -> None:
    column = np.array([-np.inf, 1, 2, 3, np.inf, np.nan])
    found = compare_feature("x", column, column).training
    assert (found.values, found.mean, found.minimum, found.maximum) == (5, 2, 1, 3)
    assert summarise_numbers(2, np.array([np.inf, np.inf])).mean is None
    assert compare_feature("x", np.array([np.inf] * 30), np.array([1.0] * 30)).distance == 1


def test_moments_too_large_for_a_number_are_unknown() -> None:
    found = summarise_numbers(2, np.array([-1e300, 1e300]))
    assert (found.mean, found.deviation, found.maximum) == (0, None, 1e300)


def test_q_values_are_statsmodels() -> None:
    columns = [(f"f{at:02}", random(at).normal(size=300), random(99 - at).normal(at / 100, size=300)) for at in range(12)]
    drifts = {drift.feature: drift for drift in feature_drifts(columns)}
    ordered = [drifts[name] for name, _, _ in columns]
    theirs = multipletests([drift.p_value for drift in ordered], method="fdr_bh")[1]
    assert [drift.q_value for drift in ordered] == pytest.approx(list(theirs))
    assert any(drift.q_value != drift.p_value for drift in ordered)


def test_a_feature_that_cannot_be_tested_is_no_part_of_the_correction() -> None:
    noise = random().normal(size=(2, 50))
    drifts = {drift.feature: drift for drift in feature_drifts([("none", np.full(50, np.nan), noise[0]), ("some", *noise)])}
    assert (drifts["none"].q_value, drifts["none"].distance, drifts["none"].psi, drifts["none"].shapes) == (None, None, None, ())
    assert drifts["none"].severity is Severity.NONE
    assert drifts["some"].q_value == drifts["some"].p_value
    assert feature_drifts([("none", np.full(50, np.nan), noise[0])])[0].q_value is None
    assert feature_drifts([]) == ()


SUMMARY = ColumnSummary(100, 0)


@pytest.mark.parametrize(
    ("distance", "psi", "severity"),
    [
        (0.049, 0.099, Severity.NONE),
        (0.05, 0.0, Severity.MILD),
        (0.0, 0.1, Severity.MILD),
        (0.149, 0.249, Severity.MILD),
        (0.15, 0.0, Severity.SEVERE),
        (0.0, 0.25, Severity.SEVERE),
    ],
)
def test_severity_needs_both_a_size_and_more_than_chance(distance: float, psi: float, severity: Severity) -> None:
    drift = FeatureDrift("x", FeatureKind.NUMBER, SUMMARY, SUMMARY, distance, 0.01, MAX_Q_VALUE - 0.001, psi)
    assert drift.severity is severity
    assert replace(drift, q_value=MAX_Q_VALUE).severity is Severity.NONE
    assert replace(drift, q_value=None).severity is Severity.NONE
    assert replace(drift, q_value=0.5, shapes=(Shape.NULLS,)).severity is Severity.SEVERE


def test_the_worst_comes_first_and_equals_by_name() -> None:
    base = np.arange(2_000.0)
    columns = [
        ("same b", base, base),
        ("shifted", base, base + 500),
        ("zeroed", base, np.zeros(2_000)),
        ("same a", base, base),
        ("moved", base, base + 200),
        ("lost", base, np.full(2_000, np.nan)),
    ]
    assert [drift.feature for drift in feature_drifts(columns)] == ["lost", "zeroed", "shifted", "moved", "same a", "same b"]


def test_a_significant_but_tiny_distance_is_no_drift() -> None:
    base = np.arange(200_000.0)
    (drift,) = feature_drifts([("x", base, base + 2_000)])
    assert (drift.distance, drift.severity) == (0.01, Severity.NONE)
    assert drift.q_value is not None
    assert drift.q_value < 1e-6


def test_a_large_distance_that_may_be_chance_is_no_drift() -> None:
    (drift,) = feature_drifts([("x", random(3).normal(size=12), random(4).normal(size=12))])
    assert drift.distance is not None
    assert drift.distance >= 0.15
    assert drift.severity is Severity.NONE


def test_zeroed_values_show_in_psi_where_the_distance_is_small() -> None:
    """A risk feature that one transaction in ten has: its distance says mild, its PSI 0.67."""
    training = np.where(np.arange(100_000) % 1000 < 96, random().exponential(size=100_000), 0.0)
    (drift,) = feature_drifts([("risk", training, np.zeros(100_000))])
    assert drift.distance == pytest.approx(0.096)
    assert drift.psi == pytest.approx(0.67, abs=0.01)
    assert drift.shapes == (Shape.CONSTANT, Shape.ZEROS)


def test_tied_deciles_make_one_bin_and_every_row_is_in_one() -> None:
    training = np.sort(np.r_[np.zeros(85), np.arange(1.0, 16.0)])
    before, after = shares_by_decile(training, np.array([-1.0, 0.0, 5.0, 99.0]))
    assert before.tolist() == pytest.approx([0.85, 0.05, 0.1])
    assert after.tolist() == pytest.approx([0.5, 0.25, 0.25])
    before, after = shares_by_decile(np.arange(100.0), np.arange(50.0))
    assert before.tolist() == pytest.approx([0.1] * 10)
    assert after.tolist() == pytest.approx([0.2] * 5 + [0] * 5)
    assert [shares.tolist() for shares in shares_by_decile(np.ones(9), np.zeros(9))] == [[1, 0], [1, 0]]


def test_an_empty_bin_counts_as_half_a_row_or_a_ten_thousandth() -> None:
    full, empty = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    for rows, floor in ((10, 0.05), (10**6, 1e-4)):
        expected = (1 - 0.5) * np.log(1 / 0.5) + (floor - 0.5) * np.log(floor / 0.5)
        assert population_stability(full, empty, (10**6, rows)) == pytest.approx(expected)
        assert population_stability(empty, full, (rows, 10**6)) == pytest.approx(expected)


VALUES = random().normal(50, 10, 1_000)


@pytest.mark.parametrize(
    ("training", "production", "shapes"),
    [
        (VALUES, np.full(1_000, np.nan), (Shape.EMPTY,)),
        (VALUES, np.full(1_000, 7.0), (Shape.CONSTANT,)),
        (VALUES, np.full(1_000, 0.0), (Shape.CONSTANT, Shape.ZEROS)),
        (VALUES, with_share(np.nan, 0.05, VALUES), (Shape.NULLS,)),
        (VALUES, with_share(np.nan, 0.049, VALUES), ()),
        (with_share(np.nan, 0.5, VALUES), with_share(np.nan, 0.54, VALUES), ()),
        (with_share(np.nan, 0.93, VALUES), with_share(np.nan, 0.97, VALUES), (Shape.NULLS,)),
        (with_share(np.nan, 0.995, VALUES), with_share(np.nan, 1.0, VALUES), ()),
        (VALUES, with_share(0, 0.05, VALUES), (Shape.ZEROS,)),
        (VALUES, with_share(0, 0.049, VALUES), ()),
        (with_share(0, 0.010, VALUES), with_share(0, 0.4, VALUES), (Shape.ZEROS,)),
        (with_share(0, 0.011, VALUES), with_share(0, 0.4, VALUES), ()),
        (with_share(0, 0.4, VALUES), with_share(0, 0.7, VALUES), (Shape.ZEROS,)),
        (with_share(0, 0.4, VALUES), with_share(0, 0.69, VALUES), ()),
        (with_share(0, 0.98, VALUES), with_share(0, 1.0, VALUES), (Shape.CONSTANT, Shape.ZEROS)),
        (with_share(0, 0.981, VALUES), with_share(0, 1.0, VALUES), (Shape.CONSTANT,)),
        (VALUES, 6 * VALUES, (Shape.SCALE,)),
        (VALUES, VALUES / 6, (Shape.SCALE,)),
        (VALUES, VALUES - VALUES.mean(), ()),
        (VALUES, (VALUES - VALUES.mean()) / VALUES.std(), (Shape.SCALE,)),
        (VALUES, 4 * VALUES, ()),
        (VALUES, with_share(1e9, 0.01, VALUES), ()),
        (np.full(1_000, 7.0), np.full(1_000, 3.0), ()),
        (np.full(1_000, 7.0), np.full(1_000, 7.0), ()),
        (with_share(7.0, 0.99, np.zeros(1_000)), np.full(20, 7.0), ()),
        (VALUES, np.full(LEAST_VALUES, 7.0), (Shape.CONSTANT,)),
        (VALUES, np.full(LEAST_VALUES - 1, 7.0), ()),
        (VALUES, np.full(LEAST_VALUES, np.nan), (Shape.EMPTY,)),
        (VALUES, np.full(LEAST_VALUES - 1, np.nan), ()),
        (VALUES, 100 * VALUES[: LEAST_VALUES - 1], ()),
    ],
)
def test_shapes_name_what_no_natural_drift_does(training: Column, production: Column, shapes: tuple[Shape, ...]) -> None:
    assert compare_feature("x", training, production).shapes == shapes


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_share_that_rose_in_a_handful_of_rows_may_be_chance(value: float) -> None:
    for few in (1, LEAST_VALUES - 1):
        assert compare_feature("x", VALUES, np.r_[np.full(few, value), VALUES[: 9 * few]]).shapes == ()
    rare = np.r_[np.full(2, value), VALUES[:18]]
    assert compare_feature("x", rare, np.r_[np.full(40, value), VALUES[:160]]).shapes == ()


def test_what_is_beyond_chance_is_so_by_fishers_exact_test_too() -> None:
    for nulls in range(LEAST_VALUES, 60):
        training, production = (np.where(np.arange(100) < count, np.nan, np.arange(100.0)) for count in (5, nulls))
        exact = stats.fisher_exact([[nulls, 100 - nulls], [5, 95]], alternative="greater").pvalue
        is_called = Shape.NULLS in compare_feature("x", training, production).shapes
        assert is_called if exact < CHANCE / 5 else True
        assert not is_called if exact > CHANCE * 5 else True


def test_flags_that_become_rarer_keep_their_scale() -> None:
    often, seldom = (np.arange(10_000) % period == 0 for period in (10, 500))
    drift = compare_feature("flag", often, seldom)
    assert (drift.scale_ratio, drift.shapes) == (None, (Shape.ZEROS,))
    assert drift.distance == pytest.approx(0.098)


def test_outliers_of_a_feature_that_is_mostly_zero_are_no_scale() -> None:
    training = with_share(0, 0.9, random(5).exponential(size=5_000))
    production = with_share(1e9, 0.001, with_share(0, 0.88, random(6).exponential(size=5_000)))
    ratio = compare_feature("x", training, production).scale_ratio
    assert ratio == pytest.approx(1, rel=0.2)


def test_the_same_value_in_another_width_is_no_drift() -> None:
    narrow = np.tile(np.array([0.1, 0.7], np.float32), 500)
    wide = np.tile(np.array([0.1, 0.7]), 500)
    assert compare_feature("x", narrow, wide).distance == compare_feature("x", wide, narrow).distance == 0
    assert compare_feature("x", np.arange(9), np.arange(9.0)).distance == 0


@given(categories, categories)
def test_total_variation_and_chi_square_of_categories(first: Column, second: Column) -> None:
    drift = compare_feature("x", first, second)
    assert drift.kind is FeatureKind.CATEGORY or all(value is None for value in (*first, *second))
    one, two = ([value for value in column if value is not None] for column in (first, second))
    assert (drift.training.nulls, drift.production.nulls) == (len(first) - len(one), len(second) - len(two))
    if not one or not two:
        assert drift.distance is None
        return
    names = sorted({*one, *two})
    table = np.array([[side.count(name) for name in names] for side in (one, two)])
    exact = float(np.abs(table[0] / len(one) - table[1] / len(two)).sum() / 2)
    assert drift.distance is not None
    assert drift.p_value is not None
    assert drift.distance <= exact + 1e-12
    if stats.contingency.expected_freq(table).min() >= 5:
        assert drift.distance == pytest.approx(exact)
        assert drift.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


@pytest.mark.parametrize("names", [2, 5, 20, 50])
def test_what_chance_makes_of_categories_is_hardly_ever_exceeded_and_not_far_away(names: int) -> None:
    random = np.random.default_rng(4)
    draws = [[Counter(random.integers(0, names, size).astype(str).tolist()) for size in (300, 900)] for _ in range(200)]
    found = np.array([category_distance(one, two) for one, two in draws])
    assert (found[:, 0] > found[:, 1]).mean() <= 0.1
    assert np.median(found[:, 1]) < 1.7 * np.quantile(found[:, 0], 0.95)


def test_the_distance_of_categories_is_that_of_their_drift() -> None:
    one, two = Counter(web=700, shop=300), Counter(web=400, shop=300, app=300)
    distance, chance = category_distance(one, two)
    assert distance == compare_feature("c", spread_over(**one), spread_over(**two)).distance
    assert chance == ks_chance(1_000, 1_000)


def test_chance_exceeds_its_bound_in_one_case_of_twenty() -> None:
    assert ks_chance(400, 400) * np.sqrt(200) == pytest.approx(stats.kstwobign.isf(0.05), abs=0.005)


def spread_over(**counts: int) -> Column:
    return np.array([name if name != "null" else None for name, count in counts.items() for _ in range(count)], object)


@pytest.mark.parametrize(
    ("production", "shapes"),
    [
        (spread_over(null=1_000), (Shape.EMPTY,)),
        (spread_over(web=1_000), (Shape.CONSTANT,)),
        (spread_over(web=10), ()),
        (spread_over(app=LEAST_VALUES), (Shape.CONSTANT,)),
        (spread_over(null=50, web=500, shop=450), (Shape.NULLS,)),
        (spread_over(web=520, shop=480), ()),
    ],
)
def test_shapes_of_categories(production: Column, shapes: tuple[Shape, ...]) -> None:
    drift = compare_feature("channel", spread_over(web=500, shop=500), production)
    assert (drift.kind, drift.shapes, drift.scale_ratio) == (FeatureKind.CATEGORY, shapes, None)
    assert drift.production.zero_share is None


def test_a_category_that_is_alone_on_both_sides_is_no_new_constant() -> None:
    assert compare_feature("c", spread_over(web=50), spread_over(shop=50)).shapes == ()


def test_a_new_category_is_drift_and_the_most_frequent_are_told() -> None:
    (drift,) = feature_drifts([("c", spread_over(web=700, shop=300), spread_over(web=400, shop=300, app=300))])
    assert drift.distance == pytest.approx(0.3)
    assert drift.severity is Severity.SEVERE
    assert drift.production.most_frequent == (("web", 0.4), ("app", 0.3), ("shop", 0.3))


def test_ever_new_categories_count_as_one() -> None:
    """An identifier that got among the features: every value is new, and the test is not fooled by their number."""
    training, production = (np.array([f"{side}{at}" for at in range(3_000)], object) for side in "ab")
    drift = compare_feature("id", training, production)
    assert (drift.distance, drift.p_value) == (0, 1)
    many = np.array([f"c{at % (2 * MOST_CATEGORIES)}" for at in range(10_000)], object)
    assert compare_feature("many", many, many[::-1]).distance == 0
    half = np.array([f"c{at % MOST_CATEGORIES}" for at in range(10_000)], object)
    assert compare_feature("many", many, half).distance == pytest.approx(0.5)


@pytest.mark.parametrize("nulls", [np.full(90, np.nan, np.float32), np.full(90, None, object)])
@pytest.mark.parametrize("values", [np.arange(90.0), np.arange(90), np.array([*"abc"] * 30, object)])
def test_a_column_without_values_fits_either_kind(nulls: Column, values: Column) -> None:
    assert compare_feature("x", values, nulls).shapes == (Shape.EMPTY,)
    assert compare_feature("x", nulls, values).shapes == ()


def test_nan_among_texts_is_null() -> None:
    assert compare_feature("x", np.array(["a", float("nan"), None], object), spread_over(a=3)).training.nulls == 2


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    for one, two, side in ((np.empty(0), np.ones(1), "training"), (np.ones(1), np.empty(0), "production")):
        with pytest.raises(DataInvalid, match=f"feature amount has no rows in {side}"):
            compare_feature("amount", one, two)


def test_numbers_that_come_as_text_are_a_shape_and_do_not_stop_the_others() -> None:
    texts, numbers = spread_over(a=3), np.ones(3)
    for one, two, kind in ((numbers, texts, FeatureKind.NUMBER), (texts, np.ones(3, int), FeatureKind.CATEGORY)):
        drift = compare_feature("amount", one, two)
        assert (drift.kind, drift.shapes, drift.severity, drift.distance) == (kind, (Shape.TYPE,), Severity.SEVERE, None)
        assert (drift.training.rows, drift.production.rows) == (3, 3)


def test_no_natural_variation_is_called_drift() -> None:
    """Twenty weeks of 2,000 rows from one heavy-tailed, half-zero distribution: none differs by more than chance."""
    draw = random(7)
    column = np.where(draw.random(60_000) < 0.5, 0, draw.lognormal(3, 1.5, 60_000)).astype(np.float32)
    weeks = column[20_000:].reshape(20, -1)
    drifts = feature_drifts([(f"week {at}", column[:20_000], week) for at, week in enumerate(weeks)])
    assert {drift.severity for drift in drifts} == {Severity.NONE}
