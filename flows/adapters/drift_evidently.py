"""Evidently's drift report on a sample, to look at. What counts as drift is decided from all rows, by `flows.domain.drift`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.domain.drift import MAX_Q_VALUE
from flows.domain.errors import DataInvalid, OutsideSystemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from flows.ports import FeatureTable

SAMPLE_ROWS = 50_000
SEED = 20_240_301


@dataclass(frozen=True, slots=True)
class EvidentlyReport:
    """`html` stands alone (about 6 MB); `left_out`: features without a value in the sample, on which Evidently fails."""

    html: str
    rows: tuple[int, int]
    left_out: tuple[str, ...]


def draw_evidently_report(
    training: FeatureTable, production: FeatureTable, rows: int = SAMPLE_ROWS, seed: int = SEED
) -> EvidentlyReport:
    """Evidently's drift preset on at most `rows` rows a side, chosen by the seed.

    Raises:
        DataInvalid: no feature of both tables has a value on either side.
        OutsideSystemError: Evidently failed; nothing else needs it.
    """
    names = [name for name in training.features if production.has(name)]
    before, after = (_cleaned(table.sample(rows, seed, names)) for table in (training, production))
    empty = [name for name in names if any(len(frame[name].dropna()) == 0 for frame in (before, after))]
    if len(empty) == len(names):
        raise DataInvalid(f"{training.name} and {production.name} have no feature in common that has values in both.")
    try:
        html = _drawn(before.drop(columns=empty), after.drop(columns=empty))
    except Exception as error:
        # it and what it draws with may raise anything, and nothing else needs the report
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutsideSystemError("Evidently", f"drawing its drift report ({why})", retryable=False) from error
    return EvidentlyReport(html, (len(before), len(after)), tuple(empty))


def _cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    """Without infinities, of which Evidently draws no histogram."""
    return frame.replace([float("inf"), float("-inf")], float("nan"))


def _drawn(training: pd.DataFrame, production: pd.DataFrame) -> str:
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read when Evidently is imported
    from evidently import DataDefinition, Dataset, Report  # 5 seconds and 280 MB
    from evidently.presets import DataDriftPreset

    columns: Sequence[str] = list(training)
    numbers = [name for name in columns if all(frame[name].dtype.kind == "f" for frame in (training, production))]
    texts = [name for name in columns if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    preset = DataDriftPreset(columns=list(columns), num_method="ks", num_threshold=MAX_Q_VALUE)
    current, reference = (Dataset.from_pandas(frame, data_definition=definition) for frame in (production, training))
    return Report([preset]).run(current, reference).get_html_str(as_iframe=False)
