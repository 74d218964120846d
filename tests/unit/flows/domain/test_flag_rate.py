"""Whether a model still flags what it flagged: large and beyond chance, with cards as the units."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import fisher_exact

from flows.domain.counts import FlagCounts
from flows.domain.flag_rate import describe_flag_rate_change, flag_rate_p
from flows.domain.policy import Policy

TEST = FlagCounts(100_000, 5_000)


def test_a_rate_that_is_as_it_was_is_no_change() -> None:
    assert describe_flag_rate_change(TEST, FlagCounts(2_000, 100), Policy()) == ""


@pytest.mark.parametrize("flagged", [20, 200])
def test_a_large_change_beyond_chance_is_said_in_either_direction(flagged: int) -> None:
    found = describe_flag_rate_change(TEST, FlagCounts(2_000, flagged), Policy())
    assert found == f"flags {flagged / 20:.2f} % of 2,000 requests, 5.00 % in the test"


def test_a_change_at_the_policys_edge_is_allowed_and_beyond_it_not() -> None:
    assert describe_flag_rate_change(TEST, FlagCounts(20_000, 1_500), Policy()) == ""
    assert describe_flag_rate_change(TEST, FlagCounts(20_000, 1_501), Policy()) != ""
    assert describe_flag_rate_change(TEST, FlagCounts(20_000, 1_501), Policy(flag_rate_change=Fraction(1))) == ""


def test_a_large_change_that_may_be_chance_is_none() -> None:
    assert describe_flag_rate_change(TEST, FlagCounts(200, 18), Policy()) == ""


@pytest.mark.parametrize(("test", "now"), [(FlagCounts(0, 0), TEST), (TEST, FlagCounts(0, 0))])
def test_without_requests_nothing_is_said(test: FlagCounts, now: FlagCounts) -> None:
    assert describe_flag_rate_change(test, now, Policy()) == ""
    assert FlagCounts(0, 0).share is None


def test_without_cards_it_is_fishers_test_or_more_careful() -> None:
    for flagged in range(0, 60, 6):
        now = FlagCounts(400, flagged)
        table = [[flagged, 400 - flagged], [50, 950]]
        tails = [fisher_exact(table, alternative=one).pvalue for one in ("less", "greater")]
        assert flag_rate_p(FlagCounts(1_000, 50), now) == pytest.approx(min(1.0, 2 * min(tails)))


def test_a_model_that_flags_nothing_at_all_has_no_variance_and_no_change() -> None:
    assert flag_rate_p(FlagCounts(1_000, 0, (1_000, 0, 0)), FlagCounts(200, 0, (200, 0, 0))) == 1.0


def counted(cards: np.ndarray, flags: np.ndarray) -> FlagCounts:
    sizes, found = np.bincount(cards), np.bincount(cards, weights=flags)
    products = (int((sizes**2).sum()), int((sizes * found).sum()), int((found**2).sum()))
    return FlagCounts(len(cards), int(flags.sum()), products)


def requests(rng: np.random.Generator, cards: int, *, bunched: bool) -> FlagCounts:
    """Cards with 1 to 9 requests; with `bunched` a card's requests are flagged together."""
    of_card = np.repeat(np.arange(cards), rng.integers(1, 10, cards))
    flags = (rng.random(cards) < 0.05)[of_card] if bunched else rng.random(len(of_card)) < 0.05
    return counted(of_card, flags.astype(float))


def test_where_a_cards_requests_are_flagged_together_chance_is_not_mistaken_for_a_change() -> None:
    """At a level of 5 %, in 400 pairs of samples without any change; requests alone would cry wolf far too often."""
    rng = np.random.default_rng(7)
    pairs = [(requests(rng, 1_500, bunched=True), requests(rng, 300, bunched=True)) for _ in range(400)]
    alone = [flag_rate_p(FlagCounts(a.requests, a.flagged), FlagCounts(b.requests, b.flagged)) < 0.05 for a, b in pairs]
    assert np.mean([flag_rate_p(*pair) < 0.05 for pair in pairs]) < 0.08
    assert np.mean(alone) > 0.2


def test_a_doubled_rate_is_found_in_an_hour_of_thin_traffic() -> None:
    rng = np.random.default_rng(8)
    before = requests(rng, 5_000, bunched=False)
    after = counted(np.arange(2_000), (rng.random(2_000) < 0.12).astype(float))
    assert describe_flag_rate_change(before, after, Policy()) != ""
