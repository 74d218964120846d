"""A table of features in memory, for worlds that are simulated and not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

CONTRACT = frozenset(
    {"transaction_id", "event_time", "entity_id", "is_fraud", "baseline_prediction", "candidate_prediction", "candidate_score"}
)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The port is `FeatureTable`; `event_time` are aware times."""

    frame: pd.DataFrame
    name: str = "a frame"
    left_out: Sequence[str] = ()

    @property
    def rows(self) -> int:
        return len(self.frame)

    @property
    def features(self) -> Sequence[str]:
        return [name for name in self.frame.columns if name not in CONTRACT]

    def has(self, column: str) -> bool:
        return column in self.frame

    def column(self, name: str) -> NDArray[Any]:
        values = self.frame[name]
        if name == "event_time":
            return values.dt.as_unit("s").astype("int64").astype(np.float64).where(values.notna()).to_numpy()
        return values.to_numpy(np.float32) if values.dtype == np.bool_ else values.to_numpy()

    def sample(self, rows: int, seed: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        chosen = self.frame if columns is None else self.frame[list(columns)]
        return chosen.sample(min(rows, len(self.frame)), random_state=seed)
