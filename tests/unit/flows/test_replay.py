"""Features restored, damaged and compared row by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.frame_table import FrameTable
from flows.domain.drift import feature_drifts
from flows.domain.recalls import Replayed
from flows.domain.rescaling import Rescaling, Transformation
from flows.replay import (
    are_spread,
    do_the_same_damage,
    find_mismatches,
    is_fraud,
    is_honest,
    map_onto,
    move_categories,
    replay,
    restore_distributions,
    restore_from_reference,
    rows_of,
    same_rows,
)

RANDOM = np.random.default_rng(8)
VALUES = RANDOM.lognormal(3.0, 0.7, 5000)
KINDS = np.array(["a", "b"], dtype=object)


def table(**columns: object) -> FrameTable:
    return FrameTable(pd.DataFrame(columns))


def test_only_labelled_frauds_are_frauds() -> None:
    assert is_fraud(table(is_fraud=[True, False])).tolist() == [True, False]
    assert is_fraud(table(is_fraud=[1.0, np.nan, 0.0])).tolist() == [True, False, False]


def test_what_has_no_label_is_not_honest_either() -> None:
    assert is_honest(table(is_fraud=[1.0, np.nan, 0.0])).tolist() == [False, False, True]


def test_rows_are_chosen_with_their_features() -> None:
    found = rows_of(table(a=[1.0, 2.0], b=[3.0, 4.0]), np.array([False, True]), ["b"])
    assert found.to_dict("list") == {"b": [4.0]}


def test_a_model_is_run_with_and_without_a_cause() -> None:
    served, intact = pd.DataFrame({"a": [0.0, 0.0]}), pd.DataFrame({"a": [1.0, 0.0]})
    flags = lambda rows: (rows["a"] > 0.5).to_numpy()  # noqa: E731
    assert replay(flags, intact, served) == Replayed(2, gained=1, lost=0)
    assert replay(flags, intact.iloc[:0], served.iloc[:0]) is None


@pytest.mark.parametrize("change", [lambda x: x * 3, np.log, lambda x: x - 100])
def test_a_monotone_change_is_undone_by_mapping_onto_the_old_distribution(change: object) -> None:
    changed = change(VALUES)  # type: ignore[operator]
    assert map_onto(changed[:50], changed, VALUES) == pytest.approx(VALUES[:50])


def test_tied_values_stay_tied_and_nulls_stay_nulls() -> None:
    source, target = np.array([0.0] * 60 + [1.0] * 40), np.array([0.0] * 50 + [5.0] * 50)
    assert map_onto(np.array([0.0, 1.0, np.nan]), source, target) == pytest.approx([0.0, 5.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(("source", "target"), [([np.nan], [1.0]), ([1.0], [np.nan])])
def test_without_values_nothing_is_mapped(source: list[float], target: list[float]) -> None:
    assert map_onto(np.array([7.0]), np.array(source), np.array(target)).tolist() == [7.0]


def test_drifted_numbers_and_categories_of_the_model_are_restored() -> None:
    training, production = table(a=VALUES, kind=KINDS[[0] * 4000 + [1] * 1000]), table(a=VALUES * 2, kind=KINDS[[1] * 5000])
    drifts = feature_drifts((name, training.column(name), production.column(name)) for name in ("a", "kind"))
    restored = restore_distributions(production.frame, drifts, training, production)
    assert restored["a"].to_numpy() == pytest.approx(VALUES)
    assert (restored["kind"] == "a").mean() == pytest.approx(0.8, abs=0.02)
    assert restore_distributions(production.frame[["kind"]], drifts, training, production).columns.tolist() == ["kind"]


def test_categories_that_became_rarer_take_the_place_of_those_that_became_more_frequent() -> None:
    source, target = (
        np.array(["a"] * 10 + ["b"] * 60 + ["c"] * 30, object),
        np.array(["a"] * 40 + ["b"] * 20 + ["c"] * 40, object),
    )
    moved = move_categories(np.tile(source, 100), source, target)
    shares = {name: float((moved == name).mean()) for name in "abc"}
    assert shares == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4}, abs=0.02)
    assert (moved[np.tile(source, 100) != "b"] == np.tile(source, 100)[np.tile(source, 100) != "b"]).all()


@pytest.mark.parametrize(("source", "target"), [([None], ["a"]), (["a"], [None]), (["a", "b"], ["b", "a"])])
def test_without_another_distribution_no_category_moves(source: list[str | None], target: list[str | None]) -> None:
    values = np.array(["a", None, "b"], object)
    assert move_categories(values, np.array(source, object), np.array(target, object)).tolist() == ["a", None, "b"]


@pytest.mark.parametrize(
    ("served", "share_of", "share"),
    [
        (np.where(RANDOM.random(5000) < 0.7, 0.0, VALUES), lambda x: (x == 0).mean(), 0.7),
        (np.where(RANDOM.random(5000) < 0.6, np.nan, VALUES), lambda x: np.isnan(x).mean(), 0.6),
        (np.full(5000, 9.0), lambda x: (x == 9).mean(), 1.0),
        (np.full(5000, np.nan), lambda x: np.isnan(x).mean(), 1.0),
    ],
)
def test_the_same_share_of_intact_rows_is_damaged(served: np.ndarray, share_of: object, share: float) -> None:
    drifts = feature_drifts([("a", VALUES, served)])
    damaged = do_the_same_damage(pd.DataFrame({"a": VALUES}), drifts, [])["a"].to_numpy()
    assert share_of(damaged) == pytest.approx(share, abs=0.03)  # type: ignore[operator]


def test_a_constant_category_and_other_units_are_imitated() -> None:
    drifts = feature_drifts([("kind", KINDS[[0, 1] * 500], KINDS[[1] * 1000])])
    cents = Rescaling("a", Transformation("", 0.01), 0.3, 0.5, 0.0)
    frauds = pd.DataFrame({"a": VALUES, "kind": KINDS[[0] * 5000]}, index=range(7, 5007))
    damaged = do_the_same_damage(frauds, drifts, [cents, Rescaling("other", cents.transformation, 1.0, 0.5, 0.0)])
    assert (damaged["kind"] == "b").all()
    assert np.isclose(damaged["a"].to_numpy(), VALUES / 100).mean() == pytest.approx(0.3, abs=0.03)


def test_a_mismatch_without_a_shape_damages_nothing() -> None:
    frauds = pd.DataFrame({"a": VALUES})
    assert do_the_same_damage(frauds, feature_drifts([("a", VALUES, VALUES * 1.1)]), []).equals(frauds)
    assert do_the_same_damage(frauds, feature_drifts([("b", VALUES, VALUES * 0)]), []).equals(frauds)


def test_the_references_own_values_are_put_back() -> None:
    frauds = pd.DataFrame({"a": [0.0, 0.0], "b": [1.0, 1.0]})
    restored = restore_from_reference(frauds, ["a", "unused"], table(a=[5.0, 6.0, 7.0], unused=[0.0] * 3), np.array([2, 0]))
    assert restored.to_dict("list") == {"a": [7.0, 5.0], "b": [1.0, 1.0]}


def test_rows_are_found_by_their_ids_else_by_their_order() -> None:
    ids = np.array(["x", "y", "z"], dtype=object)
    found = same_rows(table(transaction_id=ids), table(transaction_id=ids[[2, 0]]))
    assert found is not None
    assert found.tolist() == [1, -1, 0]
    by_order = same_rows(table(a=[1.0, 2.0]), table(a=[1.0, 2.0]))
    assert by_order is not None
    assert by_order.tolist() == [0, 1]
    assert same_rows(table(a=[1.0, 2.0]), table(a=[1.0])) is None
    assert same_rows(table(transaction_id=ids), table(a=[1.0, 2.0, 3.0])) is None, "one side may be in another order"
    assert same_rows(table(a=[1.0, 2.0, 3.0]), table(transaction_id=ids)) is None
    assert same_rows(table(transaction_id=ids), table(transaction_id=np.array(["w"], dtype=object))) is None


@pytest.mark.parametrize(("common", "rows", "enough"), [(4, 10, 0), (5, 10, 1), (999, 3000, 0), (1000, 3000, 1)])
def test_a_few_common_rows_are_no_reference(common: int, rows: int, enough: int) -> None:
    production, reference = (table(transaction_id=np.arange(size).astype(str).astype(object)) for size in (rows, common))
    assert (same_rows(production, reference) is not None) == bool(enough)


def by_seconds(seconds: np.ndarray) -> FrameTable:
    return table(event_time=pd.to_datetime(seconds, unit="s", utc=True))


def test_common_rows_of_some_days_only_are_not_spread_over_productions_time() -> None:
    size = 10_000
    places, by_time = np.arange(size), np.random.default_rng(2).permutation(size)  # rows come in any order
    production = by_seconds(by_time * 60.0)
    assert are_spread(places, production)
    assert are_spread(np.where(np.random.default_rng(3).random(size) < 0.1, places, -1), production), "a sample of all days"
    assert not are_spread(np.where(by_time < 9_000, places, -1), production), "the last tenth is missing"
    assert not are_spread(np.where((by_time < 5_000) | (by_time >= 5_600), places, -1), production), "or some days between"
    assert are_spread(np.where(by_time < 60, places, -1), production), "too few to tell"
    assert are_spread(places, table(a=VALUES)), "without times nobody can tell"
    timeless = by_seconds(np.where(by_time < 9_000, by_time * 60.0, np.nan))
    assert are_spread(np.where(by_time < 9_000, places, -1), timeless), "rows without a time are of no day"


def test_an_id_that_comes_twice_means_its_first_row_and_a_row_without_one_is_nowhere() -> None:
    ids, others = (np.array(found, dtype=object) for found in (["x", None, "y", "x"], [None, "y", "x", "y", None]))
    found = same_rows(table(transaction_id=ids), table(transaction_id=others))
    assert found is not None
    assert found.tolist() == [2, -1, 1, 2]
    assert same_rows(table(transaction_id=ids), table(transaction_id=np.array([None, None], dtype=object))) is None


def test_mismatches_are_shares_of_the_common_rows() -> None:
    served = table(a=[1.0, 2.0, np.nan, 9.0], kind=KINDS[[0, 0, 1, 1]], only=[1.0] * 4)
    offline = table(a=[1.00001, 3.0, np.nan], kind=KINDS[[0, 1, 1]])
    assert find_mismatches(served, offline, np.array([0, 1, 2, -1]), served.features) == pytest.approx(
        {"a": 1 / 3, "kind": 1 / 3}
    )
