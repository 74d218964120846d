"""The candidate on the same frauds with and without a suspected cause: how many points of recall the cause explains."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.drift import FeatureKind, Shape, is_null
from flows.domain.recalls import Replayed, compare_replays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.drift import FeatureDrift
    from flows.domain.rescaling import Rescaling
    from flows.ports import FeatureTable

    Column = NDArray[Any]
    Flags = Callable[[pd.DataFrame], NDArray[np.bool_]]

SEED = 20_260
ENOUGH_ROWS, ENOUGH_FRAUDS = 1_000, 100
"""So many common rows, or half of production's, make a reference: a few rows of it say nothing of the others."""
MOST_PARTS, PART_ROWS, LEAST_PART = 20, 50, 0.25
"""Production's time is cut into so many parts, of so many common rows on average; each must have this share of that average."""
TOLERANCE = 1e-4  # relative: float32 in one pipeline and float64 in the other differ by less


def is_fraud(table: FeatureTable) -> NDArray[np.bool_]:
    """The rows (n,) with the label fraud; a row without a label is none of them."""
    return np.asarray(table.column("is_fraud"), np.float64) == 1


def is_honest(table: FeatureTable) -> NDArray[np.bool_]:
    """The rows (n,) that are known to be no fraud."""
    return np.asarray(table.column("is_fraud"), np.float64) == 0


def rows_of(table: FeatureTable, chosen: Column, features: Iterable[str]) -> pd.DataFrame:
    """The chosen rows' features (chosen by a mask or by place), read one column at a time."""
    import pandas as pd  # half a second of imports

    return pd.DataFrame({name: table.column(name)[chosen] for name in features})


def features_of_frauds(table: FeatureTable, features: Sequence[str]) -> pd.DataFrame | None:
    """These features (without any: all) of a table's frauds; None without labels or frauds, or with a feature missing."""
    needed = features or tuple(table.features)
    if not table.has("is_fraud") or not all(table.has(name) for name in needed):
        return None
    frauds = rows_of(table, is_fraud(table), needed)
    return frauds if len(frauds) else None


def replay(flags: Flags, without: pd.DataFrame, with_cause: pd.DataFrame) -> Replayed | None:
    """The model on the same frauds without and with a cause; None without frauds."""
    return compare_replays(flags(without), flags(with_cause)) if len(without) else None


def map_onto(values: Column, source: Column, target: Column) -> Column:
    """Give values of one distribution the places that they hold in it, in another distribution.

    Args:
        values: (k,) numbers of `source`; NaN stays.
        source, target: all values of the two distributions, NaN left out; without any nothing is changed.

    Example:
        >>> map_onto(np.array([10.0, 30.0]), np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 3.0]))
        array([1., 3.])
    """
    before, after = (np.sort(known[~np.isnan(known)]) for known in (source, target))
    if not len(before) or not len(after):
        return values
    place = (np.searchsorted(before, values, "left") + np.searchsorted(before, values, "right")) / (2 * len(before))
    mapped = after[np.clip(np.ceil(place * len(after)).astype(np.int64) - 1, 0, len(after) - 1)]
    return np.where(np.isnan(values), values, mapped)


def move_categories(values: Column, source: Column, target: Column) -> Column:
    """Give as many values of one distribution of categories another one as its shares differ from the target's.

    Args:
        values: (k,) categories of `source`; None stays.
        source, target: all values of the two distributions; without any nothing is changed.

    Example:
        >>> move_categories(np.array(["b", None], object), np.array(["b"], object), np.array(["a"], object)).tolist()
        ['a', None]
    """
    before, after = (Counter(str(value) for value in known if not is_null(value)) for known in (source, target))
    if not before or not after:
        return values
    change = {name: after[name] / after.total() - before[name] / before.total() for name in sorted(before | after)}
    rarer = {name: -rise * before.total() / before[name] for name, rise in change.items() if rise < 0}
    wanted = {name: rise for name, rise in change.items() if rise > 0}
    if not wanted:
        return values
    random = np.random.default_rng(SEED)
    moved = random.random(len(values)) < [0.0 if is_null(value) else rarer.get(str(value), 0.0) for value in values]
    names, rises = np.array(list(wanted), object), np.array(list(wanted.values()))
    return np.where(moved, random.choice(names, len(values), p=rises / rises.sum()), values)


def restore_distributions(
    rows: pd.DataFrame, drifted: Sequence[FeatureDrift], training: FeatureTable, production: FeatureTable
) -> pd.DataFrame:
    """Production's rows with their drifted features brought back to training's distributions."""
    restored: dict[str, Column] = {}
    for drift in drifted:
        if drift.feature in rows:
            bring_back = map_onto if drift.kind is FeatureKind.NUMBER else move_categories
            source, target = production.column(drift.feature), training.column(drift.feature)
            restored[drift.feature] = bring_back(rows[drift.feature].to_numpy(), source, target)
    return rows.assign(**restored)


def do_the_same_damage(frauds: pd.DataFrame, broken: Sequence[FeatureDrift], rescaled: Sequence[Rescaling]) -> pd.DataFrame:
    """Intact frauds with what production's rows suffered: emptied, zeroed or rescaled, in the same share of the rows."""
    place = np.random.default_rng(SEED).random(len(frauds))  # one for all features: what fails together, fails on the same rows
    damaged: dict[str, Column] = {}
    for drift in broken:
        if drift.feature in frauds:
            damaged[drift.feature] = _break(frauds[drift.feature].to_numpy(), drift, place)
    for found in rescaled:
        if found.feature in frauds:
            values = frauds[found.feature].to_numpy(np.float64)
            damaged[found.feature] = np.where(place < found.share, found.transformation.apply(values), values)
    return frauds.assign(**damaged)


def _break(values: Column, drift: FeatureDrift, place: Column) -> Column:
    before, after, shapes = drift.training, drift.production, drift.shapes
    if Shape.CONSTANT in shapes:
        only = after.minimum if drift.kind is FeatureKind.NUMBER else after.most_frequent[0][0]
        values = np.full(len(values), only, values.dtype)
    elif Shape.ZEROS in shapes:
        values = np.where(place < _newly(before.zero_share or 0.0, after.zero_share or 0.0), 0, values)
    if Shape.EMPTY in shapes or Shape.NULLS in shapes:
        values = values.copy()
        values[place < _newly(before.null_share, after.null_share)] = None if drift.kind is FeatureKind.CATEGORY else np.nan
    return values


def _newly(before: float, after: float) -> float:
    """Of those that were not, the share that must become so for a share to rise from `before` to `after`."""
    return (after - before) / (1 - before)


def restore_from_reference(
    frauds: pd.DataFrame, features: Iterable[str], reference: FeatureTable, positions: Column
) -> pd.DataFrame:
    """Production's frauds with these features as the offline pipeline computes them; `positions` of the frauds in `reference`."""
    columns = {name: reference.column(name)[positions] for name in features if name in frauds}
    return frauds.assign(**columns)


def same_rows(production: FeatureTable, reference: FeatureTable) -> Column | None:
    """Where production's rows are in the reference (-1: not there): by their ids, by order where neither has any; None where
    too few are common to tell what holds for all.

    An id that the reference has more than once, as after a retried request, means its first row; a row without an id is nowhere.
    """
    if production.has("transaction_id") != reference.has("transaction_id"):  # joined with labels: in no order any more
        return None
    if production.has("transaction_id"):
        import pandas as pd  # half a second of imports

        ids = pd.Index(reference.column("transaction_id"))
        first = np.flatnonzero(ids.notna() & ~ids.duplicated())
        known = ids[first].get_indexer(pd.Index(production.column("transaction_id")))
        found = np.append(first, -1)[known]  # what is not known, at -1, is the last one
        return found if are_enough(int((found >= 0).sum()), production.rows, ENOUGH_ROWS) else None
    return np.arange(production.rows) if production.rows == reference.rows else None


def are_enough(common: int, of_all: int, least: int) -> bool:
    """Whether so many common rows tell what holds for all: `least`, or half of them."""
    return common >= least or 2 * common >= of_all > 0


def are_spread(places: Column, production: FeatureTable) -> bool:
    """Whether the common rows (`places` from 0) come from all of production's time: those of some days clear no other day."""
    if not production.has("event_time"):
        return True
    seconds, is_common = np.asarray(production.column("event_time"), np.float64), places >= 0
    is_common = is_common[np.argsort(seconds, kind="stable")][: int((~np.isnan(seconds)).sum())]
    parts = min(MOST_PARTS, int(is_common.sum()) // PART_ROWS)
    return parts < 2 or min(part.mean() for part in np.array_split(is_common, parts)) >= LEAST_PART * is_common.mean()


def find_mismatches(
    production: FeatureTable, reference: FeatureTable, places: Column, features: Iterable[str]
) -> Mapping[str, float]:
    """By feature the share (0..1) of the common rows whose served value is not the offline pipeline's; without the features
    that the reference lacks."""
    common = places >= 0
    found: dict[str, float] = {}
    for name in features:
        if reference.has(name):
            served, offline = production.column(name)[common], reference.column(name)[places[common]]
            found[name] = float(_differs(served, offline).mean())
    return found


def _differs(served: Column, offline: Column) -> NDArray[np.bool_]:
    if served.dtype == object or offline.dtype == object:
        return np.array([one != two for one, two in zip(served, offline, strict=True)], dtype=bool)
    return ~np.isclose(served, offline, rtol=TOLERANCE, atol=1e-6, equal_nan=True)
