from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.domain.feedback import looks_on_the_clock, next_look_due, window_due
from flows.domain.policy import Policy

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known_days", "exposure", "next_due"), [(10, 0, 44), (37, 7, 44), (44, 14, 51), (50.9, 14, 51), (51, 21, 58), (99, 28, None)]
)
def test_a_look_is_due_when_its_labels_have_matured(known_days: float, exposure: int, next_due: int | None) -> None:
    window = window_due(START, START + timedelta(days=known_days), Policy())
    assert window.exposure_days == exposure
    assert window.end == START + timedelta(days=exposure)
    assert window.as_of == START + timedelta(days=known_days)
    assert next_look_due(window, Policy()) == (None if next_due is None else START + timedelta(days=next_due))


@pytest.mark.parametrize("late_hours", [0, 24])
def test_looks_are_due_when_their_rows_have_arrived(late_hours: int) -> None:
    policy, now = Policy(feedback_delay_hours=late_hours), START + timedelta(days=500)
    window, late = window_due(START, START + timedelta(days=46), policy), timedelta(hours=late_hours)
    assert looks_on_the_clock(window, policy, now) == (now + timedelta(days=5) + late, now + timedelta(days=12) + late)
    last = window_due(START, START + timedelta(days=60), policy)
    assert looks_on_the_clock(last, policy, now) == (None, now - timedelta(days=2) + late)
    assert looks_on_the_clock(None, policy, now) == (None, None)


def test_a_days_frauds_are_those_of_both_arms_in_a_split_and_shared_in_pairs(build) -> None:
    day = build.day(0)
    assert day.compared_frauds == day.baseline.frauds == day.candidate.frauds
    assert replace(day, frauds=None).compared_frauds == 2 * day.baseline.frauds
