"""What becomes of a promotion that could not be carried out: undone, tried again, or still to be undone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows.domain.ab_test import Model
from flows.domain.action_plan import RegistryEntry
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError, PromotionUndone
from flows.domain.serving_state import ServingChange, ServingState
from flows.promote_candidate import promote_candidate
from flows.registry_steps import follow_test_that_serves
from tests.integration.production_world import World, lines, run

pytest_plugins = ("tests.integration.production_world",)


@pytest.fixture
def undone(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a decision whose promotion was undone and documented, as the finalizing flow leaves it."""
    decision_id = world.decide().decision_id
    real = world.systems.registry.set_in_charge

    def refuse_the_candidate(model: Model) -> RegistryEntry:
        if model == world.test.candidate:
            raise OutsideSystemError("MLflow", "a test", retryable=False)
        return real(model)

    with monkeypatch.context() as failing:
        failing.setattr(world.systems.registry, "set_in_charge", refuse_the_candidate)
        assert run(promote_candidate, decision_id) == "compensated"
    world.systems.decision_log.consume(decision_id)
    return decision_id


def test_a_retry_of_a_promotion_that_was_undone_is_another_attempt(world: World, undone: str) -> None:
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    assert run(promote_candidate, undone) == "promoted"
    assert world.state.serves_alone("fraud-v2")
    assert world.registry() == ["Archived (previous)", "Production (champion)"]
    assert world.kinds() == [RecordKind.COMPENSATED, RecordKind.PROMOTED]
    assert world.systems.decision_log.read(undone).consumed_at is None  # until the flow marks it, it counts as undelivered


def test_another_attempt_that_nobody_would_be_responsible_for_opens_nothing(
    world: World, undone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision is put among the unfinished before the deployment is reserved: the reconciler looks only there."""
    before = world.state
    with monkeypatch.context() as failing:
        failing.setattr(world.systems.decision_log, "reopen", lambda _: failed("the decision log"))
        with pytest.raises(OutsideSystemError, match="a test"):
            run(promote_candidate, undone)
    assert world.is_still(before)
    assert run(promote_candidate, undone) == "promoted"


def test_another_attempt_that_cannot_begin_says_who_has_to_try_again(
    world: World, undone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(world.systems.archive, "store", lambda *_: failed("S3"))
        with pytest.raises(OutsideSystemError, match="a test"):
            run(promote_candidate, undone)
    assert any("has not begun" in line and "Retry the run in Prefect" in line for line in lines(world, undone))


def failed(system: str) -> None:
    raise OutsideSystemError(system, "a test", retryable=False)


def test_before_it_is_documented_an_execution_finishes_the_undoing_and_tries_nothing(world: World, undone: str) -> None:
    world.systems.decision_log.reopen(undone)
    assert run(promote_candidate, undone) == "compensated"
    assert world.kinds() == [RecordKind.COMPENSATED]


def test_each_undoing_is_recorded_and_told(world: World, undone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Model) -> RegistryEntry:
        raise OutsideSystemError("MLflow", f"marking {model} once more", retryable=False)

    with monkeypatch.context() as failing:
        failing.setattr(world.systems.registry, "set_in_charge", refuse)
        with pytest.raises(OutsideSystemError, match="once more"):  # the registry cannot be put back either
            run(promote_candidate, undone)
    assert world.state.serves_alone("fraud-v1")
    assert run(promote_candidate, undone) == "compensated"
    records = [one for one in world.systems.decision_log.records(undone) if one.kind is RecordKind.COMPENSATED]
    assert [("once more" in str(one.payload["why"])) for one in records] == [False, True]
    assert len([line for line in lines(world, undone) if "was undone" in line]) == 2


def test_an_emergency_since_or_a_deadline_that_has_passed_refuses_another_attempt(
    world: World, undone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = world.systems.decision_log
    with monkeypatch.context() as later:
        later.setattr(log, "now", lambda: log.read(undone).deadline + timedelta(seconds=1))
        with pytest.raises(PromotionUndone, match="the time to decide ended"):
            run(promote_candidate, undone)
    world.emergency()
    before = world.state
    assert run(promote_candidate, undone) == "superseded"
    assert world.is_still(before)


def test_what_could_not_be_put_back_is_told_and_the_next_execution_begins_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = world.decide().decision_id
    real, registry = world.systems.serving.apply, world.systems.registry

    def refuse_to_undo(state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        if change.why.endswith("is compensated"):
            raise OutsideSystemError("Kubernetes", "a test", retryable=False)
        return real(state, change, dry_run=dry_run)

    def refuse(_: Model) -> RegistryEntry:
        raise OutsideSystemError("MLflow", "marking the candidate", retryable=False)

    with monkeypatch.context() as failing:
        failing.setattr(world.systems.serving, "apply", refuse_to_undo)
        failing.setattr(registry, "set_in_charge", refuse)
        with pytest.raises(OutsideSystemError, match="a test"):
            run(promote_candidate, decision_id)
    assert world.state.operation == decision_id
    assert world.kinds() == [RecordKind.FAILED]
    assert any("could not be put back" in line and "/fraud-rollback" in line for line in lines(world, decision_id))
    # everything works again: it is put back all the same, nobody has decided anew
    assert run(promote_candidate, decision_id) == "compensated"
    assert world.state.serves_alone("fraud-v1")
    assert world.kinds() == [RecordKind.FAILED, RecordKind.COMPENSATED]
    last = list(world.systems.decision_log.records(decision_id))[-1]
    assert "marking the candidate" in str(last.payload["why"])


def test_a_registry_that_says_something_else_than_what_serves_is_put_right(world: World) -> None:
    registry, test = world.systems.registry, world.test
    registry.set_in_charge(test.candidate)
    registry.set_archived(test.baseline, previous=False)
    follow_test_that_serves()
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    world.emergency()
    follow_test_that_serves()
    assert world.registry() == ["Production (champion)", "Archived"]


def test_a_model_that_the_test_does_not_know_is_left_alone_in_the_registry(world: World) -> None:
    graph = {"name": "fraud-v1", "implementation": "MLFLOW_SERVER", "modelUri": "s3://models/hotfix"}
    world.patch([{"op": "replace", "path": "/spec/predictors/0/graph", "value": graph}])
    world.emergency()
    world.systems.registry.set_archived(world.test.baseline, previous=False)
    follow_test_that_serves()
    assert world.registry()[0] == "Archived"
