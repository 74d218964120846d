"""Feedback: predictions joined with their later true labels, and the window of exposure that a look evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.domain.policy import Policy

_DAY = timedelta(days=1)


class ColumnKind(StrEnum):
    """What a column must hold."""

    IDENTIFIER = "text or whole numbers"
    TEXT = "text"
    TIME = "timestamps (UTC)"
    NUMBER = "numbers"
    BOOLEAN = "true, false or null"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the feedback's contract."""

    name: str
    kind: ColumnKind
    is_required: bool


COLUMNS = (
    Column("transaction_id", ColumnKind.IDENTIFIER, is_required=True),
    Column("event_time", ColumnKind.TIME, is_required=True),
    Column("arm", ColumnKind.TEXT, is_required=True),
    Column("baseline_prediction", ColumnKind.BOOLEAN, is_required=True),
    Column("candidate_prediction", ColumnKind.BOOLEAN, is_required=True),
    Column("is_fraud", ColumnKind.BOOLEAN, is_required=True),
    Column("entity_id", ColumnKind.IDENTIFIER, is_required=False),
    Column("amount", ColumnKind.NUMBER, is_required=False),
    Column("label_time", ColumnKind.TIME, is_required=False),
    Column("label_source", ColumnKind.TEXT, is_required=False),
    Column("latency_ms", ColumnKind.NUMBER, is_required=False),
    Column("error", ColumnKind.BOOLEAN, is_required=False),
)


@dataclass(frozen=True, slots=True)
class ExposureWindow:
    """The first `exposure_days` days of a test since `start`, as known at `as_of` (both aware, UTC).

    `as_of` is the feedback's own watermark and not the wall clock: when the pipeline stops loading, nothing may look matured.
    """

    start: datetime
    exposure_days: int
    as_of: datetime

    @property
    def end(self) -> datetime:
        return self.start + self.exposure_days * _DAY


def window_due(start: datetime, as_of: datetime, policy: Policy) -> ExposureWindow:
    """The window that can be evaluated now: the last planned look whose labels have matured.

    Args:
        start: when exposure began (UTC).
        as_of: the feedback's watermark (UTC).
        policy: gives looks and label maturity in days.

    Returns:
        the window of that look, so that evaluating twice between two looks sees the same evidence and spends nothing;
        before the first look the whole days that have matured so far, 0 at least.
    """
    matured_days = max(0, (as_of - start - policy.label_maturity_days * _DAY) // _DAY)
    return ExposureWindow(start, max((look for look in policy.looks if look <= matured_days), default=matured_days), as_of)


def next_look_due(window: ExposureWindow, policy: Policy) -> datetime | None:
    """When (UTC) the next planned look can be evaluated: its exposure day plus the labels' maturity; None past the last look."""
    upcoming = [look for look in policy.looks if look > window.exposure_days]
    return window.start + (upcoming[0] + policy.label_maturity_days) * _DAY if upcoming else None


def looks_on_the_clock(window: ExposureWindow | None, policy: Policy, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When the next and the last planned look can be evaluated, by a clock that the feedback may be behind.

    Args:
        window: of the present look; None with counts alone.
        policy: gives looks, maturity, and how long rows may take to arrive.
        now: that clock, at the moment at which the feedback was read.

    Returns:
        both times; None for a next look after the last one, and without a window.
    """
    if window is None:
        return None, None
    ahead, next_look = now - window.as_of + timedelta(hours=policy.feedback_delay_hours), next_look_due(window, policy)
    last_look = window.start + (policy.looks[-1] + policy.label_maturity_days) * _DAY
    return next_look and next_look + ahead, last_look + ahead
