from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import log

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from flows.domain.counts import CardCounts, Coverage, FeedbackHealth, LabelledDay
from flows.domain.feedback import ExposureWindow
from flows.domain.health import Health, HealthCheck, check_health, sample_ratio_evidence
from flows.domain.policy import Policy, load_policy

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY, FIFTH = Policy(), Fraction(1, 5)


def window(days: float) -> ExposureWindow:
    return ExposureWindow(START, int(days) + 1, START + timedelta(days=days))


def feedback(days: int = 1, *, labelled: int = 100, silence: int | None = 0, cards: CardCounts | None = None) -> FeedbackHealth:
    rows = tuple(LabelledDay(arm, day, 1_000, labelled) for day in range(1, days + 1) for arm in ("baseline", "candidate"))
    return FeedbackHealth(cards or CardCounts(4_000, 1_000, 2), rows, silence)


def problems(found: tuple[Health, ...]) -> set[HealthCheck]:
    assert [health.check for health in found] == list(HealthCheck)
    return {health.check for health in found if health.is_problem}


def test_the_evidence_is_the_ratio_of_two_distributions() -> None:
    for x, n in ((0, 0), (3, 10), (300, 1_000)):
        expected = betabinom.logpmf(x, n, 20, 80) - binom.logpmf(x, n, 0.2)
        assert sample_ratio_evidence(x, n, FIFTH) == pytest.approx(expected, abs=1e-8)


def test_a_right_split_is_hardly_ever_accused_however_often_one_looks() -> None:
    """8,000 tests that are looked at after every 100 cards; the bound is one in a thousand."""
    rng = np.random.default_rng(5)
    seen = np.cumsum(rng.binomial(100, 0.2, (8_000, 56)), axis=1)
    totals = 100 * np.arange(1, 57)
    evidence = {
        (x, n): sample_ratio_evidence(int(x), int(n), FIFTH)
        for n, column in zip(totals, seen.T, strict=True)
        for x in set(column)
    }
    accused = [any(evidence[x, n] >= log(1_000) for x, n in zip(row, totals, strict=True)) for row in seen]
    assert np.mean(accused) <= 0.001
    assert np.mean(np.any((seen / totals - 0.2) / np.sqrt(0.16 / totals) > 3.09, axis=1)) > 0.003  # a plain test each time is


def test_a_healthy_test_has_no_problem(build) -> None:
    assert problems(check_health(feedback(), build.telemetry(), window(1), POLICY)) == set()


def test_a_broken_split_and_crossover_are_found(build) -> None:
    broken = feedback(cards=CardCounts(3_500, 1_500, 2))
    mixed = feedback(cards=CardCounts(4_000, 1_000, 200))
    assert problems(check_health(broken, build.telemetry(), window(1), POLICY)) == {HealthCheck.SAMPLE_RATIO}
    assert problems(check_health(mixed, build.telemetry(), window(1), POLICY)) == {HealthCheck.CROSSOVER}
    unknown = check_health(replace(broken, cards=None), build.telemetry(), window(1), POLICY)
    assert unknown[0].is_problem is None
    none = check_health(replace(broken, cards=CardCounts(0, 0, 0)), build.telemetry(), window(1), POLICY)
    assert none[0].is_problem is None


def test_labels_that_stopped_or_never_came_are_found(build) -> None:
    def labels(found: FeedbackHealth, days: float) -> Health:
        return check_health(found, build.telemetry(), window(days), POLICY)[2]

    assert labels(feedback(9, silence=7), 9).found == "no label has arrived for 7 days"
    assert not labels(feedback(9, silence=6), 9).is_problem
    assert labels(feedback(7, labelled=0, silence=None), 7).is_problem
    assert not labels(feedback(6, labelled=0, silence=None), 6.9).is_problem
    assert not labels(feedback(31, labelled=950), 31.5).is_problem
    found = labels(feedback(31, labelled=949), 31.5)
    assert found.found == "only 94.9 % of the baseline's transactions of day 1 have a label by now"
    assert not labels(feedback(31, labelled=949), 30.9).is_problem
    assert labels(FeedbackHealth(None, (), None), 3).is_problem


def test_latency_and_errors_are_judged_as_in_a_verdict(build) -> None:
    def found(policy: Policy = POLICY, **changes) -> set[HealthCheck]:
        return problems(check_health(feedback(), build.telemetry(**changes), window(1), policy))

    assert found(latency_breach=3) == {HealthCheck.LATENCY}
    assert found(shared_latency_breach=3) == {HealthCheck.LATENCY}
    assert found(error_breach=3) == {HealthCheck.ERROR_RATE}
    hole = {"error_coverage": Coverage("baseline", 1, 3, 1_000)}
    assert found(**hole) == {HealthCheck.ERROR_RATE}
    assert found(load_policy('required_telemetry = ["latency"]', "p"), **hole) == set()
    assert problems(check_health(feedback(), None, window(1), POLICY)) == {HealthCheck.LATENCY, HealthCheck.ERROR_RATE}
