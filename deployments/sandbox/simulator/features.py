"""What the models see of a transaction: only what is known at its moment."""

from __future__ import annotations

import numpy as np
import pandas as pd

from deployments.sandbox.simulator.timeline import DAY_SECONDS, WORLD
from deployments.sandbox.simulator.world import TERMINALS, Population

CARD_FEATURES = (
    "amount",
    "amount_to_card_mean",
    "card_payments_1d",
    "card_payments_7d",
    "card_amount_1d_to_mean",
    "hours_since_last",
    "km_from_home",
    "hour",
    "is_weekend",
)
RISK_FEATURES = ("terminal_chargebacks_7d", "terminal_chargebacks_28d", "terminal_risk_28d", "terminal_fraud_recency")
LOCATION_FEATURES = ("home_x_km", "home_y_km", "terminal_x_km", "terminal_y_km")
ALL_FEATURES = CARD_FEATURES + RISK_FEATURES + LOCATION_FEATURES
SPAN = (WORLD.end - WORLD.first) * DAY_SECONDS
USUAL_PAYMENTS = 5.0  # a terminal without history starts with that many honest payments


def compute_features(rows: pd.DataFrame, population: Population) -> pd.DataFrame:
    """The features of every transaction besides its amount; float32 also hides the last bits, which differ between processors."""
    second, card, terminal = (rows[name].to_numpy() for name in ("second", "card", "terminal"))
    hour = second % DAY_SECONDS / 3600
    columns = {
        **_card_history(second, card, rows["amount"].to_numpy()),
        "km_from_home": np.linalg.norm(population.card_xy[card] - population.terminal_xy[terminal], axis=1),
        "hour": hour,
        "is_weekend": (second // DAY_SECONDS % 7 >= 5).astype(np.float32),
        "home_x_km": population.card_xy[card, 0],
        "home_y_km": population.card_xy[card, 1],
        "terminal_x_km": population.terminal_xy[terminal, 0],
        "terminal_y_km": population.terminal_xy[terminal, 1],
        **_terminal_history(rows),
    }
    return pd.DataFrame({name: values.astype(np.float32, copy=False) for name, values in columns.items()})


def _card_history(second: np.ndarray, card: np.ndarray, amount: np.ndarray) -> dict[str, np.ndarray]:
    """Counts and means over the card's earlier payments, by cumulated sums along each card's own time."""
    order = np.lexsort((second, card))
    key = card[order].astype(np.int64) * SPAN + (second[order] - WORLD.first * DAY_SECONDS)
    card_begin = card[order].astype(np.int64) * SPAN
    total = np.concatenate([[0.0], np.cumsum(amount[order])])
    here = np.arange(len(order))

    def window(days: float) -> tuple[np.ndarray, np.ndarray]:
        begin = np.searchsorted(key, np.maximum(key - int(days * DAY_SECONDS), card_begin), side="left")
        return here - begin, total[here] - total[begin]

    (count_1d, sum_1d), (count_7d, _), (count_30d, sum_30d) = window(1), window(7), window(30)
    usual = np.where(count_30d > 0, sum_30d / np.maximum(count_30d, 1), amount[order])
    gap = np.diff(key, prepend=key[0]) / 3600
    found = {
        "amount_to_card_mean": amount[order] / usual,
        "card_payments_1d": count_1d,
        "card_payments_7d": count_7d,
        "card_amount_1d_to_mean": sum_1d / usual,
        "hours_since_last": np.where(count_30d > 0, np.minimum(gap, 30 * 24), 30 * 24),
    }
    return {name: _put_back(values, order) for name, values in found.items()}


def _put_back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    placed = np.empty(len(values), dtype=np.float32)
    placed[order] = values
    return placed


def _terminal_history(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the chargebacks that had arrived by the last midnight say about the terminal."""
    first = WORLD.first * DAY_SECONDS
    terminal, day = rows["terminal"].to_numpy(), (rows["second"].to_numpy() - first) // DAY_SECONDS
    fraud = rows["is_fraud"].to_numpy()
    arrival = (rows["chargeback_second"].to_numpy()[fraud] - first) // DAY_SECONDS
    chargebacks = _per_day(terminal[fraud], arrival)
    payments_28d = _last_days(_per_day(terminal, day), 28)
    chargebacks_28d = _last_days(chargebacks, 28)
    return {
        "terminal_chargebacks_7d": _last_days(chargebacks, 7)[terminal, day],
        "terminal_chargebacks_28d": chargebacks_28d[terminal, day],
        "terminal_risk_28d": (chargebacks_28d / (payments_28d + USUAL_PAYMENTS))[terminal, day],
        "terminal_fraud_recency": 1 / (day - _newest_known(terminal[fraud], day[fraud], arrival)[terminal, day]),
    }


def _per_day(terminal: np.ndarray, day: np.ndarray) -> np.ndarray:
    days = SPAN // DAY_SECONDS
    inside = day < days
    return np.bincount(terminal[inside].astype(np.int64) * days + day[inside], minlength=TERMINALS * days).reshape(
        TERMINALS, days
    )


def _newest_known(terminal: np.ndarray, day: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """The day of the newest fraud of which a chargeback had arrived before each day; long ago when there was none."""
    days = SPAN // DAY_SECONDS
    newest = np.full((TERMINALS, days + 1), -1000, dtype=np.int64)
    inside = arrival < days
    np.maximum.at(newest, (terminal[inside], arrival[inside] + 1), day[inside])
    return np.maximum.accumulate(newest, axis=1)


def _last_days(counts: np.ndarray, days: int) -> np.ndarray:
    """Sums over the `days` days before each day, that day left out."""
    total = np.concatenate([np.zeros((len(counts), 1), dtype=np.int64), np.cumsum(counts, axis=1)], axis=1)[:, :-1]
    return total - np.concatenate([np.zeros((len(counts), days), dtype=np.int64), total[:, :-days]], axis=1)
