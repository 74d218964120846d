"""What if: the same evidence under another policy, criterion by criterion, and which of them decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.domain.criteria import Criterion, CriterionName, CriterionStatus
from flows.domain.verdict import Verdict, VerdictKind, decide_verdict

if TYPE_CHECKING:
    from flows.domain.evidence import Evidence
    from flows.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class WhatIfCriterion:
    """One condition under both policies; `room` is how far inside the other policy's limit it is, below 0 how far off."""

    name: CriterionName
    before: CriterionStatus
    after: CriterionStatus
    observed: float | None
    threshold_before: float
    threshold_after: float
    room: float | None
    unit: str
    decides: bool


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A verdict under another policy; `why` is its second sentence."""

    before: VerdictKind
    after: VerdictKind
    why: str
    criteria: tuple[WhatIfCriterion, ...]


def what_if(evidence: Evidence, verdict: Verdict, policy: Policy) -> WhatIf:
    """Decide the same evidence under another policy.

    Args:
        evidence: what the verdict rests on; it was counted under that verdict's policy, so its looks, maturity and window stay.
        verdict: the one that was given.
        policy: the other one.

    Returns:
        both verdicts, and each criterion's statuses, thresholds and room; those decide that fail, else those that are undecided,
        else the one with the least room for its threshold.
    """
    other = decide_verdict(evidence, policy)
    deciding = _deciding(other.criteria)
    rows = [
        WhatIfCriterion(
            *(before.name, before.status, after.status, after.observed, before.threshold, after.threshold),
            room=_room(after),
            unit=after.unit,
            decides=after.name in deciding,
        )
        for before, after in zip(verdict.criteria, other.criteria, strict=True)
    ]
    return WhatIf(verdict.kind, other.kind, other.reasons[1], tuple(rows))


def _deciding(criteria: tuple[Criterion, ...]) -> set[CriterionName]:
    for status in (CriterionStatus.FAILED, CriterionStatus.UNDECIDED):
        found = {criterion.name for criterion in criteria if criterion.status is status}
        if found:
            return found
    rooms = {item.name: room / item.threshold for item in criteria if item.threshold and (room := _room(item)) is not None}
    return {min(rooms, key=lambda name: rooms[name])} if rooms else set()


def _room(criterion: Criterion) -> float | None:
    if criterion.observed is None:
        return None
    match criterion.name:
        case CriterionName.RECALL_IMPROVEMENT:
            return criterion.observed - criterion.threshold
        case CriterionName.PRECISION_STABILITY:
            return criterion.threshold - abs(criterion.observed)
        case _:
            return criterion.threshold - criterion.observed
