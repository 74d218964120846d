"""What the start of a test changes, and every reason not to start it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import RegistryEntry, Stage
from flows.domain.errors import StartRefused, Superseded
from flows.domain.policy import Policy, Traffic
from flows.domain.serving_state import OPERATION, UNRECORDED, Predictor, ServingChange, ServingState
from flows.domain.start_plan import begun, first_look_at, plan_start, refuse, unfit_initiator, unfit_registry, unfit_times

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
TEST = ABTest("v1-v2", Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2"), NOW, "run-1")
SPLIT, SHADOW = Policy(), Policy(traffic=Traffic(baseline=100, candidate=0))
ENTRIES = (
    RegistryEntry("fraud_v1", "3", Stage.PRODUCTION, ("champion",)),
    RegistryEntry("fraud_v2", "1", Stage.NONE, ()),
)


def state(v1: int = 100, v2: int = 0, *, shadow: bool = False, **annotations: str) -> ServingState:
    predictors = (Predictor("fraud-v1", v1), Predictor("fraud-v2", v2, shadow=shadow), Predictor("fraud-v0", 0))
    return ServingState("fraud-predictor", "models", "7", 1, predictors, annotations)


def started(before: ServingState, change: ServingChange) -> ServingState:
    kept = {key: value for key, value in change.annotations.items() if value is not None}
    traffic = change.traffic or {}
    predictors = tuple(replace(one, traffic=traffic.get(one.name, one.traffic)) for one in before.predictors)
    return replace(before, annotations=kept, predictors=predictors)


def refused(of: ServingState, policy: Policy = SPLIT, test: ABTest = TEST) -> str:
    with pytest.raises(StartRefused) as caught:
        plan_start(of, test, policy)
    return str(caught.value)


def test_each_arm_gets_its_share_and_any_other_predictor_none() -> None:
    assert plan_start(state(), TEST, SPLIT).traffic == {"fraud-v1": 80, "fraud-v2": 20, "fraud-v0": 0}


def test_a_shadow_stays_one_and_the_baseline_keeps_everything() -> None:
    change = plan_start(state(100, 100, shadow=True), TEST, SHADOW)
    assert change.traffic == {"fraud-v1": 100, "fraud-v0": 0}


def test_a_split_that_is_there_already_may_be_taken_over() -> None:
    assert plan_start(state(80, 20), TEST, SPLIT).traffic == {"fraud-v1": 80, "fraud-v2": 20, "fraud-v0": 0}


@pytest.mark.parametrize(
    ("found", "policy", "words"),
    [
        (state(0, 100), SPLIT, "fraud-v1 0 %, fraud-v2 100 %, fraud-v0 0 %: put all traffic on the baseline fraud-v1 first"),
        (state(50, 50), SPLIT, "put all traffic on the baseline"),
        (state(100, 100, shadow=True), SPLIT, "fraud-v2 is a shadow and serves nobody, but the policy would judge"),
        (state(), SHADOW, "the policy gives the candidate no traffic, but fraud-v2 is no shadow"),
    ],
)
def test_a_deployment_that_does_not_fit_is_refused(found: ServingState, policy: Policy, words: str) -> None:
    assert words in refused(found, policy)


def test_everything_that_is_wrong_is_listed_together() -> None:
    entry = json.dumps([{"id": "r", "actor": "U0CHI", "reason": "", "at": "2026-11-24T07:00:00+00:00"}])
    words = refused(state(50, 50, **{UNRECORDED: entry}), SHADOW)
    assert "put all traffic on the baseline" in words
    assert "the emergency revert of 2026-11-24T07:00:00+00:00 by U0CHI is still being recorded" in words
    assert "but fraud-v2 is no shadow" in words


def test_nothing_starts_while_the_deployment_is_being_changed() -> None:
    with pytest.raises(Superseded, match="being changed by d-1"):
        plan_start(state(**{OPERATION: "d-1"}), TEST, SPLIT)
    with pytest.raises(Superseded, match="has no predictor fraud-v9: deploy the candidate"):
        plan_start(state(), replace(TEST, candidate=Model("fraud_v9", "1", "fraud-v9")), SPLIT)


def test_a_candidate_that_is_in_charge_by_the_registry_may_be_the_baseline() -> None:
    assert list(unfit_registry(TEST, ENTRIES)) == []
    exchanged = (ENTRIES[0], replace(ENTRIES[1], stage=Stage.PRODUCTION))
    assert "may have been exchanged" in " ".join(unfit_registry(TEST, exchanged))


@pytest.mark.parametrize(
    ("begins", "found", "words"),
    [
        (NOW, state(), ""),
        (NOW + timedelta(minutes=4), state(), ""),
        (NOW + timedelta(minutes=6), state(), "2026-11-24 08:06 UTC is to come: leave it out"),
        (NOW - timedelta(minutes=59), state(), ""),
        (NOW - timedelta(minutes=61), state(), "is past, but fraud-v2 gets no traffic yet"),
        (NOW - timedelta(days=3), state(80, 20), ""),
        (NOW - timedelta(days=3), state(100, 100, shadow=True), ""),
    ],
)
def test_exposure_begins_when_the_candidate_gets_its_requests(begins: datetime, found: ServingState, words: str) -> None:
    said = list(unfit_times(found, replace(TEST, started_at=begins), NOW))
    assert bool(said) == bool(words)
    assert words in " ".join(said)


def test_the_first_look_waits_for_its_labels_and_the_last_rows() -> None:
    assert first_look_at(TEST, SPLIT) == NOW + timedelta(days=14 + 30, hours=1)
    slow = Policy(looks=(21, 28), label_maturity_days=60, feedback_delay_hours=24)
    assert first_look_at(TEST, slow) == NOW + timedelta(days=21 + 60 + 1, hours=1)


def test_a_test_that_is_there_is_found_with_its_own_start_and_run() -> None:
    there = started(state(), plan_start(state(), TEST, SPLIT))
    again = replace(TEST, started_at=NOW + timedelta(hours=2), experiment_run_id="")
    assert begun(there, again) == TEST
    assert begun(state(), TEST) is None
    assert begun(there, replace(TEST, test_id="another")) is None
    shadowed = state(100, 100, shadow=True)
    assert begun(started(shadowed, plan_start(shadowed, TEST, SHADOW)), TEST) == TEST


def test_another_test_of_this_name_and_one_that_has_ended_are_refused() -> None:
    there = started(state(), plan_start(state(), TEST, SPLIT))
    with pytest.raises(StartRefused, match="with fraud_v1 version 3 on fraud-v1 and fraud_v2 version 1 on fraud-v2"):
        begun(there, replace(TEST, baseline=Model("fraud_v1", "4", "fraud-v1")))
    reverted = replace(there, predictors=state().predictors)
    with pytest.raises(StartRefused, match="was started and has ended: fraud-predictor serves fraud-v1 100 %"):
        begun(reverted, TEST)


def test_nothing_to_object_is_no_refusal() -> None:
    refuse([])
    with pytest.raises(StartRefused, match="one; two"):
        refuse(["one", "two"])


def test_a_policy_that_bars_the_initiator_must_know_who_that_is() -> None:
    strict = Policy(initiator_may_promote=False)
    [problem] = unfit_initiator(TEST, strict)
    assert 'say who that is with initiator = "U…", your Slack user id' in problem
    assert list(unfit_initiator(replace(TEST, initiator="U0ANA"), strict)) == []
    assert list(unfit_initiator(TEST, Policy())) == []


def test_the_deployment_carries_who_started_its_test() -> None:
    test = replace(TEST, initiator="U0ANA")
    assert started(state(), plan_start(state(), test, SPLIT)).test == test
    assert begun(started(state(), plan_start(state(), test, SPLIT)), TEST) == test
