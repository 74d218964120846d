"""The time after a promotion: what of it is due now, and what a look at the promoted model can find."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from flows.domain.decision_record import RecordKind

if TYPE_CHECKING:
    from flows.domain.policy import Policy

RETIREMENT_EVERY = timedelta(hours=1)
"""How often a retirement that did not work is tried again, ..."""
RETIREMENT_WITHIN = timedelta(minutes=10)
"""... in the first minutes of each such time: an archive is read as a whole to be verified."""


class BreachKind(StrEnum):
    """What can go wrong with a model after its promotion, in the order in which it is shown."""

    LATENCY = "latency"
    ERRORS = "errors"
    TRAFFIC = "traffic"
    FLAG_RATE = "flag_rate"

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that is broken: which, and what was found, in words."""

    kind: BreachKind
    found: str


@dataclass(frozen=True, slots=True)
class Findings:
    """One look: sustained breaches, what could not be watched (by what it is, in words), and what was measured."""

    breaches: tuple[Breach, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    measured: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.breaches + other.breaches, self.missing + other.missing, self.measured + other.measured)


class Due(StrEnum):
    """What a promotion that is still in charge needs now."""

    WATCH = "watch"
    END = "end"
    RETIRE = "retire"
    NOTHING = "nothing"


def what_is_due(promoted_at: datetime, recorded: Collection[RecordKind], now: datetime, policy: Policy) -> Due:
    """What is to be done about a promotion that is still in charge.

    Args:
        promoted_at: when it was recorded (UTC).
        recorded: the kinds of the decision's records.
        now: of the same clock as `promoted_at`.
        policy: gives the hours.
    """
    age = now - promoted_at
    if age < timedelta(hours=policy.bake_hours):
        return Due.WATCH
    if policy.bake_hours and RecordKind.WATCHED not in recorded:
        return Due.END
    overdue = age - timedelta(hours=policy.retire_after_hours)
    is_wanted = policy.retire_after_hours > 0 and RecordKind.RETIRED not in recorded and overdue >= timedelta(0)
    return Due.RETIRE if is_wanted and overdue % RETIREMENT_EVERY < RETIREMENT_WITHIN else Due.NOTHING


def sustained(earlier: Collection[Breach], later: Collection[Breach]) -> tuple[Breach, ...]:
    """The breaches of two adjacent windows that are in both, as the later one tells of them."""
    before = {breach.kind for breach in earlier}
    return tuple(breach for breach in later if breach.kind in before)
