from __future__ import annotations

import pytest

from flows.domain.criteria import CriterionName, CriterionStatus
from flows.domain.policy import Policy, load_policy
from flows.domain.verdict import VerdictKind, decide_verdict
from flows.domain.what_if import what_if


def test_a_stricter_policy_shows_what_it_would_change_and_how_far_off_that_is(build) -> None:
    evidence = build.evidence(28)
    found = what_if(evidence, decide_verdict(evidence, Policy()), load_policy('recall_improvement = {relative = "0.08"}', "p"))
    assert (found.before, found.after) == (VerdictKind.PROMOTE, VerdictKind.KEEP_BASELINE)
    recall = found.criteria[0]
    assert (recall.before, recall.after) == (CriterionStatus.PASSED, CriterionStatus.FAILED)
    assert (recall.threshold_before, recall.threshold_after) == (0.05, 0.08)
    assert recall.room == pytest.approx(-0.03)
    assert [item.name for item in found.criteria if item.decides] == [CriterionName.RECALL_IMPROVEMENT]


def test_of_a_win_the_criterion_with_the_least_room_decides(build) -> None:
    evidence = build.evidence()
    found = what_if(evidence, decide_verdict(evidence, Policy()), load_policy('precision_band = {absolute = "0.5"}', "p"))
    assert found.after is VerdictKind.PROMOTE
    assert [item.name for item in found.criteria if item.decides] == [CriterionName.RECALL_IMPROVEMENT]  # it is on its edge
    rooms = {item.name: item.room for item in found.criteria}
    assert rooms[CriterionName.LATENCY] == 100 - 83
    assert rooms[CriterionName.PRECISION_STABILITY] == pytest.approx(0.5, abs=0.001)


def test_what_was_not_measured_has_no_room(build) -> None:
    evidence = build.evidence(telemetry=None)
    found = what_if(evidence, decide_verdict(evidence, Policy()), load_policy("required_telemetry = []", "p"))
    assert (found.before, found.after) == (VerdictKind.NOT_EVALUABLE, VerdictKind.PROMOTE)
    assert found.criteria[3].room is None
    assert not found.criteria[3].decides
