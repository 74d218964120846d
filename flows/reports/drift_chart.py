"""A feature's distribution in training and in production: one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.drift import FeatureDrift, FeatureKind, feature_drifts
from flows.domain.guardrails import percent
from flows.reports.drift_words import describe_drift
from flows.reports.figures import BLUE, ORANGE, new_figure, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Column = NDArray[Any]

_HEIGHT_INCHES = 4.2
_TRAINING, _PRODUCTION = BLUE, ORANGE
_BINS = 60
_OUTER = (0.5, 99.5)  # percentiles: beyond them a handful of values would squeeze all others into one bar
_MOSTLY = 0.5


def drift_chart(drift: FeatureDrift, training: Column, production: Column) -> bytes:
    """A PNG of both distributions in the same bins, as shares of each side's values.

    The outer 0.5 % on either end are cut off. Of a feature that is mostly 0 the rest is drawn, the zeros are in the legend.

    Args:
        training, production: the feature's columns, as `feature_drifts` takes them.
    """
    from matplotlib.ticker import PercentFormatter  # a second of imports

    figure = new_figure(_HEIGHT_INCHES)
    axes = figure.subplots()
    if drift.kind is FeatureKind.CATEGORY:
        _draw_categories(axes, drift)
    else:
        _draw_numbers(axes, training, production)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(title=f"{drift.feature} – {describe_drift(drift)}", ylabel="share of the values")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return png_of(figure)


def suspect_chart(feature: str, training: Column, production: Column) -> bytes:
    """The same of one feature that a finding has named; by itself its own p-value is what counts."""
    [drift] = feature_drifts([(feature, training, production)])
    return drift_chart(drift, training, production)


def _draw_numbers(axes: Axes, training: Column, production: Column) -> None:
    before, after = (_finite(column) for column in (training, production))
    is_mostly_zero = any(len(values) and (values == 0).mean() > _MOSTLY for values in (before, after))
    drawn = [values[values != 0] if is_mostly_zero else values for values in (before, after)]
    edges, is_log = _edges([values for values in drawn if len(values)])
    for values, shown, colour, name in ((before, drawn[0], _TRAINING, "training"), (after, drawn[1], _PRODUCTION, "production")):
        if len(values):
            zeros = f", {percent((values == 0).mean())} of them 0 and not drawn" if is_mostly_zero else ""
            label, is_filled = f"{name} ({len(values):,} values{zeros})", name == "training"
            shares = np.histogram(shown, edges)[0] / len(values)
            axes.stairs(shares, edges, fill=is_filled, color=colour, label=label, alpha=0.45 if is_filled else 1, linewidth=1.8)
    if is_log:
        axes.set_xscale("log")


def _finite(column: Column) -> Column:
    if column.dtype == object:  # a CSV file's column without any value
        return np.empty(0)
    return column[np.isfinite(column)].astype(np.float64)


def _edges(sides: list[Column]) -> tuple[Column, bool]:
    """Common bins of both sides; logarithmic where all is positive and spans three orders of magnitude."""
    if not sides:
        return np.array([0.0, 1.0]), False
    ends = np.array([np.percentile(values, _OUTER) for values in sides])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    is_log = min(float(values.min()) for values in sides) > 0 and high / low >= 1000
    return (np.geomspace(low, high, _BINS + 1) if is_log else np.linspace(low, high, _BINS + 1)), is_log


def _draw_categories(axes: Axes, drift: FeatureDrift) -> None:
    before, after = dict(drift.training.most_frequent), dict(drift.production.most_frequent)
    names = [*before, *(name for name in after if name not in before)]
    for beside, shares, colour, name in ((-0.2, before, _TRAINING, "training"), (0.2, after, _PRODUCTION, "production")):
        axes.bar(
            [place + beside for place in range(len(names))], [shares.get(one, 0) for one in names], 0.38, color=colour, label=name
        )
    axes.set_xticks(range(len(names)), names)
