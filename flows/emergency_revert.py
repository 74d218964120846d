"""Put the baseline back at once: a plain function that needs the Kubernetes API and nothing else.

It takes no lock and waits for nobody. Whatever operation is open sees the raised epoch and stops. Tracking, registry, documents
and notices follow in the flow `rollback-to-baseline`; none of them can hold the traffic up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from flows.domain.errors import FraudABError, OutsideSystemError, Superseded
from flows.domain.serving_state import (
    ServingState,
    accepted_decision,
    clear_the_way,
    describe_serving,
    emergency_revert,
    finish_revert,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flows.ports import Readiness, Serving

DEADLINE_SECONDS = 10.0
PAUSE_SECONDS = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RevertOutcome:
    """What a revert found and left. `pending_restore`: the baseline is being started again, a second patch moves the traffic."""

    before: ServingState
    after: ServingState
    already_on_baseline: bool
    pending_restore: bool


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How long a revert would have taken to be accepted, and what is `in_the_way` (empty: it is ready)."""

    seconds: float
    in_the_way: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"not ready: {'; '.join(self.in_the_way)}" if self.in_the_way else f"ready, {self.seconds:.1f} s"


def revert_traffic(
    serving: Serving,
    *,
    revert_id: str,
    actor: str,
    reason: str,
    at: datetime,
    only_promoted_by: str = "",
    deadline_seconds: float = DEADLINE_SECONDS,
) -> RevertOutcome:
    """All traffic to the rollback point, in one patch decided on the version that it changes.

    Args:
        revert_id: unique per press; a second call with it (a lost reply, a double delivery, a replay) changes nothing.
        at: when the person asked (UTC).
        only_promoted_by: revert only what this decision has put in charge; empty: whatever serves.
        deadline_seconds: how long lost races and passing faults are tried again.

    Raises:
        Superseded: the deployment has no rollback point, or something newer than `only_promoted_by` or than the first call with
            this id; the message says what to do.
        OutsideSystemError: Kubernetes refused, or the deadline passed.
    """

    def attempt() -> RevertOutcome:
        before = serving.read()
        if revert_id in before.reverted:
            return _repeated(before, revert_id)
        if only_promoted_by and accepted_decision(before) != only_promoted_by:
            raise Superseded(
                f"{before.name} has changed since {only_promoted_by} and now serves {describe_serving(before)}; nothing "
                "was reverted. To revert what serves now, use /fraud-rollback"
            )
        change = emergency_revert(before, revert_id=revert_id, actor=actor, reason=reason, at=at)
        return _outcome(before, serving.apply(before, change))

    return _until_applied(attempt, f"reverting to the baseline for {actor}", deadline_seconds)


def rehearse_revert(serving: Serving, *, at: datetime, deadline_seconds: float = DEADLINE_SECONDS) -> Rehearsal:
    """Read, decide and patch as a revert does, but only as a server-side dry run; needs the Kubernetes API alone.

    Args:
        at: now (UTC).
        deadline_seconds: how long lost races and passing faults are tried again.

    Returns:
        the time that took, and whatever would keep a revert from working at once.
    """

    def attempt() -> ServingState:
        state = serving.read()
        change = emergency_revert(state, revert_id="rehearsal", actor="fraud-ab", reason="rehearsal", at=at)
        serving.apply(state, change, dry_run=True)
        return state

    begin = time.monotonic()
    try:
        state = _until_applied(attempt, "rehearsing a revert", deadline_seconds)
        seconds = time.monotonic() - begin
        return Rehearsal(seconds, revert_obstacles(state, serving.readiness()))
    except FraudABError as error:
        return Rehearsal(time.monotonic() - begin, (str(error),))


def revert_obstacles(state: ServingState, readiness: Readiness) -> tuple[str, ...]:
    """What would slow a revert of this state down, or be stopped by it, in sentences."""
    baseline = str((state.revert_to or {}).get("predictor", ""))
    found: list[str] = []
    if state.predictor(baseline) is None:
        found.append(f"the predictor {baseline} is gone: it would have to be restored first, which takes as long as it starts")
    elif not readiness.is_up(baseline):
        found.append(f"the predictor {baseline} is not ready ({readiness}): look at its pods")
    if state.predictor(baseline) is not None and not state.is_as_tested(baseline):
        found.append(f"the predictor {baseline} was changed since the test started: a revert would serve what it is now")
    if state.operation:
        found.append(f"{state.operation} is being carried out: a revert would stop it")
    if state.intent:
        found.append(f"a revert is under way already: {baseline} is being started again")
    if state.undone_by:
        found.append(f"{' and '.join(state.undone_by)} applies {state.name} and may undo a revert: let it ignore the predictors")
    return tuple(found)


def finish_restore(serving: Serving, *, deadline_seconds: float = DEADLINE_SECONDS) -> ServingState | None:
    """The second patch of a revert whose baseline had to be started again; for any reconciler, as often as it likes.

    Returns:
        the new state, or None when there is nothing to finish or the baseline is not ready yet.
    """

    def attempt() -> ServingState | None:
        state = serving.read()
        change = finish_revert(state)
        if change is None or not serving.readiness().is_up(str((state.revert_to or {}).get("predictor", ""))):
            return None
        return serving.apply(state, change)

    return _until_applied(attempt, "moving the traffic to the restored baseline", deadline_seconds)


def let_revert_arrive(serving: Serving, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Remove predictors whose broken pods keep a change towards the baseline from the router; may be called at any time."""

    def attempt() -> None:
        state, readiness = serving.read(), serving.readiness()
        change = clear_the_way(state, readiness.routed, readiness.not_ready or frozenset())
        if change is not None:
            serving.apply(state, change)

    _until_applied(attempt, "clearing the way of a revert", deadline_seconds)


def settle(serving: Serving) -> None:
    """Whatever a revert still needs, for the reconcilers."""
    finish_restore(serving)
    let_revert_arrive(serving)


def _repeated(now: ServingState, revert_id: str) -> RevertOutcome:
    """What a revert that was made before has left, unless something else has been decided since."""
    outcome = _outcome(now, now)
    if not outcome.already_on_baseline and not outcome.pending_restore:
        raise Superseded(
            f"{revert_id} was carried out at {now.reverted[revert_id]}; {now.name} has changed since and now serves "
            f"{describe_serving(now)}; nothing was reverted. To revert what serves now, use /fraud-rollback"
        )
    return outcome


def _outcome(before: ServingState, after: ServingState) -> RevertOutcome:
    point = before.revert_to or {}
    return RevertOutcome(
        before=before,
        after=after,
        already_on_baseline=before.serves_alone(str(point.get("predictor", ""))),
        pending_restore=after.intent is not None,
    )


def _until_applied(attempt: Callable[[], T], doing: str, deadline_seconds: float) -> T:
    """Read and decide anew after every lost race; give up with one clear error at the deadline."""
    ends = time.monotonic() + deadline_seconds
    while True:
        try:
            return attempt()
        except OutsideSystemError as error:
            if not error.retryable:
                raise
            if time.monotonic() >= ends:
                raise OutsideSystemError(error.system, f"{doing}, tried for {deadline_seconds:g} s", retryable=True) from error
        time.sleep(PAUSE_SECONDS)
