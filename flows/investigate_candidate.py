"""Why the candidate lost: drift, overfitting, model, pipeline. Started by a lost test, from Slack, or by hand.

Nothing here changes production. A part that fails is named as not testable and the report comes out all the same; *Retry* goes on
with what is not done yet.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from flows.diagnosis import diagnose
from flows.documents import document_investigation, keep_files
from flows.domain.ab_test import Arm
from flows.domain.decision_record import Investigation, RecordKind
from flows.domain.errors import DataInvalid, FraudABError
from flows.domain.evidence import plain
from flows.execution import tell_failure
from flows.investigation_material import Gathering, compare_files, read_making
from flows.investigation_report import (
    FINDINGS,
    draw_pictures,
    root_cause,
    show_report,
    store_report,
    tell_findings,
)
from flows.production_steps import append_record
from flows.reports.dossier import investigation_folder
from flows.reports.root_cause_report import report_summary
from flows.steps import step
from flows.table_drift import compare_tables
from flows.table_summaries import count_labels
from flows.telling import describe_failure
from flows.wiring import systems

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import State
    from prefect.tasks import Task

    from flows.domain.decision import Decision
    from flows.material import Material
    from flows.table_drift import TableDrift

Json = dict[str, Any]
P = ParamSpec("P")
SHOW_EVERY_SECONDS = 2.0


@flow(name="investigate-candidate", persist_result=True, flow_run_name="{decision_id}", on_failure=[tell_failure])
def investigate_candidate(decision_id: str) -> list[str]:
    """Look for the cause, tell it in the decision's thread, keep the report and the record.

    Args:
        decision_id: of the question whose candidate did not win.

    Returns:
        the report's summary, at most ten lines.

    Raises:
        OutsideSystemError: MLflow did not take the report, which is in Prefect then, or what follows could not be stored; retry
            the run, which goes on there.
    """
    making = {str(arm): _or_why(read_facts, decision_id, arm) for arm in Arm}
    # again at each retry: of what could not be had, only its own fact is missing
    files = _or_why(compare_artifacts, decision_id, flow_run.run_count)
    drift_report = _or_why(draw_drift_report, decision_id)
    found = look_for_causes(decision_id, making, files, drift_report)
    number = _number(found["summary"])
    tell_findings(decision_id, found, number)
    storing = store_report(decision_id, found, number, return_state=True)
    is_stored = _trouble(storing) is None
    report = storing.result() if is_stored else show_report(decision_id, found, number)
    recorded = record_investigation(decision_id, found["summary"], found["findings"], report["uri"])
    storing.result()  # fails the run where MLflow did not take the report: *Retry* stores it
    document_investigation(decision_id, recorded)
    return found["summary"]


@step("Read how a model was made", "Read how the {arm} was made")
def read_facts(decision_id: str, arm: Arm) -> Json:
    """As JSON, from MLflow."""
    return read_making(_decision(decision_id).request.test.model(arm))


@step("Compare the candidate's files with those of the test's start")
def compare_artifacts(decision_id: str, attempt: int) -> Json:
    """SHA-256 by path, as the test began and as served. `attempt`: part of the step's key."""
    del attempt
    return compare_files(_decision(decision_id).request.test)


@step("Draw Evidently's drift report")
def draw_drift_report(decision_id: str) -> Json:
    """Of a seeded sample of both tables; an illustration, nothing is decided by it. Returns where it is."""
    from flows.adapters.drift_evidently import draw_evidently_report

    decision = _decision(decision_id)
    with Gathering(decision) as gathering:
        page = draw_evidently_report(gathering.table("training"), gathering.table("production")).html
    name = "evidently.html"
    uri = keep_files(decision.request.test, investigation_folder(decision_id), {name: page})[name]
    address = systems().registry.run_url(decision.request.test, f"{investigation_folder(decision_id)}/{name}")
    return {"uri": uri, "address": address}


@step("Look for the causes")
def look_for_causes(decision_id: str, making: dict[str, Json | str], files: Json | str, drift_report: Json | str) -> Json:
    """Every hypothesis with its finding, ranked, the weeks, the pictures and the summary.

    Args:
        making, files, drift_report: of the other parts, `making` by arm; text in place of JSON says why that part failed.
    """
    decision = _decision(decision_id)
    with Progress() as progress, Gathering(decision, progress) as gathering:
        material = gathering.material(making, files)
        drift = _compare_tables(material)
        findings = diagnose(replace(material, drifts=drift.drifts) if drift else material)
        found: Json = {
            "findings": FINDINGS.dump_python(findings, mode="json"),
            "making": making,
            "drift_report": drift_report,
            "weeks": plain(drift.weeks) if drift else [],
            "frauds": _count_frauds(material),
            "pictures": {},
            "missing": {},
        }
        found["pictures"], found["missing"] = draw_pictures(root_cause(decision, found), material.training, material.production)
    return found | {"summary": list(report_summary(root_cause(decision, found)))}


@step("Record the investigation")
def record_investigation(decision_id: str, summary: list[str], findings: list[Json], report: str) -> str:
    """Append to the chain, again where the report is elsewhere than it was. Returns the record's hash."""
    kept = Investigation(tuple(summary), tuple(findings), report)
    return append_record(RecordKind.INVESTIGATED, decision_id, kept.to_payload(), occurrence=_number([*summary, report]))


class Progress:
    """How far an investigation is, in the Prefect UI and in the run's log; Prefect may be silent, that stops nothing."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._read: set[tuple[str, str]] = set()
        self._expected = 1
        self._shown = 0.0

    def __enter__(self) -> Progress:
        self._show("begins", 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._show("all hypotheses are looked at", 100)

    def opened(self, table: str, features: int) -> None:
        get_run_logger().info("reading %d features of %s", features, table)
        self._expected += features

    def reading(self, table: str, column: str) -> None:
        """A column is about to be read; many are read more than once."""
        self._read.add((table, column))
        if time.monotonic() - self._shown >= SHOW_EVERY_SECONDS:
            self._show(f"{table}: {column}", min(99, 100 * len(self._read) / self._expected))

    def _show(self, what: str, percent: float) -> None:
        self._shown = time.monotonic()
        get_run_logger().info("%3.0f %% %s", percent, what)
        try:
            if self._artifact is None:
                self._artifact = cast("UUID", create_progress_artifact(progress=percent, key="investigation", description=what))
            else:
                update_progress_artifact(self._artifact, progress=percent, description=what)
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().warning("progress not shown: %s", error)


def _count_frauds(material: Material) -> Json:
    """Of the candidate's training and its holdout, under the names of its metrics; without those that nobody can tell."""
    tables = {"train": material.training, "holdout": material.holdout}
    return {part: labels.frauds for part, table in tables.items() if (labels := count_labels(table)) is not None}


def _or_why(part: Task[P, Json], *given: P.args, **named: P.kwargs) -> Json | str:
    """What a part found; where an outside system or a table failed, the reason, which the report then gives."""
    state: State[Json] = cast("Any", part)(*given, **named, return_state=True)
    return _trouble(state) or state.result()


def _trouble(state: State[Json]) -> str | None:
    """Why an outside system or a table failed. A fault of our own is none of these: it fails the run."""
    found = state.result(raise_on_failure=False)
    return describe_failure(found) if isinstance(found, FraudABError) else None


def _number(told: list[str]) -> int:
    """Tells this run's findings from others of the same decision. A retry that finds more, because what failed before works
    again, has another number: then that is told and recorded too, and else nothing twice."""
    text = "\n".join([flow_run.get_id() or "", *told])
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 2**31


def _compare_tables(material: Material) -> TableDrift | None:
    """All features, and the worst ones by week; None where a table is missing or cannot be compared, which the findings tell."""
    if material.training is None or material.production is None:
        return None
    try:
        return compare_tables(material.training, material.production)
    except DataInvalid:
        return None


def _decision(decision_id: str) -> Decision:
    return systems().decision_log.read(decision_id)
