from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest

from flows.domain.counts import AmountCounts, ArmCounts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.policy import load_policy
from flows.domain.savings import Money, monthly_savings

POLICY = load_policy('false_positive_cost = "2"\ncurrency = "EUR"', "policy.toml")
CARDS, RESAMPLES = 800, 4_000


def triangle(vectors: np.ndarray) -> tuple[int, ...]:
    return tuple(int(vectors[:, i] @ vectors[:, j]) for i, j in combinations_with_replacement(range(vectors.shape[1]), 2))


def resampled(values: list[np.ndarray], estimate) -> tuple[float, float]:
    """The ends of a normal interval by a bootstrap of whole cards."""
    rng = np.random.default_rng(5)
    found = [estimate([one[rng.integers(0, len(one), len(one))].sum(axis=0) for one in values]) for _ in range(RESAMPLES)]
    centre, half = estimate([one.sum(axis=0) for one in values]), 1.96 * float(np.std(found))
    return centre - half, centre + half


def test_the_interval_of_pairs_is_that_of_a_bootstrap_by_card(build) -> None:
    rng = np.random.default_rng(1)
    bunched = rng.poisson(0.4, CARDS)
    gain = np.round(rng.lognormal(8, 1, CARDS) * bunched * rng.choice([-1, 1], CARDS, p=[0.3, 0.7])).astype(int)
    false = rng.integers(-1, 3, CARDS) * (rng.random(CARDS) < 0.2)
    vectors = np.column_stack([gain, false])
    amounts = AmountCounts(
        10**8, 10**8, 10**7, 10**8, 10**7 + int(gain.sum()), 50_000, 50_000, (triangle(vectors),), by_card=True
    )
    overlap = Overlap(100, 50, 50 + int(false.sum()))
    feedback = build.feedback(
        amounts=amounts,
        outcomes=build.outcomes(false=overlap),
        baseline=ArmCounts(80_000, 80_000, 80_000, 1, 1),
        candidate=ArmCounts(20_000, 20_000, 20_000, 1, 1),
    )
    saved = monthly_savings(build.evidence(feedback=feedback), POLICY)
    low, high = resampled([vectors], lambda sums: 2 * (sums[0][0] / 100 - 2 * sums[0][1]) * 30 / 14)
    assert saved is not None
    assert float(saved.amount) == pytest.approx((low + high) / 2, rel=1e-6)
    assert float(saved.high) - float(saved.low) == pytest.approx(high - low, rel=0.05)


def card_sums(rng: np.random.Generator, cards: int, caught_share: float) -> np.ndarray:
    """For each card: hundredths of fraud, of them caught, false alerts and rows; a card is caught as a whole or not."""
    amount = np.round(rng.lognormal(8, 1, cards) * (rng.random(cards) < 0.3)).astype(int)
    rows = rng.integers(1, 30, cards)
    return np.column_stack([amount, amount * (rng.random(cards) < caught_share), rng.binomial(rows, 0.02), rows])


def test_the_interval_of_a_split_is_that_of_a_bootstrap_by_card(build) -> None:
    rng = np.random.default_rng(2)
    arms = [card_sums(rng, 4 * CARDS, 0.8), card_sums(rng, CARDS, 0.85)]
    one, two = (sums.sum(axis=0) for sums in arms)
    whole, rows = int(one[0] + two[0]), int(one[3] + two[3])
    models = [ModelCounts(500, 400, 400 + int(sums[2]), 400) for sums in (one, two)]
    feedback = build.feedback(
        outcomes=Outcomes(Design.SPLIT, *models),
        amounts=AmountCounts(
            *(whole, int(one[0]), int(one[1]), int(two[0]), int(two[1]), int(one[3]), int(two[3])),
            tuple(triangle(sums) for sums in arms),
            by_card=True,
        ),
        baseline=ArmCounts(int(one[3]), int(one[3]), int(one[3]), 1, 1),
        candidate=ArmCounts(int(two[3]), int(two[3]), int(two[3]), 1, 1),
    )
    saved = monthly_savings(build.evidence(feedback=feedback), POLICY)

    def estimate(sums: list[np.ndarray]) -> float:
        shares = sums[1][1] / sums[1][0] - sums[0][1] / sums[0][0]
        false = sums[1][2] / sums[1][3] - sums[0][2] / sums[0][3]
        return (whole / 100 * shares - 2 * rows * false) * 30 / 14

    low, high = resampled(arms, estimate)
    assert saved is not None
    assert float(saved.amount) == pytest.approx((low + high) / 2, rel=1e-6)
    assert float(saved.high) - float(saved.low) == pytest.approx(high - low, rel=0.05)


def test_a_mixture_scales_amounts_and_false_alerts_alike(build) -> None:
    pairs = build.feedback(baseline=ArmCounts(80_000, 80_000, 79_000, 800, 640))
    half = replace(pairs, amounts=replace(pairs.amounts, baseline_rows=49_400, candidate_rows=49_400))
    whole, doubled = (monthly_savings(build.evidence(feedback=one), POLICY) for one in (pairs, half))
    assert float(doubled.amount) == pytest.approx(2 * float(whole.amount), abs=0.01)
    assert float(doubled.high) - float(doubled.low) == pytest.approx(2 * (float(whole.high) - float(whole.low)), abs=0.02)


def test_an_interval_across_zero_and_one_without_cards_say_so() -> None:
    assert str(Money("1234.50", "-0.20", "2459.51", "EUR")).startswith("1,234 EUR (95 % interval 0 to 2,460; ")
    assert "crosses zero" in str(Money("1.00", "-1.00", "3.00", "EUR"))
    assert "crosses zero" not in str(Money("-2.00", "-3.00", "-1.00", "EUR"))
    assert "no entity_id" in str(Money("1.00", "0.50", "1.50", "EUR", "transaction"))
