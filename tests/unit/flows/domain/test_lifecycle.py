"""What the decision records and the deployment say about each model's life."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan, Stage
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Decision, DecisionRequest, Links
from flows.domain.decision_record import GENESIS, DecisionRecord, Investigation, RecordKind
from flows.domain.evidence import Evidence
from flows.domain.lifecycle import LifecycleStatus, arm_in_charge, model_lives, stages_by_serving
from flows.domain.policy import Policy
from flows.domain.serving_state import CANDIDATE, OPERATION, OUTCOME, REVERT_TO, Predictor, ServingState
from flows.domain.verdict import decide_verdict

V1, V2, V3 = (Model(f"fraud_v{n}", str(n), f"fraud-v{n}") for n in (1, 2, 3))
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
POINT = '{"predictor": "fraud-v1", "spec": {}}'


def decision(test_id: str, baseline: Model, candidate: Model, days: int = 0) -> Decision:
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(100, 80, 88, 80), ModelCounts(100, 85, 94, 85)))
    plan = ActionPlan(Arm.CANDIDATE, (100,), ())
    at = BEGIN + timedelta(days=days)
    request = DecisionRequest(
        test=ABTest(test_id, baseline, candidate, at, "run"),
        round=1,
        flow_run_id="run",
        verdict=decide_verdict(evidence, Policy()),
        plan=plan,
        rollback_plan=replace(plan, target=Arm.BASELINE),
        epoch=1,
        links=Links(),
        decide_within_hours=1,
        next_look_at=None,
        evidence=evidence,
    )
    return Decision(request, at, at + timedelta(hours=1))


def record(kind: RecordKind, decision_id: str, day: int, /, **payload: object) -> DecisionRecord:
    return DecisionRecord(day, kind, decision_id, BEGIN + timedelta(days=day), payload, GENESIS, GENESIS)


FIRST = decision("a", V1, V2)
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def statuses(records: list[DecisionRecord], in_charge: Model | None = None, *decisions: Decision) -> list[LifecycleStatus]:
    return [life.status for life in model_lives(decisions or (FIRST,), records, in_charge, LATER)]


def test_while_nothing_is_decided_one_is_in_charge_and_one_in_test() -> None:
    assert statuses([]) == [LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST]
    assert statuses([], V1) == [LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RecordKind.PROMOTED, [LifecycleStatus.ARCHIVED, LifecycleStatus.PROMOTED]),
        (RecordKind.BASELINE_KEPT, [LifecycleStatus.RETAINED, LifecycleStatus.ARCHIVED]),
        (RecordKind.COMPENSATED, [LifecycleStatus.RETAINED, LifecycleStatus.IN_TEST]),
        (RecordKind.DECIDED, [LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST]),
        (RecordKind.SUPERSEDED, [LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST]),
    ],
)
def test_what_came_of_a_decision_sets_both_models(kind: RecordKind, expected: list[LifecycleStatus]) -> None:
    assert statuses([record(kind, "a-1", 21)]) == expected


def test_an_emergency_is_told_of_the_decision_that_it_names() -> None:
    records = [record(RecordKind.PROMOTED, "a-1", 21), record(RecordKind.EMERGENCY_REVERT, "revert-7", 22, decision_id="a-1")]
    baseline, candidate = model_lives([FIRST], records, V1, LATER)
    assert (baseline.status, candidate.status) == (LifecycleStatus.RESTORED, LifecycleStatus.ARCHIVED)
    assert [item.status for item in candidate.history] == ["In test (Staging)", "Promoted (Production)", "Archived"]
    assert baseline.history[-1].because == "emergency_revert (revert-7)"
    assert baseline.last_updated == BEGIN + timedelta(days=22)


def test_an_emergency_without_a_known_decision_changes_no_model() -> None:
    assert statuses([record(RecordKind.EMERGENCY_REVERT, "revert-7", 22)]) == [LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST]


def test_what_serves_has_the_last_word_over_records_that_lag_behind() -> None:
    lives = model_lives([FIRST], [record(RecordKind.PROMOTED, "a-1", 21)], V1, LATER)
    assert [life.status for life in lives] == [LifecycleStatus.RESTORED, LifecycleStatus.ARCHIVED]
    assert {life.last_updated for life in lives} == {LATER}


def test_a_promoted_model_keeps_its_history_as_the_next_tests_baseline() -> None:
    second = decision("b", V2, V3, days=60)
    records = [record(RecordKind.PROMOTED, "a-1", 21), record(RecordKind.BASELINE_KEPT, "b-1", 81)]
    lives = model_lives([second, FIRST], records, V2, LATER)
    assert [life.model for life in lives] == [V1, V2, V3]
    assert [life.status for life in lives] == [LifecycleStatus.ARCHIVED, LifecycleStatus.RETAINED, LifecycleStatus.ARCHIVED]
    assert len(lives[1].history) == 3


def state(v1: int, v2: int, **annotations: str) -> ServingState:
    predictors = (Predictor("fraud-v1", v1), Predictor("fraud-v2", v2))
    return ServingState("f", "models", "1", 1, predictors, {f"fraud-ab/{key}": value for key, value in annotations.items()})


@pytest.mark.parametrize(
    ("found", "arm"),
    [
        (state(100, 0), Arm.BASELINE),
        (state(0, 100, **{"revert-to": POINT}), Arm.CANDIDATE),
        (state(80, 20, **{"revert-to": POINT}), Arm.BASELINE),
        (state(80, 20), None),
        (state(100, 0, operation="a-1"), None),
        (state(0, 100, intent="revert:fraud-v1"), None),
    ],
)
def test_who_is_in_charge_of_what_serves(found: ServingState, arm: Arm | None) -> None:
    assert arm_in_charge(found, FIRST.request.test) is arm


def test_a_promotion_that_is_recorded_after_the_emergency_that_undid_it_came_first_all_the_same() -> None:
    late = [
        record(RecordKind.EMERGENCY_REVERT, "r", 3, decision_id="a-1", epoch="5"),
        record(RecordKind.PROMOTED, "a-1", 4, epoch=4),
    ]
    assert statuses(late) == [LifecycleStatus.RESTORED, LifecycleStatus.ARCHIVED]


def serving(v1: int, v2: int, *, shadow: bool = False, graph: str = "v2", **annotations: str) -> ServingState:
    noted = {
        REVERT_TO: '{"predictor": "fraud-v1", "spec": {"graph": "v1"}}',
        CANDIDATE: '{"predictor": "fraud-v2", "spec": {"graph": "v2"}}',
        "fraud-ab/epoch": "9",
    }
    predictors = (
        Predictor("fraud-v1", v1, spec={"graph": "v1"}),
        Predictor("fraud-v2", v2, shadow=shadow, spec={"graph": graph}),
    )
    return ServingState("fraud", "models", "1", 1, predictors, {**noted, **annotations})


@pytest.mark.parametrize(
    ("state", "baseline", "candidate"),
    [
        (serving(80, 20), Stage.PRODUCTION, Stage.STAGING),
        (serving(100, 0, shadow=True), Stage.PRODUCTION, Stage.STAGING),
        (serving(100, 0), Stage.PRODUCTION, Stage.ARCHIVED),
        (serving(100, 0, **{OUTCOME: "a-1:compensated@9"}), Stage.PRODUCTION, Stage.STAGING),
        (serving(100, 0, **{OUTCOME: "a-1:compensated@8"}), Stage.PRODUCTION, Stage.ARCHIVED),
        (serving(100, 0, **{OUTCOME: "a-1:accepted@9"}), Stage.PRODUCTION, Stage.ARCHIVED),
        (serving(0, 100), Stage.ARCHIVED, Stage.PRODUCTION),
        (replace(serving(0, 100), predictors=serving(0, 100).predictors[1:]), Stage.ARCHIVED, Stage.PRODUCTION),
    ],
)
def test_the_registry_follows_what_serves(state: ServingState, baseline: Stage, candidate: Stage) -> None:
    assert stages_by_serving(state, FIRST.request.test) == {Arm.BASELINE: baseline, Arm.CANDIDATE: candidate}


@pytest.mark.parametrize("state", [serving(0, 100, graph="v3"), serving(0, 100, **{OPERATION: "a-1"})])
def test_nothing_follows_a_model_that_the_test_does_not_know_or_a_change_in_progress(state: ServingState) -> None:
    assert stages_by_serving(state, FIRST.request.test) is None


def test_a_later_round_of_a_test_is_what_is_known_of_its_models() -> None:
    later = replace(FIRST, request=replace(FIRST.request, round=2), created_at=BEGIN + timedelta(days=7))
    lives = model_lives([later, FIRST], [], None, LATER)
    assert [life.decision.decision_id for life in lives] == ["a-2", "a-2"]
    assert [len(life.history) for life in lives] == [1, 1]


def test_a_promoted_model_keeps_the_trial_that_it_won_when_it_is_the_baseline_of_the_next() -> None:
    second = decision("b", V2, V3, days=60)
    records = [record(RecordKind.PROMOTED, "a-1", 21, epoch=2), record(RecordKind.PROMOTED, "b-1", 81, epoch=5)]
    first, middle, last = model_lives([FIRST, second], records, V3, LATER)
    assert (first.trial, first.has_failed) == (None, False)
    assert middle.trial == FIRST
    assert (middle.decision, middle.arm, middle.has_failed) == (second, Arm.BASELINE, False)
    assert (last.trial, last.has_failed) == (second, False)


def test_a_lost_candidate_has_failed_and_carries_what_its_investigation_found() -> None:
    found = Investigation(("Amounts have drifted.",))
    records = [record(RecordKind.BASELINE_KEPT, "a-1", 21)]
    assert [life.has_failed for life in model_lives([FIRST], records, V1, LATER)] == [False, True]
    records.append(record(RecordKind.INVESTIGATED, "a-1", 22, **found.to_payload()))
    baseline, candidate = model_lives([FIRST], records, V1, LATER)
    assert (baseline.investigation, candidate.investigation) == (None, found)
    assert candidate.status is LifecycleStatus.ARCHIVED


def test_one_that_may_be_tried_again_has_failed_only_where_that_was_investigated() -> None:
    records = [record(RecordKind.COMPENSATED, "a-1", 21)]
    assert [life.has_failed for life in model_lives([FIRST], records, V1, LATER)] == [False, False]
    records.append(record(RecordKind.INVESTIGATED, "a-1", 22, **Investigation(("Too slow.",)).to_payload()))
    assert [life.has_failed for life in model_lives([FIRST], records, V1, LATER)] == [False, True]
    records.append(record(RecordKind.PROMOTED, "a-1", 23))
    assert [life.has_failed for life in model_lives([FIRST], records, V2, LATER)] == [False, False]
