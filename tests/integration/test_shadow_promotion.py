"""A test in the paired design: the candidate is a shadow until it is promoted, and none any more after every way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from deployments.sandbox.kubernetes.kinds import VIRTUAL_SERVICES
from flows.domain.ab_test import Arm
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from flows.domain.policy import Traffic
from flows.domain.serving_state import describe_serving
from flows.domain.start_plan import plan_start
from flows.ports import ArmTelemetry
from flows.production_steps import change_serving
from flows.promote_candidate import promote_candidate
from flows.registry_steps import follow_what_serves
from flows.rollback_to_baseline import keep_baseline, rollback_to_baseline
from flows.watch import poll
from tests.integration.production_world import WHERE, RouterTelemetry, World, lines, run

if TYPE_CHECKING:
    from datetime import datetime

    from flows.domain.ab_test import ABTest

pytest_plugins = ("tests.integration.production_world",)


@dataclass
class ExecutorTelemetry(RouterTelemetry):
    """Counts as the executors' metrics do: a request that is copied to a shadow is one of the shadow's."""

    def measure(self, test: ABTest, since: datetime) -> dict[Arm, ArmTelemetry]:
        routed = super().measure(test, since)
        assert self.kubernetes.sandbox is not None
        service = self.kubernetes.sandbox.store.find(VIRTUAL_SERVICES, "models", "fraud-predictor-http")
        copies = 1000 if service and "mirror" in service["spec"]["http"][0] else 0
        requests = {arm: one.requests + copies * (arm is Arm.CANDIDATE) for arm, one in routed.items()}
        total = sum(requests.values())
        return {
            arm: replace(one, requests=requests[arm], share=requests[arm] / total, p95_ms=self.p95_ms)
            for arm, one in routed.items()
        }


@pytest.fixture
def shadowed(world: World) -> World:
    """The world's test, begun anew with its candidate as a shadow."""
    api = world.kept["api"]
    body: Any = api.get_namespaced_custom_object(*WHERE, "fraud-predictor")
    baseline, candidate = body["spec"]["predictors"]
    body["spec"]["predictors"] = [{**baseline, "traffic": 100}, {**candidate, "traffic": 100, "shadow": True}]
    body["metadata"].pop("annotations")
    api.replace_namespaced_custom_object(*WHERE, "fraud-predictor", body)
    policy = world.systems.policy.model_copy(update={"traffic": Traffic(baseline=100, candidate=0)})
    change_serving(lambda state: plan_start(state, world.test, policy))  # the operator writes its status meanwhile
    world.telemetry = ExecutorTelemetry(world.kubernetes, world.test)
    world.systems.__dict__["telemetry"] = world.telemetry
    assert poll(lambda: world.systems.serving.readiness().is_done, 10)
    return world


def copies_have_ended(world: World) -> bool:
    measured = world.telemetry.measure(world.test, world.telemetry.now())
    return world.state.traffic.keys() == {"fraud-v1", "fraud-v2"} and sum(one.requests for one in measured.values()) == 1000


def test_a_started_shadow_test_serves_the_baseline_alone_and_copies_to_the_candidate(shadowed: World) -> None:
    assert describe_serving(shadowed.state) == "fraud-v1 100 %, fraud-v2 shadow"
    assert shadowed.state.test == shadowed.test
    assert not copies_have_ended(shadowed)
    changes = follow_what_serves(shadowed.test)
    assert [change.after.partition(": ")[2] for change in changes] == ["Production (champion)", "Staging (challenger)"]


def test_a_shadow_candidate_is_promoted_step_by_step(shadowed: World) -> None:
    decision_id = shadowed.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    assert shadowed.state.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert {shadowed.kubernetes.route(f"card-{number}") for number in range(200)} == {"fraud-v2"}
    assert copies_have_ended(shadowed)
    assert shadowed.registry() == ["Archived (previous)", "Production (champion)"]
    told = " ".join(lines(shadowed, decision_id))
    assert "fraud-v1 100 %, fraud-v2 shadow → fraud-v1 50 %, fraud-v2 50 %" in told
    payload = list(shadowed.systems.decision_log.records(decision_id))[-1].payload
    assert payload["traffic"] == {"before": "fraud-v1 100 %, fraud-v2 shadow", "after": "fraud-v1 0 %, fraud-v2 100 %"}


def test_a_shadow_candidate_that_misbehaves_under_traffic_is_put_back(shadowed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.watch.SUSTAINED_SECONDS", 0.1)
    decision_id = shadowed.decide().decision_id
    shadowed.telemetry.p95_ms = 140.0
    assert run(promote_candidate, decision_id) == "compensated"
    assert shadowed.state.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert shadowed.registry() == ["Production (champion)", "Staging (challenger)"]
    assert shadowed.kinds() == [RecordKind.COMPENSATED]


def test_an_emergency_after_the_promotion_of_a_shadow_puts_the_baseline_back(shadowed: World) -> None:
    assert run(promote_candidate, shadowed.decide().decision_id) == "promoted"
    shadowed.emergency("revert-1")
    after = rollback_to_baseline("revert-1", "U0CHI", "wrong alerts")
    assert shadowed.state.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert {shadowed.kubernetes.route(f"card-{number}") for number in range(200)} == {"fraud-v1"}
    assert [entry.partition(": ")[2] for entry in after] == ["Production (champion)", "Archived"]


def test_keeping_the_baseline_ends_the_copies(shadowed: World) -> None:
    decision_id = shadowed.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert copies_have_ended(shadowed)
    assert shadowed.registry() == ["Production (champion)", "Archived"]
    assert "fraud-v1 100 %, fraud-v2 shadow → fraud-v1 100 %, fraud-v2 0 %" in " ".join(lines(shadowed, decision_id))


def test_after_an_emergency_on_a_shadow_the_decision_for_the_baseline_can_be_finished(shadowed: World) -> None:
    decision_id = shadowed.decide(Choice.FORCE_ROLLBACK).decision_id
    shadowed.emergency()
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert copies_have_ended(shadowed)


def test_an_emergency_during_the_promotion_of_a_shadow_stops_it(shadowed: World) -> None:
    decision_id = shadowed.decide().decision_id
    shadowed.telemetry.on_measure = lambda: shadowed.emergency() if shadowed.state.traffic.get("fraud-v2") == 50 else None
    assert run(promote_candidate, decision_id) == "superseded"
    assert shadowed.state.serves_alone("fraud-v1")
