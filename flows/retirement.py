"""The end of a replaced baseline's predictor: nothing is retired before its archive is verified, and the way back stays."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.documents import update_manifest
from flows.domain.action_plan import Change
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError, Superseded
from flows.domain.serving_state import describe_serving, retire_baseline
from flows.production_steps import append_record, change_serving
from flows.steps import step
from flows.telling import describe_failure, tell, tell_trouble
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.domain.ab_test import Model
    from flows.domain.decision_record import DecisionRecord
    from flows.domain.serving_state import ServingChange, ServingState


def retire(decision_id: str) -> str:
    """Retire the predictor of the baseline that this promotion replaced; repeated, it changes nothing more.

    Returns:
        `retired`, or why not: `not retired: …` (tried again later) or `obsolete: …` (a newer change came first).
    """
    try:
        epoch = retire_predictor(decision_id)
    except Superseded as error:
        return f"obsolete: {error}"
    except OutsideSystemError as error:
        tell_not_retired(decision_id, describe_failure(error))
        return f"not retired: {error}"
    update_manifest(decision_id, epoch)
    return "retired"


@step("Retire the baseline's predictor")
def retire_predictor(decision_id: str) -> int:
    """Verify the archive, remove the predictor in one fenced patch, record it. Returns the raised epoch.

    Raises:
        Superseded: the promotion is not the last change any more, or the baseline has traffic.
        OutsideSystemError: the archive is not what the promotion made, or the watch is no reason to trust the promoted model.
    """
    baseline = systems().decision_log.read(decision_id).request.test.baseline
    records = {record.kind: record for record in systems().decision_log.records(decision_id)}
    _require_healthy_watch(baseline, records)
    receipt = _verified_archive(baseline, records[RecordKind.PROMOTED])
    before: list[str] = []

    def decide(state: ServingState) -> ServingChange | None:
        before.append(describe_serving(state))
        return retire_baseline(state, decision_id)

    state = change_serving(decide)
    details = {"predictor": baseline.predictor, "archive": receipt, "epoch": state.epoch}
    append_record(RecordKind.RETIRED, decision_id, details)
    text = (
        f"{baseline.predictor} is retired: its predictor is gone from {state.name}, its {receipt['files']} archived files are "
        "verified. A rollback would start it again from the rollback point first, which takes minutes instead of seconds"
    )
    tell(decision_id, "retired", text, [Change("predictors", before[-1], describe_serving(state))])
    return state.epoch


@step("Say why the baseline is not retired")
def tell_not_retired(decision_id: str, why: str) -> None:
    """Again only when the reason changes."""
    text = f"the baseline's predictor is not retired: {why}. It stays and is ready for a rollback; tried again every hour"
    tell_trouble(decision_id, "not-retired", why, text)


def _require_healthy_watch(baseline: Model, records: Mapping[RecordKind, DecisionRecord]) -> None:
    """Nothing is required where the policy has nothing watched."""
    if not systems().policy.bake_hours:
        return
    watched = records[RecordKind.WATCHED].payload
    if watched["breaches"] or not watched["measured"]:
        seen = "saw breaches" if watched["breaches"] else "measured nothing"
        doing = f"retiring {baseline.predictor}: the watch after the promotion {seen}, so a person removes it, or nobody"
        raise OutsideSystemError("Verification", doing, retryable=False)


def _verified_archive(baseline: Model, promoted: DecisionRecord) -> dict[str, Any]:
    """Every file as it was archived by this promotion, not only as some manifest says."""
    receipt, kept = systems().archive.verify(baseline), promoted.payload["archive"]
    if not isinstance(kept, dict) or kept.get("manifest_sha256") != receipt.manifest_sha256:
        doing = f"verifying the archive of {baseline}: it is not the one that was made at the promotion"
        raise OutsideSystemError("S3", doing, retryable=False)
    return asdict(receipt)
