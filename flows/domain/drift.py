"""Drift: how far a feature's values in production are from those that the candidate was trained on, and how they changed.

A p-value alone says nothing here: among a million rows a distance of 0.002 is beyond chance. A change counts when it is beyond
chance and large enough to matter; a change that no natural drift makes (a feature that came empty, constant, as zeros or on
another scale) has a name of its own, its shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from math import inf, isnan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from flows.domain.column_summary import LEAST_VALUES, ColumnSummary, places, summarise_categories, summarise_numbers
from flows.domain.distances import ks_chance, ks_distance, ks_p_value, population_stability, shares_by_decile
from flows.domain.errors import DataInvalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]
    Share = tuple[int, int]  # how many, of how many

MAX_Q_VALUE = 0.05
MILD_DISTANCE, SEVERE_DISTANCE = 0.05, 0.15
MILD_PSI, SEVERE_PSI = 0.1, 0.25
SCALE_FACTOR = 5.0
"""A spread that is this many times larger or smaller is another scale: natural drift does not come near it."""
NULL_RISE = Fraction(1, 20)
"""So much larger a share of nulls is no natural change, whatever it was before."""
UNUSUAL_SHARE = Fraction(1, 100)
"""Zeros that were rarer than this in training are no natural value of the feature; then `NULL_RISE` holds for them as well."""
HALF_LOST_RISE = Fraction(1, 50)
"""Where at least half of what was there is gone, a rise by this share is enough."""
CHANCE = 1e-4
"""What chance does less often than this is no chance: strict, because each feature is looked at in several ways."""
MOST_CATEGORIES = 50
"""The most frequent categories that are told apart; the rest, and those too rare for the chi-square test, count as one."""
LEAST_EXPECTED = 5.0


class FeatureKind(StrEnum):
    """A boolean is a number, 0 or 1."""

    NUMBER = "number"
    CATEGORY = "category"


class Shape(StrEnum):
    """A change that no natural drift makes, in production and not in training."""

    EMPTY = "empty"
    CONSTANT = "constant"
    NULLS = "nulls"
    ZEROS = "zeros"
    SCALE = "scale"
    TYPE = "type"


class Severity(StrEnum):
    """How grave a supported finding is where nobody can say how much of the loss it explains."""

    NONE = "none"
    MILD = "mild"
    SEVERE = "severe"


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature in training and in production.

    `distance`: for numbers Kolmogorov and Smirnov's D over all values, for categories the total variation; 0..1.
    `p_value` of it (chi-square for categories), `q_value` among all features (Benjamini–Hochberg). `psi`: population stability
    index, from 0. `scale_ratio`: production's spread over training's, above 0. Each is None where a side has no values (or, for
    the scale, no spread).
    """

    feature: str
    kind: FeatureKind
    training: ColumnSummary
    production: ColumnSummary
    distance: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    psi: float | None = None
    scale_ratio: float | None = None
    shapes: tuple[Shape, ...] = ()

    @property
    def measure(self) -> str:
        """What `distance` is, in words."""
        return "KS distance" if self.kind is FeatureKind.NUMBER else "total variation"

    @property
    def severity(self) -> Severity:
        """Beyond chance and large; a shape is always severe."""
        if self.shapes or self._reaches(SEVERE_DISTANCE, SEVERE_PSI):
            return Severity.SEVERE
        return Severity.MILD if self._reaches(MILD_DISTANCE, MILD_PSI) else Severity.NONE

    def _reaches(self, distance: float, psi: float) -> bool:
        if self.q_value is None or self.q_value >= MAX_Q_VALUE:
            return False
        return (self.distance or 0.0) >= distance or (self.psi or 0.0) >= psi


def feature_drifts(columns: Iterable[tuple[str, Column, Column]]) -> tuple[FeatureDrift, ...]:
    """Compare each feature's values in training with those in production; worst first.

    Args:
        columns: (feature, training, production), taken one at a time, so that a generator need not hold them all. Numbers as
            arrays of floats (n,) with NaN for null; categories as arrays of objects (n,) with None for null. Each with rows.

    Raises:
        DataInvalid: a feature has no rows.

    Source:
        Benjamini & Hochberg 1995, J. R. Statist. Soc. B 57:289-300, for the q-values.

    Example:
        >>> amounts = np.arange(1000.0)
        >>> worst, other = feature_drifts([("hour", amounts % 24, amounts % 24), ("amount", amounts, amounts + 400)])
        >>> worst.feature, worst.distance, worst.severity.value, other.severity.value
        ('amount', 0.4, 'severe', 'none')
    """
    drifts = [compare_feature(*column) for column in columns]
    tested = [drift.p_value for drift in drifts if drift.p_value is not None]
    q_values = iter(scipy.stats.false_discovery_control(tested, method="bh").tolist() if tested else ())
    judged = [drift if drift.p_value is None else replace(drift, q_value=next(q_values)) for drift in drifts]
    return tuple(sorted(judged, key=_rank))


def compare_feature(feature: str, training: Column, production: Column) -> FeatureDrift:
    """One feature's drift without the q-value, which only the other features give; arguments and errors as `feature_drifts`.

    Example:
        >>> compare_feature("risk", np.arange(100.0), np.zeros(100)).shapes
        (<Shape.CONSTANT: 'constant'>, <Shape.ZEROS: 'zeros'>)
    """
    if not len(training) or not len(production):
        raise DataInvalid(f"The feature {feature} has no rows in {'production' if len(training) else 'training'}.")
    before, after = _one_kind(training, production)
    if (before.dtype == object) != (after.dtype == object):
        kind = FeatureKind.CATEGORY if before.dtype == object else FeatureKind.NUMBER
        return FeatureDrift(feature, kind, _summary(before), _summary(after), shapes=(Shape.TYPE,))
    if before.dtype == object:
        return _compare_categories(feature, before, after)
    return _compare_numbers(feature, *_alike(before, after))


def category_distance(training: Counter[str], production: Counter[str]) -> tuple[float, float]:
    """The total variation of two sides' categories, as `FeatureDrift.distance` has it (0..1), and what chance alone makes of it.

    Args:
        training, production: how often each category occurs, each at least one.

    Source:
        By chance the mean total variation is at most ½ Σ √(p (1 - p)) √(1/n + 1/m) (Jensen); of few categories the 5 % bound of
        the KS distance is larger, and taken.

    Example:
        >>> distance, chance = category_distance(Counter(web=75, shop=25), Counter(web=50, shop=50))
        >>> distance, round(chance, 2)
        (0.25, 0.19)
    """
    table = _frequencies(training, production)
    shares, common = table / table.sum(axis=0), table.sum(axis=1) / table.sum()
    rows = training.total(), production.total()
    mean = float(np.sqrt(common * (1 - common)).sum() / 2) * sqrt(1 / rows[0] + 1 / rows[1])
    return _total_variation(shares), max(ks_chance(*rows), mean)


def distances_by_week(feature: str, training: Column, production: Column, weeks: NDArray[np.int64]) -> dict[int, float]:
    """How far each week of production is from the whole training, as `FeatureDrift.distance`.

    Args:
        weeks: the week of each row of production, (m,), counted from 0; below 0 where it is not known.

    Returns:
        by week, in order; without weeks of fewer than `LEAST_VALUES` values, and of what is a number on one side and text on
        the other, without any.

    Example:
        >>> hours = np.arange(2400) % 24.0
        >>> distances_by_week("hour", hours, np.where(np.arange(2400) < 1200, hours, hours + 6), np.arange(2400) // 1200)
        {0: 0.0, 1: 0.25}
    """
    before, after = _one_kind(training, production)
    if (before.dtype == object) != (after.dtype == object):
        return {}
    if before.dtype != object:
        before, after = _alike(before, after)
        before = _sorted_values(before)
    found: dict[int, float] = {}
    for week in np.unique(weeks[weeks >= 0]).tolist():
        distance = _week_distance(feature, before, after[weeks == week])
        if distance is not None:
            found[week] = distance
    return found


def _week_distance(feature: str, training: Column, week: Column) -> float | None:
    """`training` sorted and without nulls where it holds numbers."""
    if week.dtype == object:
        drift = _compare_categories(feature, training, week)
        return drift.distance if drift.production.values >= LEAST_VALUES else None
    values = _sorted_values(week)
    return ks_distance(training, values) if len(values) >= LEAST_VALUES and len(training) else None


def _alike(training: Column, production: Column) -> tuple[Column, Column]:
    """Both as floats of one width: 0.1 as a float32 and as a float64 are different numbers and no drift."""
    is_narrow = any(
        column.dtype.kind in "bf" and column.dtype.itemsize < np.float64().itemsize for column in (training, production)
    )
    width = np.float32 if is_narrow else np.float64
    return training.astype(width, copy=False), production.astype(width, copy=False)


def _compare_numbers(feature: str, training: Column, production: Column) -> FeatureDrift:
    before, after = _sorted_values(training), _sorted_values(production)
    summaries = summarise_numbers(len(training), before), summarise_numbers(len(production), after)
    if not len(before) or not len(after):
        return FeatureDrift(feature, FeatureKind.NUMBER, *summaries, shapes=_null_shapes(*summaries))
    distance, ratio = ks_distance(before, after), _scale_ratio(*summaries)
    p_value = ks_p_value(before, after, distance)
    is_rescaled = ratio is not None and not 1 / SCALE_FACTOR < ratio < SCALE_FACTOR and p_value < CHANCE
    shapes = (
        *_null_shapes(*summaries),
        *([Shape.CONSTANT] if _is_newly_constant(before, after) else []),
        *([Shape.ZEROS] if _zeros_rose(*summaries) else []),
        *([Shape.SCALE] if is_rescaled else []),
    )
    psi = population_stability(*shares_by_decile(before, after), (len(before), len(after)))
    return FeatureDrift(feature, FeatureKind.NUMBER, *summaries, distance, p_value, None, psi, ratio, shapes)


def _sorted_values(column: Column) -> Column:
    ordered = np.sort(column)
    return ordered[: len(ordered) - int(np.isnan(column).sum())]


def _scale_ratio(training: ColumnSummary, production: ColumnSummary) -> float | None:
    return None if training.spread is None or production.spread is None else production.spread / training.spread


def _null_shapes(training: ColumnSummary, production: ColumnSummary) -> tuple[Shape, ...]:
    if not production.values and training.values and _hardly_all(training.null_share, production.rows):
        return (Shape.EMPTY,)
    before, after = (training.nulls, training.rows), (production.nulls, production.rows)
    rose = Fraction(*after) - Fraction(*before) >= NULL_RISE or _is_half_lost(before, after)
    return (Shape.NULLS,) if rose and _is_beyond_chance(before, after) else ()


def _zeros_rose(training: ColumnSummary, production: ColumnSummary) -> bool:
    """Zeros where there were none, or the greater part of what was not zero lost."""
    before, after = (training.zeros or 0, training.values), (production.zeros or 0, production.values)
    is_new = Fraction(*before) <= UNUSUAL_SHARE and Fraction(*after) - Fraction(*before) >= NULL_RISE
    return (is_new or _is_half_lost(before, after)) and _is_beyond_chance(before, after)


def _is_half_lost(before: Share, after: Share) -> bool:
    rise = Fraction(*after) - Fraction(*before)
    return rise >= HALF_LOST_RISE and 2 * rise >= 1 - Fraction(*before)


def _is_beyond_chance(before: Share, after: Share) -> bool:
    """Whether a share rose by more than chance does: score test of two proportions, one-sided, continuity-corrected.

    The normal tail is right enough from `LEAST_VALUES` on.
    """
    if after[0] < LEAST_VALUES:
        return False
    common = (before[0] + after[0]) / (before[1] + after[1])
    variance = common * (1 - common) * (1 / before[1] + 1 / after[1])
    rise = (after[0] - 0.5) / after[1] - before[0] / before[1]
    return variance > 0 and float(scipy.stats.norm.sf(rise / sqrt(variance))) < CHANCE


def _is_newly_constant(training: Column, production: Column) -> bool:
    """Whether these values, all the same, could hardly be so many in training."""
    if production[0] != production[-1] or training[0] == training[-1]:
        return False
    begin, end = places(training, production[0])
    return _hardly_all((end - begin) / len(training), len(production))


def _hardly_all(share: float, values: int) -> bool:
    return values >= LEAST_VALUES and share ** (values - 1) < CHANCE


def _one_kind(training: Column, production: Column) -> tuple[Column, Column]:
    """A column without any value has whatever type its file gives it: it takes that of the other side."""
    if (training.dtype == object) == (production.dtype == object):
        return training, production
    if _is_all_null(training):
        return _nulls_like(production, len(training)), production
    if _is_all_null(production):
        return training, _nulls_like(training, len(production))
    return training, production


def _summary(column: Column) -> ColumnSummary:
    if column.dtype == object:
        return summarise_categories(len(column), Counter(str(value) for value in column if not is_null(value)))
    return summarise_numbers(len(column), _sorted_values(column))


def _is_all_null(column: Column) -> bool:
    if column.dtype == object:
        return all(is_null(value) for value in column)
    return column.dtype.kind == "f" and bool(np.isnan(column).all())


def is_null(value: object) -> bool:
    """Whether a category is missing: None, or NaN as pandas has it."""
    return value is None or (isinstance(value, float) and isnan(value))


def _nulls_like(other: Column, rows: int) -> Column:
    return np.full(rows, None, object) if other.dtype == object else np.full(rows, np.nan, np.float32)


def _compare_categories(feature: str, training: Column, production: Column) -> FeatureDrift:
    before, after = (Counter(str(value) for value in column if not is_null(value)) for column in (training, production))
    summaries = summarise_categories(len(training), before), summarise_categories(len(production), after)
    if not before or not after:
        return FeatureDrift(feature, FeatureKind.CATEGORY, *summaries, shapes=_null_shapes(*summaries))
    table = _frequencies(before, after)
    shares = table / table.sum(axis=0)
    only = next(iter(after))
    is_constant = len(after) == 1 < len(before) and _hardly_all(before[only] / before.total(), after.total())
    return FeatureDrift(
        feature,
        FeatureKind.CATEGORY,
        *summaries,
        distance=_total_variation(shares),
        p_value=float(scipy.stats.chi2_contingency(table, correction=False).pvalue),
        psi=population_stability(shares[:, 0], shares[:, 1], (before.total(), after.total())),
        shapes=(*_null_shapes(*summaries), *([Shape.CONSTANT] if is_constant else [])),
    )


def _total_variation(shares: NDArray[np.float64]) -> float:
    return float(np.abs(shares[:, 0] - shares[:, 1]).sum() / 2)


def _frequencies(training: Counter[str], production: Counter[str]) -> NDArray[np.float64]:
    """(categories, 2): how often each occurs on either side; what is rare on either is counted as one, in the last row."""
    both = training + production
    least = LEAST_EXPECTED * both.total() / min(training.total(), production.total())
    names = sorted(both, key=lambda name: (-both[name], name))
    kept = [name for name in names[:MOST_CATEGORIES] if both[name] >= least]
    table = [[training[name], production[name]] for name in kept]
    rest = [counts.total() - sum(counts[name] for name in kept) for counts in (training, production)]
    return np.array([*table, rest] if any(rest) else table, np.float64)


def _rank(drift: FeatureDrift) -> tuple[int, float, str]:
    size = max((drift.distance or 0.0) / SEVERE_DISTANCE, (drift.psi or 0.0) / SEVERE_PSI)
    size = inf if Shape.EMPTY in drift.shapes else size
    return -list(Severity).index(drift.severity), -size, drift.feature
