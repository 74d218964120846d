"""Training and production compared, feature by feature and week by week, with one column of each in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.drift import FeatureDrift, Severity, distances_by_week, feature_drifts
from flows.domain.errors import DataInvalid
from flows.table_summaries import WEEK_SECONDS, weeks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from flows.ports import FeatureTable

WEEKLY_FEATURES = 10
"""Of so many, the worst ones, the weeks are compared: further ones would repeat the picture."""


@dataclass(frozen=True, slots=True)
class Week:
    """One week of production, counted from its first event: its beginning (UTC), its rows, and each feature's distance 0..1."""

    begins: datetime
    rows: int
    distances: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TableDrift:
    """`drifts` of all common features, worst first; `weeks` of the worst, empty without event_time.

    `absent`: features that production lacks; `unexpected`: those that training lacks.
    """

    drifts: tuple[FeatureDrift, ...]
    weeks: tuple[Week, ...]
    absent: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        return tuple(drift for drift in self.drifts if drift.severity is not Severity.NONE)


def compare_tables(
    training: FeatureTable, production: FeatureTable, on_step: Callable[[str, int], object] = lambda _doing, _steps: None
) -> TableDrift:
    """Every feature that both tables have, over all rows.

    Args:
        on_step: told before each step what it is, and how many steps there are in all.

    Raises:
        DataInvalid: there is no common feature, or one is a number in one table and text in the other.
    """
    common = [name for name in training.features if production.has(name)]
    if not common:
        raise DataInvalid(
            f"{training.name} and {production.name} have no feature in common; their columns must have the same names."
        )
    weekly = min(WEEKLY_FEATURES, len(common)) if production.has("event_time") else 0
    steps = len(common) + weekly

    def columns() -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
        for name in common:
            on_step(name, steps)
            yield name, training.column(name), production.column(name)

    drifts = feature_drifts(columns())
    weeks = _weeks(
        training, production, [drift.feature for drift in drifts[:weekly]], lambda name: on_step(f"{name} by week", steps)
    )
    absent = tuple(name for name in training.features if name not in common)
    return TableDrift(drifts, weeks, absent, tuple(name for name in production.features if name not in common))


def _weeks(
    training: FeatureTable, production: FeatureTable, features: list[str], on_feature: Callable[[str], object]
) -> tuple[Week, ...]:
    if not features:
        return ()
    weeks = weeks_of(production)
    if weeks is None or (weeks < 0).all():
        return ()
    first = float(np.nanmin(production.column("event_time")))
    found: dict[str, dict[int, float]] = {}
    for name in features:
        on_feature(name)
        found[name] = distances_by_week(name, training.column(name), production.column(name), weeks)
    numbers, rows = np.unique(weeks[weeks >= 0], return_counts=True)
    return tuple(
        Week(
            datetime.fromtimestamp(first + week * WEEK_SECONDS, UTC),
            count,
            {name: distances[week] for name, distances in found.items() if week in distances},
        )
        for week, count in zip(numbers.tolist(), rows.tolist(), strict=True)
    )
