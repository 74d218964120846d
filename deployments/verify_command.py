"""`fraud-ab verify-record` and `fraud-ab export-records`: was this decided on these numbers, by this policy, and has nobody
changed it since?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.domain.errors import FraudABError, UnknownDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.ab_test import ABTest
    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord
    from flows.ports import Archive, DecisionLog, Registry

_NOT_VERIFIED = 1
_NO_DOCUMENTS = "the stored documents (MLFLOW_TRACKING_URI)"
LogUrl = Annotated[str | None, typer.Option(envvar="FRAUD_AB_DECISION_LOG_URL", help="the decision log, for a decision's id")]


def verify_record(
    which: Annotated[
        str,
        typer.Argument(
            help="the id of a decision or emergency in the decision log, a decision_document.json, or a file of export-records"
        ),
    ],
    log_url: LogUrl = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, whose tags note each document's SHA-256")
    ] = None,
    archive_bucket: Annotated[
        str | None, typer.Option(envvar="FRAUD_AB_ARCHIVE_BUCKET", help="the archive, whose manifest the record notes")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="an earlier file of export-records: which of its records does the log no longer have?")
    ] = None,
) -> None:
    """Recompute a recorded verdict from its recorded counts and policy, and every hash. Exit 1 if anything differs."""
    try:
        if which.endswith(".json"):
            problems, skipped = _of_file(Path(which), log_url, _registry(tracking_uri))
        else:
            problems, skipped = _of_log(which, log_url, _registry(tracking_uri), _archive(archive_bucket), against)
    except OSError as error:
        raise FraudABError(f"{error.filename or which} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FraudABError(
            f"{which} is no decision document or record of this version ({type(error).__name__}: {error})."
        ) from error
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(_NOT_VERIFIED)
    typer.echo(f"{which}: every verdict follows from its evidence and policy, and the hashes agree.")
    if skipped:
        typer.echo(f"Not compared: {'; '.join(skipped)}.")


def export_records(
    file: Annotated[Path, typer.Argument(help="where to write them, as JSON")],
    log_url: LogUrl = None,
) -> None:
    """Write all decision records, for who wants to verify them elsewhere or later."""
    from flows.reports.record_json import export_json

    records = list(_log(log_url).records())
    try:
        file.write_text(export_json(records), encoding="utf-8")
    except OSError as error:
        raise FraudABError(f"{file} cannot be written: {error.strerror}.") from error
    latest = f"; the latest is {records[-1]}, {records[-1].hash}" if records else ""
    typer.echo(f"{file}: {len(records)} records{latest}.")


def _of_file(file: Path, log_url: str | None, registry: Registry | None) -> tuple[list[str], list[str]]:
    """What differs, and what could not be compared."""
    from flows.reports.record_json import read_records
    from flows.verification import document_problems, log_problems, noted_problems

    content = file.read_bytes()
    body: dict[str, Any] = json.loads(content)
    if "outcome" not in body:
        return log_problems(read_records(body)), ["records that were removed at the end (--against, on the log itself)"]
    noted, problems, skipped = dict[str, str](), list[str](), list[str]()
    if registry is not None:
        noted |= _tags(body, registry)
    else:
        skipped.append("the digest in MLflow's tags (MLFLOW_TRACKING_URI)")
    if log_url:
        recorded = _recorded(body, _log(log_url))
        noted |= recorded
        problems += [] if recorded else [f"{file} is in no record of the log: its SHA-256 is not known there."]
    else:
        skipped.append("the digest in the log's records (FRAUD_AB_DECISION_LOG_URL)")
    told = document_problems(str(file), body, is_noted=bool(noted))
    return [*told, *noted_problems(str(file), hashlib.sha256(content).hexdigest(), noted), *problems], skipped


def _tags(body: dict[str, Any], registry: Registry) -> dict[str, str]:
    """The digests at the run and the model versions that a document itself names."""
    from flows.domain.ab_test import ABTest
    from flows.domain.evidence import rebuilt
    from flows.reports.dossier import document_folder
    from flows.reports.record_json import JSON_NAME

    test = rebuilt(ABTest, body["test"])
    return dict(registry.stored_document(test, f"{document_folder(body['decision_id'])}/{JSON_NAME}").noted)


def _recorded(body: dict[str, Any], log: DecisionLog) -> dict[str, str]:
    from flows.reports.dossier import document_folder
    from flows.reports.record_json import JSON_NAME
    from flows.verification import recorded_digest

    folder = document_folder(body["decision_id"])
    return recorded_digest(folder, JSON_NAME, list(log.records(folder)))


def _of_log(
    which: str, log_url: str | None, registry: Registry | None, archive: Archive | None, against: Path | None
) -> tuple[list[str], list[str]]:
    from flows.domain.decision_record import chain_problems, lost_records
    from flows.reports.record_json import read_records

    log = _log(log_url)
    records = list(log.records())
    of_it = [record for record in records if record.decision_id == which]
    if of_it and all(record.kind.has_own_id for record in of_it):
        found, skipped = _of_others(of_it, log, records, registry)
    else:
        found, skipped = _of_decision(which, log, records, registry, archive)
    problems = [*chain_problems(records), *found]
    if against is not None:
        problems += lost_records(records, read_records(json.loads(against.read_text(encoding="utf-8"))))
    return problems, skipped


def _of_decision(
    decision_id: str, log: DecisionLog, records: Sequence[DecisionRecord], registry: Registry | None, archive: Archive | None
) -> tuple[list[str], list[str]]:
    from flows.reports.dossier import investigation_folder
    from flows.verification import answer_problems, archive_problems, documented, stored_problems

    of_it = [record for record in records if record.decision_id == decision_id]
    decision = _decision(log, decision_id, of_it)
    problems, skipped = answer_problems(decision_id, decision, of_it), list[str]()
    if decision is None:
        return problems, skipped
    test = decision.request.test
    if registry is not None:
        for one, must_exist in documented(decision, records).items():
            problems += _documents(test, one, records, registry, must_exist=must_exist)
        problems += stored_problems(test, investigation_folder(decision_id), records, registry)
    else:
        skipped.append(_NO_DOCUMENTS)
    if archive is not None:
        problems += archive_problems(test, of_it, archive)
    else:
        skipped.append("the archived artifacts (FRAUD_AB_ARCHIVE_BUCKET)")
    return problems, skipped


def _of_others(
    of_it: Sequence[DecisionRecord], log: DecisionLog, records: Sequence[DecisionRecord], registry: Registry | None
) -> tuple[list[str], list[str]]:
    """What is nobody's answer: of an emergency its documents; of the others the chain says all."""
    from flows.domain.decision_record import RecordKind
    from flows.verification import reverted_test

    [record, *_] = of_it
    if record.kind is not RecordKind.EMERGENCY_REVERT:
        return [], []
    about = str(record.payload.get("decision_id", ""))
    test = log.read(about).request.test if about else reverted_test(record)
    if test is None:
        return [], ["documents (the deployment was in no test, so there are none)"]
    if registry is None:
        return [], [_NO_DOCUMENTS]
    return _documents(test, record.decision_id, records, registry, must_exist=True), []


def _documents(test: ABTest, one: str, records: Sequence[DecisionRecord], registry: Registry, *, must_exist: bool) -> list[str]:
    from flows.reports.decision_document import DOCUMENT_NAME
    from flows.reports.dossier import document_folder
    from flows.reports.record_json import JSON_NAME
    from flows.verification import stored_problems

    files = (DOCUMENT_NAME, JSON_NAME)
    return stored_problems(test, document_folder(one), records, registry, expected=files, must_exist=must_exist)


def _decision(log: DecisionLog, decision_id: str, of_it: Sequence[DecisionRecord]) -> Decision | None:
    """The answered decision, maybe by its records alone; None when only these are left."""
    from flows.domain.decision_record import RecordKind

    try:
        decision = log.read(decision_id)
    except UnknownDecision:
        if of_it:
            return None
        raise
    if decision.claim is None and not any(record.kind is RecordKind.DECIDED for record in of_it):
        raise UnknownDecision(f"{decision_id} is not decided yet, so there is no record to verify.")
    return decision


def _log(log_url: str | None) -> DecisionLog:
    from flows.adapters.decision_log_sql import SqlDecisionLog

    if not log_url:
        raise FraudABError("Set FRAUD_AB_DECISION_LOG_URL: the records are in the decision log.")
    return SqlDecisionLog(log_url)


def _registry(tracking_uri: str | None) -> Registry | None:
    if not tracking_uri:
        return None
    from flows.adapters.registry_mlflow import MlflowRegistry
    from flows.settings import RegistryMode

    return MlflowRegistry(tracking_uri, RegistryMode.BOTH)


def _archive(bucket: str | None) -> Archive | None:
    if not bucket:
        return None
    from flows.adapters.archive_s3 import S3Archive

    return S3Archive(bucket)
