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
from flows.domain.action_plan import Change
from flows.domain.decision import refuse_another_attempt
from flows.domain.decision_record import RecordKind
from flows.domain.errors import Conflict, OutsideSystemError, Superseded
from flows.domain.serving_state import (
    close_operation,
    compensate_operation,
    describe_serving,
    finished_outcome,
    open_operation,
    outcome_epoch,
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
    from flows.domain.action_plan import ActionPlan
    from flows.domain.decision import Decision
    from flows.domain.serving_state import ServingChange, ServingState

CONFLICT_SECONDS = 10.0
ACCEPTED, COMPENSATED = "accepted", "compensated"
Json = dict[str, Any]


@step("Archive a model's artifacts")
def archive_model(decision_id: str, arm: str) -> Json:
    """From the registry to the archive, verified."""
    model = _decision(decision_id).request.test.model(Arm(arm))
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        receipt = systems().archive.store(model, systems().registry.artifact_files(model, Path(folder)))
    kept = f"{receipt.files} files, {receipt.size_bytes:,} bytes, manifest SHA-256 {receipt.manifest_sha256[:12]}…"
    tell(decision_id, f"archived-{arm}", f"{model} is archived: {kept}", [Change("archive", "", receipt.uri)])
    return asdict(receipt)


@step("See how far it is")
def find_standing(decision_id: str, attempt: int) -> Json:
    """What earlier executions left: the `outcome` of one that ended, and whether the operation `is_open`.

    Args:
        attempt: a new number for each execution of the flow's body, so that each looks for itself.

    Raises:
        PromotionUndone: it was undone and may not be tried again.
    """
    del attempt  # part of the step's key
    decision, log, state = _decision(decision_id), systems().decision_log, systems().serving.read()
    outcome = _outcome(state, decision)
    if outcome is None and finished_outcome(state, decision_id) == COMPENSATED:
        latest = max(one.request.round for one in log.decisions(decision.request.test.test_id))
        refuse_another_attempt(decision, latest, systems().policy.digest, log.now())
    return {"outcome": outcome, "is_open": state.operation == decision_id}


def _outcome(state: ServingState, decision: Decision) -> str | None:
    """How this decision's operation ended; None when it has still to be carried out, or once more after it was undone.

    The records have the first word: what the deployment says of its last operation is gone when another one has ended.
    """
    kinds = {record.kind for record in systems().decision_log.records(decision.decision_id)}
    if kinds & {RecordKind.PROMOTED, RecordKind.BASELINE_KEPT}:
        return ACCEPTED
    outcome = finished_outcome(state, decision.decision_id)
    return None if outcome == COMPENSATED and decision.consumed_at is not None else outcome


@step("Open the operation")
def begin(decision_id: str, attempt: int) -> Json:
    """Open, or take over after a crash, or open again after it was undone.

    Args:
        attempt: as for `find_standing`, so that each execution raises the epoch once.

    Returns:
        the `epoch` to work under, or the `outcome` of an attempt that ended before, the epoch of its end and, when it was undone,
        `why`; `failed`: why an earlier execution was to put everything back and could not, so that this one has to.

    Raises:
        Superseded: the deployment changed since the decision was asked for.
    """
    decision = _decision(decision_id)
    before: list[ServingState] = []

    def decide(state: ServingState) -> ServingChange | None:
        before.append(state)
        if _outcome(state, decision):
            return None
        change = opening_of(state, decision)
        systems().decision_log.reopen(decision_id)  # first: an operation must never be open for which nobody is responsible
        return change

    state = change_serving(decide)
    outcome = _outcome(state, decision)
    if outcome is None:
        text = f"{state.name} is reserved for this decision (epoch {state.epoch}, attempt {max(attempt, 1)})"
        tell(decision_id, f"opened-{state.epoch}", text, _annotation_changes(before[-1], state))
    epoch = state.epoch if outcome is None else ended_at(state, decision_id)
    return {"epoch": epoch, "outcome": outcome, "why": state.undone_because, "failed": _failed_before(decision_id)}


def opening_of(state: ServingState, decision: Decision) -> ServingChange:
    """The patch that opens this decision's operation, for the first time or after it was undone. Raises `Superseded`."""
    is_undone = finished_outcome(state, decision.decision_id) == COMPENSATED
    epoch = outcome_epoch(state) if is_undone else None
    return open_operation(state, decision.decision_id, decision.request.epoch if epoch is None else epoch)


def ended_at(state: ServingState, decision_id: str) -> int:
    """The epoch at which this decision's operation ended: by the deployment, else by its record."""
    if finished_outcome(state, decision_id):
        return outcome_epoch(state) or 0
    records = systems().decision_log.records(decision_id)
    return max((int(str(record.payload.get("epoch", 0))) for record in records), default=0)


def _failed_before(decision_id: str) -> str:
    """Why this promotion was to be put back, when that could not be done; empty when nothing is left to be put back."""
    latest = list(systems().decision_log.records(decision_id))[-1:]
    return str(latest[0].payload["why"]) if latest and latest[0].kind is RecordKind.FAILED else ""


@step("Remember that it failed")
def remember_failure(decision_id: str, epoch: int, why: str) -> None:
    """For the next execution, which must put everything back instead of going on."""
    append_record(RecordKind.FAILED, decision_id, {"why": why, "epoch": epoch}, occurrence=epoch)


def _annotation_changes(before: ServingState, after: ServingState) -> list[Change]:
    return [
        Change("operation", before.operation or "none", after.operation or "none"),
        Change("epoch", str(before.epoch), str(after.epoch)),
    ]


@step("Open the operation for the baseline")
def begin_keeping(decision_id: str, attempt: int) -> Json:
    """As `begin`; `epoch` is None when an emergency has put the baseline in charge already, so that nothing has to be opened.
    `ended` is the epoch at which the baseline was in charge, where it is already.

    Raises:
        Superseded: the deployment changed since, and the baseline does not serve alone.
    """
    await_restore()
    decision = _decision(decision_id)
    request = decision.request

    def decide(state: ServingState) -> ServingChange | None:
        if _outcome(state, decision):
            return None
        try:
            return open_operation(state, decision_id, request.epoch)
        except Superseded:
            if state.operation is None and state.serves_alone(request.test.baseline.predictor):
                return None
            raise

    state = change_serving(decide)
    outcome = _outcome(state, decision)
    if outcome is None and state.operation is None:
        tell(decision_id, f"found-{attempt}", f"{state.name} serves the baseline alone already (epoch {state.epoch})")
    ended = ended_at(state, decision_id) if outcome else state.epoch
    return {"epoch": state.epoch if state.operation == decision_id else None, "outcome": outcome, "ended": ended}


@step("Shift traffic")
def shift(decision_id: str, target: str, epoch: int, share_percent: int) -> Json:
    """Give the target at least this much traffic; a repetition never takes any away."""
    test, arm = _decision(decision_id).request.test, Arm(target)
    winner, loser = test.model(arm).predictor, test.model(arm.other).predictor
    before: list[str] = []

    def decide(state: ServingState) -> ServingChange | None:
        require_operation(state, decision_id, epoch)
        before.append(describe_serving(state))
        is_there = state.traffic.get(winner, 0) >= share_percent and not state.is_shadow(loser)
        wanted = {winner: share_percent, loser: 100 - share_percent}
        return None if is_there else shift_traffic(state, decision_id, epoch, wanted)

    state = change_serving(decide)
    change = Change("traffic", before[-1], describe_serving(state))
    tell(decision_id, f"traffic-{target}-{share_percent}-{epoch}", f"traffic: {change.before} → {change.after}", [change])
    return dict(state.traffic)


@step("Verify the traffic")
def verify(decision_id: str, target: str, epoch: int | None, share_percent: int) -> str:
    """Ready, then measured: share, p95 and errors, the candidate's for the policy's watch. Returns the measurements in words."""
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
        check_fence=lambda: check_fence(decision_id, arm, epoch),
    )
    if arm is Arm.CANDIDATE:
        watch.until_ready()
        measured = watch.until_confirmed(systems().policy.watch_minutes)
    else:
        watch.until_routed()
        for predictor in removed_predictors(systems().serving.read()):
            tell(decision_id, f"removed-{predictor}", removed_in_words(predictor), also_to_channel=True)
        measured, breach = watch.until_share_is_seen()
        if breach:  # there is nothing safer to go back to, so a person has to know
            text = f"{test.baseline} serves everything, but {breach}"
            tell(decision_id, f"breach-{epoch}", text, also_to_channel=True)
    what = f"{test.model(arm)} serves {share_percent} %"
    tell(decision_id, f"verified-{target}-{share_percent}-{epoch}", f"{what}: {measured}", [Change("measured", "", measured)])
    return measured


@step("Close the operation")
def close(decision_id: str, epoch: int) -> int:
    """Accept: from here on the change has happened. Returns the raised epoch."""
    before: list[ServingState] = []

    def decide(state: ServingState) -> ServingChange | None:
        before.append(state)
        is_closed = state.outcome == f"{decision_id}:{ACCEPTED}@{epoch + 1}"
        return None if is_closed else close_operation(state, decision_id, epoch)

    state = change_serving(decide)
    changes = _annotation_changes(before[-1], state)
    tell(decision_id, f"closed-{epoch}", f"{state.name} is released (epoch {state.epoch})", changes)
    return state.epoch


@step("Put everything back")
def compensate(decision_id: str, epoch: int, why: str) -> str:
    """All traffic back in one fenced patch, first of all. Returns `accepted` if the closing patch had arrived after all."""
    mine = {f"{decision_id}:{outcome}@{epoch + 1}" for outcome in (ACCEPTED, COMPENSATED)}
    before: list[str] = []

    def decide(state: ServingState) -> ServingChange | None:
        before.append(describe_serving(state))
        return None if state.outcome in mine else compensate_operation(state, decision_id, epoch, why)

    state = change_serving(decide)
    outcome = finished_outcome(state, decision_id) or ""
    if outcome == COMPENSATED:
        change = Change("traffic", before[-1], describe_serving(state))
        text = f"the promotion was undone, traffic: {change.before} → {change.after}. Why: {why}"
        tell(decision_id, f"compensated-{epoch}", text, [change], also_to_channel=True)
    return outcome


@step("Record what happened")
def record(decision_id: str, kind: str, details: Json, epoch: int) -> str:
    """Append to the chain and redraw the message. Returns the record's hash.

    "Before" is what the person saw who decided: the plan in the decision log, which the epoch protects.

    Args:
        epoch: at which the operation ended. A promotion may be undone more than once, at another epoch each time.
    """
    request = _decision(decision_id).request
    plan = request.plan if kind == RecordKind.PROMOTED else request.rollback_plan
    changes = {
        change.what: {"before": change.before, "after": change.after} for change in plan.changes if change.what == "traffic"
    }
    if kind != RecordKind.COMPENSATED:  # there the registry follows the record
        before = "; ".join(change.before for change in plan.changes if change.what == "registry")
        changes["registry"] = {"before": before, "after": _registry_after(request.test, plan)}
    occurrence = epoch if kind == RecordKind.COMPENSATED else 0
    payload = {"test_id": request.test.test_id, "epoch": epoch, **changes, **details}
    digest = append_record(RecordKind(kind), decision_id, payload, occurrence=occurrence)
    redraw(decision_id)
    return digest


def _registry_after(test: ABTest, plan: ActionPlan) -> str:
    """What MLflow says now. The record must not wait for it: from the record on a promotion is watched."""
    try:
        return "; ".join(str(systems().registry.entry(model)) for model in test.models)
    except OutsideSystemError:
        marked = "; ".join(change.after for change in plan.changes if change.what == "registry")
        return f"{marked} (as it was marked; MLflow could not be read when this was recorded)"


@step("Record that a newer change came first")
def record_superseded(decision_id: str, why: str) -> str:
    """Only when this decision has truly ended: another process of the same decision may be the one that took over.

    Raises:
        Superseded: the decision is being, or was, carried out by another process.
    """
    state = systems().serving.read()
    decision = _decision(decision_id)
    if state.operation == decision_id or _outcome(state, decision):
        raise Superseded(f"another process carries out {decision_id}; this one stops: {why}")
    test = decision.request.test
    details = {"test_id": test.test_id, "why": why, "now": describe_serving(state), "epoch": state.epoch}
    digest = append_record(RecordKind.SUPERSEDED, decision_id, details)
    tell(decision_id, "superseded", f"stopped, a newer change came first: {why}", also_to_channel=True)
    redraw(decision_id)
    return digest


def append_record(kind: RecordKind, decision_id: str, details: Json, *, occurrence: int = 0) -> str:
    """Append, once per kind, decision and occurrence."""
    return systems().decision_log.append_record(kind, decision_id, details, occurrence=occurrence).hash


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


def check_fence(decision_id: str, target: Arm, epoch: int | None) -> None:
    """Raises `Superseded` unless the operation is still this decision's; without one, unless the target still serves alone."""
    state = systems().serving.read()
    if epoch is not None:
        require_operation(state, decision_id, epoch)
        return
    predictor = _decision(decision_id).request.test.model(target).predictor
    if state.operation or state.intent or not state.serves_alone(predictor):
        raise Superseded(f"{state.name} is being changed or no longer serves {predictor} alone: {decision_id} no longer applies")
