"""What must be true when a story has come to rest, whatever happened on the way: the invariants of the design."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deployments.sandbox.kubernetes.kinds import SELDON_DEPLOYMENTS
from deployments.sandbox.kubernetes.store import FIRST_REVISION
from flows.domain.ab_test import Arm
from flows.domain.action_plan import Stage, describe_traffic
from flows.domain.decision_record import RecordKind, chain_problems
from flows.domain.errors import FraudABError

if TYPE_CHECKING:
    from benchmarks.fault_cases import Ending
    from benchmarks.process_world import ProcessWorld, Story

SERVES_AFTER = {
    RecordKind.PROMOTED: Arm.CANDIDATE,
    RecordKind.BASELINE_KEPT: Arm.BASELINE,
    RecordKind.COMPENSATED: Arm.BASELINE,
}


def ending_of(world: ProcessWorld, story: Story, wanted: RecordKind) -> Ending:
    """`finished`: the decision was carried out; `baseline`: it was not, and the baseline serves alone."""
    if wanted in world.kinds(story):
        return "finished"
    return "baseline" if world.state().serves_alone(story.test.baseline.predictor) else "bad"


def broken_invariants(world: ProcessWorld, story: Story) -> list[str]:
    """A sentence for each that does not hold now."""
    return [*serving_problems(world), *_records(world, story), *_told_twice(world, story), *registry_problems(world, story)]


def serving_problems(world: ProcessWorld) -> Iterator[str]:
    """Nothing is left open on the SeldonDeployment, and its live traffic summed to 100 in every version of it."""
    state = world.state()
    for name in ("operation", "intent", "unrecorded"):
        if left := getattr(state, name):
            yield f"{name} is still set: {left}"
    for event in world.kubernetes.store.events_after(SELDON_DEPLOYMENTS, FIRST_REVISION):
        live = [one.get("traffic", 0) for one in event.thing["spec"]["predictors"] if not one.get("shadow")]
        if sum(live) != 100:
            yield f"the live traffic summed to {sum(live)} at revision {event.revision}"


def _records(world: ProcessWorld, story: Story) -> Iterator[str]:
    yield from chain_problems([*world.systems.decision_log.records()])
    if world.decision(story).consumed_at is None:
        yield "the decision is not marked as carried out"
    told = world.systems.decision_log.records(story.decision_id)
    records = [record for record in told if record.kind is not RecordKind.INVESTIGATED]  # whenever that is done
    kinds = [record.kind for record in records if record.kind is not RecordKind.COMPENSATED]
    if len(kinds) > 2 or kinds.count(RecordKind.DECIDED) != 1 or records[-1].kind not in SERVES_AFTER:
        yield f"one decision and how it ended should be recorded, not {[str(record.kind) for record in records]}"
        return
    ending, traffic = records[-1], world.state().traffic
    if not world.state().serves_alone(story.test.model(SERVES_AFTER[ending.kind]).predictor):
        yield f"{ending.kind} is recorded, but {describe_traffic(traffic)} is served"
    change = ending.payload.get("traffic")
    if isinstance(change, dict) and change["after"] != describe_traffic(traffic):
        yield f"the record says that {change['after']} is served, but it is {describe_traffic(traffic)}"
    if ending.kind is not RecordKind.COMPENSATED:  # after which the candidate is on trial again
        yield from _archive(world, story, SERVES_AFTER[ending.kind].other)


def _archive(world: ProcessWorld, story: Story, arm: Arm) -> Iterator[str]:
    try:
        world.systems.archive.verify(story.test.model(arm))
    except FraudABError as error:
        yield f"the archive of {story.test.model(arm)} is not whole: {error}"


def _told_twice(world: ProcessWorld, story: Story) -> Iterator[str]:
    """Effects are told once, those of an ending once for each; a check before any change is told by each execution."""
    endings = max(1, sum(kind in SERVES_AFTER for kind in world.kinds(story)))
    for line, times in Counter(world.thread(story)).items():
        if line and times > endings and "loads and predicts" not in line:
            yield f"told {times} times in the thread: {line}"


def registry_problems(world: ProcessWorld, story: Story) -> Iterator[str]:
    """At rest exactly one model is in Production, and it is the one that serves."""
    for model in story.test.models:
        stage, serves = world.systems.registry.entry(model).stage, world.state().serves_alone(model.predictor)
        if (stage is Stage.PRODUCTION) != serves:
            yield f"{model} is {stage}, and {'serves' if serves else 'does not serve'}"
