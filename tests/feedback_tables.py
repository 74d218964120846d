"""Small feedback tables for tests of what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

START = pd.Timestamp("2026-01-01", tz="UTC")


def feedback_frame(rows: int = 6_000, *, seed: int = 1, is_paired: bool = True) -> pd.DataFrame:
    """Four weeks of transactions of cards hashed 80/20 to the arms, their labels within 30 days."""
    rng = np.random.default_rng(seed)
    cards = rng.integers(0, 1_500, rows)
    arm = np.where(cards % 5 == 0, "candidate", "baseline")
    events = START + pd.to_timedelta(np.sort(rng.uniform(0, 28 * 86_400, rows)).round(3), unit="s")
    fraud, chance = rng.random(rows) < 0.1, rng.random(rows)
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(rows)],
            "event_time": events.astype("datetime64[us, UTC]"),
            "entity_id": cards,
            "amount": rng.lognormal(3, 1, rows).round(2),
            "arm": arm,
            "baseline_prediction": pd.array(np.where(fraud, chance < 0.75, chance < 0.01), dtype="boolean"),
            "candidate_prediction": pd.array(np.where(fraud, chance < 0.85, chance > 0.99), dtype="boolean"),
            "is_fraud": pd.array(fraud, dtype="boolean"),
            "label_time": (events + pd.to_timedelta(rng.uniform(1, 29.9, rows).round(3), unit="D")).astype("datetime64[us, UTC]"),
            "label_source": "audit",
            "latency_ms": rng.gamma(9, 5, rows),
            "error": rng.random(rows) < 0.002,
        }
    )
    if not is_paired:
        frame.loc[frame.arm == "baseline", "candidate_prediction"] = pd.NA
        frame.loc[frame.arm == "candidate", "baseline_prediction"] = pd.NA
    return frame


def written(frame: pd.DataFrame, folder: Path, name: str = "feedback.parquet") -> str:
    """The frame as a Parquet file; returns its path."""
    path = folder / name
    frame.to_parquet(path)
    return str(path)
