"""The features of hand-made transactions: what each model may know at which moment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deployments.sandbox.simulator import world
from deployments.sandbox.simulator.features import compute_features
from deployments.sandbox.simulator.timeline import DAY_SECONDS

NEVER = np.iinfo(np.int64).max


def features_of(*payments: tuple[float, int, int, float, float | None]) -> pd.DataFrame:
    """Features of payments given as day, card, terminal, amount and the day of the chargeback (None: honest)."""
    rows = pd.DataFrame(
        {
            "second": [int(day * DAY_SECONDS) for day, *_ in payments],
            "card": [card for _, card, *_ in payments],
            "terminal": [terminal for _, _, terminal, *_ in payments],
            "amount": [amount for *_, amount, _ in payments],
            "is_fraud": [chargeback is not None for *_, chargeback in payments],
            "chargeback_second": [NEVER if day is None else int(day * DAY_SECONDS) for *_, day in payments],
        }
    )
    return compute_features(rows, world.draw_population(1))


def test_a_chargeback_counts_from_the_next_midnight_and_for_its_window() -> None:
    moments = (0.1, 0.9, 1.1, 7.9, 8.1, 28.9, 29.1)
    found = features_of((-3.0, 1, 9, 50.0, 0.5), *((day, 2, 9, 20.0, None) for day in moments)).iloc[1:]
    assert found["terminal_chargebacks_7d"].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert found["terminal_chargebacks_28d"].tolist() == [0, 0, 1, 1, 1, 1, 0]
    assert (found["terminal_risk_28d"] > 0).tolist() == [False, False, True, True, True, True, False]


def test_the_newest_known_fraud_is_dated_by_the_fraud_and_known_by_its_chargeback() -> None:
    found = features_of((-3.0, 1, 9, 50.0, 0.5), (0.9, 2, 9, 20.0, None), (1.1, 2, 9, 20.0, None), (1.2, 2, 8, 20.0, None))
    recency = found["terminal_fraud_recency"].tolist()
    assert recency[2] == pytest.approx(1 / 4)
    assert max(recency[1], recency[3]) < 0.002


def test_a_cards_history_is_its_own_and_leaves_the_payment_itself_out() -> None:
    found = features_of((0.0, 1, 1, 10.0, None), (0.1, 2, 1, 99.0, None), (0.5, 1, 1, 30.0, None), (1.25, 1, 1, 40.0, None))
    card = found.iloc[[0, 2, 3]]
    assert card["card_payments_1d"].tolist() == [0, 1, 1]
    assert card["card_payments_7d"].tolist() == [0, 1, 2]
    assert card["amount_to_card_mean"].tolist() == [1, 3, 2]
    assert card["card_amount_1d_to_mean"].tolist() == [0, 1, 1.5]
    assert card["hours_since_last"].tolist() == [720, 12, 18]
