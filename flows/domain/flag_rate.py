"""The flag rate of a model: whether the share of requests that it flags is still what it was during the test."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import scipy

from flows.domain.counts import FlagCounts

if TYPE_CHECKING:
    from flows.domain.policy import Policy


def describe_flag_rate_change(test: FlagCounts, now: FlagCounts, policy: Policy) -> str:
    """What is wrong with the flag rate, in words; empty when it is as it was, or nothing can be said.

    A change counts when it is large (`flag_rate_change`, as a share of the rate in the test) and beyond chance
    (`validity.unequal_p_value`).

    Args:
        test: the requests that the model scored during the test.
        now: those of the window that is compared.
    """
    usual, found = test.share, now.share
    if usual is None or found is None or abs(found - usual) <= policy.flag_rate_change * usual:
        return ""
    if flag_rate_p(test, now) >= policy.validity.unequal_p_value:
        return ""
    return f"flags {100 * float(found):.2f} % of {now.requests:,} requests, {100 * float(usual):.2f} % in the test"


def flag_rate_p(test: FlagCounts, now: FlagCounts) -> float:
    """Two-sided p-value of "the flag rate is the same": the larger one of the requests' and of the cards' test.

    Args:
        test, now: each with at least one request.

    Returns:
        0..1. Without cards it is that of the requests alone.

    Source:
        Fisher's exact test, twice the smaller tail; over cards the score test of a ratio, its variance from the squares of the
        cards' residuals under one common rate (Cochran 1977, Sampling Techniques, 3rd ed., §6.12 and §9A.1).

    Example:
        >>> round(flag_rate_p(FlagCounts(1000, 50), FlagCounts(200, 20)), 3)
        0.014
        >>> round(flag_rate_p(FlagCounts(1000, 50, (4000, 200, 200)), FlagCounts(200, 20, (800, 80, 80))), 3)
        0.267
    """
    total, flagged = test.requests + now.requests, test.flagged + now.flagged
    tails = (
        scipy.stats.hypergeom.cdf(now.flagged, total, flagged, now.requests),
        scipy.stats.hypergeom.sf(now.flagged - 1, total, flagged, now.requests),
    )
    by_request = min(1.0, 2 * float(min(tails)))
    variance = _by_card(test, flagged / total) + _by_card(now, flagged / total)
    if variance <= 0:
        return by_request
    z = (now.flagged / now.requests - test.flagged / test.requests) / sqrt(variance)
    return max(by_request, 2 * float(scipy.stats.norm.sf(abs(z))))


def _by_card(counts: FlagCounts, rate: float) -> float:
    """The variance of a flag rate under `rate`, with cards as the units; 0 where there are none."""
    if counts.products is None:
        return 0.0
    sizes, crossed, flags = counts.products
    return (flags - 2 * rate * crossed + rate**2 * sizes) / counts.requests**2
