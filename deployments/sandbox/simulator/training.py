"""Training of the two models, and the choice of their decision thresholds on the holdout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from deployments.sandbox.simulator.features import CARD_FEATURES, LOCATION_FEATURES, RISK_FEATURES
from deployments.sandbox.simulator.timeline import BASELINE_TRAINING, CANDIDATE_TRAINING, DAY_SECONDS, HOLDOUT, TEST_START, Days
from deployments.sandbox.simulator.world import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET_PRECISION = 0.91
SKEWED = ("amount", "amount_to_card_mean", "card_amount_1d_to_mean", "hours_since_last")


@dataclass(frozen=True, slots=True)
class Booster:
    """The settings of the gradient boosting; the defaults generalise."""

    learning_rate: float = 0.1
    max_iter: int = 80
    max_leaf_nodes: int = 15
    min_samples_leaf: int = 60
    l2_regularization: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made. `random_holdout`: its holdout is drawn from its own training days and not from `holdout`."""

    name: str
    features: tuple[str, ...]
    training: Days
    booster: Booster = Booster()
    random_holdout: bool = False
    holdout: Days = HOLDOUT


BASELINE = Recipe("fraud_v1", CARD_FEATURES, BASELINE_TRAINING)
CANDIDATE = Recipe("fraud_v2", CARD_FEATURES + RISK_FEATURES, CANDIDATE_TRAINING)
OVERFITTED_CANDIDATE = Recipe(
    "fraud_v2",
    CARD_FEATURES + LOCATION_FEATURES,
    CANDIDATE_TRAINING,
    Booster(max_iter=120, max_leaf_nodes=127, min_samples_leaf=4, l2_regularization=0.01),
    random_holdout=True,
)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model with what is known about its making. `pipeline` answers a frame of its features with the decision: fraud or not."""

    name: str
    pipeline: FixedThresholdClassifier
    threshold: float
    features: tuple[str, ...]
    parameters: Mapping[str, float | int]
    training_window: tuple[datetime, datetime]
    offline_metrics: Mapping[str, float]
    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    input_example: pd.DataFrame

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Which transactions the model flags, as booleans."""
        return np.asarray(self.pipeline.predict(features.loc[:, list(self.features)]), dtype=bool)


def train_model(recipe: Recipe, seed: int, history: pd.DataFrame) -> TrainedModel:
    """Train a model by its recipe and choose its threshold on its holdout.

    Args:
        recipe: features, training days and settings.
        seed: the seed of the world, for the random choices of the training.
        history: all transactions before the test with `second`, `is_fraud` and the features.
    """
    training, holdout = split_history(recipe, seed, history)
    columns = list(recipe.features)
    preprocessing = _preprocessing(recipe.features)
    settings: dict[str, Any] = asdict(recipe.booster)
    booster = HistGradientBoostingClassifier(
        **settings,
        early_stopping=cast("Any", True),  # only for the loss curves: with this patience it never stops early
        n_iter_no_change=recipe.booster.max_iter,
        random_state=seed % 2**32,
    )
    booster.fit(
        preprocessing.fit_transform(training.loc[:, columns]),
        training["is_fraud"],
        X_val=preprocessing.transform(holdout.loc[:, columns]),
        y_val=holdout["is_fraud"],
    )
    pipeline = Pipeline([("preprocessing", preprocessing), ("booster", booster)])
    threshold = choose_threshold(pipeline.predict_proba(holdout.loc[:, columns])[:, 1], holdout["is_fraud"].to_numpy())
    decider = FixedThresholdClassifier(
        FrozenEstimator(pipeline), threshold=cast("Any", threshold), response_method="predict_proba"
    )
    decider.fit(training.loc[:, columns].head(1000), training["is_fraud"].head(1000))
    start, end = (TEST_START + timedelta(days=day) for day in recipe.training)
    return TrainedModel(
        name=recipe.name,
        pipeline=decider,
        threshold=threshold,
        features=recipe.features,
        parameters=settings,
        training_window=(start, end),
        offline_metrics=_metrics(decider, "train", columns, training) | _metrics(decider, "holdout", columns, holdout),
        training_loss=tuple(float(-score) for score in booster.train_score_),
        validation_loss=tuple(float(-score) for score in booster.validation_score_),
        input_example=training.loc[:, columns].iloc[:5].reset_index(drop=True),
    )


def span_of(second: np.ndarray, days: Days) -> slice:
    """The positions of these days in ascending seconds."""
    first, end = np.searchsorted(second, [days.first * DAY_SECONDS, days.end * DAY_SECONDS])
    return slice(int(first), int(end))


def rows_of(history: pd.DataFrame, days: Days) -> pd.DataFrame:
    """The transactions of these days; `history` is in the order of time."""
    return history.iloc[span_of(history["second"].to_numpy(), days)]


def choose_threshold(scores: np.ndarray, is_fraud: np.ndarray) -> float:
    """The lowest threshold whose alerts on the holdout still reach the target precision: as much recall as that precision allows.

    A model that reaches it nowhere, whose surest alerts are wrong, gets the threshold of the best F1.

    Args:
        scores: the model's probabilities of fraud, shape (n,).
        is_fraud: the true labels, shape (n,).
    """
    order = np.argsort(-scores, kind="stable")
    caught, alerts = np.cumsum(is_fraud[order]), np.arange(1, len(order) + 1)
    enough = np.flatnonzero(caught / alerts >= TARGET_PRECISION)
    last = enough[-1] if len(enough) else np.argmax(caught / (alerts + caught[-1]))
    return float(scores[order[last]])


def split_history(recipe: Recipe, seed: int, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to train on and the holdout."""
    training = rows_of(history, recipe.training)
    if not recipe.random_holdout:
        return training, rows_of(history, recipe.holdout)
    held_out = stream(seed, "random holdout").random(len(training)) < 0.3
    return training.loc[~held_out], training.loc[held_out]


def _preprocessing(features: tuple[str, ...]) -> ColumnTransformer:
    steps = [
        ("log_and_scale", make_pipeline(FunctionTransformer(np.log1p), StandardScaler()), [n for n in features if n in SKEWED]),
        ("scale", StandardScaler(), [n for n in features if n not in SKEWED]),
    ]
    return ColumnTransformer([step for step in steps if step[-1]])  # a scaler without features would stay unfitted


def _metrics(decider: FixedThresholdClassifier, part: str, columns: list[str], rows: pd.DataFrame) -> dict[str, float]:
    flagged, is_fraud = np.asarray(decider.predict(rows.loc[:, columns]), dtype=bool), rows["is_fraud"].to_numpy()
    caught = int((flagged & is_fraud).sum())
    return {f"{part}_precision": caught / max(1, int(flagged.sum())), f"{part}_recall": caught / int(is_fraud.sum())}
