"""The diff that a person confirms says exactly what will be done."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import Change, RegistryEntry, Stage, describe_traffic, plan_model_in_charge
from flows.domain.serving_state import Predictor, ServingState, describe_serving

V1, V2 = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
TEST = ABTest("t", V1, V2, datetime(2026, 11, 1, tzinfo=UTC), "run")
ENTRIES = (
    RegistryEntry("fraud_v1", "1", Stage.PRODUCTION, ("champion",)),
    RegistryEntry("fraud_v2", "2", Stage.STAGING, ()),
)
SPLIT = ServingState("fraud-predictor", "models", "7", 1, (Predictor("fraud-v1", 80), Predictor("fraud-v2", 20)), {})


def test_arms_know_each_other_and_their_models() -> None:
    assert [arm.other for arm in Arm] == [Arm.CANDIDATE, Arm.BASELINE]
    assert [TEST.model(arm) for arm in Arm] == list(TEST.models) == [V1, V2]
    assert str(V2) == "fraud_v2 version 2"


def test_a_promotion_shows_traffic_registry_and_archive_before_and_after() -> None:
    plan = plan_model_in_charge(TEST, Arm.CANDIDATE, SPLIT, ENTRIES, (50, 100))
    assert plan.traffic_steps == (50, 100)
    assert plan.changes == (
        Change("traffic", "fraud-v1 80 %, fraud-v2 20 %", "fraud-v1 0 %, fraud-v2 100 %"),
        Change("registry", "fraud_v1 v1: Production (champion)", "fraud_v1 v1: Archived (previous)"),
        Change("registry", "fraud_v2 v2: Staging", "fraud_v2 v2: Production (champion)"),
        Change("archive", "", "fraud_v1 version 1 is kept in the archive with its checksums"),
    )


def test_keeping_the_baseline_takes_all_traffic_at_once_and_archives_without_an_alias() -> None:
    plan = plan_model_in_charge(TEST, Arm.BASELINE, SPLIT, ENTRIES, (50, 100))
    assert plan.traffic_steps == (100,)
    assert [change.after for change in plan.changes[:3]] == [
        "fraud-v1 100 %, fraud-v2 0 %",
        "fraud_v1 v1: Production (champion)",
        "fraud_v2 v2: Archived",
    ]


def test_a_shadow_is_shown_as_one_and_becomes_a_live_predictor_either_way() -> None:
    predictors = (Predictor("fraud-v1", 100), Predictor("fraud-v2", 100, shadow=True))
    shadowed = ServingState("fraud-predictor", "models", "7", 1, predictors, {})
    assert describe_serving(shadowed) == "fraud-v1 100 %, fraud-v2 shadow"
    plans = [plan_model_in_charge(TEST, arm, shadowed, ENTRIES, (50, 100)) for arm in (Arm.CANDIDATE, Arm.BASELINE)]
    assert [plan.changes[0] for plan in plans] == [
        Change("traffic", "fraud-v1 100 %, fraud-v2 shadow", "fraud-v1 0 %, fraud-v2 100 %"),
        Change("traffic", "fraud-v1 100 %, fraud-v2 shadow", "fraud-v1 100 %, fraud-v2 0 %"),
    ]


def test_two_versions_of_one_registered_model_are_told_apart() -> None:
    test = ABTest("t", Model("fraud", "1", "fraud-v1"), Model("fraud", "2", "fraud-v2"), TEST.started_at, "run")
    entries = (RegistryEntry("fraud", "1", Stage.PRODUCTION, ()), RegistryEntry("fraud", "2", Stage.STAGING, ()))
    plan = plan_model_in_charge(test, Arm.CANDIDATE, SPLIT, entries, (100,))
    assert [change.after for change in plan.changes[1:3]] == ["fraud v1: Archived (previous)", "fraud v2: Production (champion)"]


def test_traffic_in_words() -> None:
    assert describe_traffic({"a": 1, "b": 99}) == "a 1 %, b 99 %"
