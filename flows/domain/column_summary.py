"""What one column of a table of features holds, in a few numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]

LEAST_VALUES = 20
"""Fewer values than this tell neither a scale nor a constant, nor what chance does."""
TOP_CATEGORIES = 5


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """One column of one table; what does not exist (a mean of categories, of nothing, of infinities alone) is None.

    `rows` is at least 1, `nulls` of them have no value. `zeros` counts values that are 0. Mean, (population) deviation and the
    rest are of the finite values, quantiles are values that occur; `spread` is the interquartile range of what is not 0.
    `most_frequent`: categories with their shares (0..1) of the values, at most `TOP_CATEGORIES`.
    """

    rows: int
    nulls: int
    zeros: int | None = None
    mean: float | None = None
    deviation: float | None = None
    median: float | None = None
    iqr: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    spread: float | None = None
    most_frequent: tuple[tuple[str, float], ...] = ()

    @property
    def values(self) -> int:
        return self.rows - self.nulls

    @property
    def null_share(self) -> float:
        """Of the rows, 0..1."""
        return self.nulls / self.rows

    @property
    def zero_share(self) -> float | None:
        """Of the values, 0..1; None for categories and where there are no values."""
        return None if self.zeros is None or not self.values else self.zeros / self.values


def summarise_numbers(rows: int, values: Column) -> ColumnSummary:
    """A column of `rows` rows, whose values are these sorted numbers (n,) without NaN.

    Example:
        >>> found = summarise_numbers(5, np.array([0.0, 1.0, 2.0, 3.0]))
        >>> found.null_share, found.zero_share, found.median, found.iqr
        (0.2, 0.25, 1.0, 2.0)
    """
    zeros = slice(*places(values, 0.0))
    finite = values[places(values, -np.inf)[1] : places(values, np.inf)[0]]
    summary = ColumnSummary(rows, rows - len(values), zeros.stop - zeros.start)
    if not len(finite):
        return summary
    with np.errstate(over="ignore"):
        mean, deviation = finite.mean(dtype=np.float64), finite.std(dtype=np.float64)
    low, middle, high = (float(finite[place]) for place in quantile_places(len(finite), 4))
    return replace(
        summary,
        mean=_if_finite(mean),
        deviation=_if_finite(deviation),
        median=middle,
        iqr=high - low,
        minimum=float(finite[0]),
        maximum=float(finite[-1]),
        spread=_spread(finite),
    )


def summarise_categories(rows: int, counts: Counter[str]) -> ColumnSummary:
    """A column of `rows` rows, in which each category occurs that often.

    Example:
        >>> summarise_categories(5, Counter(web=3, shop=1)).most_frequent
        (('web', 0.75), ('shop', 0.25))
    """
    values = counts.total()
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_CATEGORIES]
    return ColumnSummary(rows, rows - values, most_frequent=tuple((name, count / values) for name, count in top))


def places(values: Column, value: float) -> tuple[int, int]:
    """Where this value begins and ends among the sorted ones."""
    return int(np.searchsorted(values, value, side="left")), int(np.searchsorted(values, value, side="right"))


def quantile_places(count: int, parts: int) -> list[int]:
    """Where the inner quantiles of `count` sorted values are: values that occur, so that ties stay whole."""
    return [-(-count * part // parts) - 1 for part in range(1, parts)]


def _if_finite(value: np.floating[Any]) -> float | None:
    return float(value) if isfinite(value) else None


def _spread(finite: Column) -> float | None:
    """The interquartile range of what is not 0: a feature that is mostly 0 has no other that its outliers would not rule."""
    begin, end = places(finite, 0.0)
    count = len(finite) - (end - begin)
    if count < LEAST_VALUES:
        return None
    low, _, high = (finite[place if place < begin else place + end - begin] for place in quantile_places(count, 4))
    return float(high) - float(low) or None
