"""Each change of the deployment as one patch, and every state in which it must not be made."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.domain.ab_test import ABTest, Model
from flows.domain.errors import Superseded
from flows.domain.serving_state import (
    CANDIDATE,
    EPOCH,
    GITOPS,
    INTENT,
    OPERATION,
    OUTCOME,
    REPEATED_WITHIN,
    REVERT_TO,
    UNRECORDED,
    Predictor,
    ServingChange,
    ServingState,
    accepted_decision,
    acknowledge_recorded,
    clear_the_way,
    close_operation,
    compensate_operation,
    emergency_revert,
    finish_revert,
    finished_outcome,
    model_uri,
    open_operation,
    outcome_epoch,
    require_operation,
    retire_baseline,
    shift_traffic,
    start_test,
)

AT = datetime(2026, 11, 3, 4, 5, tzinfo=UTC)
SPEC = {"name": "fraud-v1", "graph": {"name": "fraud-v1"}, "traffic": 80}
STARTED = ABTest("v1-v2", Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2"), AT, "run-1")
POINT = json.dumps({"predictor": "fraud-v1", "spec": SPEC})


def state(v1: int | None = 80, v2: int = 20, **annotations: str) -> ServingState:
    baseline = () if v1 is None else (Predictor("fraud-v1", v1, spec=SPEC),)
    keys = {
        "epoch": EPOCH,
        "operation": OPERATION,
        "outcome": OUTCOME,
        "revert_to": REVERT_TO,
        "intent": INTENT,
        "unrecorded": UNRECORDED,
    }
    return ServingState(
        name="fraud-predictor",
        namespace="models",
        resource_version="7",
        generation=1,
        predictors=(*baseline, Predictor("fraud-v2", v2), Predictor("fraud-v3", 30, shadow=True)),
        annotations={keys[key]: value for key, value in annotations.items()},
    )


def after(before: ServingState, change: ServingChange) -> ServingState:
    """What the cluster makes of a change."""
    annotations = {**before.annotations, **change.annotations}
    traffic = change.traffic or {}
    predictors = [
        replace(one, traffic=traffic.get(one.name, one.traffic), shadow=one.shadow and one.name not in traffic)
        for one in before.predictors
    ]
    predictors = [one for one in predictors if one.name not in change.remove]
    predictors += [Predictor(str(spec["name"]), int(str(spec["traffic"])), spec=spec) for spec in change.restore]
    kept = {key: value for key, value in annotations.items() if value is not None}
    return replace(before, predictors=tuple(predictors), annotations=kept)


def revert(of: ServingState, revert_id: str = "r1", at: datetime = AT) -> ServingChange:
    return emergency_revert(of, revert_id=revert_id, actor="U0CHI", reason="wrong alerts", at=at)


@pytest.mark.parametrize("routed", [{"fraud-v1": 80, "fraud-v2": 20}, {"fraud-v2": 100}])
def test_a_broken_candidate_that_holds_a_revert_up_is_removed(routed: dict[str, int]) -> None:
    reverted = state(100, 0, revert_to=POINT)
    change = clear_the_way(reverted, routed, {"fraud-v2", "fraud-v3"})
    assert change is not None
    assert change.remove == ("fraud-v2", "fraud-v3")
    assert [one.name for one in after(reverted, change).predictors] == ["fraud-v1"]
    assert after(reverted, change).epoch == reverted.epoch, "whoever carries the revert out goes on"


@pytest.mark.parametrize(
    ("serving", "routed", "not_ready"),
    [
        (state(100, 0, revert_to=POINT), {"fraud-v1": 100}, {"fraud-v2"}),  # a candidate that is being deployed for the next test
        (state(100, 0, revert_to=POINT), {"fraud-v1": 100, "fraud-v2": 0}, {"fraud-v2"}),
        (state(100, 0, revert_to=POINT), None, {"fraud-v2"}),
        (state(100, 0, revert_to=POINT), {"fraud-v2": 100}, set()),  # it has not followed yet, and nothing holds it up
        (state(100, 0, revert_to=POINT), {"fraud-v2": 100}, {"fraud-v1", "fraud-v2"}),
        (state(100, 0, revert_to=POINT, intent="revert:fraud-v1"), {"fraud-v2": 100}, {"fraud-v2"}),
        (state(80, 20, revert_to=POINT), {"fraud-v1": 80, "fraud-v2": 20}, {"fraud-v2"}),
        (state(0, 100, revert_to=POINT), {"fraud-v1": 80, "fraud-v2": 20}, {"fraud-v1"}),
        (state(100, 0), {"fraud-v2": 100}, {"fraud-v2"}),
    ],
)
def test_nothing_is_removed_unless_it_keeps_traffic_off_the_rollback_point(
    serving: ServingState, routed: dict[str, int] | None, not_ready: set[str]
) -> None:
    assert clear_the_way(serving, routed, not_ready) is None


def test_a_deployment_without_annotations_is_at_epoch_zero_and_says_nothing() -> None:
    bare = state()
    assert (bare.epoch, bare.operation, bare.outcome, bare.intent, bare.unrecorded, bare.revert_to) == (
        0,
        None,
        None,
        None,
        (),
        None,
    )


def test_a_shadow_is_no_live_traffic() -> None:
    assert state().traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert state(100, 0).serves_alone("fraud-v1")
    assert not state(80, 20).serves_alone("fraud-v1")
    assert not state(100, 10).serves_alone("fraud-v1")


def shadowed(**annotations: str) -> ServingState:
    """The paired design: the baseline answers, the candidate gets a copy of everything."""
    split = state(100, 0, revert_to=POINT, **annotations)
    return replace(split, predictors=(Predictor("fraud-v1", 100, spec=SPEC), Predictor("fraud-v2", 100, shadow=True)))


def test_a_test_on_a_shadow_starts_with_the_shadow_as_it_is() -> None:
    started = after(shadowed(), start_test(shadowed(), STARTED, {"fraud-v1": 100}))
    assert started.predictors == shadowed().predictors
    assert started.is_shadow("fraud-v2")
    assert not started.is_shadow("fraud-v1")
    assert not started.is_shadow("fraud-v4")


def test_the_first_shift_makes_a_shadow_a_live_predictor() -> None:
    opened = shadowed(epoch="5", operation="d-1")
    shifted = after(opened, shift_traffic(opened, "d-1", 5, {"fraud-v2": 25, "fraud-v1": 75}))
    assert shifted.traffic == {"fraud-v1": 75, "fraud-v2": 25}
    assert after(shifted, shift_traffic(shifted, "d-1", 5, {"fraud-v2": 100})).serves_alone("fraud-v2")


@pytest.mark.parametrize("how", ["emergency", "compensation", "keeping"])
def test_after_every_way_back_nothing_is_copied_to_the_candidate(how: str) -> None:
    opened = shadowed(epoch="5", operation="d-1")
    ways = {
        "emergency": revert(opened),
        "compensation": compensate_operation(opened, "d-1", 5, "errors"),
        "keeping": shift_traffic(opened, "d-1", 5, {"fraud-v1": 100, "fraud-v2": 0}),
    }
    back = after(opened, ways[how])
    assert back.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert not back.is_shadow("fraud-v2")


def test_an_emergency_brings_back_a_baseline_that_somebody_made_the_shadow() -> None:
    swapped = (Predictor("fraud-v1", 100, shadow=True, spec=SPEC), Predictor("fraud-v2", 100))
    turned = replace(state(revert_to=POINT), predictors=swapped)
    assert after(turned, revert(turned)).traffic == {"fraud-v1": 100, "fraud-v2": 0}


def test_starting_a_test_writes_rollback_point_and_split_in_one_patch() -> None:
    started = after(
        state(100, 0, epoch="4", outcome="old:accepted@4"),
        start_test(state(100, 0, epoch="4"), STARTED, {"fraud-v1": 80, "fraud-v2": 20}),
    )
    assert started.traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert started.revert_to == {"predictor": "fraud-v1", "spec": SPEC}
    assert (started.epoch, started.outcome) == (5, None)
    assert started.test == STARTED
    assert state(100, 0).test is None


@pytest.mark.parametrize("busy", [{"operation": "d-1"}, {"intent": "revert:fraud-v1"}])
def test_no_test_starts_while_something_is_open(busy: dict[str, str]) -> None:
    with pytest.raises(Superseded, match="when that has ended"):
        start_test(state(**busy), STARTED, {})


def test_no_test_starts_without_the_baselines_predictor() -> None:
    with pytest.raises(Superseded, match="deploy the baseline"):
        start_test(state(None), STARTED, {})


def test_opening_raises_the_epoch_and_so_does_taking_over() -> None:
    opened = after(state(epoch="4"), open_operation(state(epoch="4"), "d-1", 4))
    assert (opened.operation, opened.epoch) == ("d-1", 5)
    taken = after(opened, open_operation(opened, "d-1", 4))
    assert (taken.operation, taken.epoch) == ("d-1", 6)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (state(epoch="5"), "somebody changed it since"),
        (state(epoch="4", operation="d-2"), "changed by d-2"),
        (state(epoch="4", intent="revert:fraud-v1"), "changed by revert:fraud-v1"),
    ],
)
def test_an_older_decision_is_superseded(found: ServingState, words: str) -> None:
    with pytest.raises(Superseded, match=words):
        open_operation(found, "d-1", 4)


def test_traffic_moves_only_under_the_fence() -> None:
    opened = state(epoch="5", operation="d-1")
    assert after(opened, shift_traffic(opened, "d-1", 5, {"fraud-v2": 100})).traffic == {
        "fraud-v1": 0,
        "fraud-v2": 100,
        "fraud-v3": 0,
    }
    with pytest.raises(Superseded, match="epoch 5, changed by d-1"):
        shift_traffic(opened, "d-1", 4, {"fraud-v2": 100})
    with pytest.raises(Superseded, match="no operation open"):
        require_operation(state(epoch="5"), "d-1", 5)


def test_closing_leaves_the_outcome_and_clears_the_operation() -> None:
    opened = state(0, 100, epoch="5", operation="d-1")
    closed = after(opened, close_operation(opened, "d-1", 5))
    assert (closed.epoch, closed.operation, closed.outcome) == (6, None, "d-1:accepted@6")
    assert finished_outcome(closed, "d-1") == "accepted"
    assert finished_outcome(closed, "d") is None
    assert finished_outcome(opened, "d-1") is None


def test_compensation_is_one_patch_back_to_the_rollback_point() -> None:
    opened = state(0, 100, epoch="5", operation="d-1", revert_to=POINT)
    back = after(opened, compensate_operation(opened, "d-1", 5, "errors"))
    assert back.traffic == {"fraud-v1": 100, "fraud-v2": 0, "fraud-v3": 0}
    assert (back.epoch, back.operation, back.intent, finished_outcome(back, "d-1")) == (6, None, None, "compensated")
    assert (back.annotations[REVERT_TO], back.undone_because) == (POINT, "errors")
    again = after(back, open_operation(back, "d-1", 6))
    assert (again.outcome, again.undone_because) == (None, "")


def test_compensation_without_the_baselines_predictor_restores_it_first() -> None:
    opened = state(None, 100, epoch="5", operation="d-1", revert_to=POINT)
    back = after(opened, compensate_operation(opened, "d-1", 5, "errors"))
    assert back.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert back.intent == "revert:fraud-v1"


def test_an_emergency_supersedes_an_open_operation_and_keeps_the_rollback_point() -> None:
    opened = state(40, 60, epoch="5", operation="d-1", revert_to=POINT)
    back = after(opened, revert(opened))
    assert back.serves_alone("fraud-v1")
    assert (back.epoch, back.operation, back.annotations[REVERT_TO]) == (6, None, POINT)
    entry = {"id": "r1", "actor": "U0CHI", "reason": "wrong alerts", "at": AT.isoformat(), "epoch": "6"}
    entry["before"] = "fraud-v1 40 %, fraud-v2 60 %, fraud-v3 shadow"
    assert back.unrecorded == (entry,)
    with pytest.raises(Superseded):
        close_operation(back, "d-1", 5)


def test_an_emergency_writes_also_when_the_traffic_is_right_already() -> None:
    right = state(100, 0, epoch="5", revert_to=POINT)
    again = after(after(right, revert(right)), revert(after(right, revert(right)), "r2"))
    assert again.epoch == 7
    assert [entry["id"] for entry in again.unrecorded] == ["r1", "r2"]


def test_a_removed_baseline_is_restored_at_weight_zero_and_takes_over_when_ready() -> None:
    gone = state(None, 100, epoch="5", revert_to=POINT)
    restored = after(gone, revert(gone))
    assert restored.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert restored.intent == "revert:fraud-v1"
    change = finish_revert(restored)
    assert change is not None
    done = after(restored, change)
    assert done.serves_alone("fraud-v1")
    assert (done.intent, done.epoch) == (None, 7)
    assert finish_revert(done) is None


def test_a_second_emergency_sends_no_traffic_to_a_baseline_that_is_still_starting() -> None:
    gone = state(None, 100, epoch="5", revert_to=POINT)
    restored = after(gone, revert(gone))
    twice = after(restored, revert(restored, "r2"))
    assert twice.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert twice.intent == "revert:fraud-v1"
    assert len(twice.unrecorded) == 2


def test_without_a_rollback_point_the_message_says_what_to_do_by_hand() -> None:
    with pytest.raises(Superseded, match="kubectl edit"):
        revert(state())


def test_a_rollback_point_without_a_spec_cannot_restore() -> None:
    with pytest.raises(Superseded, match="without its spec"):
        revert(state(None, revert_to='{"predictor": "fraud-v1", "spec": null}'))


def test_recorded_reverts_are_taken_off_and_others_stay() -> None:
    start = state(revert_to=POINT)
    first = after(start, revert(start))
    both = after(first, revert(first, "r2"))
    one = acknowledge_recorded(both, frozenset({"r1", "elsewhere"}))
    assert one is not None
    assert [entry["id"] for entry in after(both, one).unrecorded] == ["r2"]
    none = acknowledge_recorded(after(both, one), frozenset({"r2"}))
    assert none is not None
    assert UNRECORDED not in after(after(both, one), none).annotations
    assert acknowledge_recorded(both, frozenset({"elsewhere"})) is None


def test_a_revert_is_known_by_its_id_also_when_it_is_recorded_and_forgotten_after_an_hour() -> None:
    start = state(revert_to=POINT)
    first = after(start, revert(start))
    recorded = acknowledge_recorded(first, frozenset({"r1"}))
    assert recorded is not None
    assert after(first, recorded).reverted == {"r1": AT.isoformat()}
    second = after(first, revert(first, "r2", AT + REPEATED_WITHIN - timedelta(seconds=1)))
    assert list(second.reverted) == ["r1", "r2"]
    third = after(second, revert(second, "r3", AT + REPEATED_WITHIN))
    assert list(third.reverted) == ["r2", "r3"]


def test_what_was_accepted_last_is_known_until_anything_newer_happens() -> None:
    accepted = state(0, 100, epoch="4", outcome="d-1:accepted@4", revert_to=POINT)
    assert accepted_decision(accepted) == "d-1"
    assert accepted_decision(state(revert_to=POINT)) is None
    for newer in ({"epoch": "5"}, {"operation": "d-1"}, {"intent": "revert:fraud-v1"}, {"outcome": "d-1:compensated@4"}):
        assert (
            accepted_decision(state(0, 100, **{"epoch": "4", "outcome": "d-1:accepted@4", "revert_to": POINT, **newer})) is None
        )


def test_retiring_removes_the_baseline_and_keeps_the_way_back() -> None:
    promoted = state(0, 100, epoch="4", outcome="d-1:accepted@4", revert_to=POINT)
    change = retire_baseline(promoted, "d-1")
    assert change is not None
    retired = after(promoted, change)
    assert retired.traffic == {"fraud-v2": 100}
    assert (retired.epoch, retired.outcome, retired.revert_to) == (5, "d-1:accepted@5", promoted.revert_to)
    assert retire_baseline(retired, "d-1") is None, "a repeated run ends as retired already"
    restored = after(retired, revert(retired))
    assert (restored.traffic, restored.intent) == ({"fraud-v1": 0, "fraud-v2": 100}, "revert:fraud-v1")


def test_a_predictors_spec_says_where_its_model_comes_from() -> None:
    assert model_uri({"graph": {"name": "fraud-v1", "modelUri": "s3://models/v1"}}) == "s3://models/v1"
    assert [model_uri(other) for other in (None, {}, SPEC, {"graph": "x"}, {"graph": {"modelUri": None}})] == [""] * 5


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (state(0, 100, epoch="5", outcome="d-1:accepted@4", revert_to=POINT), "has changed since d-1"),
        (state(0, 100, epoch="4", outcome="d-2:accepted@4", revert_to=POINT), "has changed since d-1"),
        (state(0, 100, epoch="4", outcome="d-1:compensated@4", revert_to=POINT), "has changed since d-1"),
        (state(0, 100, epoch="4", outcome="d-1:accepted@4", operation="d-1", revert_to=POINT), "has changed since d-1"),
        (state(0, 100, epoch="4", outcome="d-1:accepted@4", intent="revert:fraud-v1", revert_to=POINT), "has changed since d-1"),
        (state(0, 100, epoch="4", outcome="d-1:accepted@4"), "has changed since d-1"),
        (state(1, 99, epoch="4", outcome="d-1:accepted@4", revert_to=POINT), "fraud-v1 still has 1 % of the traffic"),
        (
            state(0, 100, epoch="4", outcome="d-1:accepted@4", revert_to=POINT.replace("fraud-v1", "fraud-v3", 1)),
            "fraud-v3 still is a shadow",
        ),
    ],
)
def test_a_baseline_that_may_still_be_needed_is_not_retired(found: ServingState, words: str) -> None:
    with pytest.raises(Superseded, match=words):
        retire_baseline(found, "d-1")


ACTIONS = st.lists(
    st.sampled_from(
        ["open", "shift-10", "shift-50", "shift-100", "close", "compensate", "revert", "finish", "retire", "acknowledge"]
    ),
    max_size=25,
)


@given(ACTIONS)
@example(["open", "shift-100", "close", "retire", "open", "shift-10"])
def test_live_traffic_sums_to_100_and_the_epoch_never_falls_whatever_happens(actions: list[str]) -> None:
    now, held = state(80, 20, epoch="1", revert_to=POINT), 1
    for action in actions:
        try:
            change = _act(action, now, held)
        except Superseded:
            continue
        if change is None:
            continue
        new = after(now, change)
        assert sum(new.traffic.values()) == 100
        assert new.epoch >= now.epoch
        assert new.revert_to == now.revert_to
        held = new.epoch if action == "open" else held
        now = new


def _act(action: str, now: ServingState, held: int) -> ServingChange | None:
    match action.split("-"):
        case ["open"]:
            return open_operation(now, "d-1", now.epoch)
        case ["shift", share]:
            return shift_traffic(now, "d-1", held, {"fraud-v2": int(share), "fraud-v1": 100 - int(share)})
        case ["close"]:
            return close_operation(now, "d-1", held)
        case ["compensate"]:
            return compensate_operation(now, "d-1", held, "errors")
        case ["revert"]:
            return revert(now, f"r{now.epoch}")
        case ["finish"]:
            return finish_revert(now)
        case ["retire"]:
            return retire_baseline(now, "d-1")
        case _:
            return acknowledge_recorded(now, frozenset(entry["id"] for entry in now.unrecorded))


def test_a_predictor_is_as_tested_while_it_serves_the_same_graph_and_containers() -> None:
    started = after(state(), start_test(state(), STARTED, {"fraud-v1": 80, "fraud-v2": 20}))
    assert started.is_as_tested("fraud-v1")
    resized = replace(started, predictors=(Predictor("fraud-v1", 80, spec={**SPEC, "replicas": 5}), *started.predictors[1:]))
    assert resized.is_as_tested("fraud-v1")
    for changed in ({"graph": {"name": "fraud-v1", "modelUri": "s3://other"}}, {"componentSpecs": [{"spec": {}}]}):
        other = replace(started, predictors=(Predictor("fraud-v1", 80, spec={**SPEC, **changed}), *started.predictors[1:]))
        assert not other.is_as_tested("fraud-v1")
    assert json.loads(started.annotations[CANDIDATE])["predictor"] == "fraud-v2"
    assert started.is_as_tested("fraud-v2")
    assert not started.is_as_tested("fraud-v3")
    assert not state().is_as_tested("fraud-v1")


def test_an_owner_undoes_changes_unless_somebody_has_told_it_not_to() -> None:
    owned = replace(state(), owners=("Argo CD",))
    assert owned.undone_by == ("Argo CD",)
    assert replace(owned, annotations={GITOPS: "ignored"}).undone_by == ()
    assert state().undone_by == ()


def test_another_attempt_opens_at_the_epoch_of_the_compensation_and_forgets_its_outcome() -> None:
    undone = state(epoch="7", outcome="d-1:compensated@7")
    assert outcome_epoch(undone) == 7
    assert outcome_epoch(state()) is None
    again = after(undone, open_operation(undone, "d-1", 7))
    assert (again.operation, again.epoch, again.outcome) == ("d-1", 8, None)
    other = after(undone, open_operation(undone, "d-2", 7))
    assert other.outcome == "d-1:compensated@7"
    with pytest.raises(Superseded, match="somebody changed it since"):
        open_operation(state(epoch="8", outcome="d-1:compensated@7"), "d-1", 7)


def test_a_test_needs_both_predictors() -> None:
    alone = replace(state(), predictors=state().predictors[:1])
    with pytest.raises(Superseded, match="no predictor fraud-v2: deploy the candidate"):
        start_test(alone, STARTED, {"fraud-v1": 100})
