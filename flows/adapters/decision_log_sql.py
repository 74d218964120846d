"""What was asked and answered, in two tables: `decisions`, one row a round, and `decision_records`, the hash-chained journal.

An answer is one conditional UPDATE, so that of any number of presses in any number of processes exactly one counts, and whether
it was in time is for the database's clock to say. Its record is appended in the same transaction; the journal's table refuses
every UPDATE and DELETE.

Where two people have to confirm, the first confirmation is such an UPDATE with its record too: it fills a place that is empty
once, and the answer's own UPDATE counts only where somebody else has filled it.

A test's round is asked once, whoever asks. When a flow run was replaced (deleted, or started anew for the same test), the new run
reads the stored question, with the evidence that people have seen, and takes it over: from then on the answer is delivered to it.
The replaced run finds another run's id in the question and ends.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, insert, or_, select, update

from flows.database import Database, database_now
from flows.decision_json import claim_to_json, first_confirmation_to_json, request_from_json, request_to_json
from flows.decision_tables import decisions as _decisions
from flows.decision_tables import metadata
from flows.decision_tables import records as _records
from flows.domain.decision import (
    Choice,
    Claim,
    Confirmation,
    Decision,
    DecisionRequest,
    Person,
    due_after,
    refuse_confirmation,
    refuse_postponement,
)
from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind, record_hash
from flows.domain.errors import AlreadyDecided, EvidenceChanged, UnknownDecision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection, Row

EXPIRY = Person(id="expiry", name="nobody")
FIRST_REPAIR_PAUSE, LONGEST_REPAIR_PAUSE = timedelta(seconds=30), timedelta(hours=1)
_CHAIN_LOCK = 0x_F4AD_AB02


class SqlDecisionLog:
    """The decision log at a SQLAlchemy URL (PostgreSQL or a SQLite file)."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, metadata, "the decision log")

    def close(self) -> None:
        self._database.close()

    def now(self) -> datetime:
        with self._database.transaction("reading its clock", read_only=True) as connection:
            return _now(connection)

    def open(self, request: DecisionRequest) -> Decision:
        """Insert the question, or take over the one that is there with what people were shown (see the module)."""
        with self._database.transaction(f"asking {request.decision_id}") as connection:
            now = _now(connection)
            self._database.insert_if_new(
                connection,
                _decisions,
                decision_id=request.decision_id,
                test_id=request.test.test_id,
                round=request.round,
                flow_run_id=request.flow_run_id,
                evidence_digest=request.verdict.evidence_digest,
                request=request_to_json(request),
                created_at=now,
                deadline=now + timedelta(hours=request.decide_within_hours),
            )
            connection.execute(
                update(_decisions)
                .where(_decisions.c.decision_id == request.decision_id, _decisions.c.flow_run_id != request.flow_run_id)
                .values(flow_run_id=request.flow_run_id)
            )
            return _read(connection, request.decision_id)

    def read(self, decision_id: str) -> Decision:
        with self._database.transaction(f"reading {decision_id}", read_only=True) as connection:
            return _read(connection, decision_id)

    def claim(
        self,
        decision_id: str,
        *,
        evidence_digest: str,
        choice: Choice,
        actor: Person,
        reason: str,
        postponed_until: datetime | None = None,
        wanted_frauds: int | None = None,
    ) -> Decision:
        """Answer a pending decision; see the port. An expiry counts only after the deadline, everything else only before.

        Raises:
            PostponementRefused, ConfirmationRefused: not allowed by the policy; the decision is still pending.
        """
        with self._database.transaction(f"answering {decision_id}") as connection:
            decision, now = _read(connection, decision_id), _now(connection)
            _refuse(decision, choice, actor, postponed_until, wanted_frauds, now)
            needs_second = choice is Choice.CONFIRM and decision.request.needs_two_people
            if needs_second and self._confirm_first(connection, decision_id, evidence_digest, actor, reason):
                return _read(connection, decision_id)
            due_at = due_after(decision.request, choice, postponed_until)
            claim = {
                "choice": choice,
                "actor_id": actor.id,
                "actor_name": actor.name,
                "reason": reason,
                "due_at": due_at,
                "wanted_frauds": wanted_frauds,
            }
            second = [_decisions.c.first_actor_id != actor.id] if needs_second else []
            claimed = self._claim(connection, decision_id, evidence_digest, choice, claim, *second)
            if claimed is None:
                now, decision = _now(connection), _read(connection, decision_id)
                _refuse(decision, choice, actor, postponed_until, wanted_frauds, now)
                raise _why_not(decision, evidence_digest, now)
            return claimed

    def claim_overdue(self) -> Sequence[Decision]:
        with self._database.transaction("looking for overdue decisions", read_only=True) as connection:
            overdue = _all(connection, _decisions.c.status == "pending", _decisions.c.deadline <= database_now())
        expired: list[Decision] = []
        for decision in overdue:
            with self._database.transaction(f"letting {decision.decision_id} expire") as connection:
                digest = decision.request.verdict.evidence_digest
                claim = {
                    "choice": Choice.EXPIRE,
                    "actor_id": EXPIRY.id,
                    "actor_name": EXPIRY.name,
                    "reason": "nobody decided in time",
                }
                claimed = self._claim(connection, decision.decision_id, digest, Choice.EXPIRE, claim)
            if claimed is not None:
                expired.append(claimed)
        return expired

    def undelivered(self) -> Sequence[Decision]:
        is_due = or_(_decisions.c.due_at.is_(None), _decisions.c.due_at <= database_now())
        with self._database.transaction("looking for undelivered decisions", read_only=True) as connection:
            return _all(connection, _decisions.c.status == "claimed", _decisions.c.consumed_at.is_(None), is_due)

    def waiting_for_frauds(self) -> Sequence[Decision]:
        with self._database.transaction("looking for who waits for frauds", read_only=True) as connection:
            return _all(connection, *_waits_for_frauds())

    def wake(self, decision_id: str) -> bool:
        with self._database.transaction(f"waking {decision_id}") as connection:
            woken = update(_decisions).where(_decisions.c.decision_id == decision_id, *_waits_for_frauds())
            return connection.execute(woken.values(due_at=database_now())).rowcount == 1

    def begin_repair(self, decision_id: str) -> bool:
        with self._database.transaction(f"beginning to repair {decision_id}") as connection:
            repairs = connection.execute(select(_decisions.c.repairs).where(_decisions.c.decision_id == decision_id)).scalar_one()
            pause = min(FIRST_REPAIR_PAUSE * 2 ** min(repairs, 7), LONGEST_REPAIR_PAUSE)
            updated = connection.execute(
                update(_decisions)
                .where(
                    _decisions.c.decision_id == decision_id,
                    _decisions.c.status == "claimed",
                    _decisions.c.consumed_at.is_(None),
                    _decisions.c.repairs == repairs,
                    or_(_decisions.c.next_repair_at.is_(None), _decisions.c.next_repair_at <= database_now()),
                )
                .values(repairs=repairs + 1, next_repair_at=_now(connection) + pause)
            )
            return updated.rowcount == 1

    def consume(self, decision_id: str) -> Decision:
        with self._database.transaction(f"marking {decision_id} as consumed") as connection:
            connection.execute(
                update(_decisions)
                .where(
                    _decisions.c.decision_id == decision_id,
                    _decisions.c.status == "claimed",
                    _decisions.c.consumed_at.is_(None),
                )
                .values(consumed_at=database_now())
            )
            return _read(connection, decision_id)

    def reopen(self, decision_id: str) -> None:
        with self._database.transaction(f"opening {decision_id} again") as connection:
            again = update(_decisions).where(_decisions.c.decision_id == decision_id, _decisions.c.consumed_at.is_not(None))
            connection.execute(again.values(consumed_at=None))

    def decisions(self, test_id: str | None = None, *, unconsumed_only: bool = False) -> Sequence[Decision]:
        wanted: list[ColumnElement[bool]] = []
        if test_id is not None:
            wanted.append(_decisions.c.test_id == test_id)
        if unconsumed_only:
            wanted.append(_decisions.c.consumed_at.is_(None))
        with self._database.transaction("listing decisions", read_only=True) as connection:
            return _all(connection, *wanted)

    def append_record(
        self, kind: RecordKind, decision_id: str, payload: Mapping[str, object], *, occurrence: int = 0
    ) -> DecisionRecord:
        with self._database.transaction(f"recording {kind} of {decision_id}") as connection:
            return self._append(connection, kind, decision_id, payload, occurrence)

    def records(self, decision_id: str | None = None) -> Sequence[DecisionRecord]:
        query = select(_records).order_by(_records.c.sequence)
        if decision_id is not None:
            query = query.where(_records.c.decision_id == decision_id)
        with self._database.transaction("reading the records", read_only=True) as connection:
            return [_record(row) for row in connection.execute(query)]

    def _confirm_first(self, connection: Connection, decision_id: str, evidence_digest: str, actor: Person, reason: str) -> bool:
        """The first of two confirmations and its record; False when it did not apply, because somebody was first already, say."""
        first = {"first_actor_id": actor.id, "first_actor_name": actor.name, "first_reason": reason}
        updated = connection.execute(
            update(_decisions)
            .where(*_open(decision_id, evidence_digest, Choice.CONFIRM), _decisions.c.first_actor_id.is_(None))
            .values(first_confirmed_at=database_now(), **first)
        )
        if updated.rowcount == 0:
            return False
        payload = first_confirmation_to_json(_read(connection, decision_id))
        self._append(connection, RecordKind.CONFIRMED_FIRST, decision_id, payload)
        return True

    def _claim(
        self,
        connection: Connection,
        decision_id: str,
        evidence_digest: str,
        choice: Choice,
        claim: Mapping[str, object],
        *also: ColumnElement[bool],
    ) -> Decision | None:
        """The one conditional UPDATE and its record; None when it did not apply."""
        updated = connection.execute(
            update(_decisions)
            .where(*_open(decision_id, evidence_digest, choice), *also)
            .values(status="claimed", claimed_at=database_now(), **claim)
        )
        if updated.rowcount == 0:
            return None
        decision = _read(connection, decision_id)
        self._append(connection, RecordKind.DECIDED, decision_id, claim_to_json(decision))
        return decision

    def _append(
        self, connection: Connection, kind: RecordKind, decision_id: str, payload: Mapping[str, object], occurrence: int = 0
    ) -> DecisionRecord:
        self._database.lock_until_commit(connection, _CHAIN_LOCK)
        same = select(_records).where(
            _records.c.kind == kind, _records.c.decision_id == decision_id, _records.c.occurrence == occurrence
        )
        if (first := connection.execute(same).one_or_none()) is not None:
            return _record(first)
        last = connection.execute(select(_records).order_by(_records.c.sequence.desc()).limit(1)).one_or_none()
        stored = json.dumps(payload, sort_keys=True, ensure_ascii=False, allow_nan=False)
        link: dict[str, Any] = {
            "sequence": last.sequence + 1 if last else 1,
            "kind": kind,
            "decision_id": decision_id,
            "at": _now(connection),
            "previous_hash": last.hash if last else GENESIS,
        }
        digest = record_hash(**link, payload=json.loads(stored))
        connection.execute(insert(_records).values(**link, occurrence=occurrence, payload=stored, hash=digest))
        return DecisionRecord(**link, payload=json.loads(stored), hash=digest)


def _now(connection: Connection) -> datetime:
    return connection.execute(select(database_now())).scalar_one()


def _open(decision_id: str, evidence_digest: str, choice: Choice) -> tuple[ColumnElement[bool], ...]:
    """While these hold, the decision may be answered so."""
    late, in_time = _decisions.c.deadline <= database_now(), _decisions.c.deadline > database_now()
    return (
        _decisions.c.decision_id == decision_id,
        _decisions.c.status == "pending",
        _decisions.c.evidence_digest == evidence_digest,
        late if choice is Choice.EXPIRE else in_time,
    )


def _waits_for_frauds() -> tuple[ColumnElement[bool], ...]:
    c = _decisions.c
    return c.status == "claimed", c.consumed_at.is_(None), c.wanted_frauds.is_not(None), c.due_at > database_now()


def _refuse(
    decision: Decision, choice: Choice, actor: Person, until: datetime | None, wanted_frauds: int | None, now: datetime
) -> None:
    """What the policy does not allow of an answer that would still be in time."""
    if not decision.is_pending or decision.deadline <= now:
        return
    if choice is Choice.POSTPONE:
        refuse_postponement(decision.request, until, now, wanted_frauds)
    if choice is Choice.CONFIRM:
        refuse_confirmation(decision, actor.id)


def _all(connection: Connection, *wanted: ColumnElement[bool]) -> list[Decision]:
    newest_first = (_decisions.c.created_at.desc(), _decisions.c.round.desc())
    return [_decision(row) for row in connection.execute(select(_decisions).where(*wanted).order_by(*newest_first))]


def _read(connection: Connection, decision_id: str) -> Decision:
    row = connection.execute(select(_decisions).where(_decisions.c.decision_id == decision_id)).one_or_none()
    if row is None:
        raise UnknownDecision(f"no decision is called {decision_id}: the message or command is from another test or installation")
    return _decision(row)


def _decision(row: Row[Any]) -> Decision:
    first = claim = None
    if row.first_actor_id is not None:
        first = Confirmation(Person(row.first_actor_id, row.first_actor_name), row.first_reason, row.first_confirmed_at)
    if row.status == "claimed":
        actor = Person(row.actor_id, row.actor_name)
        claim = Claim(Choice(row.choice), actor, row.reason, row.claimed_at, row.due_at, row.wanted_frauds, first)
    return Decision(
        request=replace(request_from_json(row.request), flow_run_id=row.flow_run_id),
        created_at=row.created_at,
        deadline=row.deadline,
        claim=claim,
        first_confirmation=first,
        consumed_at=row.consumed_at,
    )


def _record(row: Row[Any]) -> DecisionRecord:
    return DecisionRecord(
        sequence=row.sequence,
        kind=RecordKind(row.kind),
        decision_id=row.decision_id,
        at=row.at,
        payload=json.loads(row.payload),
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def _why_not(decision: Decision, evidence_digest: str, now: datetime) -> AlreadyDecided | EvidenceChanged:
    """Why the answer did not count, as a sentence for the person who gave it."""
    which = f"round {decision.request.round} of {decision.request.test.test_id}"
    if decision.claim is not None:
        choice = decision.claim.choice.replace("_", " ")
        at = f"{decision.claim.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
        if decision.claim.choice is Choice.EXPIRE:
            return AlreadyDecided(f"{which} expired at {at} because nobody decided in time: the baseline stays")
        return AlreadyDecided(f"{which} was decided by {decision.claim.actor.name} at {at}: {choice}")
    if decision.request.verdict.evidence_digest != evidence_digest:
        return EvidenceChanged(f"the evidence of {which} is not what you were shown: decide on the newest message instead")
    deadline = f"{decision.deadline:%Y-%m-%d %H:%M:%S} UTC"
    if decision.deadline <= now:
        return AlreadyDecided(f"the time to decide {which} ended at {deadline}: the baseline stays")
    return AlreadyDecided(f"{which} cannot expire before {deadline}")
