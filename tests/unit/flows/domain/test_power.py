"""The outlook of an unsettled test, and the numbers of frauds that a plan needs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import log

import numpy as np
import pytest

from flows.domain.counts import DayCounts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.evidence import Evidence
from flows.domain.metrics import is_within_band, mcnemar, precision_difference, relative_improvement
from flows.domain.policy import Policy, Sides, load_policy
from flows.domain.power import Estimate, Outlook, frauds_needed_pairs, frauds_needed_split
from flows.domain.sequential import Look, nominal_alpha
from flows.domain.verdict import Verdict, VerdictKind, decide_verdict

POLICY = Policy()


def unsettled(build, outcomes: Outcomes, days: int = 14, policy: Policy = POLICY) -> Verdict:
    looks = (Look(days, outcomes.compared_frauds, days / 28),)
    feedback = build.feedback(outcomes=outcomes, amounts=None, days=tuple(alike(day, outcomes) for day in range(28)))
    return decide_verdict(build.evidence(days, feedback=feedback, looks=looks), policy)


def alike(day: int, outcomes: Outcomes) -> DayCounts:
    """A day like every other, so that weeks cannot differ."""
    return DayCounts(day, *(ModelCounts(1000, 800, 880, 800) for _ in range(2)), outcomes.frauds and Overlap(780, 20, 20, 180))


def outlook(build, outcomes: Outcomes, days: int = 14, policy: Policy = POLICY) -> Outlook:
    found = unsettled(build, outcomes, days, policy)
    assert found.kind is VerdictKind.INCONCLUSIVE
    assert found.outlook is not None
    return found.outlook


def test_the_numbers_of_a_plan_are_the_known_ones() -> None:
    assert 5 * frauds_needed_split(0.80, 0.85, ratio=4) == pytest.approx(2899.7, abs=0.1)
    assert frauds_needed_split(0.80, 0.85) == pytest.approx(905.3, abs=0.5)  # R's power.prop.test
    assert frauds_needed_pairs(0.02, 0.07) == pytest.approx(280, abs=1)
    assert frauds_needed_pairs(0.02, 0.07, power=0.9) > frauds_needed_pairs(0.02, 0.07, power=0.8)


@pytest.mark.parametrize("power", [0.8, 0.9])
def test_that_many_frauds_give_that_power(power: float) -> None:
    rng, n = np.random.default_rng(3), round(frauds_needed_split(0.80, 0.85, ratio=4, power=power))
    x1, x2 = rng.binomial(4 * n, 0.80, 40_000), rng.binomial(n, 0.85, 40_000)
    common = (x1 + x2) / (5 * n)
    z = (x2 / n - x1 / (4 * n)) / np.sqrt(common * (1 - common) * 1.25 / n)
    assert (z > 1.96).mean() == pytest.approx(power, abs=0.012)


def test_a_settled_test_has_no_outlook(build) -> None:
    assert decide_verdict(build.evidence(), POLICY).outlook is None


def test_a_test_that_lacks_only_precision_needs_no_more_frauds_for_its_recall(build) -> None:
    outcomes = build.outcomes(frauds=Overlap(780, 20, 100, 100), false=Overlap(20, 60, 65))
    found, verdict = outlook(build, outcomes), unsettled(build, outcomes)
    assert (found.more_frauds, found.more_days) == (0, 0)
    assert found.win_probability is not None
    assert 0.5 < found.win_probability < 1
    assert found.sentence == (
        f"At today's estimates the test is won at its end with a probability of {found.win_probability * 100:.0f} %; "
        "recall needs no more frauds to win with a probability of 80 %."
    )
    assert verdict.reasons[1].endswith(found.sentence)


def test_frauds_and_days_follow_from_the_error_that_is_needed(build) -> None:
    outcomes = build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(32, 0, 0))
    found, significance = outlook(build, outcomes), unsettled(build, outcomes).significance
    assert significance is not None
    assert significance.interval is not None
    assert significance.interval.high is not None
    effect = log(342 / 320)
    error = (log(significance.interval.high) - log(significance.interval.low)) / (2 * 1.959964)
    last_z = 2.0135  # of looks at 14, 21 and 28 days
    needed = min(effect / (last_z + 0.8416), (effect - log(1.05)) / 0.8416)
    frauds = 400 * (error / needed) ** 2
    assert found.more_frauds == pytest.approx(frauds - 400, abs=3)
    assert found.more_days == pytest.approx((frauds - 400) * 14 / 400, abs=1)
    assert f"{found.more_frauds} more frauds" in found.sentence
    assert f"about {found.more_days} days" in found.sentence
    assert (f"more than the {14} that are left" in found.sentence) is (found.more_days > 14)


def test_a_candidate_that_is_too_little_better_does_not_win_by_waiting(build) -> None:
    found = outlook(build, build.outcomes(frauds=Overlap(780, 30, 60, 130), false=Overlap(70, 4, 4)))
    assert (found.more_frauds, found.more_days) == (None, None)
    assert found.sentence == "At today's estimate more data does not win."
    assert found.win_probability is not None
    assert found.win_probability < 0.5


def test_a_split_counts_the_frauds_of_both_arms(build) -> None:
    outcomes = Outcomes(Design.SPLIT, ModelCounts(800, 640, 700, 640), ModelCounts(200, 174, 191, 174))
    found = outlook(build, outcomes)
    assert found.more_frauds is not None
    assert found.more_days == pytest.approx(found.more_frauds * 14 / 1000, abs=1)


def test_without_an_interval_nothing_is_told(build) -> None:
    nothing = build.outcomes(frauds=Overlap(0, 0, 0, 0), false=Overlap(9, 0, 0))
    assert outlook(build, nothing) == Outlook(None, None, None, "Too few frauds were seen to tell how many more are needed.")


def test_no_alerts_leave_the_chance_unknown_but_not_the_frauds(build) -> None:
    outcomes = build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(0, 0, 0))
    quiet = replace(outcomes, baseline=ModelCounts(400, 320, 0, 0), candidate=ModelCounts(400, 342, 0, 0))
    found = outlook(build, quiet)
    assert found.win_probability is None
    assert found.more_frauds is not None
    assert found.sentence.startswith("At today's estimates recall needs")


def test_counts_alone_have_no_horizon() -> None:
    outcomes = Outcomes(Design.SPLIT, ModelCounts(800, 640, 703, 640), ModelCounts(200, 172, 189, 172))
    verdict = decide_verdict(Evidence(counted=outcomes), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.outlook is not None
    assert (verdict.outlook.win_probability, verdict.outlook.more_days) == (None, None)
    assert verdict.outlook.more_frauds is not None
    assert verdict.outlook.sentence.startswith(f"At today's estimates recall needs {verdict.outlook.more_frauds} more frauds")


def test_a_welcome_rise_of_precision_does_not_lessen_the_chance(build) -> None:
    rising = build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(20, 12, 3))
    lower = load_policy('precision_band = {absolute = "0.01", sides = "lower"}', "policy.toml")
    two, one = outlook(build, rising).win_probability, outlook(build, rising, policy=lower).win_probability
    assert two is not None
    assert one is not None
    assert two < 0.1 < one


def test_an_estimate_at_its_horizon_is_what_it_is() -> None:
    assert Estimate(0.5, 0.1, 1.0).chance_of_reaching(0.5) == 1.0
    assert Estimate(0.5, 0.1, 1.0).chance_of_reaching(0.51) == 0.0
    assert Estimate(0.5, 0.1, 0.5).chance_of_reaching(0.5) == 0.5


@pytest.mark.parametrize("days", [14, 21])
def test_the_probability_of_a_win_is_that_of_simulated_tests(build, days: int) -> None:
    """From one look on, the rest of the test is drawn as if today's shares were the truth, and the rule decides at the end."""
    frauds, false = Overlap(300, 26, 45, 29), Overlap(30, 2, 3)
    outcomes = build.outcomes(frauds=frauds, false=false)
    told = outlook(build, outcomes, days).win_probability
    looks = tuple(Look(day, 400 * day // days, day / 28) for day in (14, 21, 28) if day >= days)
    seen = np.array([frauds.both, frauds.baseline_only, frauds.candidate_only, frauds.neither, 30, 2, 3])
    level, required, band = nominal_alpha(0.05, looks), POLICY.recall_improvement.relative, POLICY.precision_band.absolute
    rng, wins, tests = np.random.default_rng(5), 0, 2000
    for row in (seen + rng.poisson(seen * (28 - days) / days, (tests, 7))).tolist():
        final = build.outcomes(frauds=Overlap(*row[:4]), false=Overlap(*row[4:]))
        wins += (
            mcnemar(row[1], row[2]).midp_p_value < level
            and (relative_improvement(final) or 0) >= required
            and is_within_band(precision_difference(final) or Fraction(0), band, Sides.TWO)
        )
    assert told == pytest.approx(wins / tests, abs=0.05)


def test_between_looks_the_outlook_is_that_of_the_planned_ones(build) -> None:
    outcomes = build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(32, 0, 0))
    unplanned = build.evidence(15, feedback=build.feedback(outcomes=outcomes), looks=())
    planned = build.evidence(14, feedback=build.feedback(outcomes=outcomes), looks=(Look(14, 400, 0.5),))
    found, other = (decide_verdict(one, POLICY).outlook for one in (unplanned, planned))
    assert found is not None
    assert other is not None
    assert found.more_frauds == pytest.approx(other.more_frauds, abs=1)


def test_the_outlook_survives_json(build) -> None:
    verdict = unsettled(build, build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(32, 0, 0)))
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert replace(verdict, outlook=None) != verdict
