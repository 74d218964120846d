"""Put the candidate in charge: a saga of repeatable steps with one compensation.

Before the operation is opened nothing of production has changed, so a failure there ends the run and says so. From then until the
closing patch, whatever fails finally puts the traffic back before anything else; somebody newer (`Superseded`) stops it without
touching anything more; a crash compensates nothing, because the next execution of the run takes over where this one stood. After
the closing patch the promotion has happened: what remains to be written is repeated until it is.

A promotion that was undone and documented may be tried again: *Retry* of its run in Prefect begins anew, under the same decision.
"""

from __future__ import annotations

from prefect.runtime import flow_run

from flows.documents import publish_lifecycle, store_documents, update_manifest
from flows.domain.ab_test import Arm
from flows.domain.decision_record import RecordKind
from flows.domain.errors import Superseded
from flows.investigation_start import investigate_if_lost
from flows.preflight import check_candidate
from flows.production_steps import (
    ACCEPTED,
    COMPENSATED,
    archive_model,
    begin,
    close,
    compensate,
    find_standing,
    record,
    record_superseded,
    remember_failure,
    shift,
    verify,
)
from flows.registry_steps import follow_registry, put_in_charge
from flows.stakeholders import tell_stakeholders
from flows.telling import describe_failure, tell, tell_trouble
from flows.wiring import systems

PROMOTED, SUPERSEDED = "promoted", "superseded"


def promote_candidate(decision_id: str) -> str:
    """Carry out a confirmed promotion inside a flow run; executed again, it continues.

    Returns:
        `promoted`, `compensated` (a step failed, the baseline serves) or `superseded` (a newer change came first).

    Raises:
        PreflightFailed, OutsideSystemError: it has not begun, could not be put back yet, or what follows the change could not be
            written; the run is executed again.
        PromotionUndone: it was undone and may not be tried again.
    """
    attempt = flow_run.run_count
    try:
        standing = find_standing(decision_id, attempt)
        if standing["outcome"] is None and not standing["is_open"]:
            _prepare(decision_id, attempt)
        opening = begin(decision_id, attempt)
    except Superseded as error:
        return stop_superseded(decision_id, str(error))
    epoch, outcome, why = int(opening["epoch"]), opening["outcome"], str(opening["why"])
    if outcome is None:
        failed = opening["failed"]
        outcome, why = _put_back(decision_id, epoch, failed) if failed else _change_production(decision_id, epoch)
        epoch += 1  # both ends raise it
    if outcome == ACCEPTED:
        return _finish_promotion(decision_id, epoch)
    if outcome == COMPENSATED:
        return _finish_compensation(decision_id, epoch, why)
    return stop_superseded(decision_id, why)


def _prepare(decision_id: str, attempt: int) -> None:
    """All that can go wrong before anything is changed."""
    try:
        check_candidate(decision_id, attempt)
        archive_model(decision_id, Arm.BASELINE)
    except Superseded:
        raise
    except Exception as error:
        why = describe_failure(error)
        text = f"the promotion has not begun, nothing was changed: {why}. {_tried_again(decision_id)}"
        tell_trouble(decision_id, "not-begun", why, text)
        raise


def _tried_again(decision_id: str) -> str:
    """An answer that was carried out before, so that this is another attempt, is not tried again by itself."""
    if systems().decision_log.read(decision_id).consumed_at is None:
        return "It is tried again until that is mended"
    return "Retry the run in Prefect when that is mended"


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
    """Traffic first. Where even that fails it is remembered and told, and the next execution begins with it."""
    try:
        return compensate(decision_id, epoch, why), why
    except Superseded as error:
        return SUPERSEDED, f"{error} (before that: {why})"
    except Exception as error:
        remember_failure(decision_id, epoch, why, return_state=True)
        trouble = (
            f"the promotion failed ({why}) and could not be put back: {describe_failure(error)}. It is tried again until it is"
        )
        tell(decision_id, f"not-put-back-{epoch}", f"{trouble}; /fraud-rollback does the same at once", also_to_channel=True)
        raise


def _finish_promotion(decision_id: str, epoch: int) -> str:
    archive = archive_model(decision_id, Arm.BASELINE)
    record(decision_id, RecordKind.PROMOTED, {"archive": archive}, epoch)
    tell_stakeholders(decision_id, RecordKind.PROMOTED)
    store_documents(decision_id, RecordKind.PROMOTED)
    publish_lifecycle(decision_id)
    update_manifest(decision_id)
    return PROMOTED


def _finish_compensation(decision_id: str, epoch: int, why: str) -> str:
    """The record first: the traffic is back, and a registry that is down must not keep that from being told."""
    record(decision_id, RecordKind.COMPENSATED, {"why": why}, epoch)
    investigate_if_lost(decision_id, RecordKind.COMPENSATED)
    tell_stakeholders(decision_id, RecordKind.COMPENSATED, epoch)
    follow_registry(decision_id, epoch)
    store_documents(decision_id, RecordKind.COMPENSATED, epoch)
    publish_lifecycle(decision_id, epoch)
    update_manifest(decision_id, epoch)
    return COMPENSATED


def stop_superseded(decision_id: str, why: str) -> str:
    """Record it, let the registry follow whatever serves now, and document it; nothing else is touched."""
    record_superseded(decision_id, why)
    follow_registry(decision_id, flow_run.run_count)
    store_documents(decision_id, RecordKind.SUPERSEDED)
    publish_lifecycle(decision_id)
    return SUPERSEDED
