"""The steps by which production changes, shared by promotion and keeping the baseline. Each can be repeated at any point.

Steps read everything themselves, act, read back, and only then say what has happened. `epoch` is the fence: the one that opening
the operation returned. A step that finds another raises `Superseded` and changes nothing more. None stands for a baseline that an
emergency has put in charge already: nothing is open, and nothing of the deployment is changed.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from flows.domain.ab_test import Arm
from flows.domain.action_plan import Change, Stage, describe_traffic
from flows.domain.decision_record import RecordKind
from flows.domain.errors import Conflict, OutsideSystemError, Superseded
from flows.domain.lifecycle import arm_in_charge
from flows.domain.serving_state import (
    close_operation,
    compensate_operation,
    finished_outcome,
    open_operation,
    require_operation,
    shift_traffic,
)
from flows.emergency_revert import finish_restore
from flows.steps import step
from flows.telling import redraw, tell
from flows.watch import READY_SECONDS, Watch, poll, removed_in_words, removed_predictors
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.domain.ab_test import ABTest
    from flows.domain.decision import Decision
    from flows.domain.serving_state import ServingChange, ServingState

CONFLICT_SECONDS = 10.0
Json = dict[str, Any]


@step("Check the candidate before anything is changed")
def check_candidate(decision_id: str) -> int:
    """The artifact loads and predicts, the deployment is as decided and accepts the opening patch. Returns the rows predicted."""
    test, state = _decision(decision_id).request.test, systems().serving.read()
    if finished_outcome(state, decision_id):
        return 0  # an earlier run has carried it out
    with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
        rows = systems().registry.try_out(test.candidate, systems().registry.artifact_files(test.candidate, Path(folder)))
    _require_both_predictors(state, test)
    systems().serving.apply(state, open_operation(state, decision_id, _decision(decision_id).request.epoch), dry_run=True)
    tell(decision_id, "checked", f"{test.candidate} loads and predicts; {state.name} accepts the change (dry run)")
    return rows


@step("Archive a model's artifacts")
def archive_model(decision_id: str, arm: str) -> Json:
    """From the registry to the archive, verified."""
    model = _decision(decision_id).request.test.model(Arm(arm))
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        receipt = systems().archive.store(model, systems().registry.artifact_files(model, Path(folder)))
    kept = f"{receipt.files} files, {receipt.size_bytes:,} bytes, manifest SHA-256 {receipt.manifest_sha256[:12]}…"
    tell(decision_id, f"archived-{arm}", f"{model} is archived: {kept}", [Change("archive", "", receipt.uri)])
    return asdict(receipt)


@step("Open the operation")
def begin(decision_id: str, attempt: int) -> Json:
    """Open, or take over after a crash. Returns the `epoch` to work under, or the `outcome` of an attempt that ended before.

    Args:
        attempt: a new number for each execution of the flow's body, so that each raises the epoch once.

    Raises:
        Superseded: the deployment changed since the decision was asked for.
    """
    epoch = _decision(decision_id).request.epoch

    def decide(state: ServingState) -> ServingChange | None:
        return None if finished_outcome(state, decision_id) else open_operation(state, decision_id, epoch)

    state = change_serving(decide)
    outcome = finished_outcome(state, decision_id)
    if outcome is None:
        tell(
            decision_id, "opened", f"{state.name} is reserved for this decision (epoch {state.epoch}, attempt {max(attempt, 1)})"
        )
    return {"epoch": state.epoch, "outcome": outcome}


@step("Open the operation for the baseline")
def begin_keeping(decision_id: str, attempt: int) -> Json:
    """As `begin`; `epoch` is None when an emergency has put the baseline in charge already, so that nothing has to be opened.

    Raises:
        Superseded: the deployment changed since, and the baseline does not serve alone.
    """
    await_restore()
    request = _decision(decision_id).request

    def decide(state: ServingState) -> ServingChange | None:
        if finished_outcome(state, decision_id):
            return None
        try:
            return open_operation(state, decision_id, request.epoch)
        except Superseded:
            if state.operation is None and state.serves_alone(request.test.baseline.predictor):
                return None
            raise

    state = change_serving(decide)
    outcome = finished_outcome(state, decision_id)
    if outcome is None and state.operation is None:
        tell(decision_id, f"found-{attempt}", f"{state.name} serves the baseline alone already (epoch {state.epoch})")
    return {"epoch": state.epoch if state.operation == decision_id else None, "outcome": outcome}


@step("Shift traffic")
def shift(decision_id: str, target: str, epoch: int, share_percent: int) -> Json:
    """Give the target at least this much traffic; a repetition never takes any away."""
    test, arm = _decision(decision_id).request.test, Arm(target)
    wanted = {test.model(arm).predictor: share_percent, test.model(arm.other).predictor: 100 - share_percent}
    before: list[str] = []

    def decide(state: ServingState) -> ServingChange | None:
        require_operation(state, decision_id, epoch)
        before.append(describe_traffic(state.traffic))
        is_there = state.traffic.get(test.model(arm).predictor, 0) >= share_percent
        return None if is_there else shift_traffic(state, decision_id, epoch, wanted)

    state = change_serving(decide)
    change = Change("traffic", before[-1], describe_traffic(state.traffic))
    tell(decision_id, f"traffic-{target}-{share_percent}", f"traffic: {change.before} → {change.after}", [change])
    return dict(state.traffic)


@step("Verify the traffic")
def verify(decision_id: str, target: str, epoch: int | None, share_percent: int) -> str:
    """Ready, then measured: the candidate for the policy's watch, the baseline only for its share. Returns the measurements."""
    test, arm = _decision(decision_id).request.test, Arm(target)
    # more than asked for, when an earlier attempt got further
    share_percent = max(share_percent, systems().serving.read().traffic.get(test.model(arm).predictor, 0))
    watch = Watch(
        test=test,
        target=arm,
        share_percent=share_percent,
        serving=systems().serving,
        telemetry=systems().telemetry,
        policy=systems().policy,
        check_fence=lambda: _check_fence(decision_id, arm, epoch),
    )
    if arm is Arm.CANDIDATE:
        watch.until_ready()
        measured = watch.until_confirmed(systems().policy.watch_minutes)
    else:
        watch.until_routed()
        for predictor in removed_predictors(systems().serving.read()):
            tell(decision_id, f"removed-{predictor}", removed_in_words(predictor), also_to_channel=True)
        measured = watch.until_share_is_seen()
    tell(decision_id, f"verified-{target}-{share_percent}", f"{test.model(arm)} serves {share_percent} %: {measured}")
    return measured


@step("Update the registry")
def put_in_charge(decision_id: str, target: str, epoch: int | None) -> list[str]:
    """Target in Production, the other explicitly archived, both read back; fenced before and after."""
    test, arm = _decision(decision_id).request.test, Arm(target)
    _check_fence(decision_id, arm, epoch)
    before = [str(systems().registry.entry(model)) for model in test.models]
    after = mark_in_charge(test, arm)
    _check_fence(decision_id, arm, epoch)
    changes = [Change("registry", old, new) for old, new in zip(before, after, strict=True)]
    tell(decision_id, f"registry-{target}", "registry: " + "; ".join(after), changes)
    return after


@step("Close the operation")
def close(decision_id: str, epoch: int) -> int:
    """Accept: from here on the change has happened. Returns the raised epoch."""

    def decide(state: ServingState) -> ServingChange | None:
        is_closed = state.outcome == f"{decision_id}:accepted@{epoch + 1}"
        return None if is_closed else close_operation(state, decision_id, epoch)

    state = change_serving(decide)
    return state.epoch


@step("Put everything back")
def compensate(decision_id: str, epoch: int, why: str) -> str:
    """All traffic back in one fenced patch, first of all. Returns `accepted` if the closing patch had arrived after all."""
    mine = {f"{decision_id}:{outcome}@{epoch + 1}" for outcome in ("accepted", "compensated")}
    before: list[str] = []

    def decide(state: ServingState) -> ServingChange | None:
        before.append(describe_traffic(state.traffic))
        return None if state.outcome in mine else compensate_operation(state, decision_id, epoch)

    state = change_serving(decide)
    outcome = finished_outcome(state, decision_id) or ""
    if outcome == "compensated":
        change = Change("traffic", before[-1], describe_traffic(state.traffic))
        text = f"the promotion was undone, traffic: {change.before} → {change.after}. Why: {why}"
        tell(decision_id, "compensated", text, [change], also_to_channel=True)
    return outcome


@step("Put the registry back")
def restore_registry(decision_id: str) -> list[str]:
    """After a compensation: the baseline in charge, the candidate on trial; nothing when somebody has taken over since."""
    await_restore()
    test = _decision(decision_id).request.test
    if arm_in_charge(systems().serving.read(), test) is not Arm.BASELINE:
        return []
    baseline = systems().registry.set_in_charge(test.baseline)
    after = [str(baseline), str(systems().registry.set_stage(test.candidate, Stage.STAGING))]
    tell(decision_id, "registry-restored", "registry: " + "; ".join(after))
    return after


@step("Record what happened")
def record(decision_id: str, kind: str, details: Json) -> str:
    """Append to the chain and redraw the message. Returns the record's hash.

    "Before" is what the person saw who decided: the plan in the decision log, which the epoch protects.
    """
    request = _decision(decision_id).request
    plan = request.plan if kind == RecordKind.PROMOTED else request.rollback_plan
    changes = {
        change.what: {"before": change.before, "after": change.after} for change in plan.changes if change.what == "traffic"
    }
    if kind != RecordKind.COMPENSATED:  # there the registry follows the record
        before = [change.before for change in plan.changes if change.what == "registry"]
        after = [str(systems().registry.entry(model)) for model in request.test.models]
        changes["registry"] = {"before": "; ".join(before), "after": "; ".join(after)}
    digest = append_record(RecordKind(kind), decision_id, {"test_id": request.test.test_id, **changes, **details})
    redraw(decision_id)
    return digest


@step("Record that a newer change came first")
def record_superseded(decision_id: str, why: str) -> str:
    """Only when this decision has truly ended: another process of the same decision may be the one that took over.

    Raises:
        Superseded: the decision is being, or was, carried out by another process.
    """
    state = systems().serving.read()
    if state.operation == decision_id or finished_outcome(state, decision_id):
        raise Superseded(f"another process carries out {decision_id}; this one stops: {why}")
    test = _decision(decision_id).request.test
    details = {"test_id": test.test_id, "why": why, "now": describe_traffic(state.traffic), "epoch": state.epoch}
    digest = append_record(RecordKind.SUPERSEDED, decision_id, details)
    tell(decision_id, "superseded", f"stopped, a newer change came first: {why}", also_to_channel=True)
    redraw(decision_id)
    return digest


@step("Let the registry follow what serves")
def follow_registry(decision_id: str) -> list[str]:
    """The serving model in charge. Carries no target, so a late run of it does no harm."""
    return follow_what_serves(_decision(decision_id).request.test)


def follow_what_serves(test: ABTest) -> list[str]:
    """Set both models by what the deployment serves now; empty while it is being changed or serves neither.

    Raises:
        OutsideSystemError: retryable when the deployment changed meanwhile.
    """
    arm = arm_in_charge(state := systems().serving.read(), test)
    if arm is None:
        return []
    if state.traffic.get(test.model(arm.other).predictor, 0):
        systems().registry.set_in_charge(test.model(arm))
        systems().registry.set_stage(test.model(arm.other), Stage.STAGING)
        after = [str(systems().registry.entry(model)) for model in test.models]
    else:
        after = mark_in_charge(test, arm)
    if arm_in_charge(systems().serving.read(), test) is not arm:
        raise Conflict("Seldon", f"letting the registry follow {state.name}: it changed meanwhile")
    return after


def mark_in_charge(test: ABTest, arm: Arm) -> list[str]:
    """One in Production, the other explicitly archived, then both read back."""
    registry = systems().registry
    registry.set_in_charge(test.model(arm))
    registry.set_archived(test.model(arm.other), previous=arm is Arm.CANDIDATE)
    stages = {one: registry.entry(test.model(one)) for one in Arm}
    if stages[arm].stage is not Stage.PRODUCTION or stages[arm.other].stage is not Stage.ARCHIVED:
        read = "; ".join(map(str, stages.values()))
        raise OutsideSystemError("MLflow", f"putting {test.model(arm)} in charge, it reads {read}", retryable=True)
    return [str(entry) for entry in stages.values()]


def append_record(kind: RecordKind, decision_id: str, details: Json) -> str:
    """Append, once per kind and decision."""
    return systems().decision_log.append_record(kind, decision_id, details).hash


def await_restore(seconds: float = READY_SECONDS) -> None:
    """Finish the second patch of a revert whose baseline had to be started again, when there is one.

    Raises:
        OutsideSystemError: retryable, the baseline is not ready yet.
    """
    serving = systems().serving

    def is_finished() -> bool:
        return serving.read().intent is None or finish_restore(serving) is not None

    if not poll(is_finished, seconds):
        raise OutsideSystemError("Seldon", "waiting for the baseline that is being started again", retryable=True)


def change_serving(decide: Callable[[ServingState], ServingChange | None]) -> ServingState:
    """Read, decide on what was read, apply; after a lost race all of it again. `decide` returns None when nothing is to do."""
    serving = systems().serving

    def attempt() -> ServingState:
        state = serving.read()
        change = decide(state)
        return state if change is None else serving.apply(state, change)

    lost_race = retry_if_exception_type(Conflict)
    return Retrying(retry=lost_race, stop=stop_after_delay(CONFLICT_SECONDS), wait=wait_random(0, 0.2), reraise=True)(attempt)


def _decision(decision_id: str) -> Decision:
    return systems().decision_log.read(decision_id)


def _check_fence(decision_id: str, target: Arm, epoch: int | None) -> None:
    state = systems().serving.read()
    if epoch is not None:
        require_operation(state, decision_id, epoch)
        return
    predictor = _decision(decision_id).request.test.model(target).predictor
    if state.operation or state.intent or not state.serves_alone(predictor):
        raise Superseded(f"{state.name} is being changed or no longer serves {predictor} alone: {decision_id} no longer applies")


def _require_both_predictors(state: ServingState, test: ABTest) -> None:
    absent = [model.predictor for model in test.models if model.predictor not in state.traffic]
    point = (state.revert_to or {}).get("predictor")
    if absent or point != test.baseline.predictor:
        found = f"it serves {describe_traffic(state.traffic)} with {point or 'nothing'} as its rollback point"
        raise OutsideSystemError("Seldon", f"checking {state.name} for {test.test_id}: {found}", retryable=False)
