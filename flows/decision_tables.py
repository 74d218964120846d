"""The tables of the decision log: `decisions`, one row a round, and `decision_records`, whose rows nobody can change."""

from __future__ import annotations

from sqlalchemy import DDL, CheckConstraint, Column, Index, Integer, MetaData, Table, Text, UniqueConstraint, event

from flows.database import UtcTime

metadata = MetaData()
decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("test_id", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("flow_run_id", Text, nullable=False),
    Column("evidence_digest", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("deadline", UtcTime, nullable=False),
    Column("status", Text, nullable=False, default="pending"),
    Column("choice", Text),
    Column("actor_id", Text),
    Column("actor_name", Text),
    Column("reason", Text),
    Column("claimed_at", UtcTime),
    Column("due_at", UtcTime),
    Column("wanted_frauds", Integer),
    Column("first_actor_id", Text),
    Column("first_actor_name", Text),
    Column("first_reason", Text),
    Column("first_confirmed_at", UtcTime),
    Column("consumed_at", UtcTime),
    Column("repairs", Integer, nullable=False, default=0),
    Column("next_repair_at", UtcTime),
    UniqueConstraint("test_id", "round"),
    CheckConstraint("status IN ('pending', 'claimed')"),
    CheckConstraint("(status = 'claimed') = (choice IS NOT NULL AND claimed_at IS NOT NULL)"),
    CheckConstraint("(first_actor_id IS NULL) = (first_confirmed_at IS NULL)"),
    CheckConstraint("consumed_at IS NULL OR status = 'claimed'"),
    Index("decisions_at_work", "status", "consumed_at", "deadline"),
)
records = Table(
    "decision_records",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous_hash", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    UniqueConstraint("kind", "decision_id", "occurrence"),
)
_REFUSE_IN_POSTGRESQL = """
CREATE OR REPLACE FUNCTION decision_records_are_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'decision_records are only appended to'; END $$;
CREATE OR REPLACE TRIGGER decision_records_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON decision_records
FOR EACH STATEMENT EXECUTE FUNCTION decision_records_are_kept()
"""
_REFUSE_IN_SQLITE = """
CREATE TRIGGER IF NOT EXISTS decision_records_refuse_{what} BEFORE {what} ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records are only appended to'); END
"""
event.listen(records, "after_create", DDL(_REFUSE_IN_POSTGRESQL).execute_if(dialect="postgresql"))
for _what in ("UPDATE", "DELETE"):
    event.listen(records, "after_create", DDL(_REFUSE_IN_SQLITE.format(what=_what)).execute_if(dialect="sqlite"))
