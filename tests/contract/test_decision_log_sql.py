"""The contract of the decision log, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan, Change
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Decision, DecisionRequest, Links, Person
from flows.domain.decision_record import GENESIS, RecordKind, chain_problems
from flows.domain.errors import (
    AlreadyDecided,
    EvidenceChanged,
    FraudABError,
    OutsideSystemError,
    PostponementRefused,
    SettingsInvalid,
    UnknownDecision,
)
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import Verdict, VerdictKind, decide_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALICE, BOB = Person("U1", "Alice"), Person("U2", "Bob")
A_MOMENT = 0.4 / 3600  # hours


@pytest.fixture
def log(database_url: str) -> Iterator[SqlDecisionLog]:
    opened = SqlDecisionLog(database_url)
    yield opened
    opened.close()


def verdict(kind: VerdictKind = VerdictKind.PROMOTE) -> tuple[Evidence, Verdict]:
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 900, 820), ModelCounts(1000, 860, 950, 865)))
    return evidence, replace(decide_verdict(evidence, Policy()), verdict=kind)


def request(kind: VerdictKind = VerdictKind.PROMOTE, **changes: Any) -> DecisionRequest:
    evidence, decided = verdict(kind)
    baseline, candidate = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
    asked = DecisionRequest(
        test=ABTest("autumn", baseline, candidate, datetime(2026, 9, 1, tzinfo=UTC), "experiment"),
        round=1,
        flow_run_id="run-1",
        verdict=decided,
        plan=ActionPlan(Arm.CANDIDATE, (50, 100), (Change("traffic", "80 %, 20 %", "0 %, 100 %"),)),
        rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
        epoch=7,
        links=Links(prefect_run="http://prefect/run-1"),
        decide_within_hours=72,
        next_look_at=None,
        evidence=evidence,
    )
    return replace(asked, **changes)


def answer(log: SqlDecisionLog, decision: Decision, choice: Choice = Choice.CONFIRM, **changes: Any) -> Decision:
    digest = decision.request.verdict.evidence_digest
    given: dict[str, Any] = {"evidence_digest": digest, "choice": choice, "actor": ALICE, "reason": "looks right", **changes}
    return log.claim(decision.decision_id, **given)


def wait_for(log: SqlDecisionLog, moment: datetime) -> None:
    """Until the database's clock says so."""
    until = Retrying(retry=retry_if_result(lambda now: now < moment), stop=stop_after_delay(10), wait=wait_fixed(0.02))
    until(log.now)


def test_the_clock_is_aware_moves_and_is_finer_than_a_second(log: SqlDecisionLog) -> None:
    moments = {log.now() for _ in range(5)}
    assert all(moment.tzinfo is UTC for moment in moments)
    assert any(moment.microsecond for moment in moments)
    assert abs(max(moments) - datetime.now(UTC)) < timedelta(seconds=30)
    first = log.now()
    wait_for(log, first + timedelta(milliseconds=20))
    assert timedelta(0) < log.now() - first < timedelta(seconds=5)


def test_a_question_is_read_back_as_it_was_asked(log: SqlDecisionLog) -> None:
    asked = request(next_look_at=datetime(2026, 12, 1, tzinfo=UTC), horizon_at=datetime(2026, 12, 8, tzinfo=UTC))
    decision = log.open(asked)
    assert decision == log.read("autumn-1")
    assert decision.request == asked
    assert decision.deadline - decision.created_at == timedelta(hours=72)
    assert decision.is_pending
    assert decision.consumed_at is None


def test_a_time_without_a_zone_is_refused_before_it_is_stored(log: SqlDecisionLog) -> None:
    with pytest.raises(ValueError, match="timezone"):
        log.open(request(next_look_at=datetime(2026, 12, 1)))  # noqa: DTZ001 - that is the mistake
    assert log.decisions() == []


def test_a_round_is_asked_once(log: SqlDecisionLog) -> None:
    first = log.open(request())
    second = log.open(request(epoch=9, decide_within_hours=1))
    assert second == first
    assert [decision.decision_id for decision in log.decisions()] == ["autumn-1"]


def test_a_new_run_takes_the_question_over_as_people_have_seen_it(log: SqlDecisionLog) -> None:
    first = log.open(request())
    taken_over = log.open(request(VerdictKind.KEEP_BASELINE, flow_run_id="run-2", epoch=9))
    assert taken_over.request == replace(first.request, flow_run_id="run-2")
    answer(log, first)
    assert [decision.request.flow_run_id for decision in log.undelivered()] == ["run-2"]


def test_many_open_one_question_at_once_in_an_empty_database(database_url: str) -> None:
    logs = [SqlDecisionLog(database_url) for _ in range(8)]
    with ThreadPoolExecutor(len(logs)) as pool:
        decisions = list(pool.map(lambda one: one.open(request()), logs))
    assert len(set(map(repr, decisions))) == 1
    for one in logs:
        one.close()


def test_an_answer_is_kept_with_its_record(log: SqlDecisionLog) -> None:
    decision = log.open(request())
    claimed = answer(log, decision, reason="recall holds")
    assert claimed == log.read(decision.decision_id)
    assert claimed.claim is not None
    assert (claimed.claim.choice, claimed.claim.actor, claimed.claim.reason) == (Choice.CONFIRM, ALICE, "recall holds")
    assert decision.created_at <= claimed.claim.claimed_at < decision.deadline
    (record,) = log.records(decision.decision_id)
    assert record.kind is RecordKind.DECIDED
    assert record.payload["actor"] == {"id": "U1", "name": "Alice"}
    stored = record.payload["request"]
    assert isinstance(stored, dict)
    assert Evidence.from_json(stored["evidence"]).digest == decision.request.verdict.evidence_digest


def test_the_second_answer_reads_who_was_first(log: SqlDecisionLog) -> None:
    decision = log.open(request())
    answer(log, decision)
    with pytest.raises(AlreadyDecided, match=r"round 1 of autumn was decided by Alice at 20\d\d-.* UTC: confirm"):
        answer(log, decision, Choice.FORCE_ROLLBACK, actor=BOB)
    claim = log.read(decision.decision_id).claim
    assert claim is not None
    assert claim.actor == ALICE


def test_of_racing_answers_exactly_one_counts(database_url: str) -> None:
    logs = [SqlDecisionLog(database_url) for _ in range(8)]
    for round_number in range(1, 6):
        decision = logs[0].open(request(round=round_number))
        start = threading.Barrier(len(logs))

        def press(one: SqlDecisionLog, decision: Decision = decision, start: threading.Barrier = start) -> str:
            start.wait(10)
            try:
                answer(one, decision, actor=Person(f"U{id(one)}", "somebody"))
            except AlreadyDecided:
                return "refused"
            return "claimed"

        with ThreadPoolExecutor(len(logs)) as pool:
            outcomes = list(pool.map(press, logs))
        assert sorted(outcomes) == ["claimed"] + ["refused"] * 7
        assert len(logs[0].records(decision.decision_id)) == 1
    assert chain_problems([*logs[0].records()]) == ()
    for one in logs:
        one.close()


def test_other_evidence_than_was_shown_is_refused(log: SqlDecisionLog) -> None:
    decision = log.open(request())
    with pytest.raises(EvidenceChanged, match="newest message"):
        answer(log, decision, evidence_digest="sha256:stale")
    assert log.read(decision.decision_id).is_pending
    assert log.records() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda log: log.read("winter-1"),
        lambda log: log.consume("winter-1"),
        lambda log: log.claim("winter-1", evidence_digest="", choice=Choice.CONFIRM, actor=ALICE, reason=""),
    ],
)
def test_an_unknown_decision_is_named(log: SqlDecisionLog, ask: Callable[[SqlDecisionLog], object]) -> None:
    with pytest.raises(UnknownDecision, match="winter-1"):
        ask(log)


def test_after_the_deadline_only_expiry_counts(log: SqlDecisionLog) -> None:
    decision = log.open(request(decide_within_hours=A_MOMENT))
    with pytest.raises(AlreadyDecided, match="cannot expire before"):
        answer(log, decision, Choice.EXPIRE)
    assert log.claim_overdue() == []
    wait_for(log, decision.deadline)
    with pytest.raises(AlreadyDecided, match=r"ended at .* UTC: the baseline stays"):
        answer(log, decision)
    (expired,) = log.claim_overdue()
    assert expired.claim is not None
    assert (expired.claim.choice, expired.claim.actor.id) == (Choice.EXPIRE, "expiry")
    assert log.claim_overdue() == []
    with pytest.raises(AlreadyDecided, match=r"expired at .* nobody decided in time"):
        answer(log, decision)


def test_expiry_in_two_processes_happens_once(database_url: str) -> None:
    logs = [SqlDecisionLog(database_url) for _ in range(4)]
    decisions = [logs[0].open(request(round=number, decide_within_hours=A_MOMENT)) for number in range(1, 6)]
    wait_for(logs[0], decisions[-1].deadline)
    with ThreadPoolExecutor(len(logs)) as pool:
        expired = [decision.decision_id for found in pool.map(lambda one: one.claim_overdue(), logs) for decision in found]
    assert sorted(expired) == sorted(decision.decision_id for decision in decisions)
    assert len(logs[0].records()) == len(decisions)
    for one in logs:
        one.close()


def test_an_answer_is_undelivered_until_it_is_consumed(log: SqlDecisionLog) -> None:
    decision = log.open(request())
    assert log.undelivered() == []
    assert log.consume(decision.decision_id).consumed_at is None
    answer(log, decision)
    assert [found.decision_id for found in log.undelivered()] == [decision.decision_id]
    consumed = log.consume(decision.decision_id)
    assert consumed.consumed_at is not None
    assert log.consume(decision.decision_id) == consumed
    assert log.undelivered() == []


def test_a_postponement_is_delivered_when_it_is_due(log: SqlDecisionLog) -> None:
    later, soon = (log.open(request(round=number)) for number in (1, 2))
    until, tomorrow = log.now() + timedelta(seconds=2), log.now() + timedelta(days=1)
    answer(log, later, Choice.POSTPONE, postponed_until=tomorrow)
    claimed = answer(log, soon, Choice.POSTPONE, postponed_until=until)
    assert claimed.claim is not None
    assert abs(claimed.claim.due_at - until) < timedelta(milliseconds=1)
    assert not claimed.is_due(until - timedelta(milliseconds=1))
    assert claimed.is_due(until + timedelta(milliseconds=1))
    wait_for(log, until)
    assert [found.decision_id for found in log.undelivered()] == [soon.decision_id]


def test_an_extension_waits_for_the_next_look(log: SqlDecisionLog) -> None:
    next_look = log.now().replace(microsecond=0) + timedelta(days=7)
    decision = log.open(request(VerdictKind.INCONCLUSIVE, next_look_at=next_look))
    claimed = answer(log, decision)
    assert claimed.claim is not None
    assert claimed.claim.due_at == next_look


def test_a_postponement_that_the_policy_forbids_leaves_the_question_open(log: SqlDecisionLog) -> None:
    none_left = log.open(request(postponements_left=0))
    at_horizon = log.open(request(round=2, horizon_at=log.now()))
    for decision in (none_left, at_horizon):
        with pytest.raises(PostponementRefused, match="confirm, or force a rollback"):
            answer(log, decision, Choice.POSTPONE, postponed_until=log.now() + timedelta(days=1))
        assert log.read(decision.decision_id).is_pending
        answer(log, decision)
        with pytest.raises(AlreadyDecided):
            answer(log, decision, Choice.POSTPONE, postponed_until=log.now() + timedelta(days=1))


def test_one_process_at_a_time_may_repair_and_each_time_after_a_longer_pause(log: SqlDecisionLog) -> None:
    decision = log.open(request())
    assert not log.begin_repair(decision.decision_id), "there is no answer yet"
    answer(log, decision)
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(log.begin_repair, [decision.decision_id] * 6)) == [False] * 5 + [True]
    log.consume(decision.decision_id)
    assert not log.begin_repair(decision.decision_id)


def test_decisions_are_listed_newest_first(log: SqlDecisionLog) -> None:
    for number in (1, 2, 3):
        log.open(request(round=number))
    other = log.open(request(test=replace(request().test, test_id="winter")))
    answer(log, other)
    assert [decision.request.round for decision in log.decisions("autumn")] == [3, 2, 1]
    assert len(log.decisions()) == 4
    everything = ["winter-1", "autumn-3", "autumn-2", "autumn-1"]
    assert [decision.decision_id for decision in log.decisions(unconsumed_only=True)] == everything
    log.consume(other.decision_id)
    assert [decision.decision_id for decision in log.decisions(unconsumed_only=True)] == everything[1:]


def test_records_form_one_chain_whoever_appends(database_url: str) -> None:
    logs = [SqlDecisionLog(database_url) for _ in range(6)]

    def append(number: int) -> None:
        logs[number % 6].append_record(RecordKind.PROMOTED, f"test-{number}", {"share": 0.1 * number, "ü": [None, number]})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(30)))
    records = logs[0].records()
    assert [record.sequence for record in records] == list(range(1, 31))
    assert records[0].previous_hash == GENESIS
    assert chain_problems(records) == ()
    assert all(earlier.at <= later.at for earlier, later in pairwise(records))
    for one in logs:
        one.close()


def test_the_first_record_of_a_kind_stays(log: SqlDecisionLog) -> None:
    first = log.append_record(RecordKind.PROMOTED, "autumn-1", {"share": 1.0})
    assert log.append_record(RecordKind.PROMOTED, "autumn-1", {"share": 0.5}) == first
    log.append_record(RecordKind.EMERGENCY_REVERT, "autumn-1", {})
    assert [record.kind for record in log.records("autumn-1")] == [RecordKind.PROMOTED, RecordKind.EMERGENCY_REVERT]


def test_a_record_that_is_no_json_is_refused(log: SqlDecisionLog) -> None:
    with pytest.raises(ValueError, match="JSON"):
        log.append_record(RecordKind.PROMOTED, "autumn-1", {"share": float("nan")})
    assert log.records() == []


@pytest.mark.parametrize("statement", ["UPDATE decision_records SET payload = '{}'", "DELETE FROM decision_records"])
def test_the_database_refuses_to_change_a_record(log: SqlDecisionLog, database_url: str, statement: str) -> None:
    log.append_record(RecordKind.PROMOTED, "autumn-1", {})
    engine = sqlalchemy.create_engine(database_url)
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="only appended to"), engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    assert log.records()[0].payload == {}


def test_a_claim_whose_record_cannot_be_written_is_no_claim(log: SqlDecisionLog, database_url: str) -> None:
    decision = log.open(request())
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE decision_records RENAME TO elsewhere"))
    with pytest.raises(OutsideSystemError):
        answer(log, decision)
    assert log.read(decision.decision_id).is_pending
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://root:secret@host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused_with_what_to_use(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="postgresql://") as refusal:
        SqlDecisionLog(url)
    assert "secret" not in str(refusal.value)


def test_a_database_that_is_down_is_worth_another_try() -> None:
    log = SqlDecisionLog("postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(FraudABError) as failure:
        log.now()
    assert isinstance(failure.value, OutsideSystemError)
    assert failure.value.retryable
