"""The baseline, run again on the frauds of each part: how easy they are for a model that was not made from them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flows.domain.errors import FraudABError
from flows.domain.holdout_findings import Ease
from flows.domain.recalls import Caught
from flows.replay import ENOUGH_FRAUDS, features_of_frauds, is_fraud
from flows.table_summaries import catches_by_week, rows_from, weeks_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flows.material import Material
    from flows.ports import FeatureTable

PARTS = ("holdout", "training", "production")


class BaselineReplays:
    """The baseline on the frauds of holdout, training and production, each replayed once."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self._replayed: dict[str, NDArray[np.bool_] | None] = {}

    @cached_property
    def is_holdout_known(self) -> bool:
        """Whether the baseline was trained on some of the holdout's days, so that what it catches there tells nothing."""
        baseline, holdout = self.material.baseline, self.material.holdout
        return baseline is not None and holdout is not None and bool(rows_from(holdout, baseline.trained_on).any())

    def ease(self) -> Ease | None:
        """What it catches of each part by week; None where that cannot be told.

        Raises:
            FraudABError: the baseline cannot be run.
        """
        if self.is_holdout_known:
            return None
        parts = [
            catches_by_week(flagged, weeks_of(table), is_fraud(table))
            for name in PARTS
            if (table := self._table(name)) is not None and (flagged := self._on(name)) is not None
        ]
        return Ease(*parts) if len(parts) == len(PARTS) and all(parts) else None

    def easier_training(self) -> Mapping[str, float]:
        """For holdout and production by how many points of recall (0..1) training's frauds are easier, on days that the baseline
        was not trained on; without what cannot be told."""
        try:
            caught = {name: unseen for name in PARTS if (unseen := self._unseen(name))}
        except FraudABError:
            return {}
        training = caught.pop("training", None)
        return {name: max(0.0, training.recall - part.recall) for name, part in caught.items()} if training else {}

    def _unseen(self, name: str) -> Caught | None:
        """What it catches on days that it is known not to be trained on; None where too few frauds are of such days."""
        table, flagged = self._table(name), self._on(name)
        period = self.material.baseline.trained_on if self.material.baseline else None
        weeks = None if table is None else weeks_of(table)
        if table is None or flagged is None or period is None or weeks is None:
            return None
        flagged = flagged[((weeks >= 0) & ~rows_from(table, period))[is_fraud(table)]]
        return Caught(len(flagged), int(flagged.sum())) if len(flagged) >= ENOUGH_FRAUDS else None

    def _table(self, name: str) -> FeatureTable | None:
        return getattr(self.material, name)

    def _on(self, name: str) -> NDArray[np.bool_] | None:
        """Which of a part's frauds it flags; None without the part, its features or the baseline."""
        if name not in self._replayed:
            table, flags, baseline = self._table(name), self.material.baseline_flags, self.material.baseline
            frauds = None if table is None else features_of_frauds(table, baseline.features if baseline else ())
            self._replayed[name] = None if frauds is None or flags is None else np.asarray(flags(frauds), bool)
        return self._replayed[name]
