"""Simulated worlds in which nothing is wrong: models trained and tested in weeks that differ by nature only.

The demo's own timeline has a new kind of fraud shortly before the candidate's training; here training, holdout and production lie
so late that chargebacks and terminals have long been steady.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from deployments.sandbox.simulator.features import ALL_FEATURES, CARD_FEATURES, RISK_FEATURES, compute_features
from deployments.sandbox.simulator.model_cache import cached_model
from deployments.sandbox.simulator.registration import preprocessing_of
from deployments.sandbox.simulator.serving import moments
from deployments.sandbox.simulator.timeline import DAY_SECONDS, Days
from deployments.sandbox.simulator.training import Recipe, TrainedModel, rows_of, train_model
from deployments.sandbox.simulator.world import CARDS, Population, draw_population, simulate_transactions
from flows.domain.model_findings import ModelFacts
from flows.domain.rescaling import Scaler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CACHE = Path(__file__).parent.parent / ".cache" / "simulator"
HISTORY, TRAINING, HOLDOUT, LAST = Days(-119, 60), Days(-7, 14), Days(14, 28), 60
TEST_DAYS = 28
BASELINE = Recipe("fraud_v1", CARD_FEATURES, Days(-21, 0), holdout=HOLDOUT)
CANDIDATE = Recipe("fraud_v2", CARD_FEATURES + RISK_FEATURES, TRAINING, holdout=HOLDOUT)
AMOUNT_FEATURES = ("amount", "amount_to_card_mean", "card_amount_1d_to_mean")


class World:
    """One simulated world with all its transactions and their right features, and the models trained in it."""

    def __init__(self, seed: int, cache: Path | None = CACHE) -> None:
        self.seed, self.cache = seed, cache
        self.population: Population = draw_population(seed)
        self.transactions = simulate_transactions(seed, self.population)
        features = compute_features(self.transactions, self.population)
        rows = pd.concat([self.transactions, features], axis=1).assign(place=np.arange(len(features)))
        self.history = rows_of(rows, HISTORY)

    def model(self, recipe: Recipe) -> TrainedModel:
        with threadpool_limits(1, user_api="openmp"):
            return cached_model(recipe, self.seed, self.cache, lambda: train_model(recipe, self.seed, self.history))

    @cached_property
    def baseline(self) -> TrainedModel:
        return self.model(BASELINE)

    @cached_property
    def candidate(self) -> TrainedModel:
        return self.model(CANDIDATE)

    def baseline_answers(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """What the baseline says of rows of production; of unchanged ones it was asked already."""
        known = self._answered.loc[rows["place"].to_numpy()]
        is_changed = (known[list(CARD_FEATURES)].to_numpy() != rows[list(CARD_FEATURES)].to_numpy()).any(axis=1)
        answers = known["answer"].to_numpy(copy=True)
        if is_changed.any():
            answers[is_changed] = self.baseline.predict(rows.loc[is_changed])
        return answers

    @cached_property
    def _answered(self) -> pd.DataFrame:
        rows = rows_of(self.history, Days(HOLDOUT.end, LAST))
        return rows.set_index("place")[list(CARD_FEATURES)].assign(answer=self.baseline.predict(rows))

    def production(self, start: int, cards_share: float) -> pd.DataFrame:
        """Four weeks from a day on, of the first cards."""
        rows = rows_of(self.history, Days(start, start + TEST_DAYS))
        return rows.loc[rows["card"] < round(cards_share * CARDS)].reset_index(drop=True)

    def with_other_amounts(self, rows: pd.DataFrame, start: int, factor: float) -> pd.DataFrame:
        """The same payments with all amounts from a day on multiplied, and the features that follow from them."""
        known = rows_of(self.transactions, Days(start - 31, start + TEST_DAYS)).reset_index(drop=True)
        is_later = known["second"] >= start * DAY_SECONDS
        known["amount"] = known["amount"].where(~is_later, (known["amount"] * factor).clip(0.5, 9_999).round(2))
        features = compute_features(known, self.population)
        changed = pd.concat([known["amount"], features[list(AMOUNT_FEATURES[1:])]], axis=1).loc[is_later.to_numpy()]
        kept = known.loc[is_later, "card"].isin(rows["card"].unique()).to_numpy()
        return rows.assign(**{name: changed.loc[kept, name].to_numpy() for name in AMOUNT_FEATURES})


def table_of(rows: pd.DataFrame, features: Sequence[str] = ALL_FEATURES) -> pd.DataFrame:
    """Rows of the world with the contract's names."""
    names = pd.DataFrame({"event_time": moments(rows["second"].to_numpy()), "is_fraud": rows["is_fraud"].to_numpy()})
    return pd.concat([names, rows[list(features)].reset_index(drop=True)], axis=1)


def facts_of(model: TrainedModel) -> ModelFacts:
    """What the registered model's run tells of its making."""
    scaling = preprocessing_of(model)["scaling"]
    return ModelFacts(
        model.name,
        model.features,
        model.parameters,
        model.offline_metrics,
        tuple(enumerate(model.training_loss)),
        tuple(enumerate(model.validation_loss)),
        {name: Scaler(bool(one["log1p"]), float(one["mean"]), float(one["scale"])) for name, one in scaling.items()},
        model.training_window,
    )
