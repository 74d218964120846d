"""What the rules need of the tables of features: outcomes, labels by week, distances between weeks, segments."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.counts import Design, ModelCounts, Outcomes, Overlap
from flows.domain.data_findings import Labels
from flows.domain.distances import ks_chance
from flows.domain.drift import MOST_CATEGORIES, FeatureDrift, Severity, category_distance, feature_drifts, is_null
from flows.domain.holdout_findings import Likeness
from flows.domain.recalls import Caught
from flows.domain.segment_findings import Band
from flows.replay import is_fraud

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from numpy.typing import NDArray

    from flows.ports import FeatureTable

    Column = NDArray[Any]

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
BANDS = 4
LEAST_WEEK_ROWS = 20  # a smaller week tells nothing of what weeks differ by themselves
WHOLE_WEEK = 0.5  # of the median week's rows: less is a stub, of some days only
MOST = 0.5  # of the rows: fewer pairs are a few stray ones of a split
ANSWERED = ("is_fraud", "baseline_prediction", "candidate_prediction")


def count_outcomes(production: FeatureTable) -> Outcomes | None:
    """Both models on production's labelled rows; paired where most of the answered rows have both predictions. None where
    something lacks."""
    if not all(production.has(name) for name in ANSWERED):
        return None
    label, one, two = (np.asarray(production.column(name), np.float64) for name in ANSWERED)
    has_both = ~np.isnan(label) & ~np.isnan(one) & ~np.isnan(two)
    has_any = ~np.isnan(label) & ~(np.isnan(one) & np.isnan(two))
    if not has_both.any() or has_both.sum() < MOST * has_any.sum():
        return Outcomes(Design.SPLIT, _counts(label, one), _counts(label, two))
    label, one, two = label[has_both], one[has_both], two[has_both]
    kind = overlap_kinds(one == 1, two == 1)
    frauds, false_alerts = overlap_of(kind[label == 1]), overlap_of(kind[label == 0])
    return Outcomes(Design.PAIRED, _counts(label, one), _counts(label, two), frauds, false_alerts)


def _counts(label: Column, prediction: Column) -> ModelCounts:
    is_known = ~np.isnan(label) & ~np.isnan(prediction)
    frauds, flagged = label[is_known] == 1, prediction[is_known] == 1
    caught = int((frauds & flagged).sum())
    return ModelCounts(int(frauds.sum()), caught, int(flagged.sum()), caught)


def column_pairs(one: FeatureTable, two: FeatureTable) -> Iterable[tuple[str, Column, Column]]:
    return ((name, one.column(name), two.column(name)) for name in one.features if two.has(name))


def weeks_of(table: FeatureTable) -> Column | None:
    """The week of each row (n,), counted from the first (-1: without a time); None without times."""
    if not table.has("event_time"):
        return None
    seconds = np.asarray(table.column("event_time"), np.float64)
    week = (seconds - np.fmin.reduce(seconds, initial=np.inf)) // WEEK_SECONDS
    return np.where(np.isnan(week), -1, week).astype(np.int64)


def rows_from(table: FeatureTable, period: tuple[datetime, datetime] | None) -> NDArray[np.bool_]:
    """The rows (n,) that are known to be from a period (first moment and end)."""
    if period is None or not table.has("event_time"):
        return np.zeros(table.rows, bool)
    seconds = np.asarray(table.column("event_time"), np.float64)
    start, end = (moment.timestamp() for moment in period)
    return (seconds >= start) & (seconds < end)


def catches_by_week(flags: Column, weeks: Column | None, chosen: Column) -> tuple[Caught, ...]:
    """How many of the chosen rows (all of them frauds) a model flagged in each week that has enough of them.

    Args:
        flags: of the chosen rows (m,).
        weeks: of all rows (n,); None: they are taken for one week.
        chosen: which of all rows are meant (n,).
    """
    of_chosen = np.zeros(len(flags), np.int64) if weeks is None else weeks[chosen]
    parts = [flags[of_chosen == week] for week in np.unique(of_chosen)]
    return tuple(Caught(len(part), int(part.sum())) for part in parts if len(part) >= LEAST_WEEK_ROWS)


def distance_between_weeks(table: FeatureTable, feature: str, chosen: Column | None = None) -> float:
    """The largest distance (0..1) of one week's values from the other weeks' together, beyond what chance alone makes; 0 where
    weeks cannot be told apart. Rows without a time and stubs of a week are left out."""
    values, weeks = table.column(feature), weeks_of(table)
    if weeks is None:
        return 0.0
    is_null_at = np.array([is_null(value) for value in values], bool) if values.dtype == object else np.isnan(values)
    is_known = ~is_null_at & (weeks >= 0) & (True if chosen is None else chosen)
    numbers, rows = np.unique(weeks[is_known], return_counts=True)
    if len(numbers) < 2:
        return 0.0
    whole = numbers[rows >= max(LEAST_WEEK_ROWS, WHOLE_WEEK * np.median(rows))]
    is_known &= np.isin(weeks, whole)
    beyond_chance = _categories_by_week if values.dtype == object else _numbers_by_week
    return max(0.0, *beyond_chance(values[is_known], weeks[is_known], whole)) if len(whole) > 1 else 0.0


def _numbers_by_week(values: Column, weeks: Column, whole: Column) -> Iterable[float]:
    order = np.argsort(values)  # once for all weeks: there may be many
    values, weeks = values[order], weeks[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of each run of equal values
    for week in whole:
        own = np.cumsum(weeks == week)
        rows, rest = int(own[-1]), len(own) - int(own[-1])
        yield float(np.abs(own[ends] / rows - (ends + 1 - own[ends]) / rest).max()) - ks_chance(rows, rest)


def _categories_by_week(values: Column, weeks: Column, whole: Column) -> Iterable[float]:
    by_week = [Counter(map(str, values[weeks == week])) for week in whole]
    together = sum(by_week, Counter[str]())
    for own in by_week:
        distance, chance = category_distance(together - own, own)
        yield distance - chance


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


def served_answers(production: FeatureTable) -> tuple[Column, Column, Column] | None:
    """Places of the frauds (k,) to which both models gave an answer, and both answers (k,); None without any."""
    if not all(production.has(name) for name in ANSWERED):
        return None
    label, one, two = (np.asarray(production.column(name), np.float64) for name in ANSWERED)
    places = np.flatnonzero((label == 1) & ~np.isnan(one) & ~np.isnan(two))
    return (places, one[places] == 1, two[places] == 1) if len(places) else None


def find_bands(production: FeatureTable, places: Column, baseline: Column, candidate: Column) -> list[Band]:
    """Some frauds in segments: of every number by quarters, of every category by its values, and by the hour of the day.

    Args:
        places: of the frauds among production's rows (k,).
        baseline, candidate: whether each caught them (k,).
    """
    kind = overlap_kinds(baseline, candidate)
    columns = {name: production.column(name)[places] for name in production.features}
    if production.has("event_time"):
        seconds = np.asarray(production.column("event_time"), np.float64)[places]
        columns["hour of the day (UTC)"] = seconds % DAY_SECONDS // 3600
    return [band for name, values in columns.items() for band in _bands_of(name, values, kind)]


def overlap_kinds(baseline: Column, candidate: Column) -> Column:
    """Of each fraud who caught it (k,): 0 both, 1 the baseline alone, 2 the candidate alone, 3 neither."""
    return ~baseline * 2 + ~candidate


def overlap_of(kind: Column) -> Overlap:
    """How many there are of each of `overlap_kinds`."""
    return Overlap(*(int(count) for count in np.bincount(kind, minlength=4)))


def _bands_of(feature: str, values: Column, kind: Column) -> Iterable[Band]:
    return (_bands_of_category if values.dtype == object else _bands_of_number)(feature, values, kind)


def _bands_of_category(feature: str, values: Column, kind: Column) -> Iterable[Band]:
    names = np.array(["" if is_null(value) else str(value) for value in values], object)
    known = [(name, count) for name, count in Counter(names.tolist()).most_common() if name]
    for name, _ in known[:MOST_CATEGORIES] if len(known) > 1 else ():
        yield Band(feature, f"{feature} {name}", overlap_of(kind[names == name]))


def _bands_of_number(feature: str, values: Column, kind: Column) -> Iterable[Band]:
    """Quarters of the frauds, tied values together; a feature of few values by its values."""
    is_known = ~np.isnan(values)
    values, kind = values[is_known], kind[is_known]
    edges = np.unique(values)
    if len(edges) > BANDS:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BANDS + 1)[1:], method="inverted_cdf"))
    place = np.searchsorted(edges, values)  # the band that ends at the edge
    for number in range(len(edges) if len(edges) > 1 else 0):  # all frauds in one band are no segment
        inside = place == number
        low, high = values[inside].min(), values[inside].max()
        yield Band(feature, f"{feature} from {low:.4g} to {high:.4g}", overlap_of(kind[inside]))
