"""The root-cause report of an investigation: made from what was found, stored on the test's MLflow run.

While MLflow does not take it, it is shown in Prefect.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from flows.documents import keep_files
from flows.domain.ab_test import Arm
from flows.domain.errors import FraudABError, OutsideSystemError
from flows.domain.findings import Finding
from flows.investigation_material import known_making
from flows.reports.dossier import investigation_folder
from flows.reports.drift_chart import suspect_chart
from flows.reports.findings_chart import findings_chart
from flows.reports.loss_chart import loss_chart
from flows.reports.model_charts import recall_chart, scores_chart, segments_chart
from flows.reports.root_cause_report import (
    DRIFT_CHART,
    FINDINGS_CHART,
    LOSS_CHART,
    PICTURES_IN_WORDS,
    RECALL_CHART,
    SCORES_CHART,
    SEGMENTS_CHART,
    RootCause,
    root_cause_report,
)
from flows.reports.root_cause_tables import recall_by_part
from flows.reports.web_page import web_page
from flows.steps import step
from flows.telling import describe_failure, show_picture, tell, tell_lines
from flows.wiring import systems

if TYPE_CHECKING:
    from flows.domain.decision import Decision
    from flows.ports import FeatureTable

Json = dict[str, Any]
FINDINGS = TypeAdapter(tuple[Finding, ...])
IN_THE_THREAD = (FINDINGS_CHART, DRIFT_CHART)
NOT_DRAWN = "the picture of the most suspect feature"


def root_cause(decision: Decision, found: Json) -> RootCause:
    """Everything that the report tells, of what an investigation has found (see `look_for_causes`)."""
    drift_report = found["drift_report"]
    links = {"Prefect run": decision.request.links.prefect_run, "MLflow run": decision.request.links.mlflow_run}
    missing: Json = dict(found["missing"])
    if isinstance(drift_report, str):
        missing["Evidently's drift report"] = drift_report
    else:
        links["Evidently's drift report"] = drift_report["address"] or drift_report["uri"]
    return RootCause(
        decision,
        FINDINGS.validate_python(found["findings"]),
        known_making(found["making"]),
        frauds=found["frauds"],
        weeks=tuple((week["begins"][:10], week["distances"]) for week in found["weeks"]),
        pictures=frozenset(found["pictures"]),
        missing=missing,
        links=links | _panels(decision),
    )


def draw_pictures(cause: RootCause, training: FeatureTable | None, production: FeatureTable | None) -> tuple[Json, Json]:
    """PNG as base64 by name, and why one is missing, by what it shows: no picture holds the report up."""
    missing: Json = {}
    candidate, request = cause.making.get(Arm.CANDIDATE), cause.decision.request
    drawn = {
        FINDINGS_CHART: findings_chart(cause.findings, cause.lost_recall),
        SEGMENTS_CHART: segments_chart(cause.findings),
        RECALL_CHART: recall_chart(recall_by_part(request.test, cause.counted, request.verdict.metrics)),
        SCORES_CHART: scores_chart(cause.findings),
        LOSS_CHART: loss_chart(candidate.training_loss, candidate.validation_loss) if candidate else None,
    }
    try:
        drawn[DRIFT_CHART] = _drift_picture(cause, training, production)
    except FraudABError as error:
        missing[NOT_DRAWN] = describe_failure(error)
    return {name: base64.b64encode(png).decode() for name, png in drawn.items() if png is not None}, missing


@step("Tell the findings")
def tell_findings(decision_id: str, found: Json, number: int) -> None:
    """The summary and its pictures in the thread."""
    tell_lines(decision_id, f"investigation-{number}", found["summary"])
    for name, png in _pictures(found).items():
        if name in IN_THE_THREAD:
            show_picture(decision_id, f"{name.partition('.')[0]}-{number}", png, PICTURES_IN_WORDS[name])


@step("Store the root-cause report")
def store_report(decision_id: str, found: Json, number: int) -> Json:
    """Markdown and HTML with their pictures on the test's run. Returns where it is."""
    decision, pictures, folder = _decision(decision_id), _pictures(found), investigation_folder(decision_id)
    text = root_cause_report(root_cause(decision, found))
    page = web_page(text, f"Root cause {decision_id}", pictures)
    uri = keep_files(decision.request.test, folder, {**pictures, "root_cause.md": text, "root_cause.html": page})["root_cause.md"]
    address = systems().registry.run_url(decision.request.test, f"{folder}/root_cause.html")
    tell(decision_id, f"root-cause-{number}", "root-cause report", page=address, where="" if address else uri)
    return {"uri": uri, "address": address or uri}


@step("Show the root-cause report in Prefect")
def show_report(decision_id: str, found: Json, number: int) -> Json:
    """While MLflow does not take it: the report without its pictures as an artifact of this run. Returns where it is."""
    text = root_cause_report(replace(root_cause(_decision(decision_id), found), pictures=frozenset()))
    key = re.sub(r"[^a-z0-9]+", "-", f"root-cause-{decision_id}".lower()).strip("-")
    try:
        artifact = create_markdown_artifact(text, key, f"Root cause {decision_id}")
    except (httpx.HTTPError, PrefectException) as error:
        raise OutsideSystemError("Prefect", f"showing the root-cause report of {decision_id}", retryable=True) from error
    base = systems().settings.prefect_ui_url.rstrip("/") or re.split("/(?:flow-)?runs/", flow_run.get_flow_run_ui_url() or "")[0]
    uri = f"{base}/artifacts/artifact/{artifact}" if base else f"Prefect artifact {key}"
    said = "root-cause report, in Prefect because MLflow does not take it; retry this run when it does"
    tell(decision_id, f"root-cause-shown-{number}", said, page=uri if base else "", where="" if base else uri)
    return {"uri": uri, "address": uri}


def _pictures(found: Json) -> dict[str, bytes]:
    return {name: base64.b64decode(png) for name, png in found["pictures"].items()}


def _drift_picture(cause: RootCause, training: FeatureTable | None, production: FeatureTable | None) -> bytes | None:
    """The most suspect feature in training and in production; None where no finding names one."""
    feature = next((one.feature for one in cause.supported if one.feature is not None), None)
    if feature is None or training is None or production is None:
        return None
    return suspect_chart(feature, training.column(feature), production.column(feature))


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
        base, days, end = settings.prometheus_url.rstrip("/"), window.exposure_days, f"{window.end:%Y-%m-%d %H:%M:%S}"
        for what, rule in (("latency", "p95_seconds"), ("errors", "error_ratio")):
            asked = {"g0.expr": f"seldon:predictor:{rule}", "g0.tab": 0, "g0.range_input": f"{days}d", "g0.end_input": end}
            found[f"{what} of the window"] = f"{base}/graph?{urlencode(asked)}"
    return found


def _decision(decision_id: str) -> Decision:
    return systems().decision_log.read(decision_id)
