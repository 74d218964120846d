"""The outlook's numbers from formulas written down here, and its sentence word for word."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, exp, log, sqrt
from typing import Any

import pytest
from scipy.stats import norm

from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.criteria import Criterion, CriterionName, CriterionStatus, Significance, SignificanceTest
from flows.domain.evidence import Evidence
from flows.domain.intervals import Interval
from flows.domain.policy import Policy, load_policy
from flows.domain.power import Outlook, look_ahead
from flows.domain.sequential import Look

POLICY, ONE_LOOK = Policy(), load_policy("looks = [28]", "policy.toml")
Z, Z_POWER = 1.959964, 0.8416212
FEW = Outlook(None, None, None, "Too few frauds were seen to tell how many more are needed.")


def split(caught: int) -> Outcomes:
    """Of 500 frauds each the baseline caught 400."""
    return Outcomes(Design.SPLIT, ModelCounts(500, 400, 400, 400), ModelCounts(500, caught, caught, caught))


def significance(error: float, **changes: Any) -> Significance:
    """With an interval of the recalls' ratio that stands for this standard error of its logarithm."""
    interval = Interval("recall ratio", exp(-Z * error), exp(Z * error), 0.95)
    return Significance(SignificanceTest.SCORE, 0.1, None, 0.05, 1, replace(interval, **changes))


def precision(observed: float = 0.004, error: float = 0.01) -> Criterion:
    interval = Interval("precision difference", observed - Z * error, observed + Z * error, 0.95)
    status = CriterionStatus.UNDECIDED
    return Criterion(CriterionName.PRECISION_STABILITY, status, observed, 0.01, "absolute", "", interval)


def at(build: Any, outcomes: Outcomes, days: int = 14, **changes: Any) -> Evidence:
    return build.evidence(days, feedback=build.feedback(outcomes=outcomes), **({"looks": ()} | changes))


@pytest.mark.parametrize(
    ("caught", "error", "needs"),
    [  # the smaller of: significant at the last look, and beyond the required 5 %, each with a probability of 80 %
        (470, 0.08, log(1.175) / (Z + Z_POWER)),
        (424, 0.03, (log(1.06) - log(1.05)) / Z_POWER),
    ],
)
def test_the_frauds_that_are_needed(build: Any, caught: int, error: float, needs: float) -> None:
    more = ceil(1000 * (error / needs) ** 2) - 1000
    found = look_ahead(at(build, split(caught)), ONE_LOOK, significance(error), precision())
    assert more > 0
    assert (found.more_frauds, found.more_days) == (more, ceil(more * 14 / 1000))
    alone = look_ahead(Evidence(counted=split(caught)), ONE_LOOK, significance(error), precision())
    assert alone == Outlook(
        None,
        more,
        None,
        f"At today's estimates recall needs {more} more frauds to win with a probability of 80 %.",
    )


@pytest.mark.parametrize("days", [14, 21])
def test_the_last_look_requires_its_published_boundary(build: Any, days: int) -> None:
    """2.014 at the last of looks at 1/2, 3/4 and 1 of the information (Lan and DeMets), for an effect that is clear of 5 %."""
    looks = tuple(Look(day, 1000 * day // days, day / 28) for day in (14, 21) if day <= days)
    found = look_ahead(at(build, split(470), days, looks=looks), POLICY, significance(0.08), precision())
    needs = log(1.175) / (2.014 + Z_POWER)
    assert found.more_frauds == pytest.approx(1000 * (0.08 / needs) ** 2 - 1000, abs=4)


def test_another_alpha_and_power_of_the_policy_are_planned_for() -> None:
    policy = load_policy('alpha = "0.01"\n[statistics]\npower = "0.9"', "policy.toml")
    found = look_ahead(Evidence(counted=split(470)), policy, significance(0.08), precision())
    needs = log(1.175) / (2.575829 + 1.281552)
    assert found.more_frauds == ceil(1000 * (0.08 / needs) ** 2) - 1000
    assert found.sentence.endswith(f"needs {found.more_frauds} more frauds to win with a probability of 90 %.")


@pytest.mark.parametrize("sides", ["two", "lower"])
@pytest.mark.parametrize(("caught", "error", "observed"), [(470, 0.08, 0.004), (430, 0.01, -0.004)])
def test_the_chance_is_that_of_recall_times_that_of_precision(
    build: Any, sides: str, caught: int, error: float, observed: float
) -> None:
    """At half of the information an estimate's rest has the standard deviation error·√(1/2 · 1/2), here error/2."""
    policy = load_policy(f'looks = [28]\nprecision_band = {{absolute = "0.01", sides = "{sides}"}}', "policy.toml")
    found = look_ahead(at(build, split(caught)), policy, significance(error), precision(observed))
    edge = max(log(1.05), Z * error * sqrt(0.5))
    wins = norm.cdf((log(caught / 400) - edge) / (error / 2))
    below, above = norm.cdf((-0.01 - observed) / 0.005), norm.sf((0.01 - observed) / 0.005)
    stable = 1 - below - (above if sides == "two" else 0)
    assert 0.1 < wins * stable < 0.95
    assert found.win_probability == pytest.approx(wins * stable, abs=1e-6)


@pytest.mark.parametrize(("days", "horizon"), [(14, None), (28, 28), (35, 28)])
def test_without_a_rest_of_the_test_the_estimate_is_what_it_is(build: Any, days: int, horizon: int | None) -> None:
    looks = (Look(days, 1000, min(1.0, days / 28)),)
    for caught, expected in ((470, 1.0), (410, 0.0)):
        evidence = at(build, split(caught), days, horizon_days=horizon, looks=looks)
        assert look_ahead(evidence, POLICY, significance(0.05), precision()).win_probability == expected


@pytest.mark.parametrize("precision_of", [{"observed": None}, {"interval": None}, {"interval": Interval("", -1.0, None, 0.95)}])
def test_a_precision_that_is_not_known_leaves_the_chance_open(build: Any, precision_of: dict[str, Any]) -> None:
    found = look_ahead(at(build, split(470)), ONE_LOOK, significance(0.08), replace(precision(), **precision_of))
    assert found.win_probability is None
    assert found.sentence.startswith("At today's estimates recall needs ")


@pytest.mark.parametrize(
    ("caught", "known"),
    [
        (470, None),
        (0, significance(0.08)),
        (470, replace(significance(0.08), interval=None)),
        (470, significance(0.08, low=0.0)),
        (470, significance(0.08, high=None)),
    ],
)
def test_a_ratio_without_an_error_tells_nothing(build: Any, caught: int, known: Significance | None) -> None:
    assert look_ahead(at(build, split(caught)), POLICY, known, precision()) == FEW


def test_with_nothing_left_to_spend_more_data_does_not_win(build: Any) -> None:
    """Looks that nobody planned have used up alpha, as after a change of the policy."""
    policy = load_policy("looks = [14, 42]\nwindow_days = {max = 42}", "policy.toml")
    looks = tuple(Look(day, 1000 * day // 28, day / 28) for day in (14, 21, 28))
    found = look_ahead(at(build, split(470), 28, looks=looks), policy, significance(0.08), precision())
    assert (found.more_frauds, found.sentence) == (None, "At today's estimate more data does not win.")


def test_past_the_last_planned_look_all_of_alpha_is_planned_with(build: Any) -> None:
    policy = load_policy("looks = [7]\nwindow_days = {min = 7, max = 7}", "policy.toml")
    found = look_ahead(at(build, split(470), 10), policy, significance(0.08), precision())
    assert found.more_frauds == ceil(1000 * (0.08 / (log(1.175) / (Z + Z_POWER))) ** 2) - 1000


def test_an_estimate_at_the_requirement_does_not_win_by_waiting(build: Any) -> None:
    """The logarithm of 420/400 is that of 1.05."""
    found = look_ahead(at(build, split(420)), POLICY, significance(0.02), precision())
    assert (found.more_frauds, found.sentence) == (None, "At today's estimate more data does not win.")


@pytest.mark.parametrize(
    ("days", "frauds", "horizon", "end"),
    [  # with 1,000 frauds in these days so many more are needed: as many days as are left, or one more
        (14, 1000, 28, ", which takes about 14 days."),
        (14, 1001, 28, ", which takes about 15 days, more than the 14 that are left."),
        (21, 333, 28, ", which takes about 7 days."),
        (21, 334, 28, ", which takes about 8 days, more than the 7 that are left."),
        (14, 1001, None, "."),
    ],
)
def test_what_takes_longer_than_the_test_is_told(build: Any, days: int, frauds: int, horizon: int | None, end: str) -> None:
    error = sqrt((1000 + frauds - 0.5) / 1000) * log(1.175) / (Z + Z_POWER)
    evidence = at(build, split(470), days, horizon_days=horizon)
    found = look_ahead(evidence, ONE_LOOK, significance(error), precision())
    assert (found.more_frauds, found.more_days) == (frauds, ceil(frauds * days / 1000))
    assert found.win_probability is not None
    assert found.sentence == (
        f"At today's estimates the test is won at its end with a probability of {found.win_probability * 100:.0f} %; recall needs"
        f" {frauds} more frauds to win with a probability of 80 %{end}"
    )


def test_recall_may_need_no_more_frauds() -> None:
    found = look_ahead(Evidence(counted=split(470)), POLICY, significance(0.01), precision())
    assert found == Outlook(None, 0, None, "At today's estimates recall needs no more frauds to win with a probability of 80 %.")
