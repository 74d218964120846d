from __future__ import annotations

from fractions import Fraction

import pytest
from scipy.stats import norm

from flows.domain.counts import ArmCounts, CardCounts, LabelCounts, ModelCounts, PairSelection, QualityCounts
from flows.domain.guardrails import GuardrailName, GuardrailStatus, check_guardrails
from flows.domain.metrics import score_z, two_sided_p
from flows.domain.policy import Policy, Traffic, Validity


def statuses(build, days: int = 14, **changes) -> dict[GuardrailName, GuardrailStatus]:
    return {check.name: check.status for check in check_guardrails(build.feedback(**changes), build.window(days), Policy())}


def test_a_healthy_test_passes_every_guardrail(build) -> None:
    assert set(statuses(build).values()) == {GuardrailStatus.PASSED}


def test_what_cannot_be_checked_is_not_passed(build) -> None:
    found = statuses(build, cards=None, labels=LabelCounts(9, 9, None, None), quality=QualityCounts(0, 0, 0, 0, None))
    unchecked = {name for name, status in found.items() if status is GuardrailStatus.NOT_CHECKED}
    assert unchecked == {
        GuardrailName.SAMPLE_RATIO,
        GuardrailName.CROSSOVER,
        GuardrailName.LABEL_MATURITY,
        GuardrailName.DATA_QUALITY,
    }


def test_an_empty_window_passes_nothing_but_is_checked_for_maturity(build) -> None:
    empty = ArmCounts(0, 0, 0, 0, 0)
    found = statuses(
        build,
        0,
        baseline=empty,
        candidate=empty,
        labels=LabelCounts(0, 0, 0, 0),
        cards=CardCounts(0, 0, 0),
        quality=QualityCounts(0, 0, 0, 0, 0),
    )
    assert found[GuardrailName.WINDOW] is GuardrailStatus.FAILED
    assert found[GuardrailName.LABEL_MATURITY] is GuardrailStatus.FAILED
    assert GuardrailStatus.PASSED not in found.values()


def test_no_timed_fraud_label_leaves_maturity_unchecked(build) -> None:
    assert statuses(build, labels=LabelCounts(9, 9, 0, 0))[GuardrailName.LABEL_MATURITY] is GuardrailStatus.NOT_CHECKED


@pytest.mark.parametrize(("days", "expected"), [(14, "passed"), (13, "failed"), (15, "failed"), (21, "passed")])
def test_the_window_needs_two_whole_weeks(build, days: int, expected: str) -> None:
    assert statuses(build, days)[GuardrailName.WINDOW] == expected


def test_transactions_of_a_card_do_not_count_for_the_sample_ratio(build) -> None:
    rows = {"baseline": ArmCounts(70_000, 70_000, 70_000, 1, 1), "candidate": ArmCounts(30_000, 30_000, 30_000, 1, 1)}
    assert statuses(build, **rows)[GuardrailName.SAMPLE_RATIO] is GuardrailStatus.PASSED


def test_labels_among_flagged_transactions_only_are_no_coverage(build) -> None:
    assert statuses(build, labels=LabelCounts(90_000, 0, 10, 0))[GuardrailName.LABEL_COVERAGE] is GuardrailStatus.FAILED


@pytest.mark.parametrize(("missing", "expected"), [(0, "passed"), (1, "failed")])
def test_days_without_transactions_are_no_exposure(build, missing: int, expected: str) -> None:
    days = tuple(build.day(day) for day in range(28) if day >= missing)
    check = check_guardrails(build.feedback(days=days), build.window(14), Policy())[0]
    assert (check.name, check.status) == (GuardrailName.WINDOW, expected)
    assert ("no transactions on 1 of 14 days" in check.reason) is bool(missing)


@pytest.mark.parametrize(("labelled", "expected"), [(19_600, "passed"), (19_500, "failed")])
def test_labels_must_be_as_complete_in_one_arm_as_in_the_other(build, labelled: int, expected: str) -> None:
    arms = {"baseline": ArmCounts(80_000, 80_000, 79_000, 800, 640), "candidate": ArmCounts(20_000, 20_000, labelled, 200, 168)}
    assert statuses(build, **arms)[GuardrailName.LABEL_COVERAGE] == expected


def test_a_large_difference_of_a_few_labels_is_noise(build) -> None:
    arms = {"baseline": ArmCounts(100, 100, 100, 80, 64), "candidate": ArmCounts(100, 100, 96, 20, 16)}
    assert statuses(build, **arms)[GuardrailName.LABEL_COVERAGE] is GuardrailStatus.PASSED


@pytest.mark.parametrize(("pairs", "expected"), [(89_200, "passed"), (88_000, "failed")])
def test_pairs_must_not_be_chosen_by_what_the_baseline_said(build, pairs: int, expected: str) -> None:
    chosen = PairSelection(10_000, 10_000, 90_000, pairs)
    assert statuses(build, selection=chosen)[GuardrailName.DATA_QUALITY] == expected


@pytest.mark.parametrize(("future", "expected"), [(100, "passed"), (101, "failed")])
def test_rows_of_the_future_are_doubtful(build, future: int, expected: str) -> None:
    assert statuses(build, quality=QualityCounts(100_000, 0, 0, 0, 0, future))[GuardrailName.DATA_QUALITY] == expected


@pytest.mark.parametrize(("limit", "expected"), [(Fraction(1, 2), "passed"), (Fraction(51, 100), "failed")])
def test_a_sample_ratio_as_rare_as_the_limit_passes(build, limit: Fraction, expected: str) -> None:
    """Both of two cards in one arm of two alike: p = 1/2."""
    policy = Policy(validity=Validity(sample_ratio_p_value=limit), traffic=Traffic(baseline=50, candidate=50))
    found = check_guardrails(build.feedback(cards=CardCounts(0, 2, 0)), build.window(), policy)
    assert (found[3].status, found[3].reason) == (
        expected,
        "100.0 % of 2 cards met the candidate, the policy sends 50 % (p = 0.5)",
    )


@pytest.mark.parametrize(("labelled", "expected"), [(99_000, "passed"), (98_000, "passed"), (97_999, "failed")])
def test_labels_may_differ_by_as_much_as_the_limit(build, labelled: int, expected: str) -> None:
    arms = {"baseline": ArmCounts(100_000, 100_000, 99_000, 9, 9), "candidate": ArmCounts(100_000, 100_000, labelled, 9, 9)}
    assert statuses(build, **arms)[GuardrailName.LABEL_COVERAGE] == expected


@pytest.mark.parametrize(("beyond", "expected"), [(Fraction(0), "passed"), (Fraction(1, 10**9), "failed")])
def test_a_difference_as_rare_as_the_limit_is_chance(build, beyond: Fraction, expected: str) -> None:
    """Pearson's test of 95 and 99 of 100, with the score's factor n/(n-1)."""
    z = (0.99 - 0.95) / (0.97 * 0.03 * 2 / 100 * 200 / 199) ** 0.5
    p_value = Fraction(two_sided_p(score_z(ModelCounts(100, 99, 0, 0), ModelCounts(100, 95, 0, 0))))
    assert float(p_value) == pytest.approx(2 * norm.sf(z))
    chosen = build.feedback(selection=PairSelection(100, 99, 100, 95))
    found = check_guardrails(chosen, build.window(), Policy(validity=Validity(unequal_p_value=p_value + beyond)))
    assert found[5].status == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": PairSelection(0, 0, 9_000, 8_000)},
        {"selection": PairSelection(1_000, 900, 0, 0)},
        {"candidate": ArmCounts(20_000, 0, 0, 0, 0)},
    ],
)
def test_a_share_of_nothing_differs_from_none(build, changes: dict) -> None:
    assert set(statuses(build, **changes).values()) == {GuardrailStatus.PASSED}


def test_arms_of_equal_size_are_matured(build) -> None:
    arms = {arm: ArmCounts(50_000, 50_000, 49_000, 500, 400) for arm in ("baseline", "candidate")}
    assert statuses(build, **arms)[GuardrailName.LABEL_MATURITY] is GuardrailStatus.PASSED
