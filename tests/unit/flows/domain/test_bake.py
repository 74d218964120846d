"""What is due after a promotion, and what counts as a sustained breach."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.domain.bake import Breach, BreachKind, Due, Findings, sustained, what_is_due
from flows.domain.decision_record import RecordKind
from flows.domain.errors import PolicyInvalid
from flows.domain.policy import Policy, load_policy

AT = datetime(2026, 11, 3, 4, 5, tzinfo=UTC)
PROMOTED, WATCHED, RETIRED = RecordKind.PROMOTED, RecordKind.WATCHED, RecordKind.RETIRED
DAY_AND_WEEK = {"bake_hours": 24, "retire_after_hours": 168}


@pytest.mark.parametrize(
    ("hours", "recorded", "policy", "due"),
    [
        (0, (), {}, Due.WATCH),
        (23.9, (), {}, Due.WATCH),
        (24, (), {}, Due.END),
        (500, (), {}, Due.END),
        (24, (WATCHED,), {}, Due.NOTHING),
        (500, (WATCHED,), {}, Due.NOTHING),
        (0, (), {"bake_hours": 0}, Due.NOTHING),
        (167.9, (WATCHED,), DAY_AND_WEEK, Due.NOTHING),
        (168, (WATCHED,), DAY_AND_WEEK, Due.RETIRE),
        (168, (), DAY_AND_WEEK, Due.END),
        (168.1, (WATCHED,), DAY_AND_WEEK, Due.RETIRE),
        (168.2, (WATCHED,), DAY_AND_WEEK, Due.NOTHING),
        (169.1, (WATCHED,), DAY_AND_WEEK, Due.RETIRE),
        (168, (WATCHED, RETIRED), DAY_AND_WEEK, Due.NOTHING),
        (5, (), {"bake_hours": 0, "retire_after_hours": 5}, Due.RETIRE),
    ],
)
def test_what_is_due(hours: float, recorded: tuple[RecordKind, ...], policy: dict[str, float], due: Due) -> None:
    found = what_is_due(AT, {PROMOTED, *recorded}, AT + timedelta(hours=hours), Policy.model_validate(policy))
    assert found is due


def test_only_what_is_wrong_in_both_windows_is_sustained_as_the_later_one_tells_of_it() -> None:
    earlier = (Breach(BreachKind.LATENCY, "p95 120 ms"), Breach(BreachKind.ERRORS, "3 failed"))
    later = (Breach(BreachKind.TRAFFIC, "half"), Breach(BreachKind.LATENCY, "p95 140 ms"))
    assert sustained(earlier, later) == (Breach(BreachKind.LATENCY, "p95 140 ms"),)
    assert sustained((), later) == ()


def test_findings_add_up() -> None:
    one = Findings((Breach(BreachKind.LATENCY, "slow"),), (("router", "silent"),), ("100 %",))
    assert one + Findings(measured=("5 %",)) == Findings(one.breaches, one.missing, ("100 %", "5 %"))


def test_a_kind_of_breach_has_its_words() -> None:
    assert [kind.words for kind in BreachKind] == ["latency", "errors", "traffic", "flag rate"]


def test_a_baseline_is_not_retired_before_the_watch_is_over() -> None:
    with pytest.raises(PolicyInvalid, match="retire_after_hours must not be below bake_hours"):
        load_policy("retire_after_hours = 12", "policy.toml")
    assert load_policy("retire_after_hours = 24", "policy.toml").retire_after_hours == 24


def test_only_what_has_come_of_a_decision_is_its_outcome() -> None:
    answers = {RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED}
    later = {RecordKind.BREACH, RecordKind.WATCHED, RecordKind.RETIRED, RecordKind.INVESTIGATED, RecordKind.DOCUMENTED}
    assert {kind for kind in RecordKind if not kind.is_outcome} == answers | later
    own = {kind for kind in RecordKind if kind.has_own_id}
    assert own == {RecordKind.EMERGENCY_REVERT, RecordKind.BREACH, RecordKind.DOCUMENTED}
