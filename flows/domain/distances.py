"""How far two samples are apart: Kolmogorov and Smirnov's distance over all values, and the population stability index."""

from __future__ import annotations

import warnings
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from flows.domain.column_summary import quantile_places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]
    Shares = NDArray[np.float64]

BINS = 10
LEAST_SHARE = 1e-4
"""What PSI takes for the share of an empty bin (or half a row, where that is more), because the logarithm of 0 is none."""
_EXACT_ROWS = 1_000


def ks_distance(first: Column, second: Column) -> float:
    """The exact two-sample Kolmogorov–Smirnov distance: how far the two shares of values up to x are apart, at the worst x.

    Args:
        first, second: sorted numbers without NaN, (n,) and (m,), each with at least one and of the same dtype.

    Returns:
        0..1; exact, with ties as well, because the shares are compared as whole numbers (n·m up to 9e18).

    Source:
        Smirnov 1939; Hodges 1958, Arkiv för Matematik 3:469-486. Between two values of one side its own share stands still, so
        that the other's lead is greatest just before one of them, and its own lead at one: the smaller side's values are enough.

    Example:
        >>> ks_distance(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 3.0]))
        0.25
    """
    few, many = sorted((first, second), key=len)
    before, up_to = (np.searchsorted(many, few, side=side) for side in ("left", "right"))
    ranks = np.arange(len(few)) * len(many)
    before *= len(few)
    before -= ranks
    ranks += len(many)
    up_to *= -len(few)
    up_to += ranks
    return int(max(before.max(), up_to.max())) / (len(first) * len(second))


def ks_p_value(first: Column, second: Column, distance: float) -> float:
    """The chance of such a distance or a larger one, were both samples from one distribution; too large where values are tied.

    Args:
        first, second: as for `ks_distance`, which gives `distance`.

    Source:
        For up to 1,000 values a side Hodges' exact count of paths; beyond, the one-sample distribution of Simard & L'Ecuyer 2011
        (J. Stat. Softw. 39(11)) with n·m / (n + m) values. Both as scipy.stats.ks_2samp has them.

    Example:
        >>> round(ks_p_value(np.arange(2000.0), np.arange(60.0, 2060.0), 0.03), 3)
        0.323
    """
    if max(len(first), len(second)) <= _EXACT_ROWS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where rounding leaves more than 1, scipy takes the other way itself
            return float(scipy.stats.ks_2samp(first, second, method="exact").pvalue)
    values = np.round(len(first) * len(second) / (len(first) + len(second)))
    return float(np.clip(scipy.stats.kstwo.sf(distance, values), 0.0, 1.0))


def ks_chance(first: int, second: int) -> float:
    """The Kolmogorov–Smirnov distance that two samples of one distribution exceed by chance in 5 % of all cases.

    Args:
        first, second: how many values each sample has, at least 1.

    Source:
        Smirnov 1948, Ann. Math. Statist. 19:279-281: 1.36 √(1/n + 1/m), for large samples; for tied values it is too large.

    Example:
        >>> round(ks_chance(1000, 1000), 3)
        0.061
    """
    return 1.36 * sqrt(1 / first + 1 / second)


def population_stability(training: Shares, production: Shares, rows: tuple[int, int]) -> float:
    """The population stability index of shares in the same bins, from 0; 0.1 is usually called a shift, 0.25 a large one.

    Args:
        training, production: shares 0..1 of each bin, (bins,).
        rows: how many values each side has. An empty bin counts as half a row, and at least as `LEAST_SHARE`.

    Source:
        Siddiqi 2006, Credit Risk Scorecards, p. 136: Σ (p - t) ln(p / t). Its floor for empty bins is a habit of practice
        and no theory; it decides how much a value weighs that one side never has.

    Example:
        >>> round(population_stability(np.array([0.9, 0.1]), np.array([1.0, 0.0]), (10**6, 10**6)), 2)
        0.7
    """
    floors = (max(LEAST_SHARE, 0.5 / count) for count in rows)
    before, after = (np.maximum(shares, floor) for shares, floor in zip((training, production), floors, strict=True))
    return float(np.sum((after - before) * np.log(after / before)))


def shares_by_decile(training: Column, production: Column) -> tuple[Shares, Shares]:
    """Shares in the bins that end at training's deciles; deciles that are tied make one bin."""
    edges: Column = np.unique(training[quantile_places(len(training), BINS)])
    below = (np.searchsorted(values, edges, side="right") / len(values) for values in (training, production))
    before, after = (np.diff(shares, prepend=0.0, append=1.0) for shares in below)
    return before, after
