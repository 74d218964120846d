"""The candidate with and without a suspected damage to its data: how much recall and precision the damage costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.data_findings import REPEATABLE, Restoration
from flows.domain.drift import Shape
from flows.domain.errors import FraudABError
from flows.replay import (
    ENOUGH_FRAUDS,
    SEED,
    are_enough,
    do_the_same_damage,
    is_fraud,
    is_honest,
    replay,
    restore_distributions,
    restore_from_reference,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.data_findings import Suspects
    from flows.domain.drift import FeatureDrift
    from flows.ports import FeatureTable
    from flows.replay import Flags

    Column = NDArray[Any]
    Pair = tuple[pd.DataFrame, pd.DataFrame]

LOST = frozenset({Shape.EMPTY, Shape.TYPE})  # nothing is left that could be brought back
HONEST_ROWS = 25_000
"""So many transactions that are no fraud are replayed at most, a seeded sample: they tell the false alerts."""


@dataclass(frozen=True, slots=True)
class Restorer:
    """What can be replayed: the candidate's `flags` on its `features`, the tables, and where production's rows are in the
    reference (`places`). `unlabelled` says why production's frauds are not all known; empty where they are."""

    flags: Flags | None
    no_model: str
    features: tuple[str, ...]
    training: FeatureTable
    production: FeatureTable
    holdout: FeatureTable | None
    reference: FeatureTable | None
    places: Column | None
    unlabelled: str

    def undrifted(self, drifted: Sequence[FeatureDrift]) -> Restoration:
        """With training's distribution of the drifted features on production's rows."""
        if self.flags is None:
            return Restoration(None, self.no_model)
        if self.unlabelled or not self._is_usable(self.production):
            return Restoration(None, self.unlabelled or "production has no labels or lacks a feature of the candidate.")
        if lost := [drift.feature for drift in drifted if LOST & set(drift.shapes)]:
            said = "came empty or as another type than in training, so nothing can be brought back to its distribution."
            return Restoration(None, f"{', '.join(lost)} {said}")
        return self._replayed(
            self.production,
            "With training's distribution on production's frauds",
            lambda rows, _: (restore_distributions(rows, drifted, self.training, self.production), rows),
        )

    def undamaged(self, suspects: Suspects) -> Restoration:
        """On the reference's values; without a reference, on intact rows with and without the same damage."""
        if self.flags is None or not suspects.features:
            return Restoration(None, self.no_model)
        if (beside := self._beside_reference(suspects)) is not None:
            return beside
        if any(not REPEATABLE & set(drift.shapes) and drift.feature in self.features for drift in suspects.broken):
            return Restoration(None, self._no_reference(suspects))
        for name, table in (("holdout", self.holdout), ("training", self.training)):
            if table is not None and self._is_usable(table):
                return self._replayed(
                    table,
                    f"Without the same damage on the {name}'s frauds",
                    lambda rows, _: (rows, do_the_same_damage(rows, suspects.broken, suspects.rescaled)),
                )
        return Restoration(None, "no table has labels and all features of the candidate.")

    def _beside_reference(self, suspects: Suspects) -> Restoration | None:
        """None without a reference that has these features of enough of production's frauds."""
        reference, places = self.reference, self.places
        if reference is None or places is None or self._no_reference(suspects):
            return None
        return self._replayed(
            self.production,
            "With the offline pipeline's values",
            lambda rows, at: (restore_from_reference(rows, suspects.features, reference, places[at]), rows),
            among=places >= 0,
        )

    def _no_reference(self, suspects: Suspects) -> str:
        """Why the reference does not tell what the suspects cost; empty where it does."""
        if self.reference is None or self.places is None:
            return "there is no reference that has enough of production's rows."
        if lacking := sorted(name for name in suspects.features if not self.reference.has(name)):
            return f"the reference lacks {', '.join(lacking)}."
        if alike := sorted(suspects.features - suspects.mismatches.keys()):
            return f"the reference has the served values of {', '.join(alike)}."
        if self.unlabelled or not self._is_usable(self.production):
            return self.unlabelled or "production has no labels or lacks a feature of the candidate."
        frauds = is_fraud(self.production)
        if not are_enough(int((frauds & (self.places >= 0)).sum()), int(frauds.sum()), ENOUGH_FRAUDS):
            return "hardly any labelled fraud is among the rows of the reference."
        return ""

    def _replayed(
        self, table: FeatureTable, how: str, pair: Callable[[pd.DataFrame, Column], Pair], among: Column | None = None
    ) -> Restoration:
        """The candidate on a table's frauds and honest rows, without and with the cause: `pair` makes both of rows and places."""
        if self.flags is None:
            return Restoration(None, self.no_model)
        chosen = np.ones(table.rows, bool) if among is None else among
        frauds, honest = np.flatnonzero(is_fraud(table) & chosen), np.flatnonzero(is_honest(table) & chosen)
        total = len(honest)
        if total > HONEST_ROWS:
            honest = np.sort(np.random.default_rng(SEED).choice(honest, HONEST_ROWS, replace=False))
        try:
            caught, alarms = (
                replay(self.flags, *pair(rows_of(table, at, self.features), at)) if len(at) else None for at in (frauds, honest)
            )
        except FraudABError as error:
            return Restoration(None, str(error))
        return Restoration(caught, how, alarms, total)

    def _is_usable(self, table: FeatureTable) -> bool:
        """Whether it has frauds, and all that the candidate needs."""
        return table.has("is_fraud") and all(map(table.has, self.features)) and bool(is_fraud(table).any())
