"""What the rules need of the tables of features: outcomes, labels by week, distances between weeks, segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.counts import Design, ModelCounts, Outcomes, Overlap
from flows.domain.data_findings import Labels
from flows.domain.distances import ks_distance
from flows.domain.drift import FeatureDrift, Severity, feature_drifts
from flows.domain.holdout_findings import Likeness
from flows.domain.model_findings import Band
from flows.replay import is_fraud

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from flows.ports import FeatureTable

    Column = NDArray[Any]

WEEK_SECONDS = 7 * 86_400
BANDS = 4
LEAST_WEEK_ROWS = 20  # a smaller week tells nothing of what weeks differ by themselves
ANSWERED = ("is_fraud", "baseline_prediction", "candidate_prediction")


def count_outcomes(production: FeatureTable) -> Outcomes | None:
    """Both models on production's labelled rows; paired where rows have both predictions. None where something lacks."""
    if not all(production.has(name) for name in ANSWERED):
        return None
    label, one, two = (np.asarray(production.column(name), np.float64) for name in ANSWERED)
    has_both = ~np.isnan(label) & ~np.isnan(one) & ~np.isnan(two)
    if not has_both.any():
        return Outcomes(Design.SPLIT, _counts(label, one), _counts(label, two))
    label, one, two = label[has_both], one[has_both], two[has_both]
    return Outcomes(
        Design.PAIRED, _counts(label, one), _counts(label, two), _overlap(label == 1, one, two), _overlap(label == 0, one, two)
    )


def _counts(label: Column, prediction: Column) -> ModelCounts:
    is_known = ~np.isnan(label) & ~np.isnan(prediction)
    frauds, flagged = label[is_known] == 1, prediction[is_known] == 1
    caught = int((frauds & flagged).sum())
    return ModelCounts(int(frauds.sum()), caught, int(flagged.sum()), caught)


def _overlap(chosen: Column, one: Column, two: Column) -> Overlap:
    kind = (one[chosen] != 1) * 2 + (two[chosen] != 1)
    return Overlap(*(int(count) for count in np.bincount(kind, minlength=4)))


def column_pairs(one: FeatureTable, two: FeatureTable) -> Iterable[tuple[str, Column, Column]]:
    return ((name, one.column(name), two.column(name)) for name in one.features if two.has(name))


def weeks_of(table: FeatureTable) -> Column | None:
    """The week of each row (n,), counted from the first (-1: without a time); None without times."""
    if not table.has("event_time"):
        return None
    seconds = np.asarray(table.column("event_time"), np.float64)
    week = (seconds - np.fmin.reduce(seconds)) // WEEK_SECONDS
    return np.where(np.isnan(week), -1, week).astype(np.int64)


def distance_between_weeks(table: FeatureTable, feature: str, chosen: Column | None = None) -> float:
    """The largest distance (0..1) of one week's values from the other weeks' together; 0 where weeks cannot be told apart."""
    values, weeks = table.column(feature), weeks_of(table)
    if values.dtype == object or weeks is None:
        return 0.0
    is_known = ~np.isnan(values) if chosen is None else ~np.isnan(values) & chosen
    values, weeks = values[is_known], weeks[is_known]
    parts = [(np.sort(values[weeks == week]), np.sort(values[weeks != week])) for week in np.unique(weeks)]
    return max((ks_distance(one, rest) for one, rest in parts if min(len(one), len(rest)) >= LEAST_WEEK_ROWS), default=0.0)


def compare_frauds(holdout: FeatureTable, training: FeatureTable, production: FeatureTable) -> list[Likeness]:
    frauds = {id(table): is_fraud(table) for table in (holdout, training, production)}

    def drifts(table: FeatureTable) -> tuple[FeatureDrift, ...]:
        pairs = column_pairs(table, production)
        return feature_drifts((name, one[frauds[id(table)]], two[frauds[id(production)]]) for name, one, two in pairs)

    distances = {drift.feature: drift.distance or 0.0 for drift in drifts(training)}
    return [
        Likeness(
            "frauds",
            drift,
            distances.get(drift.feature, 1.0),
            distance_between_weeks(training, drift.feature, frauds[id(training)]) if training.has(drift.feature) else 0.0,
        )
        for drift in drifts(holdout)
        if drift.severity is not Severity.NONE
    ]


def count_labels(table: FeatureTable | None) -> Labels | None:
    if table is None or not table.has("is_fraud"):
        return None
    label, weeks = np.asarray(table.column("is_fraud"), np.float64), weeks_of(table)
    known = ~np.isnan(label)
    week = np.zeros(int(known.sum()), np.int64) if weeks is None else weeks[known] + 1
    counts = np.bincount(week), np.bincount(week, label[known])
    return Labels(tuple((int(rows), int(frauds)) for rows, frauds in zip(*counts, strict=True) if rows)) if known.any() else None


def find_bands(production: FeatureTable) -> list[Band]:
    """Of every number the frauds by quarters, with both models' answers as served; empty without frauds that have both."""
    if not all(production.has(name) for name in ANSWERED):
        return []
    label, one, two = (np.asarray(production.column(name), np.float64) for name in ANSWERED)
    chosen = (label == 1) & ~np.isnan(one) & ~np.isnan(two)
    kind = (one[chosen] != 1) * 2 + (two[chosen] != 1)  # both, baseline only, candidate only, neither
    columns = ((name, production.column(name)) for name in production.features)
    return [band for name, values in columns if values.dtype != object for band in _bands_of(name, values[chosen], kind)]


def _bands_of(feature: str, values: Column, kind: Column) -> Iterable[Band]:
    """Quarters of the frauds, tied values together; a feature of few values by its values."""
    is_known = ~np.isnan(values)
    values, kind = values[is_known], kind[is_known]
    edges = np.unique(values)
    if len(edges) > BANDS:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BANDS + 1)[1:], method="inverted_cdf"))
    place = np.searchsorted(edges, values)  # the band that ends at the edge
    for number in range(len(edges) if len(edges) > 1 else 0):  # all frauds in one band are no segment
        inside = place == number
        counts = (int(count) for count in np.bincount(kind[inside], minlength=4))
        yield Band(feature, float(values[inside].min()), float(values[inside].max()), Overlap(*counts))
