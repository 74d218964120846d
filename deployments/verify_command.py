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

    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord
    from flows.ports import Archive, DecisionLog, Registry

_NOT_VERIFIED = 1
LogUrl = Annotated[str | None, typer.Option(envvar="FRAUD_AB_DECISION_LOG_URL", help="the decision log, for a decision's id")]


def verify_record(
    which: Annotated[
        str, typer.Argument(help="a decision's id in the decision log, a decision_document.json, or a file of export-records")
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
            problems, skipped = _of_file(Path(which), tracking_uri)
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


def _of_file(file: Path, tracking_uri: str | None) -> tuple[list[str], list[str]]:
    """What differs, and what could not be compared."""
    from flows.reports.record_json import read_records
    from flows.verification import document_problems, log_problems

    content = file.read_bytes()
    body: dict[str, Any] = json.loads(content)
    if "outcome" not in body:
        return log_problems(read_records(body)), ["records that were removed at the end (--against, on the log itself)"]
    registry = _registry(tracking_uri)
    if registry is None:
        return document_problems(str(file), body), ["the digest in MLflow's tags (MLFLOW_TRACKING_URI)"]
    return document_problems(str(file), body) + _noted(file, content, body, registry), []


def _noted(file: Path, content: bytes, body: dict[str, Any], registry: Registry) -> list[str]:
    """Against the tags of the run and the model versions that the document itself names."""
    from flows.domain.ab_test import ABTest
    from flows.domain.evidence import rebuilt
    from flows.reports.dossier import document_folder
    from flows.reports.record_json import JSON_NAME
    from flows.verification import noted_problems

    test = rebuilt(ABTest, body["test"])
    stored = registry.stored_document(test, f"{document_folder(body['decision_id'])}/{JSON_NAME}")
    return noted_problems(str(file), hashlib.sha256(content).hexdigest(), stored.noted)


def _of_log(
    decision_id: str, log_url: str | None, registry: Registry | None, archive: Archive | None, against: Path | None
) -> tuple[list[str], list[str]]:
    from flows.domain.decision_record import chain_problems, lost_records
    from flows.reports.record_json import read_records
    from flows.verification import answer_problems, archive_problems, documented, stored_problems

    log = _log(log_url)
    records = list(log.records())
    of_it = [record for record in records if record.decision_id == decision_id]
    decision = _decision(log, decision_id, of_it)
    problems, skipped = [*chain_problems(records), *answer_problems(decision_id, decision, of_it)], list[str]()
    if decision is None:
        return problems, skipped
    test = decision.request.test
    if registry is not None:
        for one, must_exist in documented(decision, records).items():
            problems += stored_problems(test, one, records, registry, must_exist=must_exist)
    else:
        skipped.append("the stored documents (MLFLOW_TRACKING_URI)")
    if archive is not None:
        problems += archive_problems(test, of_it, archive)
    else:
        skipped.append("the archived artifacts (FRAUD_AB_ARCHIVE_BUCKET)")
    if against is not None:
        problems += lost_records(records, read_records(json.loads(against.read_text(encoding="utf-8"))))
    return problems, skipped


def _decision(log: DecisionLog, decision_id: str, of_it: Sequence[DecisionRecord]) -> Decision | None:
    """The answered decision; None when only its records are left."""
    try:
        decision = log.read(decision_id)
    except UnknownDecision:
        if of_it:
            return None
        raise
    if decision.claim is None:
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
