"""A seeded world of card transactions: who pays where, when and how much, and what fraudsters do to it.

Two kinds of fraud. A *compromised card* is used for some days by somebody else: larger amounts, anywhere, often at night. A
*compromised terminal* lets stolen data of any card through for some weeks, with amounts like those of a journey; it can be known
only by the chargebacks that it has caused. Holders on a *spree* (a journey, a new home) and holders who lend their card look
like thieves and are honest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from deployments.sandbox.simulator.timeline import DAY_SECONDS, NEW_FRAUD_PATTERN_DAY, WORLD

CARDS = 8_000
TERMINALS = 4_000
FAVOURITES = 10
MAP_KM = 100.0
PAYMENTS_PER_CARD_DAY = 1.15
CARD_BURSTS_PER_DAY = 68.0
LENT_CARD_SHARE = 0.06  # of the bursts that look like theft: the holder knows about it
SPREES_PER_DAY = 30.0
TERMINAL_CAPTURES_PER_DAY = 1.4
CAPTURE_DAYS = (18.0, 32.0)
FRAUDS_PER_CAPTURED_DAY = 1.4
CHARGEBACK_DAYS = (0.5, 28.0)
WEEKEND_FACTOR = 1.25  # in number and in amount


@dataclass(frozen=True, slots=True)
class Population:
    """The cards with their habits, and the terminals. Positions in km, amounts in the account's currency."""

    card_xy: np.ndarray
    card_amount: np.ndarray
    card_rate: np.ndarray
    night_share: np.ndarray
    favourites: np.ndarray
    terminal_xy: np.ndarray


def stream(seed: int, name: str) -> np.random.Generator:
    """An independent random stream for a part of the world, so that changing one part leaves the others as they were."""
    return np.random.default_rng([seed, *name.encode()])


def draw_population(seed: int) -> Population:
    """Draw the cards, their habits and the terminals around them."""
    random = stream(seed, "population")
    terminal_xy = random.uniform(0, MAP_KM, (TERMINALS, 2))
    card_xy = random.uniform(0, MAP_KM, (CARDS, 2))
    _, favourites = KDTree(terminal_xy).query(card_xy, k=FAVOURITES)
    return Population(
        card_xy=card_xy,
        card_amount=random.lognormal(3.4, 0.5, CARDS),
        card_rate=PAYMENTS_PER_CARD_DAY * random.gamma(4.0, 0.25, CARDS),
        night_share=random.beta(1.0, 12.0, CARDS),
        favourites=np.asarray(favourites),
        terminal_xy=terminal_xy,
    )


def simulate_transactions(seed: int, population: Population) -> pd.DataFrame:
    """All transactions of the world in the order of their time, with the truth and the moment of each fraud's chargeback.

    Args:
        seed: the seed of the world; the same seed gives the same rows.
        population: the cards and terminals, of the same seed.

    Returns:
        Columns `second` (int, from the start of the test), `card`, `terminal`, `amount`, `is_fraud`, and `chargeback_second`
        (of frauds; else the largest integer).
    """
    draws = (_everyday, _card_frauds, _terminal_frauds, _sprees)
    rows = pd.concat([draw(seed, population) for draw in draws], ignore_index=True)
    rows = rows.loc[rows["second"].between(WORLD.first * DAY_SECONDS, WORLD.end * DAY_SECONDS - 1)]
    rows = rows.iloc[np.lexsort((rows["card"], rows["second"]))].reset_index(drop=True)
    rows["amount"] = rows["amount"].clip(0.5, 9_999).round(2)
    random = stream(seed, "chargebacks")
    delay = np.clip(random.lognormal(2.0, 0.6, len(rows)), *CHARGEBACK_DAYS) * DAY_SECONDS
    rows["chargeback_second"] = np.where(rows["is_fraud"], rows["second"] + delay.astype(np.int64), np.iinfo(np.int64).max)
    return rows


def _everyday(seed: int, population: Population) -> pd.DataFrame:
    """The holders' own payments, mostly near home, by day and more at weekends."""
    random = stream(seed, "everyday")
    days = np.arange(WORLD.first, WORLD.end)
    weekend = np.where(days % 7 >= 5, WEEKEND_FACTOR, 1.0)
    counts = random.poisson(population.card_rate[:, None] * weekend[None, :])
    card, day = np.divmod(np.repeat(np.arange(counts.size, dtype=np.int32), counts.ravel()), np.int32(len(days)))
    size = len(card)
    rank = np.minimum(random.geometric(0.3, size) - 1, FAVOURITES - 1)
    elsewhere = random.random(size) < 0.06
    terminal = np.where(elsewhere, random.integers(0, TERMINALS, size), population.favourites[card, rank])
    at_night = random.random(size) < population.night_share[card]
    amount = population.card_amount[card] * weekend[day] * random.lognormal(0.0, 0.5, size)
    return _rows(days[day] * DAY_SECONDS + _clock(random, at_night), card, terminal, amount, np.full(len(card), False))


def _clock(random: np.random.Generator, at_night: np.ndarray) -> np.ndarray:
    """Seconds of the day: around the early afternoon, or between 23 and 5 o'clock."""
    by_day = np.clip(random.normal(13.5, 3.6, len(at_night)), 5.0, 22.99)
    by_night = (23.0 + random.uniform(0.0, 6.0, len(at_night))) % 24
    return (np.where(at_night, by_night, by_day) * 3600).astype(np.int64)


def _bursts(random: np.random.Generator, per_day: float, payments: float, days: float) -> tuple[np.ndarray, np.ndarray]:
    """Cards and day numbers of payments that come in bursts of some days, begun at random all through the world."""
    begun = random.poisson(per_day * (WORLD.end - WORLD.first))
    start, card = random.uniform(WORLD.first, WORLD.end, begun), random.integers(0, CARDS, begun)
    counts = 1 + random.poisson(payments - 1, begun)
    moment = np.repeat(start, counts) + random.uniform(0, days, counts.sum())
    return np.repeat(card, counts), np.floor(moment).astype(np.int64)


def _card_frauds(seed: int, population: Population) -> pd.DataFrame:
    """What the thieves of card data buy: more, anywhere, and often at night."""
    random = stream(seed, "compromised cards")
    card, day = _bursts(random, CARD_BURSTS_PER_DAY, payments=3.5, days=1.5)
    second = day * DAY_SECONDS + _clock(random, random.random(len(card)) < 0.35)
    amount = population.card_amount[card] * random.lognormal(2.4, 0.55, len(card))
    is_fraud = random.random(len(card)) >= LENT_CARD_SHARE
    return _rows(second, card, random.integers(0, TERMINALS, len(card)), amount, is_fraud)


def _sprees(seed: int, population: Population) -> pd.DataFrame:
    """Honest holders on a journey or with a house to furnish."""
    random = stream(seed, "sprees")
    card, day = _bursts(random, SPREES_PER_DAY, payments=4.0, days=4.0)
    second = day * DAY_SECONDS + _clock(random, random.random(len(card)) < 0.1)
    amount = population.card_amount[card] * random.lognormal(0.8, 0.55, len(card))
    return _rows(second, card, random.integers(0, TERMINALS, len(card)), amount, np.full(len(card), False))


def _rows(second: np.ndarray, card: np.ndarray, terminal: np.ndarray, amount: np.ndarray, is_fraud: np.ndarray) -> pd.DataFrame:
    columns = {"second": second, "card": card.astype(np.int32), "terminal": terminal.astype(np.int32), "amount": amount}
    return pd.DataFrame({**columns, "is_fraud": is_fraud})


def _terminal_frauds(seed: int, population: Population) -> pd.DataFrame:
    """What passes through compromised terminals: stolen data of any card, for weeks at one place."""
    random = stream(seed, "compromised terminals")
    days = np.arange(NEW_FRAUD_PATTERN_DAY, WORLD.end)
    first = np.repeat(days, random.poisson(TERMINAL_CAPTURES_PER_DAY, len(days)))
    terminal, length = random.integers(0, TERMINALS, len(first)), random.uniform(*CAPTURE_DAYS, len(first))
    counts = random.poisson(FRAUDS_PER_CAPTURED_DAY * length)
    day = np.floor(np.repeat(first, counts) + random.uniform(0, np.repeat(length, counts))).astype(np.int64)
    card = random.integers(0, CARDS, len(day))
    second = day * DAY_SECONDS + _clock(random, random.random(len(day)) < 0.3)
    amount = population.card_amount[card] * random.lognormal(1.3, 0.5, len(day))
    return _rows(second, card, np.repeat(terminal, counts), amount, np.full(len(card), True))
