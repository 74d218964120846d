"""More than ten thousand random tables on which SciPy and statsmodels, where they are right, say what we say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, boschloo_exact, chi2_contingency, fisher_exact, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.proportion import test_proportions_2indep as two_proportions

from flows.domain import intervals, metrics
from flows.domain.counts import Design, ModelCounts, Outcomes

TABLES = {"mcnemar": 5000, "equality": 1500, "ratio": 2500, "wilson": 1500, "fisher": 200, "ratio interval": 60, "boschloo": 50}


def model(frauds: int, caught: int) -> ModelCounts:
    return ModelCounts(frauds, caught, 0, 0)


def random_splits(number: int, largest: int, seed: int) -> list[tuple[int, int, int, int]]:
    """x1 of n1 and x2 of n2, with neither arm wholly caught or missed."""
    rng = np.random.default_rng(seed)
    n1, n2 = rng.integers(2, largest, (2, number))
    share = rng.uniform(0.02, 0.98, number)
    x1, x2 = (np.clip(rng.binomial(n, share), 1, n - 1) for n in (n1, n2))
    return list(zip(x1.tolist(), n1.tolist(), x2.tolist(), n2.tolist(), strict=True))


def test_more_than_ten_thousand_tables_are_compared() -> None:
    assert sum(TABLES.values()) > 10_000


def test_mcnemar() -> None:
    rng = np.random.default_rng(1)
    for b, c in rng.integers(0, rng.integers(2, 3000, (TABLES["mcnemar"], 1)), (TABLES["mcnemar"], 2)).tolist():
        found = metrics.mcnemar(b, c)
        if b == c:
            assert found.exact_p_value == found.midp_p_value == 1.0
            continue
        theirs = statsmodels_mcnemar([[0, b], [c, 0]], exact=True)
        corrected = statsmodels_mcnemar([[0, b], [c, 0]], exact=False, correction=True)
        assert found.exact_p_value == pytest.approx(min(1.0, theirs.pvalue), rel=1e-9, abs=1e-300)
        assert found.corrected_p_value == pytest.approx(corrected.pvalue, rel=1e-9, abs=1e-300)
        if b % 5 == 0:  # SciPy has no mid-p: half of the observed table's probability is taken off the exact p-value
            less = binomtest(min(b, c) - 1, b + c, 0.5, alternative="less").pvalue if min(b, c) else 0.0
            assert found.midp_p_value == pytest.approx(theirs.pvalue / 2 + less, rel=1e-9, abs=1e-300)


def test_equal_recalls_of_a_split() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["equality"], 4000, 2):
        z = metrics.score_z(model(n1, x1), model(n2, x2))
        pearson = chi2_contingency([[x1, n1 - x1], [x2, n2 - x2]], correction=False).statistic
        assert z * z == pytest.approx(pearson * (n1 + n2 - 1) / (n1 + n2), rel=1e-9, abs=1e-12)


def test_a_ratio_of_recalls_of_a_split() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["ratio"], 4000, 3):
        theirs = two_proportions(x2, n2, x1, n1, value=1.05, method="score", compare="ratio").statistic
        assert metrics.score_z(model(n1, x1), model(n2, x2), 1.05) == pytest.approx(theirs, rel=1e-7, abs=1e-9)


def test_the_interval_of_a_ratio() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["ratio interval"], 4000, 4):
        found = intervals.recall_ratio(Outcomes(Design.SPLIT, model(n1, x1), model(n2, x2)), clustered=False)
        assert found is not None
        theirs = confint_proportions_2indep(x2, n2, x1, n1, method="score", compare="ratio")
        assert (found.low, found.high) == pytest.approx(theirs, rel=1e-4)


def test_wilson_and_newcombe() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["wilson"], 5000, 5):
        assert intervals.wilson(x1, n1) == pytest.approx(proportion_confint(x1, n1, method="wilson"), abs=1e-12)
        if n1 + n2 and (x1 + x2) % 3 == 0:
            theirs = confint_proportions_2indep(x1, n1, x2, n2, method="newcomb", compare="diff")
            assert intervals.newcombe(x1, n1, x2, n2) == pytest.approx(theirs, abs=1e-12)


def test_fisher() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["fisher"], 400, 6):
        table = [[x2, n2 - x2], [x1, n1 - x1]]
        theirs = fisher_exact(table).pvalue, fisher_exact(table, alternative="greater").pvalue
        assert metrics.fisher(model(n1, x1), model(n2, x2)) == pytest.approx(theirs)


def test_boschloo_on_small_tables() -> None:
    for x1, n1, x2, n2 in random_splits(TABLES["boschloo"], 30, 7):
        theirs = boschloo_exact([[x2, x1], [n2 - x2, n1 - x1]], n=64).pvalue
        assert metrics.boschloo(model(n1, x1), model(n2, x2)) == pytest.approx(theirs, abs=2e-4)


def test_boschloo_on_large_tables_is_close_to_the_score_test_and_quick() -> None:
    """A small cell beside 40,000 frauds, and no small cell at all, where both tests must agree."""
    large = metrics.boschloo(model(4000, 3200), model(1000, 830))
    assert large == pytest.approx(metrics.two_sided_p(metrics.score_z(model(4000, 3200), model(1000, 830))), rel=0.1)
    assert metrics.boschloo(model(40_000, 39_980), model(10_000, 9_999)) == pytest.approx(0.0794, abs=0.02)


def test_the_restricted_search_of_boschloo_loses_nothing_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for x1, n1, x2, n2 in random_splits(40, 150, 8):
        whole = metrics.boschloo(model(n1, x1), model(n2, x2))
        monkeypatch.setattr(metrics, "_SMALL_TABLE", 0)
        within = metrics.boschloo(model(n1, x1), model(n2, x2))
        monkeypatch.undo()
        assert within <= whole + 2.1e-6
        assert within == pytest.approx(whole, abs=0.06)
        if whole < 0.05:
            assert within == pytest.approx(whole, rel=0.1, abs=1e-5)


def test_the_score_interval_of_a_difference_inverts_its_test() -> None:
    """By brute force: the likeliest shares that differ by the interval's end, searched on a grid."""
    for x1, n1, x2, n2 in random_splits(25, 300, 9):
        for end in intervals.score_difference(x1, n1, x2, n2, is_corrected=False):
            if abs(end) > 0.999:
                continue
            p2 = np.linspace(max(0.0, -end), min(1.0, 1 - end), 200_001)[1:-1]
            p1 = p2 + end
            likely = x1 * np.log(p1) + (n1 - x1) * np.log1p(-p1) + x2 * np.log(p2) + (n2 - x2) * np.log1p(-p2)
            best = int(np.argmax(likely))
            variance = p1[best] * (1 - p1[best]) / n1 + p2[best] * (1 - p2[best]) / n2
            assert abs(x1 / n1 - x2 / n2 - end) / variance**0.5 == pytest.approx(norm.isf(0.025), rel=1e-3)


def test_the_score_interval_of_a_difference_may_reach_the_edge() -> None:
    assert intervals.score_difference(0, 5, 5, 5)[0] == -1.0
    assert intervals.score_difference(5, 5, 0, 5)[1] == 1.0
    low, high = intervals.score_difference(0, 10, 0, 10)
    assert low == pytest.approx(-high)
    assert 0.2 < high < 0.4
