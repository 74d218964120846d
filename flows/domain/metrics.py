"""Exact gates and significance tests, computed from counts alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import asin, sqrt
from typing import TYPE_CHECKING

import numpy as np
import scipy

from flows.domain.counts import VECTOR, Design, ModelCounts, Outcomes
from flows.domain.policy import Sides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_RECALL_POINTS = 60
_SMALL_TABLE = 300  # frauds; beyond, Boschloo's test searches the common recall only in an interval
_GAMMA = 1e-6  # how rarely the true common recall may lie outside of that interval
_TAIL = 1e-12  # tables this unlikely are not visited
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


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two-sided McNemar test of a paired table: `z` (positive: the candidate is better) and its square, and the p-values."""

    z: float
    chi2: float
    corrected_p_value: float
    exact_p_value: float
    midp_p_value: float


def mcnemar(baseline_only: int, candidate_only: int) -> McNemar:
    """McNemar's test that two models catch equally many of the same frauds.

    Args:
        baseline_only: frauds that the baseline alone caught, from 0.
        candidate_only: frauds that the candidate alone caught, from 0.

    Returns:
        every form of the test; all p-values are 1 when the models disagree equally often, or never.

    Source:
        Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91; `corrected` is Edwards' continuity correction.

    Example:
        >>> test = mcnemar(1, 7)
        >>> round(test.midp_p_value, 3), round(test.exact_p_value, 3), round(test.corrected_p_value, 3)
        (0.039, 0.07, 0.077)
    """
    disagreements, difference = baseline_only + candidate_only, candidate_only - baseline_only
    if not difference:
        return McNemar(0.0, 0.0, 1.0, 1.0, 1.0)
    fewer, z = min(baseline_only, candidate_only), difference / sqrt(disagreements)
    corrected = float(scipy.stats.chi2.sf((abs(difference) - 1) ** 2 / disagreements, 1))
    at_most, less = (float(scipy.stats.binom.cdf(count, disagreements, 0.5)) for count in (fewer, fewer - 1))
    return McNemar(z, z * z, corrected, min(1.0, 2 * at_most), at_most + less)


def paired_ratio_z(both: int, baseline_only: int, candidate_only: int, ratio: float = 1.0) -> float:
    """Statistic of "recall of the candidate = ratio × recall of the baseline" over the same frauds.

    Args:
        both, baseline_only, candidate_only: frauds caught by both models and by one alone, from 0.
        ratio: the ratio under test, above 0.

    Returns:
        z, positive when the candidate does better than `ratio`; 0 when nothing varies.

    Source:
        Lachenbruch & Lynch 1998, Statistics in Medicine 17:2207-2217; at a ratio of 1 it is McNemar's z.

    Example:
        >>> round(paired_ratio_z(794, 150, 86) ** 2, 2)
        17.36
    """
    before, after = both + baseline_only, both + candidate_only
    variance = after + ratio**2 * before - 2 * ratio * both
    return (after - ratio * before) / sqrt(variance) if variance > 0 else 0.0


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

    SciPy's takes minutes at a thousand frauds: it visits every table. Fisher's p-value falls in each row of tables, so here the
    edge of the region is found by bisection, and in larger tables the common recall is searched only where it can lie.

    Source:
        Boschloo 1970, Statistica Neerlandica 24:1-35; two-sided as the doubled smaller side, like scipy.stats.boschloo_exact;
        the search within a confidence interval, its error added: Berger & Boos 1994, JASA 89:1012-1016.

    Example:
        >>> round(boschloo(ModelCounts(63, 31, 0, 0), ModelCounts(117, 74, 0, 0)), 3)
        0.071
    """
    caught, total = before.caught + after.caught, before.frauds + after.frauds
    if total <= _SMALL_TABLE:
        recalls, beyond = (0.0, 1.0), 0.0
    else:
        possible = scipy.stats.binomtest(caught, total).proportion_ci(1 - _GAMMA, "exact")
        recalls, beyond = (float(possible.low), float(possible.high)), _GAMMA
    side = min(_boschloo_side(after, before, recalls), _boschloo_side(before, after, recalls))
    return min(1.0, 2 * (side + beyond))


def _boschloo_side(high: ModelCounts, low: ModelCounts, recalls: tuple[float, float]) -> float:
    """One-sided p-value of "the recall of `high` is the larger", at the common recall that makes it largest."""
    x_low, beyond = _boschloo_region(high, low, recalls)

    def missed(recall: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = scipy.stats.binom.pmf(x_low, low.frauds, recall) * scipy.stats.binom.sf(beyond - 1, high.frauds, recall)
        return -np.sum(inside, axis=0)

    def missed_at(recall: float) -> float:
        return float(missed(np.array([recall]))[0])

    grid = np.sin(np.linspace(asin(sqrt(recalls[0])), asin(sqrt(recalls[1])), _RECALL_POINTS)) ** 2
    values = missed(grid)
    best = int(np.argmin(values))
    around = grid[max(0, best - 1)], grid[min(_RECALL_POINTS - 1, best + 1)]
    peak = scipy.optimize.minimize_scalar(missed_at, bounds=around, method="bounded")
    return -min(float(peak.fun), float(values[best]))


def _boschloo_region(
    high: ModelCounts, low: ModelCounts, recalls: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each likely count of `low`, as a column: the least count of `high` that Fisher's test finds as extreme as observed."""
    total = high.frauds + low.frauds
    ends = scipy.stats.binom.ppf(_TAIL, low.frauds, recalls[0]), scipy.stats.binom.isf(_TAIL, low.frauds, recalls[1])
    x_low = np.arange(max(0, int(ends[0])), int(ends[1]) + 1)
    observed = scipy.stats.hypergeom.sf(high.caught - 1, total, high.caught + low.caught, high.frauds) * (1 + 1e-9)
    first, beyond = np.zeros_like(x_low), np.full_like(x_low, high.frauds + 1)
    for _ in range(high.frauds.bit_length() + 1):
        middle = (first + beyond) // 2
        is_extreme = (middle > high.frauds) | (
            scipy.stats.hypergeom.sf(middle - 1, total, middle + x_low, high.frauds) <= observed
        )
        first, beyond = np.where(is_extreme, first, np.minimum(middle + 1, beyond)), np.where(is_extreme, middle, beyond)
    return x_low[:, None], beyond[:, None]


def fisher(before: ModelCounts, after: ModelCounts) -> tuple[float, float]:
    """Fisher's exact p-values of two recalls in separate groups: two-sided, and that `after` is better.

    Example:
        >>> tuple(round(p, 4) for p in fisher(ModelCounts(4, 1, 0, 0), ModelCounts(4, 3, 0, 0)))
        (0.4857, 0.2429)
    """
    table = [[model.caught, model.frauds - model.caught] for model in (after, before)]
    tests = [scipy.stats.fisher_exact(table, alternative=kind) for kind in ("two-sided", "greater")]
    return float(tests[0].pvalue), float(tests[1].pvalue)


def kolmogorov_q(scaled_distance: float) -> float:
    """How often two large samples of one distribution differ more: P(√(n₁n₂/(n₁+n₂)) · D > scaled_distance) (Smirnov 1948).

    Example:
        >>> round(kolmogorov_q(1.6276), 4)
        0.01
    """
    return float(scipy.special.kolmogorov(scaled_distance))


def two_sided_p(z: float) -> float:
    """Two-sided p-value of a standard normal statistic."""
    return 2 * float(scipy.stats.norm.sf(abs(z)))


def two_sided_z(confidence: float) -> float:
    """How many standard errors a normal interval of this confidence (0..1) reaches to each side."""
    return float(scipy.stats.norm.isf((1 - confidence) / 2))


def has_small_cell(outcomes: Outcomes, least: int) -> bool:
    """Whether some model caught or missed fewer than `least` frauds, so that a normal approximation is not to be trusted."""
    models = (outcomes.baseline, outcomes.candidate)
    return min(min(model.caught, model.frauds - model.caught) for model in models) < least


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


def recall_z(outcomes: Outcomes) -> float:
    """Statistic of "the recalls are equal" with transactions as the units: McNemar's in pairs, the score's in a split."""
    if outcomes.frauds is not None:
        return mcnemar(outcomes.frauds.baseline_only, outcomes.frauds.candidate_only).z
    return score_z(outcomes.baseline, outcomes.candidate)


def recall_design_effect(outcomes: Outcomes) -> float | None:
    """How many times the variance of the recalls' difference grows with cards instead of transactions as the units.

    Args:
        outcomes: with the cards' products; in pairs d is what the candidate caught minus what the baseline caught of a card.

    Returns:
        the design effect, from 0; None without cards or variance. `recall_z` over its root is the cards' statistic (in pairs
        Σd/√Σd²), and the ratio's interval widened by its root agrees with that test.

    Source:
        Rao & Scott 1992, Biometrics 48:577-585, with one effect for both arms at their common recall: an effect of each arm's
        own rejects too often when one arm has few frauds.
    """
    if outcomes.cards is None:
        return None
    one, two, frauds = outcomes.baseline, outcomes.candidate, outcomes.frauds
    if frauds is not None:
        plain: float = frauds.baseline_only + frauds.candidate_only
        weights = {"baseline_caught": -1.0, "candidate_caught": 1.0}
    else:
        total = one.frauds + two.frauds
        common = (one.caught + two.caught) / total if total else 0.0
        plain = total * common * (1 - common)
        weights = {"baseline_caught": 1.0, "candidate_caught": 1.0, "baseline_frauds": -common, "candidate_frauds": -common}
    return quadratic_form(outcomes.cards.products, weights) / plain if plain > 0 else None


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
    variance = max(quadratic_form(products, weights) for products in tables)
    return sqrt(variance) if variance > _ROUNDING else 0.0


def equivalence_p(difference: float, standard_error: float, band: float, sides: Sides = Sides.TWO) -> float:
    """p-value of the tests that the true difference is inside the band: small means shown stable (Schuirmann 1987).

    Args:
        difference: of precisions, -1..1, with its `standard_error`, from 0.
        band: how far it may go, above 0; with Sides.LOWER only downwards.

    Example:
        >>> round(equivalence_p(0.0, 0.005, 0.01), 4)
        0.0228
    """
    room = band + difference if sides is Sides.LOWER else band - abs(difference)
    if standard_error == 0:
        return 0.0 if room > 0 else 1.0
    return float(scipy.stats.norm.sf(room / standard_error))


def sample_ratio_p(candidate: int, total: int, expected_share: Fraction) -> float:
    """Two-sided exact binomial p-value of `candidate` of `total` cards under the policy's share; 1 without cards."""
    return float(scipy.stats.binomtest(candidate, total, float(expected_share)).pvalue) if total else 1.0
