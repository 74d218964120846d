"""The registry follows what serves: the steps that mark models in it, and the level-based look that repairs it at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.action_plan import Change, Stage
from flows.domain.errors import Conflict, OutsideSystemError
from flows.domain.lifecycle import stages_by_serving
from flows.production_steps import await_restore, check_fence
from flows.steps import step
from flows.telling import tell
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.domain.ab_test import ABTest


@step("Update the registry")
def put_in_charge(decision_id: str, target: str, epoch: int | None) -> list[str]:
    """Target in Production, the other explicitly archived, both read back; fenced before and after."""
    test, arm = systems().decision_log.read(decision_id).request.test, Arm(target)
    check_fence(decision_id, arm, epoch)
    changes = mark(test, {arm: Stage.PRODUCTION, arm.other: Stage.ARCHIVED})
    check_fence(decision_id, arm, epoch)
    tell(decision_id, f"registry-{target}-{epoch}", registry_in_words(changes), changes)
    return [change.after for change in changes]


@step("Let the registry follow what serves")
def follow_registry(decision_id: str, attempt: int) -> list[str]:
    """After a decision was undone or superseded. Carries no target, so a late run of it does no harm.

    Args:
        attempt: part of the step's key: each execution looks again.
    """
    await_restore()
    changes = follow_what_serves(systems().decision_log.read(decision_id).request.test)
    if changes:
        tell(decision_id, f"registry-follows-{attempt}", registry_in_words(changes), changes)
    return [change.after for change in changes]


def registry_in_words(changes: Sequence[Change]) -> str:
    """How both models are marked now."""
    return "registry: " + "; ".join(change.after for change in changes)


def follow_what_serves(test: ABTest) -> list[Change]:
    """Set both models by what the deployment serves now; empty where nobody can tell (see `stages_by_serving`).

    Raises:
        OutsideSystemError: retryable when the deployment changed meanwhile.
    """
    state = systems().serving.read()
    stages = stages_by_serving(state, test)
    if stages is None:
        return []
    changes = mark(test, stages)
    if stages_by_serving(systems().serving.read(), test) != stages:
        raise Conflict("Seldon", f"letting the registry follow {state.name}: it changed meanwhile")
    return changes


def follow_test_that_serves() -> None:
    """For a reconciler, as often as it likes: the models of the deployment's own test. Writes only what differs."""
    test = systems().serving.read().test
    if test is not None:
        follow_what_serves(test)


def mark(test: ABTest, stages: Mapping[Arm, Stage]) -> list[Change]:
    """One model in Production, the other explicitly out of it, then both read back; in words, the baseline first."""
    registry = systems().registry
    before = [registry.entry(model) for model in test.models]
    arm = next(arm for arm in Arm if stages[arm] is Stage.PRODUCTION)
    registry.set_in_charge(test.model(arm))
    if stages[arm.other] is Stage.ARCHIVED:
        registry.set_archived(test.model(arm.other), previous=arm is Arm.CANDIDATE)
    else:
        registry.set_stage(test.model(arm.other), stages[arm.other])
    entries = {one: registry.entry(test.model(one)) for one in Arm}
    if any(entries[one].stage is not stages[one] for one in Arm):
        read = "; ".join(map(str, entries.values()))
        raise OutsideSystemError("MLflow", f"putting {test.model(arm)} in charge, it reads {read}", retryable=True)
    return [Change("registry", str(old), str(new)) for old, new in zip(before, entries.values(), strict=True)]
