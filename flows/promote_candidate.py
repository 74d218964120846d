"""Put the candidate in charge: a saga of repeatable steps with one compensation.

Before the operation is opened nothing of production has changed, so a failure there ends the run and says so. From then until the
closing patch, whatever fails finally puts the traffic back before anything else; somebody newer (`Superseded`) stops it without
touching anything more; a crash compensates nothing, because the next execution of the run takes over where this one stood. After
the closing patch the promotion has happened: what remains to be written is repeated until it is.
"""

from __future__ import annotations

from typing import Any

from prefect.runtime import flow_run

from flows.documents import publish_lifecycle, store_documents
from flows.domain.ab_test import Arm
from flows.domain.decision_record import RecordKind
from flows.domain.errors import Superseded
from flows.production_steps import (
    archive_model,
    begin,
    check_candidate,
    close,
    compensate,
    follow_registry,
    put_in_charge,
    record,
    record_superseded,
    restore_registry,
    shift,
    verify,
)
from flows.telling import describe_failure, tell
from flows.wiring import systems

ACCEPTED, PROMOTED, COMPENSATED, SUPERSEDED = "accepted", "promoted", "compensated", "superseded"


def promote_candidate(decision_id: str) -> str:
    """Carry out a confirmed promotion inside a flow run; executed again, it continues.

    Returns:
        `promoted`, `compensated` (a step failed, the baseline serves) or `superseded` (a newer change came first).

    Raises:
        OutsideSystemError: a step before the opening failed, or what follows the change could not be written: retry the run.
    """
    try:
        check_candidate(decision_id)
        archive = archive_model(decision_id, Arm.BASELINE)
        opening = begin(decision_id, flow_run.run_count)
    except Superseded as error:
        return stop_superseded(decision_id, str(error))
    except Exception as error:
        why = (
            f"the promotion has not begun, nothing was changed: {describe_failure(error)}. Repair it and retry the run in Prefect"
        )
        tell(decision_id, "not-begun", why, also_to_channel=True)
        raise
    outcome, why = opening["outcome"], "an earlier execution of this run put everything back"
    if outcome is None:
        outcome, why = _change_production(decision_id, int(opening["epoch"]))
    if outcome == ACCEPTED:
        return _finish_promotion(decision_id, archive)
    if outcome == COMPENSATED:
        return _finish_compensation(decision_id, why)
    return stop_superseded(decision_id, why)


def _change_production(decision_id: str, epoch: int) -> tuple[str, str]:
    """Everything between the opening and the closing patch. Returns the outcome and, unless it is `accepted`, why."""
    try:
        for share_percent in systems().decision_log.read(decision_id).request.plan.traffic_steps:
            shift(decision_id, Arm.CANDIDATE, epoch, share_percent)
            verify(decision_id, Arm.CANDIDATE, epoch, share_percent)
        put_in_charge(decision_id, Arm.CANDIDATE, epoch)
        close(decision_id, epoch)
    except Superseded as error:
        return SUPERSEDED, str(error)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, also a defect: no traffic may stay on an unverified model
        return _put_back(decision_id, epoch, describe_failure(error))
    return ACCEPTED, ""


def _put_back(decision_id: str, epoch: int, why: str) -> tuple[str, str]:
    try:
        return compensate(decision_id, epoch, why), why
    except Superseded as error:
        return SUPERSEDED, f"{error} (before that: {why})"


def _finish_promotion(decision_id: str, archive: dict[str, Any]) -> str:
    record(decision_id, RecordKind.PROMOTED, {"archive": archive})
    store_documents(decision_id, RecordKind.PROMOTED)
    publish_lifecycle(decision_id)
    return PROMOTED


def _finish_compensation(decision_id: str, why: str) -> str:
    """The record first: the traffic is back, and a registry that is down must not keep that from being told."""
    record(decision_id, RecordKind.COMPENSATED, {"why": why})
    restore_registry(decision_id)
    store_documents(decision_id, RecordKind.COMPENSATED)
    publish_lifecycle(decision_id)
    return COMPENSATED


def stop_superseded(decision_id: str, why: str) -> str:
    """Record it and let the registry follow whatever serves now; nothing else is touched."""
    record_superseded(decision_id, why)
    follow_registry(decision_id)
    return SUPERSEDED
