"""One immutable record per thing that was decided or done, chained by hashes so that a later change shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

GENESIS = "sha256:" + "0" * 64


class RecordKind(StrEnum):
    """What a record tells of; it is written after the thing has happened.

    `CONFIRMED_FIRST`: the first of the two confirmations that a promotion needs. `FAILED`: a promotion failed, and not even
    putting it back could be done at once.
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

    @property
    def is_outcome(self) -> bool:
        """Whether it tells what has come of a decision: not the answer itself, nor what was seen and tidied up later."""
        answers = {RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED}
        return self not in answers | {RecordKind.BREACH, RecordKind.WATCHED, RecordKind.RETIRED}

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


def latest_outcome(kinds: Sequence[RecordKind]) -> RecordKind | None:
    """What has come of a decision by the kinds of its records, oldest first; None: nothing yet."""
    return next((kind for kind in reversed(kinds) if kind.is_outcome), None)


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


def first_broken_link(records: Iterable[DecisionRecord]) -> DecisionRecord | None:
    """The first record that does not follow from its predecessor or whose content was changed; None when all is whole."""
    previous = GENESIS
    for sequence, record in enumerate(records, start=1):
        if record.sequence != sequence or record.previous_hash != previous or record.hash != record.recomputed_hash:
            return record
        previous = record.hash
    return None
