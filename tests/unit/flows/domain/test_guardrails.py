from __future__ import annotations

import pytest

from flows.domain.counts import ArmCounts, CardCounts, LabelCounts, QualityCounts
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
