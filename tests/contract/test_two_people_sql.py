"""A promotion that two people have to confirm, and one that its initiator may not: on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.decision import Choice, Person
from flows.domain.decision_record import RecordKind, chain_problems
from flows.domain.errors import AlreadyDecided, ConfirmationRefused, EvidenceChanged, OutsideSystemError
from flows.domain.policy import Policy
from flows.domain.verdict import VerdictKind
from tests.contract.test_decision_log_sql import A_MOMENT, ALICE, BOB, answer, request, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

TWO = Policy(two_person=True)
FIRST, DECIDED = RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED


@pytest.fixture
def log(database_url: str) -> Iterator[SqlDecisionLog]:
    opened = SqlDecisionLog(database_url)
    yield opened
    opened.close()


def kinds(log: SqlDecisionLog) -> list[RecordKind]:
    assert chain_problems([*log.records()]) == ()
    return [record.kind for record in log.records()]


def test_the_first_confirmation_is_kept_and_the_second_of_another_person_claims(log: SqlDecisionLog) -> None:
    asked = log.open(request(policy=TWO))
    first = answer(log, asked, reason="recall holds")
    assert first == log.read(asked.decision_id)
    assert first.is_pending
    assert first.first_confirmation is not None
    assert (first.first_confirmation.actor, first.first_confirmation.reason) == (ALICE, "recall holds")
    assert asked.created_at <= first.first_confirmation.confirmed_at < asked.deadline
    assert log.undelivered() == []
    decided = answer(log, asked, actor=BOB)
    assert decided.claim is not None
    assert (decided.claim.choice, decided.claim.actor, decided.claim.first) == (Choice.CONFIRM, BOB, first.first_confirmation)
    assert [one.decision_id for one in log.undelivered()] == [asked.decision_id]
    assert kinds(log) == [FIRST, DECIDED]
    confirmed, claimed = log.records()
    assert confirmed.payload["actor"] == {"id": "U1", "name": "Alice"}
    assert confirmed.payload["evidence_digest"] == asked.request.verdict.evidence_digest
    assert claimed.payload["actor"] == {"id": "U2", "name": "Bob"}
    assert claimed.payload["first_confirmation"] == {
        "actor": {"id": "U1", "name": "Alice"},
        "reason": "recall holds",
        "confirmed_at": first.first_confirmation.confirmed_at.isoformat(),
    }


def test_one_person_is_no_two(log: SqlDecisionLog) -> None:
    asked = log.open(request(policy=TWO))
    answer(log, asked)
    with pytest.raises(ConfirmationRefused, match="a second person has to confirm"):
        answer(log, asked, actor=Person(ALICE.id, "Alice, by another name"))
    assert log.read(asked.decision_id).is_pending
    assert kinds(log) == [FIRST]


def test_of_many_at_once_one_is_the_first_and_one_of_the_others_claims(database_url: str) -> None:
    """Every person twice, in processes of their own: whoever is first, nobody is both."""
    logs = [SqlDecisionLog(database_url) for _ in range(8)]
    for round_number in range(1, 7):
        asked = logs[0].open(request(policy=TWO, round=round_number))
        start = threading.Barrier(len(logs))

        def press(number: int, asked=asked, start: threading.Barrier = start) -> str:
            start.wait(10)
            try:
                found = answer(logs[number], asked, actor=Person(f"U{number // 2}", "somebody"))
            except (AlreadyDecided, ConfirmationRefused) as refused:
                return type(refused).__name__
            return "first" if found.is_pending else "claimed"

        with ThreadPoolExecutor(len(logs)) as pool:
            outcomes = Counter(pool.map(press, range(len(logs))))
        assert (outcomes["first"], outcomes["claimed"], outcomes.total()) == (1, 1, 8), outcomes
        claim = logs[0].read(asked.decision_id).claim
        assert claim is not None
        assert claim.first is not None
        assert claim.actor.id != claim.first.actor.id
    assert kinds(logs[0]) == [FIRST, DECIDED] * 6
    for one in logs:
        one.close()


def test_a_first_confirmation_of_other_evidence_is_none(log: SqlDecisionLog) -> None:
    asked = log.open(request(policy=TWO))
    with pytest.raises(EvidenceChanged):
        answer(log, asked, evidence_digest="sha256:stale")
    assert log.read(asked.decision_id).first_confirmation is None
    answer(log, asked)
    with pytest.raises(EvidenceChanged):
        answer(log, asked, actor=BOB, evidence_digest="sha256:stale")
    assert log.read(asked.decision_id).is_pending


def test_the_next_round_begins_with_nobody(log: SqlDecisionLog) -> None:
    answer(log, log.open(request(policy=TWO)))
    second = log.open(request(policy=TWO, round=2))
    assert second.first_confirmation is None
    assert answer(log, second, actor=BOB).is_pending


def test_when_the_time_is_over_the_first_confirmation_counts_for_nothing(log: SqlDecisionLog) -> None:
    asked = log.open(request(policy=TWO, decide_within_hours=A_MOMENT))
    first = answer(log, asked).first_confirmation
    wait_for(log, asked.deadline)
    for actor in (ALICE, BOB):
        with pytest.raises(AlreadyDecided, match="ended at"):
            answer(log, asked, actor=actor)
    (expired,) = log.claim_overdue()
    assert expired.claim is not None
    assert (expired.claim.choice, expired.claim.first) == (Choice.EXPIRE, first)
    assert kinds(log) == [FIRST, DECIDED]


@pytest.mark.parametrize("choice", [Choice.POSTPONE, Choice.FORCE_ROLLBACK])
@pytest.mark.parametrize("actor", [ALICE, BOB])
def test_towards_safety_one_is_enough_before_and_after_a_first_confirmation(
    log: SqlDecisionLog, choice: Choice, actor: Person
) -> None:
    horizon = log.now().replace(year=log.now().year + 1)
    for number, confirms in enumerate((False, True), start=1):
        asked = log.open(request(policy=TWO, round=number, horizon_at=horizon))
        if confirms:
            answer(log, asked)
        claim = answer(log, asked, choice, actor=actor, postponed_until=horizon).claim
        assert claim is not None
        assert claim.choice is choice


@pytest.mark.parametrize("kind", [one for one in VerdictKind if one is not VerdictKind.PROMOTE])
def test_other_verdicts_are_confirmed_by_one(log: SqlDecisionLog, kind: VerdictKind) -> None:
    strict = Policy(two_person=True, initiator_may_promote=False)
    assert answer(log, log.open(request(kind, policy=strict))).claim is not None


def test_a_first_confirmation_whose_record_cannot_be_written_is_none(log: SqlDecisionLog, database_url: str) -> None:
    asked = log.open(request(policy=TWO))
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE decision_records RENAME TO elsewhere"))
    with pytest.raises(OutsideSystemError):
        answer(log, asked)
    assert log.read(asked.decision_id).first_confirmation is None
    engine.dispose()


def test_whoever_started_the_test_cannot_claim_its_promotion(log: SqlDecisionLog) -> None:
    test, strict = replace(request().test, initiator=ALICE.id), Policy(initiator_may_promote=False)
    asked = log.open(request(test=test, policy=strict))
    with pytest.raises(ConfirmationRefused, match="You started this test"):
        answer(log, asked)
    assert log.records() == []
    claim = answer(log, asked, actor=BOB).claim
    assert claim is not None
    assert claim.actor == BOB
    nobody_knows = log.open(request(policy=strict, round=2))
    with pytest.raises(ConfirmationRefused, match="not known"):
        answer(log, nobody_knows, actor=BOB)
    assert answer(log, nobody_knows, Choice.FORCE_ROLLBACK).claim is not None
