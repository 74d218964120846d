"""A whole simulated A/B test: the world, the two trained models, and the feedback as it was known at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from threadpoolctl import threadpool_limits

from deployments.sandbox.simulator.features import ALL_FEATURES, compute_features
from deployments.sandbox.simulator.model_cache import cached_model
from deployments.sandbox.simulator.scenarios import SCENARIOS, Scenario
from deployments.sandbox.simulator.serving import entity_ids, feedback_table, moments, online_features, taking_part
from deployments.sandbox.simulator.timeline import HOLDOUT, PRODUCTION, TEST_START, Days
from deployments.sandbox.simulator.training import BASELINE, Recipe, TrainedModel, span_of, split_history, train_model
from deployments.sandbox.simulator.world import draw_population, simulate_transactions

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SimulatedTest:
    """One simulated A/B test.

    `production`, `training` and `holdout` hold `transaction_id`, `event_time`, `entity_id`, `is_fraud` and the features: in
    production as the candidate got them online, else as the candidate was trained and evaluated offline. `everything` is the
    feedback with all labels; ask `feedback` for what was known at a moment.
    """

    scenario: Scenario
    seed: int
    test_start: datetime
    baseline: TrainedModel
    candidate: TrainedModel
    production: pd.DataFrame
    training: pd.DataFrame
    holdout: pd.DataFrame
    everything: pd.DataFrame

    def feedback(self, until: datetime) -> pd.DataFrame:
        """The feedback table as it was at a moment: earlier transactions, and only the labels that had arrived.

        Args:
            until: an aware time.
        """
        known = self.everything.loc[self.everything["event_time"] < until].reset_index(drop=True)
        pending = known["label_time"] > until
        known.loc[pending, ["is_fraud", "label_time", "label_source"]] = None
        return known


def simulate_test(scenario: str, seed: int, *, shadow: bool = True, cache: Path | None) -> SimulatedTest:
    """Simulate a whole A/B test; the same arguments give the same test.

    Args:
        scenario: a name of `SCENARIOS`.
        seed: any integer from 0 on.
        shadow: whether both models score every transaction; else only the serving one does.
        cache: a folder in which trained models are kept, or None to train each time.

    Raises:
        ValueError: for an unknown scenario or a negative seed.
    """
    if scenario not in SCENARIOS or seed < 0:
        raise ValueError(f"no scenario {scenario!r} with seed {seed}: choose one of {', '.join(SCENARIOS)}, and a seed from 0 on")
    story = SCENARIOS[scenario]
    history, production = _world(seed)

    def model(recipe: Recipe) -> TrainedModel:
        return cached_model(recipe, seed, cache, lambda: train_model(recipe, seed, history))

    # one thread: OpenMP's waiting threads make this ten times slower when the machine is busy with the rest of the demo
    with threadpool_limits(1, user_api="openmp"):
        baseline, candidate = model(BASELINE), model(story.candidate)
        production = production.loc[taking_part(story, production)].reset_index(drop=True)
        everything = feedback_table(story, seed, production, (baseline, candidate))
    if not shadow:
        for arm in ("baseline", "candidate"):
            everything.loc[everything["arm"] != arm, f"{arm}_prediction"] = pd.NA
    training, holdout = split_history(story.candidate, seed, history)
    return SimulatedTest(
        scenario=story,
        seed=seed,
        test_start=TEST_START,
        baseline=baseline,
        candidate=candidate,
        production=_named(online_features(story, production)),
        training=_named(training),
        holdout=_named(holdout),
        everything=everything,
    )


def _world(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The transactions of history and of production with their features, in the order of time; the warming-up is left out."""
    population = draw_population(seed)
    rows = simulate_transactions(seed, population)
    features = compute_features(rows, population)
    known, tested = (
        span_of(rows["second"].to_numpy(), days) for days in (Days(BASELINE.training.first, HOLDOUT.end), PRODUCTION)
    )
    return (
        pd.concat([rows[known], features[known]], axis=1),
        pd.concat([rows[tested], features[tested]], axis=1),
    )


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The features with the contract's names for the moment, the card and the truth."""
    names = pd.DataFrame(
        {
            "transaction_id": [f"tx-{number:07d}" for number in range(len(rows))],
            "event_time": moments(rows["second"].to_numpy()),
            "entity_id": entity_ids(rows["card"].to_numpy()),
            "is_fraud": rows["is_fraud"].to_numpy(),
        },
        index=rows.index,
    )
    return pd.concat([names, rows[list(ALL_FEATURES)]], axis=1).reset_index(drop=True)
