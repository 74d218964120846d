"""Why the candidate lost: drift, overfitting, model, pipeline. Started by a lost test, from Slack, or by hand.

Nothing here changes production. A part that fails is named as not testable and the report comes out all the same; *Retry* goes on
with what is not done yet.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from flows.deployment_names import INVESTIGATE
from flows.diagnosis import diagnose
from flows.documents import document_investigation
from flows.domain.decision_record import Investigation, RecordKind
from flows.domain.drift import compare_feature
from flows.domain.errors import FraudABError
from flows.domain.findings import Finding
from flows.investigation_material import FACTS, Gathering, compare_files, read_making
from flows.production_steps import append_record
from flows.reports.drift_chart import drift_chart
from flows.reports.findings_chart import findings_chart
from flows.reports.root_cause_report import (
    DRIFT_CHART,
    FINDINGS_CHART,
    PICTURES_IN_WORDS,
    RootCause,
    report_summary,
    root_cause_report,
)
from flows.reports.web_page import web_page
from flows.steps import step
from flows.telling import describe_failure, show_picture, tell
from flows.wiring import systems

if TYPE_CHECKING:
    from prefect.tasks import Task

    from flows.domain.decision import Decision

Json = dict[str, Any]
FINDINGS = TypeAdapter(tuple[Finding, ...])
SHOW_EVERY_SECONDS = 2.0


@flow(name="investigate-candidate", persist_result=True)
def investigate_candidate(decision_id: str) -> list[str]:
    """Look for the cause, tell it in the decision's thread, keep the report and the record.

    Args:
        decision_id: of the question whose candidate did not win.

    Returns:
        the report's summary, at most ten lines.

    Raises:
        OutsideSystemError: the report could not be stored; retry the run, which goes on there.
    """
    number = UUID(flow_run.get_id()).int % 2**31  # tells this investigation from others of the same decision
    making, files = _or_why(read_facts, decision_id), _or_why(compare_artifacts, decision_id)
    drift_report = _or_why(draw_drift_report, decision_id)
    found = look_for_causes(decision_id, making, files, drift_report)
    tell_summary(decision_id, found["summary"], number)
    report = store_report(decision_id, found, number)
    record_investigation(decision_id, found, report, number)
    document_investigation(decision_id)
    return found["summary"]


def start_investigation(decision_id: str) -> None:
    """Of a lost test, once. A missing deployment must not stop the story."""
    try:
        start_run(decision_id)
    except ObjectNotFound:
        get_run_logger().warning("decision_id=%s is not investigated: start the deployment %s", decision_id, INVESTIGATE)


@step("Start the investigation")
def start_run(decision_id: str) -> None:
    run_deployment(
        INVESTIGATE,
        parameters={"decision_id": decision_id},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"investigate-{decision_id}",
    )


@step("Read how both models were made")
def read_facts(decision_id: str) -> Json:
    """As JSON by arm, from MLflow."""
    return read_making(_decision(decision_id).request.test)


@step("Compare the candidate's files with the archive")
def compare_artifacts(decision_id: str) -> Json:
    """SHA-256 by path, as archived and as served."""
    return compare_files(_decision(decision_id).request.test)


@step("Draw Evidently's drift report")
def draw_drift_report(decision_id: str) -> Json:
    """Of a seeded sample of both tables; an illustration, nothing is decided by it. Returns where it is."""
    from flows.adapters.drift_evidently import draw_evidently_report

    decision = _decision(decision_id)
    with Gathering(decision) as gathering:
        page = draw_evidently_report(gathering.table("training"), gathering.table("production")).html
    uri = systems().registry.log_document(decision.request.test, _name(decision_id, "evidently.html"), page)
    return {"uri": uri, "address": systems().registry.run_url(decision.request.test, _name(decision_id, "evidently.html"))}


@step("Look for the causes")
def look_for_causes(decision_id: str, making: Json | str, files: Json | str, drift_report: Json | str) -> Json:
    """Every hypothesis with its finding, ranked, and the summary; text in place of JSON says why that part failed."""
    decision = _decision(decision_id)
    with Progress() as progress, Gathering(decision, progress) as gathering:
        findings = diagnose(gathering.material(making, files))
    cause = _cause(decision, findings, making, drift_report)
    return {
        "findings": FINDINGS.dump_python(findings, mode="json"),
        "summary": list(report_summary(cause)),
        "making": making,
        "drift_report": drift_report,
    }


@step("Tell the findings")
def tell_summary(decision_id: str, summary: list[str], number: int) -> None:
    tell(decision_id, f"investigation-{number}", "\n".join(summary))


@step("Store the root-cause report")
def store_report(decision_id: str, found: Json, number: int) -> Json:
    """Markdown and HTML with their charts on the test's run; the chart in the thread. Returns where it is."""
    decision, registry = _decision(decision_id), systems().registry
    test, findings = decision.request.test, FINDINGS.validate_python(found["findings"])
    cause = _cause(decision, findings, found["making"], found["drift_report"])
    pictures = _pictures(decision, cause)
    for name, png in pictures.items():
        registry.log_picture(test, _name(decision_id, name), png)
    text = root_cause_report(replace(cause, pictures=frozenset(pictures)))
    uri = registry.log_document(test, _name(decision_id, "root_cause.md"), text)
    page = web_page(text, f"Root cause {decision_id}", pictures)
    registry.log_document(test, _name(decision_id, "root_cause.html"), page)
    address = registry.run_url(test, _name(decision_id, "root_cause.html")) or uri
    for name, png in pictures.items():
        show_picture(decision_id, f"{name.partition('.')[0]}-{number}", png, PICTURES_IN_WORDS[name])
    tell(decision_id, f"root-cause-{number}", f"root-cause report: {address}")
    return {"uri": uri, "address": address}


@step("Record the investigation")
def record_investigation(decision_id: str, found: Json, report: Json, number: int) -> str:
    """Append to the chain. Returns the record's hash."""
    kept = Investigation(tuple(found["summary"]), tuple(found["findings"]), report["uri"])
    return append_record(RecordKind.INVESTIGATED, decision_id, kept.to_payload(), occurrence=number)


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


def _or_why(part: Task[[str], Json], decision_id: str) -> Json | str:
    """What a part found; where an outside system or a table failed, the reason, which the report then gives. A fault of our own
    is none: it fails the run."""
    state = part(decision_id, return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, FraudABError):
        return describe_failure(found)
    return state.result()


def _cause(decision: Decision, findings: tuple[Finding, ...], making: Json | str, drift_report: Json | str) -> RootCause:
    offline = {} if isinstance(making, str) else FACTS.validate_python(making["candidate"]).offline
    missing = {"Evidently's drift report": drift_report} if isinstance(drift_report, str) else {}
    links = {"Prefect run": decision.request.links.prefect_run, "MLflow run": decision.request.links.mlflow_run}
    if not isinstance(drift_report, str):
        links["Evidently's drift report"] = drift_report["address"] or drift_report["uri"]
    return RootCause(decision, findings, offline, missing=missing, links=links | _panels(decision))


def _panels(decision: Decision) -> dict[str, str]:
    """The dashboard and Prometheus over the window that was judged."""
    evidence, settings = decision.request.evidence, systems().settings
    window = evidence.window if evidence else None
    if window is None:
        return {}
    found: dict[str, str] = {}
    if settings.dashboard_url:
        mark = "&" if "?" in settings.dashboard_url else "?"
        begin, end = (round(1000 * moment.timestamp()) for moment in (window.start, window.end))
        found["dashboard of the window"] = f"{settings.dashboard_url}{mark}from={begin}&to={end}"
    if settings.prometheus_url:
        asked = urlencode(
            {"g0.expr": "seldon:predictor:p95_seconds", "g0.tab": 0, "g0.range_input": f"{window.exposure_days}d"}
            | {"g0.end_input": f"{window.end:%Y-%m-%d %H:%M:%S}"}
        )
        found["latency of the window"] = f"{settings.prometheus_url.rstrip('/')}/graph?{asked}"
    return found


def _pictures(decision: Decision, cause: RootCause) -> dict[str, bytes]:
    promised, measured = cause.offline.get("holdout_recall"), decision.request.verdict.metrics.candidate.recall
    lost = promised - measured if promised is not None and measured is not None else None
    pictures = {FINDINGS_CHART: findings_chart(cause.findings, lost), DRIFT_CHART: _drift_picture(decision, cause)}
    return {name: png for name, png in pictures.items() if png is not None}


def _drift_picture(decision: Decision, cause: RootCause) -> bytes | None:
    """The most suspect feature in training and in production."""
    feature = next((one.feature for one in cause.supported if one.feature is not None), None)
    if feature is None:
        return None
    with Gathering(decision) as gathering:
        one, two = (gathering.table(name).column(feature) for name in ("training", "production"))
        return drift_chart(compare_feature(feature, one, two), one, two)


def _name(decision_id: str, name: str) -> str:
    return f"investigations/{decision_id}/{name}"


def _decision(decision_id: str) -> Decision:
    return systems().decision_log.read(decision_id)
