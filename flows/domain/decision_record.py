"""One immutable record per thing that was decided or done, chained by hashes so that a later change shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from flows.domain.decision import Choice
from flows.domain.verdict import VerdictKind

GENESIS = "sha256:" + "0" * 64


class RecordKind(StrEnum):
    """What a record tells of; it is written after the thing has happened.

    `CONFIRMED_FIRST`: the first of the two confirmations that a promotion needs. `FAILED`: a promotion failed, and not even
    putting it back could be done at once. `INVESTIGATED`: why a candidate lost was looked into (see `Investigation`).
    `DOCUMENTED`: files were stored on the test's MLflow run; its id is their folder there (see `noted_files`).
    """

    CONFIRMED_FIRST = "confirmed_first"
    DECIDED = "decided"
    FAILED = "failed"
    PROMOTED = "promoted"
    BASELINE_KEPT = "baseline_kept"
    COMPENSATED = "compensated"
    SUPERSEDED = "superseded"
    EMERGENCY_REVERT = "emergency_revert"
    BREACH = "breach"
    WATCHED = "watched"
    RETIRED = "baseline_retired"
    INVESTIGATED = "investigated"
    DOCUMENTED = "documented"

    @property
    def is_outcome(self) -> bool:
        """Whether it tells what has come of a decision: not the answer itself, nor what was seen and tidied up later."""
        answers, papers = {RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED}, {RecordKind.INVESTIGATED, RecordKind.DOCUMENTED}
        return self not in answers | papers | {RecordKind.BREACH, RecordKind.WATCHED, RecordKind.RETIRED}

    @property
    def has_own_id(self) -> bool:
        """Whether its id is no decision's: an emergency's, a breach's or a folder's."""
        return self in (RecordKind.EMERGENCY_REVERT, RecordKind.BREACH, RecordKind.DOCUMENTED)

    @property
    def is_change(self) -> bool:
        """Whether production is another one since."""
        return self in (
            RecordKind.PROMOTED,
            RecordKind.BASELINE_KEPT,
            RecordKind.COMPENSATED,
            RecordKind.EMERGENCY_REVERT,
            RecordKind.RETIRED,
        )


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """Record `sequence` (from 1) of the chain; `payload` is JSON-serialisable."""

    sequence: int
    kind: RecordKind
    decision_id: str
    at: datetime
    payload: Mapping[str, object]
    previous_hash: str
    hash: str

    @property
    def recomputed_hash(self) -> str:
        """What `hash` must be, unless something of this record was changed."""
        return record_hash(
            sequence=self.sequence,
            kind=self.kind,
            decision_id=self.decision_id,
            at=self.at,
            payload=self.payload,
            previous_hash=self.previous_hash,
        )

    def __str__(self) -> str:
        return f"record {self.sequence} ({self.decision_id}, {self.kind})"

    def to_json(self) -> dict[str, object]:
        return {
            "sequence": self.sequence,
            "kind": str(self.kind),
            "decision_id": self.decision_id,
            "at": self.at.isoformat(),
            "payload": self.payload,
            "previous_hash": self.previous_hash,
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DecisionRecord:
        """The record that `to_json` wrote.

        Raises:
            KeyError, ValueError, TypeError: the data is not of this shape.
        """
        typed: dict[str, Any] = {"kind": RecordKind(data["kind"]), "at": datetime.fromisoformat(data["at"])}
        return cls(**{field.name: data[field.name] for field in fields(cls)} | typed)


@dataclass(frozen=True, slots=True)
class Investigation:
    """Why a candidate lost, as far as it was found out: the payload of a record `INVESTIGATED` under the decision's id.

    `summary`: lines for people, the first one says it all. `findings`: JSON of `flows.domain.findings.Finding`, ranked. `report`:
    the address of the whole report; empty when there is none.

    Example:
        >>> found = Investigation(("Amounts have drifted.",), ({"status": "supported", "said": "KS 0.21"},), "runs:/r/x")
        >>> Investigation.from_payload(found.to_payload()) == found
        True
    """

    summary: tuple[str, ...]
    findings: tuple[Mapping[str, Any], ...] = ()
    report: str = ""

    def to_payload(self) -> dict[str, object]:
        return {"summary": list(self.summary), "findings": [dict(one) for one in self.findings], "report": self.report}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Investigation:
        return cls(tuple(payload["summary"]), tuple(payload["findings"]), payload["report"])


def latest_investigation(records: Iterable[DecisionRecord]) -> Investigation | None:
    """What the last investigation among these records found; None when there was none."""
    found = [record for record in records if record.kind is RecordKind.INVESTIGATED]
    return Investigation.from_payload(found[-1].payload) if found else None


def latest_outcome(kinds: Sequence[RecordKind]) -> RecordKind | None:
    """What has come of a decision by the kinds of its records, oldest first; None: nothing yet."""
    return next((kind for kind in reversed(kinds) if kind.is_outcome), None)


def is_lost(outcome: RecordKind, verdict: VerdictKind | None, choice: Choice | None) -> bool:
    """Whether the candidate is out because of how it did: then people want to know why, and it is investigated.

    It lost by its evidence, or somebody or a check took it out, be it after it was promoted. Silence, numbers that nobody can
    judge and a newer change say nothing against it.

    Args:
        outcome: what has come of the decision.
        verdict, choice: None when no question had been asked, or answered, yet. Without a verdict there is nothing to look into.
    """
    if outcome in (RecordKind.COMPENSATED, RecordKind.EMERGENCY_REVERT):
        return verdict is not None
    by_evidence, by_somebody = verdict is VerdictKind.KEEP_BASELINE, choice is Choice.FORCE_ROLLBACK
    return outcome is RecordKind.BASELINE_KEPT and (by_evidence or by_somebody)


def reverts_after(decision_id: str, records: Iterable[DecisionRecord]) -> list[DecisionRecord]:
    """The emergency reverts for which this was the test's latest decision."""
    reverts = (record for record in records if record.kind is RecordKind.EMERGENCY_REVERT)
    return [record for record in reverts if record.payload.get("decision_id") == decision_id]


def noted_files(records: Iterable[DecisionRecord], folder: str) -> dict[str, tuple[DecisionRecord, str]]:
    """Each file that was stored in a folder of the test's run: the record that tells of it last, and the SHA-256 in it."""
    noted: dict[str, tuple[DecisionRecord, str]] = {}
    for record in records:
        files: Any = record.payload["files"] if (record.kind, record.decision_id) == (RecordKind.DOCUMENTED, folder) else {}
        noted |= {name: (record, sha256) for name, sha256 in files.items()}
    return noted


def record_hash(
    *, sequence: int, kind: RecordKind, decision_id: str, at: datetime, payload: Mapping[str, object], previous_hash: str
) -> str:
    """SHA-256 over the canonical JSON of a record and its predecessor's hash."""
    body = {
        "sequence": sequence,
        "kind": str(kind),
        "decision_id": decision_id,
        "at": at.isoformat(),
        "payload": payload,
        "previous_hash": previous_hash,
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def chain_problems(records: Sequence[DecisionRecord]) -> tuple[str, ...]:
    """Every place at which the chain is broken, in a sentence that names the record.

    Records that were removed at the end leave a whole chain: only what is kept elsewhere shows that (`lost_records`).

    Args:
        records: the whole log, in its order.

    Returns:
        empty when each record is as it was written and stands where it was written.
    """
    problems: list[str] = []
    previous: DecisionRecord | None = None
    for record in records:
        problem = _changed(record, len(records)) or _misplaced(record, previous, records)
        problems += [problem] if problem else []
        previous = record
    return tuple(problems)


def lost_records(records: Iterable[DecisionRecord], kept: Iterable[DecisionRecord]) -> tuple[str, ...]:
    """Each record of an earlier copy that the log no longer has as it was, in a sentence that names it."""
    hashes = {record.hash for record in records}
    return tuple(
        f"{one} was written {one.at:%Y-%m-%d %H:%M:%S} UTC, and is not in the log: it was removed or replaced."
        for one in kept
        if one.hash not in hashes
    )


def _changed(record: DecisionRecord, count: int) -> str:
    """Whether a record is another one than was written; its place is part of what was."""
    if record.hash == record.recomputed_hash:
        return ""
    places = (place for place in range(1, count + 1) if replace(record, sequence=place).recomputed_hash == record.hash)
    place = next(places, None)
    if place is not None:
        return f"{record} was written as record {place}: the log was re-ordered."
    return f"{record} was changed after it was written: its hash is {record.hash}, its content gives {record.recomputed_hash}."


def _misplaced(record: DecisionRecord, previous: DecisionRecord | None, records: Sequence[DecisionRecord]) -> str:
    """Whether a record follows another one than it was written after."""
    expected, place = (previous.hash, previous.sequence + 1) if previous else (GENESIS, 1)
    if (record.previous_hash, record.sequence) == (expected, place):
        return ""
    after = next((str(one) for one in records if one.hash == record.previous_hash), "")
    if after or record.previous_hash == GENESIS:
        now = f"after {previous}" if previous else "at the beginning"
        return f"{record} was written {f'after {after}' if after else 'first'}, but stands {now}: the log was re-ordered."
    if record.sequence > place:
        gone = f"record {place} is" if record.sequence == place + 1 else f"records {place} to {record.sequence - 1} are"
        return f"{gone} missing before {record}."
    return f"{previous or 'The beginning'} was replaced: {record} was written after another one ({record.previous_hash})."
