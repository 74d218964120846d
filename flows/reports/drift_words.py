"""What a feature's drift means, in words for people; the numbers stand beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.drift import FeatureDrift, FeatureKind, Severity, Shape
from flows.domain.guardrails import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.column_summary import ColumnSummary


def describe_drift(drift: FeatureDrift) -> str:
    """One clause: how production differs from training; for what drifted naturally where its middle or its shares went.

    Example:
        >>> import numpy as np
        >>> from flows.domain.drift import feature_drifts
        >>> describe_drift(*feature_drifts([("amount", np.arange(1000.0), np.arange(1000.0) * 2)]))
        'larger: median 499 → 998'
    """
    if drift.distance is None and not drift.shapes:
        return "cannot be compared: training has no values"
    said = [_shape(shape, drift) for shape in drift.shapes if shape is not Shape.ZEROS or Shape.CONSTANT not in drift.shapes]
    if said:
        return "; ".join(said)
    if drift.severity is Severity.NONE:
        return "as in training"
    return _shares(drift) if drift.kind is FeatureKind.CATEGORY else _shift(drift.training, drift.production)


def conclude_drift(drifts: Sequence[FeatureDrift]) -> str:
    """The closing sentence over all features, worst first."""
    drifted = [drift for drift in drifts if drift.severity is not Severity.NONE]
    if not drifted:
        return f"None of {len(drifts)} features drifted: production is like training in all of them."
    severe = sum(drift.severity is Severity.SEVERE for drift in drifted)
    how = "all severely" if severe == len(drifted) else f"{severe} severely" if severe else "none severely"
    worst = drifted[0]
    return f"{len(drifted)} of {len(drifts)} features drifted, {how}; the worst is {worst.feature} ({describe_drift(worst)})."


def _shape(shape: Shape, drift: FeatureDrift) -> str:
    before, after = drift.training, drift.production
    match shape:
        case Shape.EMPTY:
            return f"always null ({percent(before.null_share)} in training)"
        case Shape.CONSTANT:
            return f"always {after.most_frequent[0][0] if after.most_frequent else _number(after.minimum)}"
        case Shape.NULLS:
            return f"more nulls: {percent(before.null_share)} → {percent(after.null_share)}"
        case Shape.ZEROS:
            return f"more zeros: {percent(before.zero_share or 0)} → {percent(after.zero_share or 0)}"
        case Shape.SCALE:
            return f"another scale: its spread is {_number(drift.scale_ratio)} times that in training"
        case Shape.TYPE:
            return "text, and numbers in training" if drift.kind is FeatureKind.NUMBER else "numbers, and text in training"


def _shares(drift: FeatureDrift) -> str:
    """The frequent category whose share changed most."""
    before, after = dict(drift.training.most_frequent), dict(drift.production.most_frequent)
    known = [name for name in before if name in after] or [*before, *after]
    name = max(known, key=lambda one: abs(after.get(one, 0) - before.get(one, 0)))
    return f"other shares: {name} {percent(before.get(name, 0))} → {percent(after.get(name, 0))}"


def _shift(before: ColumnSummary, after: ColumnSummary) -> str:
    for name, one, two in (("median", before.median, after.median), ("mean", before.mean, after.mean)):
        if one is not None and two is not None and one != two:
            return f"{'larger' if two > one else 'smaller'}: {name} {_number(one)} → {_number(two)}"
    return "another shape of the distribution"


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.3g}"
