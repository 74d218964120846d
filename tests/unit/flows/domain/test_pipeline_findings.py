"""The artifact, the version that is served, latency and errors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.domain.criteria import Criterion, CriterionName, CriterionStatus
from flows.domain.drift import Severity
from flows.domain.findings import FindingStatus
from flows.domain.pipeline_findings import Answers, find_artifact, find_errors, find_latency, find_served_version
from flows.domain.recalls import Replayed

FILES = {"model.skops": "aa", "MLmodel": "bb"}
OTHERWISE = Answers(1000, 90, Replayed(1000, gained=80, lost=10))
ALIKE = Answers(1000, 2, Replayed(1000, gained=1, lost=1))
SLOW = Criterion(CriterionName.LATENCY, CriterionStatus.FAILED, 140.0, 100.0, "ms", "p95 is 140 ms")


def test_an_artifact_like_its_manifest_is_intact() -> None:
    found = find_artifact(FILES, dict(FILES), OTHERWISE)
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert found.said == "All 2 files of the artifact are as the manifest has them."
    assert found.effect == ("files that differ", 0)


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (FILES | {"model.skops": "cc"}, "model.skops is not the file that was registered"),
        ({"MLmodel": "bb"}, "model.skops is missing"),
        (FILES | {"more": "cc"}, "more was not registered"),
    ],
)
def test_every_difference_from_the_manifest_is_named(served: dict[str, str], said: str) -> None:
    found = find_artifact(FILES, served, None)
    assert found.is_supported
    assert found.said == f"{said}."
    assert found.explained_recall is None


def test_what_a_corrupted_artifact_cost_is_told_by_the_registered_model() -> None:
    found = find_artifact(FILES, FILES | {"model.skops": "cc"}, OTHERWISE)
    assert found.explained_recall == pytest.approx(0.07)
    assert "answers otherwise on 9.0 % of the frauds, and its recall is +7.0 points from what was served" in found.said


def test_a_file_too_many_undermines_nothing_where_the_answers_are_the_same() -> None:
    more, same = FILES | {"more": "cc"}, Answers(1000, 0, Replayed(1000, gained=0, lost=0, both=800))
    harmless = find_artifact(FILES, more, same)
    assert (harmless.is_supported, harmless.severity, harmless.is_undermining) == (True, Severity.MILD, False)
    assert harmless.said == "more was not registered. The registered model answers on all frauds as was served."
    assert find_artifact(FILES, more, ALIKE).severity is Severity.MILD, "as few other answers as rounding makes"
    assert not find_served_version("2", "2", ALIKE, is_artifact_intact=True).is_supported
    for served, answers in ((more, OTHERWISE), (more, None), (FILES | {"MLmodel": "cc"}, same), ({"MLmodel": "bb"}, same)):
        assert find_artifact(FILES, served, answers).is_undermining


@pytest.mark.parametrize(("manifest", "served"), [(None, FILES), (FILES, None)])
def test_without_both_lists_of_digests_an_artifact_cannot_be_tested(
    manifest: dict[str, str] | None, served: dict[str, str] | None
) -> None:
    assert find_artifact(manifest, served, OTHERWISE).status is FindingStatus.NOT_TESTABLE


def test_another_version_than_the_registrys_is_found() -> None:
    found = find_served_version("2", "1", None, is_artifact_intact=True)
    assert found.is_supported
    assert (found.effect, found.explained_recall) == (("versions that differ", 1), None)
    assert "names 2, served is 1" in found.said


def test_other_answers_than_the_registered_models_are_found_unless_the_artifact_explains_them() -> None:
    found = find_served_version(None, None, OTHERWISE, is_artifact_intact=True)
    assert found.is_supported
    assert found.effect == ("share of other answers", 0.09)
    assert not find_served_version("2", "2", OTHERWISE, is_artifact_intact=False).is_supported


def test_another_address_with_the_same_answers_serves_the_same_model() -> None:
    assert find_served_version("s3://a", "s3://b", ALIKE, is_artifact_intact=True).status is FindingStatus.NOT_SUPPORTED
    other = find_served_version("s3://a", "s3://b", OTHERWISE, is_artifact_intact=True)
    assert other.is_undermining
    assert other.next_step.startswith("Serve the registered version")
    same = find_served_version("2", "2", OTHERWISE, is_artifact_intact=True)
    assert same.next_step.startswith("Find out what answered")


def test_the_registered_version_with_its_own_answers_is_served() -> None:
    assert find_served_version("2", "2", ALIKE, is_artifact_intact=True).status is FindingStatus.NOT_SUPPORTED
    assert find_served_version("2", "2", None, is_artifact_intact=True).status is FindingStatus.NOT_SUPPORTED


@pytest.mark.parametrize(("different", "undermining"), [(2, 0), (19, 0), (20, 1)])
def test_a_few_other_answers_do_not_undermine_the_test_unless_another_version_is_served(different: int, undermining: int) -> None:
    answers = Answers(40, different, Replayed(40, gained=different, lost=0))
    for registered, served in (("2", "2"), (None, None)):
        found = find_served_version(registered, served, answers, is_artifact_intact=True)
        assert found.is_supported
        assert found.is_undermining == bool(undermining)
        assert found.said.endswith("do not show that another model was measured.") != found.is_undermining
    assert find_served_version("s3://a", "s3://b", answers, is_artifact_intact=True).is_undermining


@pytest.mark.parametrize(("registered", "served"), [(None, "2"), ("2", None)])
def test_without_versions_and_answers_nothing_can_be_told(registered: str | None, served: str | None) -> None:
    assert find_served_version(registered, served, None, is_artifact_intact=True).status is FindingStatus.NOT_TESTABLE


def test_latency_and_errors_follow_the_verdicts_criteria() -> None:
    found = find_latency(SLOW)
    assert found.is_supported
    assert (found.said, found.effect) == ("p95 is 140 ms", ("observed (ms)", 140.0))
    passed = find_errors(replace(SLOW, status=CriterionStatus.PASSED, observed=None))
    assert (passed.status, passed.effect, passed.next_step) == (FindingStatus.NOT_SUPPORTED, None, "")


def test_what_the_verdict_left_undecided_is_neither_a_cause_nor_ruled_out() -> None:
    for find in (find_latency, find_errors):
        found = find(replace(SLOW, status=CriterionStatus.UNDECIDED))
        assert found.status is FindingStatus.NOT_TESTABLE
        assert found.said == "The verdict left it undecided: p95 is 140 ms."


def test_what_was_not_measured_is_not_testable() -> None:
    unknown = replace(SLOW, status=CriterionStatus.NOT_CHECKED, reason="latency was not measured")
    assert find_latency(unknown).said == "latency was not measured"
    assert find_errors(None).status is FindingStatus.NOT_TESTABLE
