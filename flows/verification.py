"""Whether recorded decisions still are what was recorded: chain, verdicts, stored documents, archived artifacts.

Each function returns a sentence for everything that differs, which names the record or the file; none when all is as it was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flows.decision_json import claim_to_json
from flows.domain.ab_test import Arm
from flows.domain.decision import NextStep, next_step
from flows.domain.decision_record import RecordKind, chain_problems, latest_outcome, lost_records
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.reports.decision_document import DOCUMENT_NAME
from flows.reports.dossier import document_folder
from flows.reports.record_json import JSON_NAME, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord
    from flows.ports import Archive, Registry

Json = dict[str, Any]
_ARCHIVED = {RecordKind.PROMOTED: Arm.BASELINE, RecordKind.BASELINE_KEPT: Arm.CANDIDATE}


def verdict_problems(name: str, recorded: Mapping[str, Any]) -> list[str]:
    """A verdict against the evidence and the policy that stand beside it.

    Raises:
        KeyError, ValueError, TypeError: they are not of this version.
    """
    evidence, policy = recorded["evidence"], recorded["policy"]
    if evidence is None or policy is None:
        return [f"{name}: the record holds no evidence or no policy, so the verdict cannot be recomputed."]
    again = decide_verdict(Evidence.from_json(evidence), Policy.model_validate(policy)).to_json()
    return [
        f"{name}: {field} is recorded as {recorded['verdict'].get(field)!r}, but the evidence gives {value!r}."
        for field, value in again.items()
        if recorded["verdict"].get(field) != value
    ]


def log_problems(records: Sequence[DecisionRecord]) -> list[str]:
    """The whole chain, and the verdict of each answered decision in it."""
    answered = [record for record in records if record.kind is RecordKind.DECIDED]
    return [*chain_problems(records), *(problem for record in answered for problem in _recorded_problems(record))]


def answer_problems(decision_id: str, decision: Decision | None, records: Sequence[DecisionRecord]) -> list[str]:
    """The answer to a decision: its record with the verdict in it, and its row in the table `decisions`, which the flow acts on.

    Args:
        decision: by that table; None when it has none of this id.
        records: those of this decision.
    """
    answered = [record for record in records if record.kind is RecordKind.DECIDED]
    problems = [] if answered else [f"The record of the answer to {decision_id} is missing from the log."]
    if decision is None:
        problems.append(f"The table decisions has no {decision_id}, but {records[0]} tells of it.")
    for record in answered:
        problems += [*(_row_problems(decision, record) if decision else ()), *_recorded_problems(record)]
    return problems


def _recorded_problems(record: DecisionRecord) -> list[str]:
    request: Any = record.payload["request"]
    return verdict_problems(record.decision_id, request)


def _row_problems(decision: Decision, record: DecisionRecord) -> list[str]:
    row, told = claim_to_json(decision), record.payload
    return [
        f"The table decisions says of {decision.decision_id} that {field} is {row[field]!r}, but {record} says {told[field]!r}."
        for field in ("choice", "actor", "reason", "claimed_at")
        if row[field] != told[field]
    ]


def document_problems(name: str, body: Json) -> list[str]:
    """A decision document by itself: its records' hashes, its words against its records, its verdict.

    Raises:
        KeyError, ValueError, TypeError: it is no decision document of this version.
    """
    records = read_records(body)
    problems = [
        f"{name}: {record} was changed after it was written: its content gives {record.recomputed_hash}."
        for record in records
        if record.hash != record.recomputed_hash
    ]
    [ending] = [record for record in records if record.sequence == body["record"]]
    told = {"outcome": str(ending.kind), "actions": ending.payload, "decision_id": ending.decision_id}
    for answered in (record for record in records if record.kind is RecordKind.DECIDED):
        request: Any = answered.payload["request"]
        told |= {field: request[field] for field in ("verdict", "evidence", "policy")}
    problems += [
        f"{name}: {field} was changed: its record tells otherwise." for field, value in told.items() if body[field] != value
    ]
    return problems + (verdict_problems(name, body) if body["verdict"] else [])


def noted_problems(name: str, sha256: str, noted: Mapping[str, str]) -> list[str]:
    """A file against the digests that MLflow has noted of it."""
    return [
        f"{name} was changed: its SHA-256 is {sha256}, and {place} notes {digest}."
        if digest
        else f"{name} is not noted by {place}: the tag with its SHA-256 is gone."
        for place, digest in noted.items()
        if digest != sha256
    ]


def stored_problems(
    test: ABTest, decision_id: str, records: Sequence[DecisionRecord], registry: Registry, *, must_exist: bool = True
) -> list[str]:
    """The documents on the test's run: against the noted digests, by themselves, and their records against the log's.

    Args:
        records: the whole log. What a document tells of and the log no longer has was removed from the log, also at its end.
        must_exist: whether a document that cannot be read is a problem.
    """
    problems: list[str] = []
    for file in (DOCUMENT_NAME, JSON_NAME):
        name = f"{document_folder(decision_id)}/{file}"
        try:
            stored = registry.stored_document(test, name)
        except OutsideSystemError as error:
            problems += [f"{name} cannot be compared: {error}."] if must_exist else []
            continue
        problems += noted_problems(name, stored.sha256, stored.noted)
        if file == JSON_NAME:
            problems += _content_problems(name, stored.text, records)
    return problems


def documented(decision: Decision, records: Sequence[DecisionRecord]) -> dict[str, bool]:
    """Whose documents belong to a decision, its own and those of the emergencies after it, and whether they must be there: until
    something has come of it, unless the test goes on, a decision has none."""
    kinds = [record.kind for record in records if record.decision_id == decision.decision_id]
    goes_on = (
        decision.claim is not None and next_step(decision.request.verdict.kind, decision.claim.choice) is NextStep.EVALUATE_AGAIN
    )
    is_over = latest_outcome(kinds) not in (None, RecordKind.FAILED)
    reverts = [
        record.decision_id
        for record in records
        if record.kind is RecordKind.EMERGENCY_REVERT and record.payload.get("decision_id") == decision.decision_id
    ]
    return {decision.decision_id: goes_on or is_over, **dict.fromkeys(reverts, True)}


def _content_problems(name: str, text: str, records: Sequence[DecisionRecord]) -> list[str]:
    try:
        body = json.loads(text)
        return [*document_problems(name, body), *lost_records(records, read_records(body))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{name} is no decision document of this version ({type(error).__name__}: {error})."]


def archive_problems(test: ABTest, records: Sequence[DecisionRecord], archive: Archive) -> list[str]:
    """Every file of the archived model against its manifest, and the manifest against the record of the change."""
    problems: list[str] = []
    for record in records:
        receipt: Any = record.payload.get("archive")
        if record.kind in _ARCHIVED and isinstance(receipt, dict) and "manifest_sha256" in receipt:
            problems += _archive_problems(test.model(_ARCHIVED[record.kind]), record, receipt, archive)
    return problems


def _archive_problems(model: Model, record: DecisionRecord, receipt: Mapping[str, Any], archive: Archive) -> list[str]:
    try:
        found = archive.verify(model)
    except OutsideSystemError as error:
        return [f"The archive of {model} is not as {record} tells: {error}."]
    if found.manifest_sha256 == receipt["manifest_sha256"]:
        return []
    noted = receipt["manifest_sha256"]
    return [f"{found.uri}/manifest.json was changed: its SHA-256 is {found.manifest_sha256}, and {record} notes {noted}."]
