"""Drift by week: each week beside the whole training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.column_summary import LEAST_VALUES
from flows.domain.drift import compare_feature, distances_by_week

BASE = np.arange(1_000.0)
WEEKS = np.repeat([0, 1, 2, 3], 250)


@given(st.integers(0, 900), st.integers(0, 3))
def test_a_week_has_the_distance_that_its_rows_alone_have(shift: int, moved: int) -> None:
    production = np.where(moved == WEEKS, BASE + shift, BASE)
    found = distances_by_week("x", BASE, production, WEEKS)
    assert found == {week: compare_feature("x", BASE, production[week == WEEKS]).distance for week in range(4)}


def test_categories_have_weeks_too() -> None:
    training = np.array(["web", "shop"] * 500, object)
    production = np.where(WEEKS == 2, "web", training).astype(object)
    found = distances_by_week("channel", training, production, WEEKS)
    assert found == pytest.approx({0: 0, 1: 0, 2: 0.5, 3: 0})


def test_a_week_with_too_few_values_and_rows_without_a_time_tell_nothing() -> None:
    weeks = np.where(np.arange(1_000) < LEAST_VALUES - 1, 0, np.where(np.arange(1_000) < 500, -1, 1))
    assert set(distances_by_week("x", BASE, BASE, weeks)) == {1}
    assert set(distances_by_week("x", BASE, np.where(WEEKS == 3, np.nan, BASE), WEEKS)) == {0, 1, 2}
    texts = np.array(["a"] * 1_000, object)
    assert set(distances_by_week("x", texts, texts, weeks)) == {1}
    assert distances_by_week("x", np.full(9, np.nan), BASE, WEEKS) == {}


def test_an_empty_column_and_one_of_another_kind_have_no_distances() -> None:
    assert distances_by_week("x", np.array(["a"] * 9, object), np.full(1_000, np.nan), WEEKS) == {}
    assert distances_by_week("x", BASE, np.array(["a"] * 1_000, object), WEEKS) == {}
