"""What is told to Prometheus of one state of the deployment and of the decision log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from deployments.metrics import FirstSeen, find_open, serving_metrics, verdict_metrics
from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import ActionPlan, Arm
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Claim, Decision, DecisionRequest, Links, Person
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.serving_state import EPOCH, REVERT_TO, TEST, Predictor, ServingState
from flows.domain.verdict import decide_verdict
from slackbot.metrics import LogState, log_metrics

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
AN_HOUR_AGO, THREE_HOURS_AGO = NOW - timedelta(hours=1), NOW - timedelta(hours=3)
MODELS = Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "7", "fraud-v2")
AUTUMN = ABTest("autumn", *MODELS, datetime(2026, 10, 1, tzinfo=UTC), "run")
HERE = {"deployment_name": "fraud-predictor"}
EVIDENCE = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 1000, 820), ModelCounts(1000, 860, 0, 0)))


def state(baseline: int = 80, **annotations: str) -> ServingState:
    point = json.dumps({"predictor": "fraud-v1", "spec": {}})
    test = json.dumps(asdict(AUTUMN), default=str)
    given = {EPOCH: "4", REVERT_TO: point, TEST: test, **{f"fraud-ab/{name}": text for name, text in annotations.items()}}
    predictors = (Predictor("fraud-v1", baseline), Predictor("fraud-v2", 100 - baseline))
    return ServingState("fraud-predictor", "models", "1", 1, predictors, given)


def unrecorded(*moments: datetime) -> str:
    return json.dumps([{"id": str(moment), "actor": "U1", "reason": "", "at": moment.isoformat()} for moment in moments])


def answered(round_: int, claimed_at: datetime | None, due_at: datetime | None = None) -> Decision:
    request = DecisionRequest(
        test=AUTUMN,
        round=round_,
        flow_run_id="run",
        verdict=decide_verdict(EVIDENCE, Policy()),
        plan=ActionPlan(Arm.CANDIDATE, (100,), ()),
        rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
        epoch=1,
        links=Links(),
        decide_within_hours=1,
        next_look_at=None,
    )
    claim = Claim(Choice.CONFIRM, Person("U1", "Ana"), "", claimed_at, due_at) if claimed_at else None
    return Decision(request, THREE_HOURS_AGO, NOW, claim)


def samples(families: Iterable[Metric], name: str) -> list[tuple[dict[str, str], float]]:
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == name]


def told(found: ServingState, name: str, log: LogState | None = None) -> Any:
    return samples(serving_metrics(found, find_open(found, log, FirstSeen(), NOW), NOW), name)


def in_charge(found: ServingState) -> list[str]:
    return [labels["predictor_name"] for labels, _ in told(found, "fraud_ab_model_in_charge")]


def test_the_model_in_charge_is_told_with_the_labels_that_seldons_metrics_have() -> None:
    model = {"predictor_name": "fraud-v1", "model_name": "fraud_v1", "model_version": "3", "arm": "baseline"}
    assert told(state(), "fraud_ab_model_in_charge") == [({**HERE, **model}, 1)]
    assert in_charge(state(100)) == ["fraud-v1"]
    assert in_charge(state(0)) == ["fraud-v2"]


def test_no_model_is_in_charge_while_it_is_changed_or_nobody_says_which_models_there_are() -> None:
    assert in_charge(state(operation="autumn-1")) == []
    assert in_charge(state(100, intent="revert:fraud-v1")) == []
    without = state()
    assert in_charge(replace(without, annotations={EPOCH: "1"})) == []


def test_the_spec_and_the_epoch_are_told() -> None:
    shares = {labels["predictor_name"]: value for labels, value in told(state(), "fraud_ab_wanted_traffic_share")}
    assert shares == {"fraud-v1": 0.8, "fraud-v2": 0.2}
    assert told(state(), "fraud_ab_epoch") == [(HERE, 4)]


def test_nothing_open_is_an_age_of_zero() -> None:
    for name in ("operation", "intent", "unrecorded"):
        assert told(state(), f"fraud_ab_{name}_age_seconds") == [(HERE, 0)]


def test_an_operation_is_as_old_as_its_decisions_claim_also_after_a_restart() -> None:
    log = LogState(NOW, decisions=[answered(2, AN_HOUR_AGO), answered(1, THREE_HOURS_AGO)])
    assert told(state(operation="autumn-2"), "fraud_ab_operation_age_seconds", log) == [(HERE, 3600)]


@pytest.mark.parametrize("log", [None, LogState(NOW, decisions=[answered(2, None)])], ids=["log-is-down", "unclaimed"])
def test_an_operation_whose_claim_is_unknown_ages_from_when_it_was_first_seen(log: LogState | None) -> None:
    seen, found = FirstSeen(), state(operation="autumn-2")
    assert find_open(found, log, seen, THREE_HOURS_AGO).operation == THREE_HOURS_AGO
    assert find_open(found, log, seen, NOW).operation == THREE_HOURS_AGO
    assert find_open(state(operation="autumn-3"), log, seen, NOW).operation == NOW


def test_a_revert_ages_by_the_times_that_it_left_on_the_deployment() -> None:
    found = state(intent="revert:fraud-v1", unrecorded=unrecorded(AN_HOUR_AGO, THREE_HOURS_AGO))
    assert told(found, "fraud_ab_intent_age_seconds") == [(HERE, 3600)]
    assert told(found, "fraud_ab_unrecorded_age_seconds") == [(HERE, 3 * 3600)]
    seen, without = FirstSeen(), state(intent="revert:fraud-v1")
    assert find_open(without, None, seen, AN_HOUR_AGO).intent == AN_HOUR_AGO
    assert find_open(without, None, seen, NOW).intent == AN_HOUR_AGO
    later = replace(without, annotations={**without.annotations, EPOCH: "9"})
    assert find_open(later, None, seen, NOW).intent == NOW


def test_an_undelivered_answer_ages_from_when_it_became_due() -> None:
    name = "fraud_ab_undelivered_decision_age_seconds"
    assert samples(log_metrics(LogState(NOW)), name) == [({}, 0)]
    postponed = answered(1, NOW - timedelta(days=3), due_at=AN_HOUR_AGO)
    assert samples(log_metrics(LogState(NOW, [postponed])), name) == [({}, 3600)]
    assert samples(log_metrics(LogState(NOW, [postponed, answered(2, THREE_HOURS_AGO)])), name) == [({}, 3 * 3600)]


def test_a_clock_that_is_behind_gives_no_negative_age() -> None:
    found = state(unrecorded=unrecorded(NOW + timedelta(seconds=9)))
    assert told(found, "fraud_ab_unrecorded_age_seconds") == [(HERE, 0)]


def test_the_latest_verdicts_numbers_are_told_of_each_model_and_unknown_ones_are_not() -> None:
    log = LogState(NOW, decisions=[answered(2, None), answered(1, AN_HOUR_AGO)])

    def shown(name: str) -> dict[tuple[str, str, str], float]:
        found = samples(verdict_metrics(state(), log), name)
        return {(labels["model_name"], labels["model_version"], labels["arm"]): value for labels, value in found}

    assert shown("recall_at_production") == {("fraud_v1", "3", "baseline"): 0.8, ("fraud_v2", "7", "candidate"): 0.86}
    assert shown("fraud_detection_rate") == {("fraud_v1", "3", "baseline"): 0.8, ("fraud_v2", "7", "candidate"): 0.86}
    assert shown("precision_at_production") == {("fraud_v1", "3", "baseline"): 0.82}, "the candidate raised no alert"
    at = samples(verdict_metrics(state(), log), "fraud_ab_verdict_time_seconds")
    assert at == [(HERE, THREE_HOURS_AGO.timestamp())]
    assert samples(verdict_metrics(state(), LogState(NOW)), "recall_at_production") == []
