"""What surrounds a prediction in production: router, online feature pipeline, latency, errors, and the labels' way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deployments.sandbox.simulator.timeline import DAY_SECONDS, LABEL_MATURITY_DAYS, TEST_START
from deployments.sandbox.simulator.world import CARDS, stream
from deployments.sandbox.traffic_split import split_bucket

if TYPE_CHECKING:
    from deployments.sandbox.simulator.scenarios import Scenario
    from deployments.sandbox.simulator.training import TrainedModel

BASELINE_TRAFFIC_PERCENT = 80
STALE_GATEWAY_PERCENT = 50  # what the forgotten gateway still gives to the baseline
GATEWAYS = 4
ISSUERS, UNCONVERTED_ISSUERS = 5, 2
BUSY_HOURS = (9, 21)
CHARGEBACK_WINDOW_DAYS = 29.0  # after it an undisputed payment counts as honest
REVIEWED_SHARE = 0.3  # of what the serving model flagged
AUDITED_SHARE = 0.01
ERROR_SHARE = 0.0004


def entity_ids(cards: np.ndarray) -> np.ndarray:
    """The names of cards in the feedback."""
    return np.array([f"card-{card:05d}" for card in range(CARDS)], dtype=object)[cards]


def moments(second: np.ndarray) -> pd.DatetimeIndex:
    """Seconds from the start of the test as UTC times."""
    return pd.DatetimeIndex(np.datetime64(TEST_START.replace(tzinfo=None), "us") + second.astype("timedelta64[s]"), tz="UTC")


def taking_part(scenario: Scenario, rows: pd.DataFrame) -> np.ndarray:
    """Which transactions belong to cards that take part in the test."""
    return rows["card"].to_numpy() < round(scenario.cards_share * CARDS)


def route(scenario: Scenario, rows: pd.DataFrame) -> np.ndarray:
    """True where the candidate serves: by the card's hash, against the weights that the payment's gateway believes in."""
    bucket = np.array([split_bucket(name) for name in entity_ids(np.arange(CARDS))])[rows["card"].to_numpy()]
    stale = scenario.stale_gateway & (rows["terminal"].to_numpy() % GATEWAYS == 0)
    return bucket >= np.where(stale, STALE_GATEWAY_PERCENT, BASELINE_TRAFFIC_PERCENT)


def online_features(scenario: Scenario, rows: pd.DataFrame) -> pd.DataFrame:
    """The features as the candidate's online pipeline gives them to the candidate."""
    if not scenario.unconverted_issuers:
        return rows
    served, unconverted = rows.copy(), (rows["card"].to_numpy() % ISSUERS) < UNCONVERTED_ISSUERS
    for name in ("amount_to_card_mean", "card_amount_1d_to_mean"):
        served.loc[unconverted, name] /= np.float32(100)
    return served


def feedback_table(scenario: Scenario, seed: int, rows: pd.DataFrame, models: tuple[TrainedModel, TrainedModel]) -> pd.DataFrame:
    """The complete feedback of the production days, with all labels that will ever arrive and both models' predictions.

    Args:
        scenario: the story with its causes.
        seed: the seed of the world.
        rows: production transactions with their right features.
        models: baseline and candidate.
    """
    by_candidate = route(scenario, rows)
    baseline, candidate = models[0].predict(rows), models[1].predict(online_features(scenario, rows))
    labels = _labels(seed, rows, np.where(by_candidate, candidate, baseline))
    return pd.DataFrame(
        {
            "transaction_id": [f"tx-{number:07d}" for number in range(len(rows))],
            "event_time": moments(rows["second"].to_numpy()),
            "entity_id": entity_ids(rows["card"].to_numpy()),
            "amount": rows["amount"].to_numpy(),
            "arm": np.where(by_candidate, "candidate", "baseline"),
            "baseline_prediction": pd.array(baseline, dtype="boolean"),
            "candidate_prediction": pd.array(candidate, dtype="boolean"),
            "is_fraud": pd.array(rows["is_fraud"].to_numpy(), dtype="boolean"),
            **labels,
            "latency_ms": _latency_ms(scenario, seed, rows, by_candidate),
            "error": stream(seed, "errors").random(len(rows)) < ERROR_SHARE,
        }
    )


def _labels(seed: int, rows: pd.DataFrame, flagged: np.ndarray) -> dict[str, pd.DatetimeIndex | np.ndarray]:
    """When and from where the truth arrives: the chargeback (or its window's end), unless a review or an audit was faster."""
    random, second, size = stream(seed, "labels"), rows["second"].to_numpy(), len(rows)
    undisputed = second + int(CHARGEBACK_WINDOW_DAYS * DAY_SECONDS)
    never = second + LABEL_MATURITY_DAYS * DAY_SECONDS
    ways = {
        "chargeback": np.minimum(rows["chargeback_second"].to_numpy(), undisputed),
        "review": np.where(
            flagged & (random.random(size) < REVIEWED_SHARE), second + random.integers(600, 2 * DAY_SECONDS, size), never
        ),
        "audit": np.where(
            random.random(size) < AUDITED_SHARE, second + random.integers(5 * DAY_SECONDS, 9 * DAY_SECONDS, size), never
        ),
    }
    arrivals = np.stack(list(ways.values()))
    source = np.array(list(ways))[arrivals.argmin(axis=0)]
    return {"label_time": moments(arrivals.min(axis=0)), "label_source": source}


def _latency_ms(scenario: Scenario, seed: int, rows: pd.DataFrame, by_candidate: np.ndarray) -> np.ndarray:
    """Log-normal answers; the candidate looks up the terminal's risk as well, for some milliseconds or from a cold store."""
    random, hour = stream(seed, "latency"), rows["second"].to_numpy() % DAY_SECONDS // 3600
    scoring = random.lognormal(np.log(30.0), 0.35, len(rows))
    look_up, cold = random.lognormal(np.log(5.0), 0.4, len(rows)), random.lognormal(np.log(90.0), 0.5, len(rows))
    busy = (hour >= BUSY_HOURS[0]) & (hour < BUSY_HOURS[1])
    missed = scenario.cold_risk_store & busy & (random.random(len(rows)) < 0.5)
    return np.round(scoring + by_candidate * np.where(missed, cold, look_up), 2)
