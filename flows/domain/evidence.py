"""Evidence: the frozen input of a verdict. The same evidence and policy always give the same verdict; the digest names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from fractions import Fraction
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from flows.domain.counts import FeedbackCounts, Outcomes, TelemetrySummary
from flows.domain.errors import NotEnoughEvidence
from flows.domain.feedback import ExposureWindow
from flows.domain.sequential import Look

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        feedback: everything counted in the window; None when only counts were given (a calculation, not a decision).
        counted: the given counts, where there is no feedback.
        window: the exposure that was evaluated; None with counts only.
        telemetry: latency and errors, None when nothing measured them.
        looks: every look at the outcomes so far, the present one last; empty with counts only.
        horizon_days: where the test ends, in days of exposure.
        missing: what could not be had, in words.
        schema: version of this shape.
    """

    feedback: FeedbackCounts | None = None
    counted: Outcomes | None = None
    window: ExposureWindow | None = None
    telemetry: TelemetrySummary | None = None
    looks: tuple[Look, ...] = ()
    horizon_days: int | None = None
    missing: tuple[str, ...] = ()
    schema: int = 1

    @property
    def outcomes(self) -> Outcomes:
        """The counts that the comparison rests on."""
        found = self.feedback.outcomes if self.feedback is not None else self.counted
        if found is None:
            raise NotEnoughEvidence("This evidence holds neither feedback nor counts, so there is nothing to compare.")
        return found

    @property
    def is_at_horizon(self) -> bool:
        """Whether no further look is planned."""
        return self.window is not None and self.horizon_days is not None and self.window.exposure_days >= self.horizon_days

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    def to_json(self) -> dict[str, Any]:
        return plain(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        return rebuilt(cls, data)


def plain(value: Any) -> Any:
    """A frozen dataclass as what JSON can hold: times as ISO text, fractions as text, tuples as lists."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Fraction) else value


def rebuilt(kind: type[T], data: Mapping[str, Any]) -> T:
    """The dataclass that `plain` was made from.

    Raises:
        KeyError, ValueError, TypeError: the data is not of this shape.
    """
    hints = _hints(kind)
    return kind(**{field.name: _typed(hints[field.name], data[field.name]) for field in fields(kind)})


_hints = cache(get_type_hints)  # they are text in the classes, and parsing it takes longer than all the rest


def _typed(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    options = [option for option in get_args(hint) if option is not NoneType]
    if get_origin(hint) is tuple:
        return tuple(_typed(options[0], item) for item in value)
    if options:
        return _typed(options[0], value)
    if is_dataclass(hint):
        return rebuilt(hint, value)  # pyright: ignore[reportArgumentType]  (is_dataclass also allows instances; a hint is a class)
    if hint is datetime:
        return datetime.fromisoformat(value)
    return hint(value) if hint is Fraction or issubclass(hint, Enum) else value
