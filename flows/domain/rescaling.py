"""Rescaling: whether production holds the same values as training in another unit, or scaled where training was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flows.domain.guardrails import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

QUANTILES = 4000
LARGE_FACTOR = 5.0  # less is drift, not another unit
UNIT_FACTORS = (10.0, 60.0, 100.0, 1000.0, 3600.0)
SHARES = np.linspace(0.1, 1.0, 19)  # of the rows that are rescaled
LEAST_DISTANCE = 0.05
ROUNDING = 1e-5  # of float32, also after a mean was taken away
MOST_LEFT = 0.25  # of the distance, when the other scale is taken into account


@dataclass(frozen=True, slots=True)
class Scaler:
    """What the training logged of a feature's scaling: (x - mean) / scale, after log(1 + x) where `log1p`."""

    log1p: bool
    mean: float
    scale: float

    def apply(self, values: Values) -> Values:
        return ((np.log1p(np.maximum(values, 0)) if self.log1p else values) - self.mean) / self.scale

    def undo(self, values: Values) -> Values:
        raw = values * self.scale + self.mean
        return np.expm1(np.minimum(raw, 700)) if self.log1p else raw


@dataclass(frozen=True, slots=True)
class Transformation:
    """How production's values follow from training's: the logged `scaler` applied or undone, or a `factor`."""

    said: str
    factor: float = 1.0
    scaler: Scaler | None = None
    is_undone: bool = False

    def apply(self, values: Values) -> Values:
        if self.scaler is None:
            return values * self.factor
        return self.scaler.undo(values) if self.is_undone else self.scaler.apply(values)


@dataclass(frozen=True, slots=True)
class Rescaling:
    """A feature whose values come otherwise scaled in a `share` (0..1) of production's rows.

    `distance` is the KS distance from training's values as they are, `left` the one from training's values so transformed.
    """

    feature: str
    transformation: Transformation
    share: float
    distance: float
    left: float

    @property
    def said(self) -> str:
        rows = "" if self.share > 0.975 else f" in about {percent(self.share, 0)} of the rows"
        return f"{self.feature} is {self.transformation.said}{rows}"


def find_rescaling(feature: str, training: Values, production: Values, scaler: Scaler | None = None) -> Rescaling | None:
    """The transformation of training's values that explains production's best, if it explains nearly all of the difference.

    Args:
        feature: its name.
        training, production: the values, of any lengths; NaN and infinities are left out.
        scaler: what the training logged of this feature's scaling.

    Returns:
        None where the values agree, or no change of scale makes them agree.

    Example:
        >>> amounts = np.random.default_rng(1).lognormal(3, 1, 5000)
        >>> found = find_rescaling("amount", amounts[:2500], amounts[2500:] * 100)
        >>> found.said if found else None
        'amount is 100 times as large'
        >>> find_rescaling("amount", amounts[:2500], amounts[2500:] * 1.5) is None
        True
    """
    before, after = _sketch(training), _sketch(production)
    if not len(before) or not len(after) or (distance := _distance(before, before, after, 0.0)) < LEAST_DISTANCE:
        return None
    found = [_fit(before, after, transformation) for transformation in _transformations(before, after, scaler)]
    left, share, transformation = min(found, key=lambda fit: fit[0])
    return Rescaling(feature, transformation, share, distance, left) if left <= MOST_LEFT * distance else None


def _sketch(values: Values) -> Values:
    """Enough of the sorted values to know the distribution to a few thousandths."""
    known = np.sort(values[np.isfinite(values)]).astype(np.float64)
    if len(known) <= QUANTILES:
        return known
    return known[np.linspace(0, len(known) - 1, QUANTILES).round().astype(np.int64)]


def _transformations(before: Values, after: Values, scaler: Scaler | None) -> Iterator[Transformation]:
    for unit in UNIT_FACTORS:
        yield Transformation(f"{unit:g} times as large", unit)
        yield Transformation(f"{unit:g} times as small", 1 / unit)
    one, two = (float(np.median(np.abs(values[values != 0]))) if values.any() else 0.0 for values in (before, after))
    if one and two and not 1 / LARGE_FACTOR < two / one < LARGE_FACTOR:
        size = f"{two / one:.3g} times as large" if two > one else f"{one / two:.3g} times as small"
        yield Transformation(f"about {size}", two / one)
    if scaler is not None:
        yield Transformation("scaled already where training was not", scaler=scaler)
        yield Transformation("not scaled where training was", scaler=scaler, is_undone=True)


def _fit(before: Values, after: Values, transformation: Transformation) -> tuple[float, float, Transformation]:
    changed = np.sort(transformation.apply(before))
    left = [_distance(before, changed, after, float(share)) for share in SHARES]
    best = int(np.argmin(left))
    return left[best], float(SHARES[best]), transformation


def _distance(before: Values, changed: Values, after: Values, share: float) -> float:
    """KS distance of `after` from a mixture with `share` of `changed`, all ascending; what rounding tells apart is one value."""
    points = np.concatenate([before, changed, after]) if share else np.concatenate([before, after])
    points += ROUNDING * (np.abs(points) + np.std(after))
    plain, other, found = (np.searchsorted(values, points, "right") / len(values) for values in (before, changed, after))
    return float(np.max(np.abs((1 - share) * plain + share * other - found)))
