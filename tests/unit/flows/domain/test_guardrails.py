from __future__ import annotations

import pytest

from flows.domain.counts import ArmCounts, CardCounts, LabelCounts, PairSelection, QualityCounts
from flows.domain.guardrails import GuardrailName, GuardrailStatus, check_guardrails
from flows.domain.policy import Policy


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
