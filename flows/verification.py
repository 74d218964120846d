"""Whether recorded decisions still are what was recorded: chain, verdicts, answers, stored files, archived artifacts.

Each function returns a sentence for everything that differs, which names the record or the file; none when all is as it was.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.decision_json import claim_from_json, claim_to_json
from flows.domain.ab_test import ABTest, Arm
from flows.domain.decision import NextStep, next_step
from flows.domain.decision_record import RecordKind, chain_problems, latest_outcome, lost_records, noted_files, reverts_after
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import Evidence, rebuilt
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.reports.dossier import Dossier
from flows.reports.record_json import DOCUMENT_SCHEMA, JSON_NAME, document_json, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.domain.ab_test import Model
    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord
    from flows.ports import Archive, Registry

Json = dict[str, Any]
_ARCHIVED = {RecordKind.PROMOTED: Arm.BASELINE, RecordKind.BASELINE_KEPT: Arm.CANDIDATE}
_IN_OUR_WORDS = ("outcome_text", "business_impact")
_OF_THE_QUESTION = ("test", "verdict", "evidence", "policy", "business_impact")
_TAKEN_OVER = "request.flow_run_id"  # by the run that waits for the answer now


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
    return [*chain_problems(records), *(problem for record in _answers(records) for problem in _recorded_problems(record))]


def answer_problems(decision_id: str, decision: Decision | None, records: Sequence[DecisionRecord]) -> list[str]:
    """The answer to a decision: its record with the verdict in it, and its row in the table `decisions`, which the flow acts on.

    Args:
        decision: by that table; None when it has none of this id.
        records: those of this decision.
    """
    answered = _answers(records)
    problems = [] if answered else [f"The record of the answer to {decision_id} is missing from the log."]
    if decision is None:
        problems.append(f"The table decisions has no {decision_id}, but {records[0]} tells of it.")
    for record in answered:
        problems += [*(_row_problems(decision, record) if decision else ()), *_recorded_problems(record)]
    return problems


def _answers(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    return [record for record in records if record.kind is RecordKind.DECIDED]


def _recorded_problems(record: DecisionRecord) -> list[str]:
    request: Any = record.payload["request"]
    return verdict_problems(record.decision_id, request)


def _row_problems(decision: Decision, record: DecisionRecord) -> list[str]:
    """Everything that was asked and answered, and nothing but what may change later."""
    if decision.claim is None:
        return [f"The table decisions says of {decision.decision_id} that it is not answered, but {record} tells who did."]
    recorded = _woken(claim_from_json(record.payload), decision.claim.due_at)
    row, told = _leaves(claim_to_json(decision)), _leaves(claim_to_json(recorded))
    return [
        f"The table decisions says of {decision.decision_id} that {field} is {row.get(field)!r}, "
        f"but {record} says {told.get(field)!r}."
        for field in told | row
        if row.get(field) != told.get(field) and field != _TAKEN_OVER
    ]


def _woken(recorded: Decision, due_at: datetime | None) -> Decision:
    """A postponement until frauds are seen ends when they are: that is no later than was recorded."""
    claim = recorded.claim
    if claim is None or claim.wanted_frauds is None or claim.due_at is None or due_at is None or due_at > claim.due_at:
        return recorded
    return replace(recorded, claim=replace(claim, due_at=due_at))


def _leaves(value: Any, path: str = "") -> Json:
    """Each plain value in nested JSON by its path: `request.verdict.verdict`."""
    if not value or not isinstance(value, dict | list):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: Json = {}
    for key, one in items:
        found |= _leaves(one, f"{path}.{key}" if path else str(key))
    return found


def document_problems(name: str, body: Json, *, is_noted: bool = False) -> list[str]:
    """A decision document by itself: its records' hashes, all that it tells against these records, its verdict.

    Args:
        is_noted: its SHA-256 is compared too. Without that its sentences are compared with those that this version writes.

    Raises:
        KeyError, ValueError, TypeError: it is no decision document of this version.
    """
    if body["schema"] != DOCUMENT_SCHEMA:
        raise ValueError(f"schema {body['schema']}, not {DOCUMENT_SCHEMA}")
    records = read_records(body)
    problems = [
        f"{name}: {record} was changed after it was written: its content gives {record.recomputed_hash}."
        for record in records
        if record.hash != record.recomputed_hash
    ]
    dossier = _dossier(body, records)
    told, skipped = json.loads(document_json(dossier)), _IN_OUR_WORDS if is_noted else ()
    if dossier.decision is None and body["verdict"] is not None:  # an emergency before the answer to the test's first question
        skipped = (*skipped, *_OF_THE_QUESTION)
    problems += [_differs(name, field) for field in told | body if body.get(field) != told.get(field) and field not in skipped]
    return problems + (verdict_problems(name, body) if body["verdict"] else [])


def _dossier(body: Json, records: Sequence[DecisionRecord]) -> Dossier:
    """What a document was written from, by the records in it."""
    [ending] = [record for record in records if record.sequence == body["record"]]
    answered = _answers(records)
    if not answered:
        return Dossier(reverted_test(ending) or rebuilt(ABTest, body["test"]), None, ending, tuple(records))
    due_at = (body["decision"] or {}).get("due_at")
    decision = _woken(claim_from_json(answered[-1].payload), datetime.fromisoformat(due_at) if due_at else None)
    return Dossier(decision.request.test, decision, ending, tuple(records))


def reverted_test(record: DecisionRecord) -> ABTest | None:
    """The test that the deployment was in; None when it was in none."""
    told: Any = record.payload.get("test")
    return rebuilt(ABTest, told) if told else None


def _differs(name: str, field: str) -> str:
    if field in _IN_OUR_WORDS:
        return f"{name}: {field} was changed, or written by another version of fraud-ab: its records give other words."
    return f"{name}: {field} was changed: its record tells otherwise."


def noted_problems(name: str, sha256: str, noted: Mapping[str, str]) -> list[str]:
    """A file against the digests that MLflow's tags and the log's records note of it."""
    return [
        f"{name} was changed: its SHA-256 is {sha256}, and {place} notes {digest}."
        if digest
        else f"{name} is not noted by {place}: the tag with its SHA-256 is gone."
        for place, digest in noted.items()
        if digest != sha256
    ]


def recorded_digest(folder: str, file: str, records: Sequence[DecisionRecord]) -> dict[str, str]:
    """The SHA-256 of a stored file by the record that tells of it last; empty when none does."""
    found = noted_files(records, folder).get(file)
    return {str(found[0]): found[1]} if found else {}


def stored_problems(
    test: ABTest,
    folder: str,
    records: Sequence[DecisionRecord],
    registry: Registry,
    *,
    expected: Sequence[str] = (),
    must_exist: bool = True,
) -> list[str]:
    """The files in a folder of the test's run: against the digests in MLflow's tags and in the log's records. A decision document
    also by itself, and its records against the log's.

    Args:
        records: the whole log. What a document tells of and the log no longer has was removed from the log, also at its end.
        expected: files that are looked at also when no record tells of them.
        must_exist: whether an expected file that cannot be read is a problem; one that a record tells of always is.
    """
    problems: list[str] = []
    for file in dict.fromkeys((*expected, *noted_files(records, folder))):
        name, recorded = f"{folder}/{file}", recorded_digest(folder, file, records)
        try:
            stored = registry.stored_document(test, name)
        except OutsideSystemError as error:
            problems += [f"{name} cannot be compared: {error}."] if must_exist or recorded else []
            continue
        tags = {} if file.endswith(".png") else stored.noted  # of pictures the records alone hold the digest
        problems += noted_problems(name, stored.sha256, {**tags, **recorded})
        if not recorded:
            problems.append(f"{name} is in no record: nothing but MLflow's tags tells its SHA-256.")
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
    reverts = [record.decision_id for record in reverts_after(decision.decision_id, records)]
    return {decision.decision_id: goes_on or is_over, **dict.fromkeys(reverts, True)}


def _content_problems(name: str, text: str, records: Sequence[DecisionRecord]) -> list[str]:
    try:
        body = json.loads(text)
        return [*document_problems(name, body, is_noted=True), *lost_records(records, read_records(body))]
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
