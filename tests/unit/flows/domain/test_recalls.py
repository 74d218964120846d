"""Recalls beside each other, and one model with and without a cause."""

from __future__ import annotations

import numpy as np
import pytest

from flows.domain.recalls import Caught, Replayed, compare_replays


def test_a_recall_is_above_another_one_only_beyond_chance_and_by_enough() -> None:
    promised = Caught(1000, 850)
    assert promised.is_above(Caught(1000, 800), 0.04)
    assert not promised.is_above(Caught(1000, 800), 0.06)
    assert not promised.is_above(Caught(20, 16), 0.05)


def test_the_interval_of_a_recall_holds_it() -> None:
    low, high = Caught(1000, 850).interval
    assert low < Caught(1000, 850).recall < high


def test_a_cause_costs_what_is_caught_only_without_it() -> None:
    without = np.array([True] * 60 + [False] * 40)
    found = compare_replays(without, np.array([False] * 20 + [True] * 42 + [False] * 38))
    assert found == Replayed(100, gained=20, lost=2)
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
