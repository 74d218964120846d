"""A decision that is postponed until frauds are seen, in the decision log: on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import chain_problems
from flows.domain.errors import PostponementRefused
from flows.domain.verdict import VerdictKind
from tests.contract.test_decision_log_sql import answer, request, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log(database_url: str) -> Iterator[SqlDecisionLog]:
    opened = SqlDecisionLog(database_url)
    yield opened
    opened.close()


def postponed(log: SqlDecisionLog, until: datetime | None = None, **changes: Any) -> Decision:
    asked = log.open(request(VerdictKind.INCONCLUSIVE, **changes))
    latest = until or log.now() + timedelta(days=7)
    return answer(log, asked, Choice.POSTPONE, postponed_until=latest, wanted_frauds=2500)


def test_it_waits_with_its_number_until_somebody_wakes_it(log: SqlDecisionLog) -> None:
    latest = log.now().replace(microsecond=0) + timedelta(days=7)
    waiting = postponed(log, latest, horizon_at=latest)
    assert waiting.claim is not None
    assert (waiting.claim.wanted_frauds, waiting.claim.due_at) == (2500, latest)
    assert log.waiting_for_frauds() == [waiting]
    assert log.undelivered() == []
    assert log.wake(waiting.decision_id)
    woken = log.read(waiting.decision_id)
    assert woken.claim is not None
    assert woken.claim.due_at is not None
    assert woken.claim.due_at <= log.now()
    assert woken.is_due(log.now())
    assert log.undelivered() == [woken]
    assert log.waiting_for_frauds() == []
    assert not log.wake(waiting.decision_id)
    [record] = log.records()
    assert (record.payload["wanted_frauds"], record.payload["due_at"]) == (2500, latest.isoformat())
    assert chain_problems([record]) == ()


def test_of_many_who_wake_it_one_does(log: SqlDecisionLog) -> None:
    waiting = postponed(log)
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(log.wake, [waiting.decision_id] * 6)) == [False] * 5 + [True]


def test_it_is_due_at_the_latest_time_without_anybody(log: SqlDecisionLog) -> None:
    until = log.now() + timedelta(seconds=0.4)
    waiting = postponed(log, until)
    wait_for(log, until + timedelta(milliseconds=1))
    assert [one.decision_id for one in log.undelivered()] == [waiting.decision_id]
    assert log.waiting_for_frauds() == []
    assert not log.wake(waiting.decision_id)


def test_what_waits_for_a_time_or_an_answer_or_is_over_is_not_woken(log: SqlDecisionLog) -> None:
    by_time, pending, over = (log.open(request(round=number)) for number in (1, 2, 3))
    later = log.now() + timedelta(days=1)
    answer(log, by_time, Choice.POSTPONE, postponed_until=later)
    answer(log, over, Choice.POSTPONE, postponed_until=later, wanted_frauds=2500)
    log.consume(over.decision_id)
    assert log.waiting_for_frauds() == []
    assert not any(log.wake(one.decision_id) for one in (by_time, pending, over))
    assert log.undelivered() == []


def test_never_past_the_last_look_never_too_often_and_not_for_what_is_seen(log: SqlDecisionLog) -> None:
    now = log.now()
    horizon = now + timedelta(days=7)
    for number, (changes, until, frauds, why) in enumerate(
        (
            ({"horizon_at": horizon}, horizon + timedelta(seconds=1), 2500, "last look"),
            ({"postponements_left": 0}, horizon, 2500, "as often as the policy allows"),
            ({}, horizon, 2000, "2,000 frauds are seen already"),
        ),
        start=1,
    ):
        asked = log.open(request(round=number, **changes))
        with pytest.raises(PostponementRefused, match=why):
            answer(log, asked, Choice.POSTPONE, postponed_until=until, wanted_frauds=frauds)
        assert log.read(asked.decision_id).is_pending
