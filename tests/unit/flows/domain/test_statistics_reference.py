"""The statistics against published values (shared reference, with sources and tolerances) and against other libraries."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import boschloo_exact, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
)
from statsmodels.stats.proportion import (
    test_proportions_2indep as two_proportions,
)

from flows.domain import intervals, metrics, power, sequential
from flows.domain.counts import Design, ModelCounts, Outcomes, Overlap
from flows.domain.policy import Sides
from flows.domain.sequential import Look, boundaries, nominal_alpha, spent_alpha

REFERENCE = Path(__file__).resolve().parents[5] / "shared" / "reference" / "statistics.json"
TABLE = Path(__file__).resolve().parents[3] / "golden" / "statistics_reference.json"


def model(frauds: int, caught: int) -> ModelCounts:
    return ModelCounts(frauds, caught, 0, 0)


def split(before: ModelCounts, after: ModelCounts) -> Outcomes:
    return Outcomes(Design.SPLIT, before, after)


def paired(a: int, b: int, c: int, d: int) -> Outcomes:
    n = a + b + c + d
    return Outcomes(Design.PAIRED, model(n, a + b), model(n, a + c), frauds=Overlap(a, b, c, d))


def halves(parts: int) -> list[float]:
    return [(look + 1) / parts for look in range(parts)]


def computed(case: dict) -> list[float]:  # noqa: C901 - one branch per published table
    """What our public functions say to one published case; a paired table's rows are as its source prints them."""
    inputs = case["input"]
    match case["id"].split("_"):
        case ["mcnemar", "agresti", "chi2"]:
            (_, b), (c, _) = inputs["table"]
            return [metrics.mcnemar(b, c).chi2]
        case ["mcnemar", "agresti", "diff", "ci"]:
            (a, b), (c, d) = inputs["table"]
            return list(intervals.paired_difference(Overlap(a, b, c, d)))
        case ["mcnemar", "ahr", form]:
            found = metrics.mcnemar(inputs["table"][0][1], inputs["table"][1][0])
            return [{"cc": found.corrected_p_value, "exact": found.exact_p_value, "midp": found.midp_p_value}[form]]
        case ["newcombe10", _]:
            return list(intervals.newcombe(inputs["x1"], inputs["n1"], inputs["x2"], inputs["n2"]))
        case ["wilson", *_]:
            return list(intervals.wilson(inputs["x"], inputs["n"]))
        case [("mn" | "mee") as form, "score", *_]:
            numbers = (inputs[name] for name in ("x1", "n1", "x2", "n2"))
            return list(intervals.score_difference(*numbers, is_corrected=form == "mn"))
        case ["boschloo", _]:
            (x1, x2), (y1, y2) = inputs["table"]
            return [metrics.boschloo(model(x2 + y2, x2), model(x1 + y1, x1)) / 2]
        case ["fisher", _]:
            (x1, x2), (y1, y2) = inputs["table"]
            return list(metrics.fisher(model(x2 + y2, x2), model(x1 + y1, x1)))
        case ["pocock", _]:
            return [sequential.wang_tsiatis(inputs["alpha"], halves(inputs["K"]), 0.5)[-1]]
        case ["obf", _, "final"]:
            return [sequential.wang_tsiatis(inputs["alpha"], halves(inputs["K"]), 0.0)[-1]]
        case ["obf", _]:
            return sequential.wang_tsiatis(inputs["alpha"], halves(inputs["K"]), 0.0)
        case ["ldof", _]:
            return boundaries(inputs["alpha"], [Look(i, round(1000 * t), t) for i, t in enumerate(inputs["t"])])
        case ["peeking", _]:
            return [sequential.crossing_probability([inputs["z"]] * inputs["K"], halves(inputs["K"]))]
        case ["ks", "crit", _]:
            return [metrics.kolmogorov_q(float(re.findall(r"[\d.]+", case["kind"])[0]))]
        case ["n", "prop", "R"]:
            return [power.frauds_needed_split(0.50, 0.75, power=0.90)]  # the example of R's power.prop.test
        case ["exact", "precision", "boundary"]:
            before, after = (ModelCounts(0, 0, inputs[f"n{i}"], inputs[f"x{i}"]) for i in "12")
            difference = metrics.precision_difference(split(before, after))
            assert difference is not None
            return [float(metrics.is_within_band(difference, Fraction(1, 100), Sides.TWO))]
        case ["eproc", _]:
            return [sequential.mcnemar_e_value(inputs["b"], inputs["c"])]
        case ["paired", "ratio", "theta1", *_]:
            return [metrics.paired_ratio_z(inputs["a"], inputs["b"], inputs["c"], 1.0) ** 2]
        case ["unpaired", "score", _, _]:
            return [metrics.score_z(model(inputs["n1"], inputs["x1"]), model(inputs["n2"], inputs["x2"]), 1.05)]
        case ["unpaired", "ratio", "ci"]:
            found = intervals.recall_ratio(
                split(model(inputs["n1"], inputs["x1"]), model(inputs["n2"], inputs["x2"])), clustered=False
            )
            assert found is not None
            assert found.high is not None
            return [found.low, found.high]
    raise AssertionError(f"no function of ours is tried on {case['id']}")


CASES = json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_published_value_is_reproduced(case: dict) -> None:
    assert computed(case) == pytest.approx(case["expected"], rel=0, abs=case["tol"] or 1e-12)


def test_no_published_value_is_left_out() -> None:
    assert len(CASES) == 37
    with pytest.raises(AssertionError, match="no function of ours"):
        computed({"id": "a_new_case", "input": {}})


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared reference is not on this machine")
def test_our_copy_of_the_published_values_is_the_shared_one() -> None:
    assert json.loads(TABLE.read_text()) == json.loads(REFERENCE.read_text())


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_statsmodels(b: int, c: int) -> None:
    found = metrics.mcnemar(b, c)
    if b + c:
        exact = min(1.0, float(statsmodels_mcnemar([[0, b], [c, 0]], exact=True).pvalue))
        assert found.exact_p_value == pytest.approx(exact, abs=1e-9)
        chi2 = statsmodels_mcnemar([[0, b], [c, 0]], exact=False, correction=False)
        assert (found.chi2, metrics.two_sided_p(found.z)) == pytest.approx((chi2.statistic, chi2.pvalue))
    assert 0 <= found.midp_p_value <= found.exact_p_value <= 1
    assert (found.z > 0) == (c > b)


@settings(max_examples=40)
@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_the_split_ratio_agrees_with_statsmodels(n1: int, n2: int, data: st.DataObject) -> None:
    x1, x2 = data.draw(st.integers(1, n1)), data.draw(st.integers(1, n2))
    found = intervals.recall_ratio(split(model(n1, x1), model(n2, x2)), clustered=False)
    if 0 < x1 < n1 and 0 < x2 < n2:
        low, high = confint_proportions_2indep(x2, n2, x1, n1, method="score", compare="ratio")
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4)
        z = float(two_proportions(x2, n2, x1, n1, value=1.1, method="score", compare="ratio").statistic)
        assert metrics.score_z(model(n1, x1), model(n2, x2), 1.1) == pytest.approx(z, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.data())
def test_boschloo_agrees_with_scipy(n1: int, n2: int, data: st.DataObject) -> None:
    x1, x2 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n2))
    expected = boschloo_exact([[x2, x1], [n2 - x2, n1 - x1]], n=64).pvalue
    assert metrics.boschloo(model(n1, x1), model(n2, x2)) == pytest.approx(expected, abs=2e-4)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_agrees_with_statsmodels(x: int, more: int) -> None:
    assert intervals.wilson(x, x + more) == pytest.approx(proportion_confint(x, x + more, method="wilson"), abs=1e-9)


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_the_paired_interval_inverts_z_of_the_ratio(a: int, b: int, c: int, d: int) -> None:
    assume(b + c)  # without a disagreement the interval is a point
    found = intervals.recall_ratio(paired(a, b, c, d), clustered=False)
    assert found is not None
    for ratio, sign in ((found.low, 1), (found.high, -1)):
        if ratio:
            assert metrics.paired_ratio_z(a, b, c, ratio) == pytest.approx(sign * norm.isf(0.025), abs=1e-5)
    assert found.low <= (a + c) / (a + b) <= (found.high or float("inf")) * (1 + 1e-12)


def test_three_looks_have_the_published_boundaries() -> None:
    plan = [Look(14, 500, 0.5), Look(21, 750, 0.75), Look(28, 1000, 1.0)]
    assert boundaries(0.05, plan) == pytest.approx([2.963, 2.359, 2.014], abs=6e-4)


def test_looks_err_as_often_as_they_may() -> None:
    rng = np.random.default_rng(7)
    steps = rng.normal(size=(200_000, 3)) * (0.5**0.5, 0.25**0.5, 0.25**0.5)
    z = steps.cumsum(axis=1) / np.sqrt([0.5, 0.75, 1.0])
    plan = [Look(14, 500, 0.5), Look(21, 750, 0.75), Look(28, 1000, 1.0)]
    assert (abs(z) > boundaries(0.05, plan)).any(axis=1).mean() == pytest.approx(0.05, abs=0.002)


def test_one_look_at_the_horizon_has_the_whole_alpha() -> None:
    assert nominal_alpha(0.05, [Look(28, 100, 1.0)]) == pytest.approx(0.05)


def test_nothing_may_be_spent_without_information() -> None:
    assert spent_alpha(0.05, 0.0) == 0.0
    assert nominal_alpha(0.05, [Look(0, 0, 0.0)]) == 0.0


def test_the_same_information_again_gains_nothing() -> None:
    assert nominal_alpha(0.05, [Look(14, 500, 0.5), Look(14, 500, 0.5)]) == 0.0


def test_a_recall_of_the_baseline_that_may_be_zero_leaves_the_ratio_unbounded() -> None:
    assert intervals.fieller(0.01, 0.5, (0.01, 0.001, 0.0))[1] is None
    assert intervals.fieller(0.0, 0.5, (0.0, 0.1, 0.0)) == (0.0, None)
