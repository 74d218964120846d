"""The world of transactions: the same seed gives the same world, and features know nothing of the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deployments.sandbox.simulator import world
from deployments.sandbox.simulator.features import compute_features
from deployments.sandbox.simulator.timeline import DAY_SECONDS, NEW_FRAUD_PATTERN_DAY


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "CARDS", 300)


def transactions(seed: int) -> pd.DataFrame:
    return world.simulate_transactions(seed, world.draw_population(seed))


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first = transactions(1)
    pd.testing.assert_frame_equal(first, transactions(1))
    assert not first["amount"].head(1000).equals(transactions(2)["amount"].head(1000))


def test_features_do_not_change_when_the_future_is_cut_off() -> None:
    rows, population = transactions(3), world.draw_population(3)
    past = rows[rows["second"] < -40 * DAY_SECONDS]
    whole = compute_features(rows, population)
    pd.testing.assert_frame_equal(compute_features(past, population), whole.iloc[: len(past)])


def test_terminals_are_compromised_only_after_the_baselines_training() -> None:
    rows = transactions(4)
    share = rows.groupby(rows["second"] // DAY_SECONDS)["is_fraud"].mean()
    assert share[share.index > NEW_FRAUD_PATTERN_DAY + 40].mean() > share[share.index < NEW_FRAUD_PATTERN_DAY].mean()
    terminals = (
        rows[rows["is_fraud"]].groupby([rows["terminal"], rows["second"] >= NEW_FRAUD_PATTERN_DAY * DAY_SECONDS]).size().unstack()
    )
    assert terminals[False].max() < 10 < terminals[True].max()


def test_chargebacks_come_days_to_four_weeks_after_the_fraud() -> None:
    rows = transactions(5)
    frauds = rows[rows["is_fraud"]]
    days = (frauds["chargeback_second"] - frauds["second"]) / DAY_SECONDS
    assert days.between(0.49, 28.01).all()
    assert 5 < days.median() < 12
    assert (rows.loc[~rows["is_fraud"], "chargeback_second"] == np.iinfo(np.int64).max).all()
