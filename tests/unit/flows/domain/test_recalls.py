"""Recalls beside each other, and one model with and without a cause."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from flows.domain.recalls import Caught, Replayed, compare_replays, weekly_p


def test_a_recall_is_above_another_one_only_beyond_chance_and_by_enough() -> None:
    promised = Caught(1000, 850)
    assert promised.is_above(Caught(1000, 800), 0.04)
    assert not promised.is_above(Caught(1000, 800), 0.06)
    assert not promised.is_above(Caught(20, 16), 0.05)


def test_the_interval_of_a_recall_holds_it() -> None:
    low, high = Caught(1000, 850).interval
    assert low < Caught(1000, 850).recall < high


def weeks(*caught: int, frauds: int = 1000) -> list[Caught]:
    return [Caught(frauds, number) for number in caught]


def test_weeks_that_differ_by_more_than_chance_are_compared_by_students_t() -> None:
    higher, lower = weeks(850, 880), weeks(780, 850, 800, 830)
    expected = scipy.stats.ttest_ind([0.85, 0.88], [0.78, 0.85, 0.8, 0.83], alternative="greater")
    assert weekly_p(higher, lower) == pytest.approx(expected.pvalue)


def test_weeks_that_happen_to_be_alike_still_differ_by_chance() -> None:
    assert weekly_p(weeks(16, 16, frauds=20), weeks(14, 14, 14, frauds=20)) > 0.1


@pytest.mark.parametrize(("higher", "lower"), [(weeks(900), weeks(800)), (weeks(1000, 1000), weeks(1000, 1000))])
def test_where_nobody_knows_how_much_weeks_differ_nothing_is_higher(higher: list[Caught], lower: list[Caught]) -> None:
    assert weekly_p(higher, lower) == 1


def test_a_cause_costs_what_is_caught_only_without_it() -> None:
    without = np.array([True] * 60 + [False] * 40)
    found = compare_replays(without, np.array([False] * 20 + [True] * 42 + [False] * 38))
    assert found == Replayed(100, gained=20, lost=2, both=40)
    assert found.explained == pytest.approx(0.18)
    assert found.is_worth_talking


def test_a_cause_that_helps_explains_nothing() -> None:
    assert Replayed(100, gained=2, lost=20).explained == 0
    assert not Replayed(100, gained=2, lost=20).is_worth_talking


def test_what_chance_does_as_well_is_not_worth_talking_about() -> None:
    assert not Replayed(100, gained=12, lost=9).is_worth_talking
    assert not Replayed(100_000, gained=900, lost=100).is_worth_talking


def test_without_frauds_nothing_can_be_replayed() -> None:
    assert compare_replays(np.array([], dtype=bool), np.array([], dtype=bool)) is None
