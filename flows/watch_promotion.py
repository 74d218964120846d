"""The time after a promotion: watch the promoted model, say what it breaks, revert if the policy says so, later tidy up.

Level-based: each run finds the promotion that is in charge by what the deployment and the decision records say now, and does what
is due. It needs no parameters and remembers nothing, so a run may be missed, or happen twice at once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
from prefect import flow, get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException

from flows.bake import Bake
from flows.deployment_names import FOLLOW_UP
from flows.domain.bake import Breach, BreachKind, Due, what_is_due
from flows.domain.decision_record import RecordKind
from flows.domain.errors import FeedbackInvalid, OutsideSystemError, Superseded
from flows.domain.serving_state import accepted_decision
from flows.emergency_revert import revert_traffic
from flows.production_steps import append_record
from flows.retirement import retire
from flows.steps import step
from flows.telling import describe_failure, tell, tell_message
from flows.wiring import systems
from slackbot.messages.breach_message import breach_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.domain.bake import Findings
    from flows.domain.decision_record import DecisionRecord
    from flows.domain.serving_state import ServingState

ACTOR = "fraud-ab (auto_revert)"
NOTHING, UNWATCHED, HEALTHY, BREACHED = "nothing is due", "cannot be watched", "no breach", "breach"
Json = dict[str, Any]


@flow(name="watch-promotion", persist_result=True)
def watch_promotion() -> str:
    """Do what is due about the promotion that is in charge, if one is.

    Returns:
        what came of it, in a word or a sentence.
    """
    found = find_promotion()
    match Due(found["due"]):
        case Due.NOTHING:
            return NOTHING
        case Due.RETIRE:
            return retire(found["decision_id"])
        case Due.WATCH | Due.END as due:
            return _watch(found["decision_id"], is_end=due is Due.END)


def _watch(decision_id: str, *, is_end: bool) -> str:
    try:
        found = look(decision_id, is_end)
    except (OutsideSystemError, FeedbackInvalid) as error:
        tell_unwatched(decision_id, {"measuring": describe_failure(error)})
        return UNWATCHED
    if found["breaches"]:
        act_on_breaches(decision_id, found["breaches"])
    tell_breaches(decision_id)
    tell_unwatched(decision_id, found["missing"])
    if is_end:
        end_bake(decision_id, found["missing"], found["measured"])
    return BREACHED if found["breaches"] else HEALTHY if found["measured"] else UNWATCHED if found["missing"] else NOTHING


@step("Find the promotion in charge")
def find_promotion() -> Json:
    """What is due about the decision whose promotion is the last thing that happened to the deployment."""
    decision_id, log = accepted_decision(systems().serving.read()), systems().decision_log
    kinds = {record.kind: record for record in log.records(decision_id)} if decision_id else {}
    promoted = kinds.get(RecordKind.PROMOTED)
    if promoted is None:
        return {"due": Due.NOTHING}
    return {"due": what_is_due(promoted.at, kinds.keys(), log.now(), systems().policy), "decision_id": decision_id}


@step("Look at the promoted model")
def look(decision_id: str, is_end: bool) -> Json:  # noqa: FBT001 - a step takes plain values
    """The latest windows, or at the end the whole bake time; breaches and what is missing by what they are, in words."""
    found = _look(decision_id, is_end=is_end)
    return {
        "breaches": {breach.kind: breach.found for breach in found.breaches},
        "missing": dict(found.missing),
        "measured": "; ".join(found.measured),
    }


def _look(decision_id: str, *, is_end: bool) -> Findings:
    decision, now = systems().decision_log.read(decision_id), systems().decision_log.now()
    promoted_at = _record(RecordKind.PROMOTED, decision_id).at
    bake = Bake(
        test=decision.request.test,
        decided_at=decision.claim.claimed_at if decision.claim else promoted_at,
        promoted_at=promoted_at,
        serving=systems().serving,
        telemetry=systems().telemetry,
        feedback=systems().feedback,
        policy=systems().policy,
    )
    return bake.whole(now) if is_end else bake.look(now)


@step("Act on a breach")
def act_on_breaches(decision_id: str, breaches: Mapping[str, str]) -> list[str]:
    """Revert if the policy says so, then record each kind of breach once. Returns the kinds; none after a newer change."""
    state, revert_id = systems().serving.read(), f"auto-{decision_id}"
    if accepted_decision(state) != decision_id and not _was_made(revert_id, state):
        return []
    reason = "; ".join(f"{BreachKind(kind).words}: {found}" for kind, found in breaches.items())
    is_reverted = systems().policy.auto_revert and _revert(decision_id, revert_id, reason)
    test_id = systems().decision_log.read(decision_id).request.test.test_id
    for kind, found in breaches.items():
        details = {"decision_id": decision_id, "test_id": test_id, "breach": kind, "found": found, "is_reverted": is_reverted}
        append_record(RecordKind.BREACH, _breach_id(decision_id, BreachKind(kind)), details)
    return list(breaches)


def _was_made(revert_id: str, state: ServingState) -> bool:
    """Whether an earlier execution of this step has reverted, and then died or failed before the breach was recorded."""
    return any(entry["id"] == revert_id for entry in state.unrecorded) or any(systems().decision_log.records(revert_id))


def _revert(decision_id: str, revert_id: str, reason: str) -> bool:
    """Whether Kubernetes has accepted it; the follow-up is started, or else by the reconciler, which finds what is unrecorded."""
    at = systems().decision_log.now()
    try:
        revert_traffic(systems().serving, revert_id=revert_id, actor=ACTOR, reason=reason, at=at, only_promoted_by=decision_id)
    except Superseded:
        return _was_made(revert_id, systems().serving.read())
    except OutsideSystemError as error:
        tell(decision_id, "auto-revert-failed", f"the automatic revert failed and is tried again: {error}", also_to_channel=True)
        return False
    parameters = {"revert_id": revert_id, "actor": ACTOR, "reason": reason}
    try:
        run_deployment(FOLLOW_UP, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=revert_id)
    except (ObjectNotFound, PrefectException, httpx.HTTPError) as error:
        get_run_logger().warning("decision_id=%s the follow-up is left to the reconciler: %s", decision_id, error)
    return True


@step("Say what is breached")
def tell_breaches(decision_id: str) -> list[str]:
    """Every breach that is recorded, once each, also one that Slack was down for. Returns their kinds."""
    test = systems().decision_log.read(decision_id).request.test
    records = _breaches(decision_id)
    for kind, record in records.items():
        breach = Breach(kind, str(record.payload["found"]))
        message = breach_message(test, decision_id, breach, is_reverted=bool(record.payload["is_reverted"]))
        tell_message(decision_id, f"breach-{kind}", message)
    return list(records)


@step("Say what cannot be watched")
def tell_unwatched(decision_id: str, missing: Mapping[str, str]) -> None:
    """Once for each thing that cannot be watched; it is looked for again in every run."""
    for what, why in missing.items():
        text = f"the promotion cannot be watched ({what}): {why}. That is no sign of health; it is tried again every few minutes"
        tell(decision_id, f"unwatched-{what}", text, also_to_channel=True)


@step("End the watch")
def end_bake(decision_id: str, missing: Mapping[str, str], measured: str) -> str:
    """Record that the time is over and what was seen in it, then say it."""
    breaches = list(_breaches(decision_id))
    details = {"test_id": systems().decision_log.read(decision_id).request.test.test_id, "measured": measured}
    details |= {"hours": systems().policy.bake_hours, "breaches": breaches, "missing": dict(missing)}
    append_record(RecordKind.WATCHED, decision_id, details)
    seen = f"breaches: {', '.join(kind.words for kind in breaches)}" if breaches else "no breach"
    unseen = "".join(f"; could not be watched: {what} ({why})" for what, why in missing.items())
    text = f"watched for {timedelta_in_words(systems().policy.bake_hours)}: {seen}{unseen}. {measured or 'Nothing was measured'}"
    tell(decision_id, "watched", text)
    return text


def timedelta_in_words(hours: float) -> str:
    return f"{hours:g} h" if hours >= 1 else str(timedelta(hours=hours)).partition(".")[0]


def _breaches(decision_id: str) -> dict[BreachKind, DecisionRecord]:
    found = {kind: list(systems().decision_log.records(_breach_id(decision_id, kind))) for kind in BreachKind}
    return {kind: records[0] for kind, records in found.items() if records}


def _breach_id(decision_id: str, kind: BreachKind) -> str:
    return f"{decision_id}:{kind}"


def _record(kind: RecordKind, decision_id: str) -> DecisionRecord:
    return next(record for record in systems().decision_log.records(decision_id) if record.kind is kind)
