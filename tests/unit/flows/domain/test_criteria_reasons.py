"""What each criterion says, word for word, and what it decides exactly at its limits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import log, sqrt
from typing import Any

import pytest
from scipy.stats import binom, norm

from flows.domain.counts import CardProducts, Coverage, Design, ModelCounts, Outcomes, Overlap, RequestBucket
from flows.domain.criteria import (
    Criterion,
    CriterionName,
    CriterionStatus,
    Significance,
    SignificanceTest,
    check_criteria,
    check_stability,
    measure_significance,
    points,
    signed,
)
from flows.domain.evidence import Evidence
from flows.domain.intervals import Interval, precision_error, recall_ratio
from flows.domain.metrics import transaction_products
from flows.domain.policy import Policy, load_policy

POLICY = Policy()
LATENCY = (
    "within 100 ms are 98.5 % of the candidate's requests (p95 83 ms) and 98.8 % of the baseline's (p95 81 ms; p = 0.0033 for the"
    " candidate being slower); 95 % are required"
)
HALF = (
    "within 100 ms are 50.0 % of the candidate's requests (p95 unknown) and 50.0 % of the baseline's (p95 unknown; p = 0.5 for"
    " the candidate being slower); 95 % are required"
)
NEAR = (
    "within 100 ms are 94.9950 % to 95.0 % of the candidate's requests (p95 83 ms) and 98.8 % of the baseline's (p95 81 ms;"
    " p = 3.4e-201 for the candidate being slower); 95 % are required; no histogram boundary lies at 100 ms, only at 50 and"
    " 250 ms"
)
ERRORS = (
    "0.1 % of the candidate's requests fail against 0.1 % (one-sided p = 0.54); +0.5 points are allowed",
    "0.6 % of the candidate's requests fail against 0.1 % (one-sided p = 3.8e-35); +0.5 points are allowed",
    "1 % of the candidate's requests fail against 0.1 % (one-sided p = 4.9e-77); +0.5 points are allowed",
)
NO_MORE = "; the candidate catches no more than the baseline"
SLOW = {
    "baseline": RequestBucket(80_000, 40_000, 80_000, 80),
    "candidate": RequestBucket(20_000, 10_000, 20_000, 20),
    "baseline_p95_ms": None,
    "candidate_p95_ms": None,
}
BETWEEN = {"candidate": RequestBucket(20_000, 18_999, 20_000, 20, 1), "near_ms": (Fraction(50), Fraction(250))}


@pytest.mark.parametrize(
    ("changes", "status", "observed", "reason"),
    [
        ({}, "passed", 83.0, LATENCY),
        (BETWEEN, "not_checked", 83.0, NEAR),
        (BETWEEN | {"latency_breach": 3}, "failed", 83.0, NEAR + "; the candidate alone stayed above for 15 minutes"),
        ({"latency_breach": 2}, "passed", 83.0, LATENCY),
        ({"latency_breach": 23}, "failed", 83.0, LATENCY + "; the candidate alone stayed above for 115 minutes"),
        ({"latency_breach": 24}, "failed", 83.0, LATENCY + "; the candidate alone stayed above for 2 hours"),
        ({"shared_latency_breach": 3}, "passed", 83.0, LATENCY + "; both arms stayed above for 15 minutes"),
        (SLOW, "failed", None, HALF + "; both arms are above over the whole time"),
        ({"bucket_seconds": None}, "passed", 83.0, LATENCY + "; too few requests to look for sustained breaches"),
        (
            {"bucket_seconds": 3_600},
            "passed",
            83.0,
            LATENCY + "; sustained breaches were looked for in stretches of 60 minutes",
        ),
        (
            {"bucket_seconds": 86_400, "latency_breach": 3},
            "failed",
            83.0,
            LATENCY
            + "; the candidate alone stayed above for 72 hours; sustained breaches were looked for in stretches of 24 hours",
        ),
        (
            {"candidate": RequestBucket(0, 0, 20_000, 20)},
            "not_checked",
            None,
            "the candidate's latency was not measured",
        ),
        ({"latency_coverage": Coverage("candidate", None, 0, 0)}, "not_checked", None, "latency was not measured"),
        ({"latency_coverage": Coverage("candidate", 2, 9_500, 10_000)}, "passed", 83.0, LATENCY),
        (
            {"latency_coverage": Coverage("candidate", 2, 9_499, 10_000)},
            "not_checked",
            None,
            "latency is known for only 9,499 of the candidate's 10,000 requests on day 2; 95 % are required",
        ),
        (
            {"latency_coverage": Coverage("baseline", None, 9_499, 10_000)},
            "not_checked",
            None,
            "latency is known for only 9,499 of the baseline's 10,000 requests; 95 % are required",
        ),
        (
            {"latency_coverage": Coverage("baseline", None, 9_499, 10_000), "latency_breach": 3},
            "failed",
            83.0,
            LATENCY + "; the candidate alone stayed above for 15 minutes",
        ),
    ],
)
def test_the_criterion_of_latency(build: Any, changes: dict[str, Any], status: str, observed: float | None, reason: str) -> None:
    found, _ = check_stability(build.telemetry(**changes), POLICY, is_final=False)
    assert found == Criterion(CriterionName.LATENCY, CriterionStatus(status), observed, 100.0, "ms", reason)


@pytest.mark.parametrize(
    ("changes", "status", "observed", "reason"),
    [
        ({}, "passed", 0.0, ERRORS[0]),
        ({"candidate": RequestBucket(20_000, 19_700, 20_000, 120)}, "passed", 0.005, ERRORS[1]),
        ({"candidate": RequestBucket(20_000, 19_700, 20_000, 200)}, "failed", 0.009, ERRORS[2]),
        ({"error_breach": 2}, "passed", 0.0, ERRORS[0]),
        ({"error_breach": 3}, "failed", 0.0, ERRORS[0] + "; it stayed above for 15 minutes"),
        (
            {"error_breach": 3, "bucket_seconds": 21_600, "error_coverage": Coverage("candidate", None, 0, 0)},
            "failed",
            0.0,
            ERRORS[0] + "; it stayed above for 18 hours; sustained breaches were looked for in stretches of 6 hours",
        ),
        ({"bucket_seconds": None}, "passed", 0.0, ERRORS[0] + "; too few requests to look for sustained breaches"),
        ({"baseline": RequestBucket(9, 9, 0, 0)}, "not_checked", None, "errors of both arms were not measured"),
        ({"candidate": RequestBucket(9, 9, 0, 0)}, "not_checked", None, "errors of both arms were not measured"),
        ({"error_coverage": Coverage("baseline", None, 0, 0)}, "not_checked", None, "the outcome was not measured"),
        (
            {"error_coverage": Coverage("baseline", 1, 949, 1_000)},
            "not_checked",
            None,
            "the outcome is known for only 949 of the baseline's 1,000 requests on day 1; 95 % are required",
        ),
    ],
)
def test_the_criterion_of_errors(build: Any, changes: dict[str, Any], status: str, observed: float | None, reason: str) -> None:
    _, found = check_stability(build.telemetry(**changes), POLICY, is_final=False)
    assert found == Criterion(CriterionName.ERROR_RATE, CriterionStatus(status), observed, 0.005, "absolute", reason)


def test_without_telemetry_both_say_that_nothing_was_measured() -> None:
    found = check_stability(None, POLICY, is_final=True)
    assert [(one.status, one.observed, one.reason) for one in found] == [
        (CriterionStatus.NOT_CHECKED, None, "latency was not measured"),
        (CriterionStatus.NOT_CHECKED, None, "the outcome was not measured"),
    ]


@pytest.mark.parametrize("confidence", ["0.95", "0.99"])
def test_before_the_end_slowness_loses_only_beyond_the_chance_that_the_policy_grants(build: Any, confidence: str) -> None:
    policy = load_policy(f'[statistics]\nconfidence = "{confidence}"', "policy.toml")
    least = int(binom.ppf((1 - float(confidence)) / 2, 20_000, 0.95))  # so few within the limit are still within chance
    found = [
        check_stability(build.telemetry(candidate=RequestBucket(20_000, within, 20_000, 20)), policy, is_final=is_final)[0].status
        for within, is_final in ((19_000, False), (18_999, False), (least, False), (least - 1, False), (18_999, True))
    ]
    assert found == ["passed", "undecided", "undecided", "failed", "failed"]


@pytest.mark.parametrize(
    ("confidence", "errors", "early", "late"),
    [  # Fisher's one-sided p of e errors in 100 against none in 400: 0.2, 0.0397 and 0.0078
        ("0.95", 0, "passed", "passed"),
        ("0.95", 1, "undecided", "passed"),
        ("0.95", 2, "undecided", "passed"),
        ("0.95", 3, "failed", "failed"),
        ("0.90", 2, "failed", "failed"),
        ("0.99", 3, "undecided", "passed"),
    ],
)
def test_errors_lose_only_beyond_the_chance_that_the_policy_grants(
    build: Any, confidence: str, errors: int, early: str, late: str
) -> None:
    policy = load_policy(f'[statistics]\nconfidence = "{confidence}"', "policy.toml")
    telemetry = build.telemetry(baseline=RequestBucket(400, 400, 400, 0), candidate=RequestBucket(100, 100, 100, errors))
    found = [check_stability(telemetry, policy, is_final=is_final)[1].status for is_final in (False, True)]
    assert found == [early, late]


def split(before: tuple[int, int, int, int], after: tuple[int, int, int, int]) -> Outcomes:
    return Outcomes(Design.SPLIT, ModelCounts(*before), ModelCounts(*after))


def early(build: Any, outcomes: Outcomes, significance: Significance | None = None, policy: Policy = POLICY) -> list[Criterion]:
    """The criteria at the first of the planned looks."""
    evidence = build.evidence(14, feedback=build.feedback(outcomes=outcomes))
    return list(check_criteria(evidence, policy, significance or measure_significance(evidence, policy)))


def of(p_value: float = 0.001, alpha: float = 0.05, high: float | None = 2.0) -> Significance:
    return Significance(SignificanceTest.SCORE, p_value, None, alpha, 1, Interval("recall ratio", 0.5, high, 0.95))


@pytest.mark.parametrize(
    ("high", "expected"), [(None, "undecided"), (1.3, "undecided"), (1.25, "undecided"), (1.2499999, "failed"), (0.9, "failed")]
)
def test_a_required_improvement_is_ruled_out_only_below_the_upper_end(build: Any, high: float | None, expected: str) -> None:
    quarter = load_policy('recall_improvement = {relative = "0.25"}', "policy.toml")
    found = early(build, split((2000, 1000, 0, 0), (2000, 1200, 0, 0)), of(high=high), quarter)
    assert found[0].status == expected


@pytest.mark.parametrize(("high", "expected"), [(None, "undecided"), (1.0, "undecided"), (0.999, "failed")])
def test_a_better_candidate_is_ruled_out_only_below_equal_recalls(build: Any, high: float | None, expected: str) -> None:
    found = early(build, split((2000, 1000, 0, 0), (2000, 990, 0, 0)), of(high=high))
    assert found[2].status == expected


@pytest.mark.parametrize(
    ("caught", "p_value", "alpha", "status", "reason"),
    [
        (1100, 0.0499, 0.05, "passed", "p = 0.05, and this look requires less than 0.05"),
        (1100, 0.05, 0.05, "undecided", "p = 0.05, and this look requires less than 0.05"),
        (1100, 0.01234, 0.00305, "undecided", "p = 0.012, and this look requires less than 0.0031"),
        (1000, 0.01, 0.05, "undecided", f"p = 0.01, and this look requires less than 0.05{NO_MORE}"),
        (1001, 0.01, 0.05, "passed", "p = 0.01, and this look requires less than 0.05"),
    ],
)
def test_the_criterion_of_significance(build: Any, caught: int, p_value: float, alpha: float, status: str, reason: str) -> None:
    found = early(build, split((2000, 1000, 0, 0), (2000, caught, 0, 0)), of(p_value, alpha))[2]
    assert found == Criterion(CriterionName.RECALL_SIGNIFICANCE, CriterionStatus(status), p_value, alpha, "p-value", reason)


@pytest.mark.parametrize(
    ("caught", "shown"),
    [
        (10_500, "+5.0 %, at least"),
        (10_509, "+5.0900 %, at least"),
        (10_510, "+5.1 %, at least"),
        (10_491, "+4.9100 %, at least"),
        (10_490, "+4.9 %, at least"),
        (10_000, "+0.0 %, at least"),
        (9_000, "-10.0 %, at least"),
    ],
)
def test_a_change_close_to_its_limit_is_shown_with_more_digits(caught: int, shown: str) -> None:
    """Closer than 0.1 points and not at it: 4.96 % must not read as 5.0 %."""
    found = Evidence(counted=split((20_000, 10_000, 0, 0), (20_000, caught, 0, 0)))
    reason = check_criteria(found, POLICY, measure_significance(found, POLICY))[0].reason
    assert reason.startswith(f"recall changes by {shown}")


def test_the_lower_bound_decides_and_has_its_own_digits_where_the_policy_says_so() -> None:
    """With equal recalls of 4,000 frauds each the pooled Wald interval of the logarithm is close to the score's."""
    lower = load_policy('margin = "lower_bound"', "policy.toml")
    found = Evidence(counted=split((4000, 3200, 0, 0), (4000, 3200, 0, 0)))
    criterion = check_criteria(found, lower, measure_significance(found, lower))[0]
    half = 1.959964 * sqrt(0.2 / 0.8 / 2000)
    assert criterion.interval is not None
    assert log(criterion.interval.low) == pytest.approx(-half, rel=0.02)
    assert (criterion.observed, criterion.threshold, criterion.unit) == (0.0, 0.05, "relative")
    assert criterion.reason == "recall changes by +0.0 %, at least -2.2 %; +5.0 % is required (≥ 5 % not confirmed)"


BANDS = {
    side: load_policy(f'precision_band = {{absolute = "0.01", sides = "{side}"}}', "policy.toml") for side in ("two", "lower")
}


@pytest.mark.parametrize(
    ("alerts", "true", "sides", "status"),
    [  # against 91 % of the baseline's: the interval is about ±0.8 points with 10,000 alerts and ±2.5 with 1,000
        (10_000, 9_100, "two", "passed"),
        (10_000, 9_190, "two", "passed"),
        (10_000, 9_010, "two", "passed"),
        (10_000, 9_250, "two", "undecided"),
        (10_000, 8_950, "two", "undecided"),
        (10_000, 9_300, "two", "failed"),
        (10_000, 8_900, "two", "failed"),
        (10_000, 9_300, "lower", "passed"),
        (10_000, 8_950, "lower", "undecided"),
        (10_000, 8_900, "lower", "failed"),
        (1_000, 910, "two", "undecided"),
        (1_000, 990, "two", "failed"),
        (1_000, 940, "lower", "undecided"),
    ],
)
def test_precision_before_the_end(build: Any, alerts: int, true: int, sides: str, status: str) -> None:
    before = alerts * 91 // 100
    found = early(build, split((2 * before, before, alerts, before), (2 * true, true, alerts, true)), policy=BANDS[sides])[1]
    assert (found.status, found.threshold, found.unit) == (status, 0.01, "absolute")
    change, error = (true - before) / alerts, sqrt(0.91 * 0.09 / alerts + true / alerts * (1 - true / alerts) / alerts)
    assert found.observed == pytest.approx(change, abs=1e-12)
    room = 0.01 + change if sides == "lower" else 0.01 - abs(change)
    assert norm.isf(found.equivalence_p_value) == pytest.approx(room / error, rel=0.05, abs=0.05)
    assert ("is not confirmed" in found.reason) is (alerts == 1_000)


@pytest.mark.parametrize(
    ("true", "shown"),
    [
        (92_000, "+1.0 points; ±1 points are allowed; equivalence test p = 0.5"),
        (92_050, "+1.0500 points; ±1 points are allowed, and a rise beyond them fails too; equivalence test p = 0.66"),
        (90_000, "-1.0 points; ±1 points are allowed; equivalence test p = 0.5"),
        (89_950, "-1.0500 points; ±1 points are allowed; equivalence test p = 0.65"),
        (91_000, "+0.0 points; ±1 points are allowed; equivalence test p = 2.8e-15"),
    ],
)
def test_the_reason_of_precision(true: int, shown: str) -> None:
    found = Evidence(counted=split((182_000, 91_000, 100_000, 91_000), (2 * true, true, 100_000, true)))
    assert check_criteria(found, POLICY, None)[1].reason == f"precision changes by {shown}"


def test_significance_belongs_to_a_look(build: Any) -> None:
    planned, unplanned = build.evidence(), build.evidence(looks=())
    alone = Evidence(counted=build.outcomes())
    found = [measure_significance(evidence, POLICY) for evidence in (planned, unplanned, alone)]
    assert [(one.look, one.alpha) for one in found if one] == [(1, pytest.approx(0.00305, abs=1e-5)), (1, 0.0), (1, 0.05)]
    for model in ("baseline", "candidate"):
        nobody = replace(split((9, 5, 5, 5), (9, 5, 5, 5)), **{model: ModelCounts(0, 0, 0, 0)})
        assert measure_significance(Evidence(counted=nobody), POLICY) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (signed(Fraction(21, 20) - 1), "+5.0 %"),
        (signed(0.0496, 4), "+4.9600 %"),
        (signed(-0.0004), "+0.0 %"),
        (signed(-0.0006), "-0.1 %"),
        (points(Fraction(-4, 1000)), "-0.4 points"),
        (points(0.0105, 4), "+1.0500 points"),
        (points(0), "+0.0 points"),
    ],
)
def test_a_change_in_words_always_has_its_sign(text: str, expected: str) -> None:
    assert text == expected


def test_the_lower_bound_knows_of_bunched_cards(build: Any) -> None:
    """Four frauds of a card that go together: the interval is twice as wide, and only then is the lower end below 5 %."""
    plain = build.outcomes(frauds=Overlap(7500, 200, 680, 1620))
    products = transaction_products(plain)
    assert products is not None
    bunched = replace(plain, cards=CardProducts(2_500, tuple(4 * product for product in products)))
    policy = load_policy('margin = "lower_bound"', "policy.toml")
    for outcomes, status in ((plain, CriterionStatus.PASSED), (bunched, CriterionStatus.FAILED)):
        evidence = build.evidence(28, feedback=build.feedback(outcomes=outcomes))
        significance = measure_significance(evidence, policy)
        assert significance is not None
        found = check_criteria(evidence, policy, significance)[0]
        wanted = recall_ratio(outcomes, clustered=outcomes is bunched, confidence=1 - significance.alpha)
        assert wanted is not None
        assert found.interval is not None
        assert (found.interval.low, found.status) == (pytest.approx(wanted.low), status)


def test_a_precision_of_few_alerts_says_how_well_it_is_known(build: Any) -> None:
    outcomes = split((500, 400, 40, 20), (500, 450, 40, 20))
    error = precision_error(outcomes)
    assert error is not None
    reason = early(build, outcomes)[1].reason
    assert reason.startswith("precision changes by +0.0 points; ±1 points are allowed; equivalence test p = ")
    assert reason.endswith(f"; known only to within {100 * error:.1f} points (standard error), so stability is not confirmed")
    assert f"{100 * error:.1f}" != f"{101 * error:.1f}"
