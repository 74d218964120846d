"""Exact gates and significance tests, computed from counts alone."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, hypergeom, norm

from flows.domain.counts import VECTOR, CardProducts, Design, ModelCounts, Outcomes
from flows.domain.policy import Sides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SMALL_CELL = 10
CLUSTERED_FROM = 1.05
_RECALL_POINTS = 400
_ROUNDING = 1e-15  # what differences of floating sums may leave of zero


def relative_improvement(outcomes: Outcomes) -> Fraction | None:
    """Candidate's recall over the baseline's, minus 1, exactly; None where either is unknown or the baseline caught nothing.

    Example:
        >>> model = lambda caught: ModelCounts(100, caught, 100, 91)
        >>> relative_improvement(Outcomes(Design.SPLIT, model(80), model(84)))
        Fraction(1, 20)
    """
    before, after = outcomes.baseline.recall, outcomes.candidate.recall
    return None if not before or after is None else after / before - 1


def precision_difference(outcomes: Outcomes) -> Fraction | None:
    """Candidate's precision minus the baseline's, exactly (absolute, -1..1); None where either model raised no alert."""
    before, after = outcomes.baseline.precision, outcomes.candidate.precision
    return None if before is None or after is None else after - before


def is_within_band(difference: Fraction, band: Fraction, sides: Sides) -> bool:
    """Whether a difference of precisions is inside the band; its edges are inside."""
    return difference >= -band and (sides is Sides.LOWER or difference <= band)


def mcnemar(baseline_only: int, candidate_only: int) -> tuple[float, float]:
    """Two-sided McNemar test of a paired table: the mid-p and the exact p-value.

    Args:
        baseline_only: frauds that the baseline alone caught, from 0.
        candidate_only: frauds that the candidate alone caught, from 0.

    Returns:
        (mid-p, exact p), each 0..1; (1, 1) when the models never disagree.

    Source:
        Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91.

    Example:
        >>> tuple(round(p, 3) for p in mcnemar(1, 7))
        (0.039, 0.07)
    """
    disagreements = baseline_only + candidate_only
    if baseline_only == candidate_only:
        return 1.0, 1.0
    fewer = min(baseline_only, candidate_only)
    exact = min(1.0, 2 * float(binom.cdf(fewer, disagreements, 0.5)))
    return 2 * float(binom.cdf(fewer, disagreements, 0.5)) - float(binom.pmf(fewer, disagreements, 0.5)), exact


def score_z(before: ModelCounts, after: ModelCounts, ratio: float = 1.0) -> float:
    """Score statistic of "recall after = ratio × recall before" for two separate groups.

    Args:
        before, after: the two models' counts, each with at least one fraud.
        ratio: the ratio of recalls under test, above 0.

    Returns:
        z, positive when `after` does better than `ratio`; 0 when nothing varies.

    Source:
        Miettinen & Nurminen 1985, Statistics in Medicine 4:213-226, equations 10 and 11, with their factor n/(n-1).

    Example:
        >>> round(score_z(ModelCounts(4000, 3200, 0, 0), ModelCounts(1000, 880, 0, 0), 1.05), 4)
        3.0676
    """
    n1, x1, n2, x2 = before.frauds, before.caught, after.frauds, after.caught
    total = n1 + n2
    b, c = ratio * (n2 + x1) + x2 + n1, x1 + x2
    p1 = 2 * c / (b + sqrt(max(0.0, b * b - 4 * total * ratio * c)))
    p2 = min(1.0, ratio * p1)
    variance = (p2 * (1 - p2) / n2 + ratio**2 * p1 * (1 - p1) / n1) * total / (total - 1)
    return (x2 / n2 - ratio * x1 / n1) / sqrt(variance) if variance > 0 else 0.0


def boschloo(before: ModelCounts, after: ModelCounts) -> float:
    """Two-sided p-value of Boschloo's exact test of two recalls, for tables with a small cell.

    SciPy's takes minutes at a thousand frauds: it visits every table. Fisher's p-value falls in each row of tables, so here
    the edge of the region is found by bisection, which gives the same p-value in milliseconds.

    Source:
        Boschloo 1970, Statistica Neerlandica 24:1-35; two-sided as the doubled smaller side, like scipy.stats.boschloo_exact.

    Example:
        >>> round(boschloo(ModelCounts(63, 31, 0, 0), ModelCounts(117, 74, 0, 0)), 3)
        0.071
    """
    sides = (_boschloo_side(after, before), _boschloo_side(before, after))
    return min(1.0, 2 * min(sides))


def _boschloo_side(high: ModelCounts, low: ModelCounts) -> float:
    """One-sided p-value of "the recall of `high` is the larger", at the common recall that makes it largest."""
    total = high.frauds + low.frauds
    x_low = np.arange(low.frauds + 1)
    observed = hypergeom.sf(high.caught - 1, total, high.caught + low.caught, high.frauds) * (1 + 1e-9)
    first, beyond = np.zeros_like(x_low), np.full_like(x_low, high.frauds + 1)
    for _ in range(high.frauds.bit_length() + 1):
        middle = (first + beyond) // 2
        is_extreme = (middle > high.frauds) | (hypergeom.sf(middle - 1, total, middle + x_low, high.frauds) <= observed)
        first, beyond = np.where(is_extreme, first, np.minimum(middle + 1, beyond)), np.where(is_extreme, middle, beyond)

    def missed(recall: float) -> float:
        return -float(np.sum(binom.pmf(x_low, low.frauds, recall) * binom.sf(beyond - 1, high.frauds, recall)))

    grid = np.sin(np.linspace(0, np.pi / 2, _RECALL_POINTS)) ** 2
    best = min(max(1, int(np.argmin([missed(recall) for recall in grid]))), _RECALL_POINTS - 2)
    peak = minimize_scalar(missed, bounds=(grid[best - 1], grid[best + 1]), method="bounded")
    return max(-float(peak.fun), -missed(float(grid[best])))


def two_sided_p(z: float) -> float:
    """Two-sided p-value of a standard normal statistic."""
    return 2 * float(norm.sf(abs(z)))


def has_small_cell(outcomes: Outcomes) -> bool:
    """Whether the normal approximation of a split comparison is not to be trusted."""
    models = (outcomes.baseline, outcomes.candidate)
    return min(min(model.caught, model.frauds - model.caught) for model in models) < SMALL_CELL


def quadratic_form(products: Sequence[int], weights: Mapping[str, float]) -> float:
    """Σ(weights · vector)² over the units whose products were summed.

    Args:
        products: upper triangle, row by row, of the sums of products of each two of VECTOR.
        weights: by names of VECTOR; those left out weigh 0.

    Returns:
        the sum, from 0: the variance of Σ(weights · vector) over independent units.
    """
    vector = [weights.get(name, 0.0) for name in VECTOR]
    pairs = [(i, j) for i in range(len(VECTOR)) for j in range(i, len(VECTOR))]
    terms = (vector[i] * vector[j] * (1 if i == j else 2) * product for (i, j), product in zip(pairs, products, strict=True))
    return max(0.0, sum(terms))


def transaction_products(outcomes: Outcomes) -> tuple[int, ...] | None:
    """The same sums with each transaction as its own unit; None for a paired design whose overlap of alerts is unknown."""
    one, two = outcomes.baseline, outcomes.candidate
    frauds, false = outcomes.frauds, outcomes.false_alerts
    if outcomes.design is Design.PAIRED and (frauds is None or false is None):
        return None
    both = frauds.both if frauds else 0
    flagged = both + (false.both if false else 0)
    shared = one.frauds if frauds else 0
    caught_1, caught_2 = (one.caught, two.caught) if frauds else (0, 0)
    return (
        *(one.frauds, one.caught, one.caught, shared, caught_2, caught_2),
        *(one.caught, one.caught, caught_1, both, both),
        *(one.alerts, caught_1, both, flagged),
        *(two.frauds, two.caught, two.caught),
        *(two.caught, two.caught),
        two.alerts,
    )


def recall_variances(outcomes: Outcomes, products: Sequence[int]) -> tuple[float, float, float]:
    """Variance of the baseline's and the candidate's recall and their covariance, as the ratio's interval needs them.

    In pairs both recalls are over the same frauds, so under the hypothesis that is tested their number cancels and plain
    sums of caught frauds remain (McNemar's variance at a ratio of 1); in a split each recall is a ratio of its own.
    """
    one, two = outcomes.baseline, outcomes.candidate
    if outcomes.design is Design.PAIRED:
        first, second = {"baseline_caught": 1 / one.frauds}, {"candidate_caught": 1 / two.frauds}
    else:
        first = {"baseline_caught": 1 / one.frauds, "baseline_frauds": -one.caught / one.frauds**2}
        second = {"candidate_caught": 1 / two.frauds, "candidate_frauds": -two.caught / two.frauds**2}
    v1, v2 = quadratic_form(products, first), quadratic_form(products, second)
    return v1, v2, (quadratic_form(products, {**first, **second}) - v1 - v2) / 2


def clustered_recall_z(outcomes: Outcomes, cards: CardProducts) -> float:
    """Statistic of "the recalls are equal" with cards as the independent units; in pairs Σd/√Σd², d per card."""
    variance = _difference_variance(outcomes, cards.products)
    difference = outcomes.candidate.caught / outcomes.candidate.frauds - outcomes.baseline.caught / outcomes.baseline.frauds
    return difference / sqrt(variance) if variance > 0 else 0.0


def recall_design_effect(outcomes: Outcomes) -> float | None:
    """How many times the variance of the recalls' difference grows with cards as units; None without cards or variance."""
    single = transaction_products(outcomes)
    if outcomes.cards is None or single is None:
        return None
    plain, by_card = _difference_variance(outcomes, single), _difference_variance(outcomes, outcomes.cards.products)
    return by_card / plain if plain > 0 else None


def _difference_variance(outcomes: Outcomes, products: Sequence[int]) -> float:
    v1, v2, covariance = recall_variances(outcomes, products)
    variance = v1 + v2 - 2 * covariance
    return variance if variance > _ROUNDING else 0.0


def precision_standard_error(outcomes: Outcomes) -> float | None:
    """Standard error of the precisions' difference; None without alerts of both, or with an unknown overlap.

    The two models' alerts overlap, so the variance is that of one sum over transactions (or cards, whichever is larger):
    each contributes (true - precision × alert) / alerts of the candidate minus the same of the baseline (delta method).
    """
    one, two = outcomes.baseline, outcomes.candidate
    single = transaction_products(outcomes)
    if single is None or not one.alerts or not two.alerts:
        return None
    weights = {
        "baseline_caught": -1 / one.alerts,
        "baseline_alerts": one.true_alerts / one.alerts**2,
        "candidate_caught": 1 / two.alerts,
        "candidate_alerts": -two.true_alerts / two.alerts**2,
    }
    tables = [single] if outcomes.cards is None else [single, outcomes.cards.products]
    return sqrt(max(quadratic_form(products, weights) for products in tables))


def equivalence_p(difference: float, standard_error: float, band: float) -> float:
    """p-value of two one-sided tests that the true difference is inside ±band (Schuirmann 1987); small means: shown stable."""
    if standard_error == 0:
        return 0.0 if abs(difference) < band else 1.0
    return float(norm.sf((band - abs(difference)) / standard_error))


def sample_ratio_p(candidate: int, total: int, expected_share: Fraction) -> float:
    """Two-sided exact binomial p-value of `candidate` of `total` cards under the policy's share; 1 without cards."""
    return float(binomtest(candidate, total, float(expected_share)).pvalue) if total else 1.0
