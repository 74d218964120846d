"""The decision document: what was decided, on which evidence, by whom, and what was done. Markdown and JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.domain.ab_test import Arm
from flows.domain.decision import NextStep, next_step
from flows.domain.decision_record import DecisionRecord, RecordKind
from flows.domain.evidence import plain
from flows.reports.charts import chart_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.domain.decision import Decision, DecisionRequest, Person
    from flows.domain.verdict import ModelMetrics, Verdict

DOCUMENT_SCHEMA = 1
CHART_NAME = "chart.png"  # beside the document


def decision_json(decision: Decision, ending: DecisionRecord) -> str:
    """Everything in the document, and the record that it tells of with its hash."""
    request, claim = decision.request, decision.claim
    body = {
        "schema": DOCUMENT_SCHEMA,
        "decision_id": decision.decision_id,
        "test": plain(request.test),
        "outcome": str(ending.kind),
        "outcome_text": outcome_sentence(decision, ending.kind),
        "verdict": request.verdict.to_json(),
        "evidence": plain(request.evidence),
        "policy": request.policy.model_dump(mode="json") if request.policy else None,
        "decision": plain(claim) if claim else None,
        "business_impact": business_impact(decision, ending.kind),
        "actions": ending.payload,
        "record": {
            "sequence": ending.sequence,
            "at": ending.at.isoformat(),
            "previous_hash": ending.previous_hash,
            "hash": ending.hash,
        },
    }
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_record(body: Mapping[str, Any]) -> DecisionRecord:
    """The record that `decision_json` wrote.

    Raises:
        KeyError, ValueError, TypeError: it is no such document.
    """
    record = body["record"]
    return DecisionRecord(
        sequence=record["sequence"],
        kind=RecordKind(body["outcome"]),
        decision_id=body["decision_id"],
        at=datetime.fromisoformat(record["at"]),
        payload=body["actions"],
        previous_hash=record["previous_hash"],
        hash=record["hash"],
    )


def decision_document(decision: Decision, ending: DecisionRecord) -> str:
    """The document in Markdown; `ending` is the record of what came of the decision."""
    verdict, test = decision.request.verdict, decision.request.test
    sections = [
        f"# Decision {_text(decision.decision_id)}: {_text(test.candidate.name)} against {_text(test.baseline.name)}",
        _section("Outcome", [outcome_sentence(decision, ending.kind), _decided_by(decision)]),
        _section("Evidence", [*verdict.reasons, _metrics(verdict), _chart(decision.request)]),
        _section("Statistical significance", [_significance(verdict)]),
        _section("Stability", [_criteria(verdict)]),
        _section("Validity of the evidence", [_guardrails(verdict)]),
        _section("Business impact", [business_impact(decision, ending.kind)]),
        _section("Actions taken", [_actions(ending)]),
        _section("References", [_references(decision, ending)]),
    ]
    return "\n\n".join(sections) + "\n"


def outcome_sentence(decision: Decision, kind: RecordKind) -> str:
    """What has happened, in one sentence."""
    baseline, candidate = decision.request.test.models
    sentences = {
        RecordKind.FAILED: f"The promotion of {candidate} failed and is being undone.",
        RecordKind.PROMOTED: f"{candidate} is promoted and serves 100 % of the traffic; {baseline} is archived.",
        RecordKind.BASELINE_KEPT: f"{baseline} is retained and serves 100 % of the traffic; {candidate} is archived.",
        RecordKind.COMPENSATED: f"The promotion of {candidate} was undone; {baseline} serves 100 % of the traffic.",
        RecordKind.SUPERSEDED: "A newer change came first; this decision was not carried out.",
        RecordKind.EMERGENCY_REVERT: f"{baseline} was put back in an emergency and serves 100 % of the traffic.",
        RecordKind.DECIDED: "The test goes on and is evaluated again; production is as it was."
        if _goes_on(decision)
        else "Decided, and not carried out yet.",
    }
    return sentences[kind]


def business_impact(decision: Decision, kind: RecordKind) -> str:
    """What it means for the business: savings where they are known, continuity where the baseline stays."""
    verdict, test = decision.request.verdict, decision.request.test
    if kind is RecordKind.DECIDED:
        return f"None yet: {test.baseline} stays in charge while the test goes on."
    if kind is not RecordKind.PROMOTED:
        return (
            f"Fraud detection goes on unchanged with {test.baseline.name}; customers and reviewers notice nothing. "
            f"Why {test.candidate.name} was not put in charge is investigated before it, or a successor, is tested again."
        )
    caught = verdict.criteria[0].reason
    if verdict.savings_per_month is None:
        return f"{caught}. The savings are not quantified: the feedback carries no amounts."
    return f"{caught}. Estimated savings over 30 days of all traffic: {verdict.savings_per_month}."


def _goes_on(decision: Decision) -> bool:
    claim = decision.claim
    return claim is not None and next_step(decision.request.verdict.kind, claim.choice) is NextStep.EVALUATE_AGAIN


def _decided_by(decision: Decision) -> str:
    claim = decision.claim
    if claim is None:
        return ""
    first = (
        f"First confirmed by {_answer(claim.first.actor, claim.first.confirmed_at, claim.first.reason)} " if claim.first else ""
    )
    return f"{first}Decided by {_answer(claim.actor, claim.claimed_at, claim.reason, claim.choice)}"


def _answer(actor: Person, at: datetime, reason: str, choice: str = "") -> str:
    parts = [f"{_text(actor.name)} ({_text(actor.id)})", choice, f"{at:%Y-%m-%d %H:%M} UTC"]
    return ", ".join(part for part in parts if part) + (f"; reason: {_text(reason)}." if reason else ".")


def _metrics(verdict: Verdict) -> str:
    def row(name: str, metrics: ModelMetrics) -> list[str]:
        shares = [metrics.recall, metrics.precision, metrics.fraud_detection_rate]
        counts = [metrics.true_positives, metrics.false_negatives, metrics.false_positives]
        return [
            name,
            *("unknown" if share is None else f"{share:.4f}" for share in shares),
            *("unknown" if count is None else str(count) for count in counts),
        ]

    head = ["", "recall", "precision", "fraud detection rate", "frauds caught", "frauds missed", "false alerts"]
    return _table([head, row(Arm.BASELINE, verdict.metrics.baseline), row(Arm.CANDIDATE, verdict.metrics.candidate)])


def _chart(request: DecisionRequest) -> str:
    feedback = request.evidence.feedback if request.evidence else None
    return f"![{_text(chart_in_words(request))}]({CHART_NAME})" if feedback and feedback.days else ""


def _significance(verdict: Verdict) -> str:
    found = verdict.significance
    if found is None:
        return "Not tested: the evidence did not allow it."
    text = (
        f"Design: {verdict.design}. Test: {found.test}, p = {found.p_value:.4g} at alpha {found.alpha:.4g} (look {found.look})."
    )
    if found.interval is None:
        return text
    high = "no upper end" if found.interval.high is None else f"{found.interval.high:.4f}"
    return f"{text} {found.interval.what}: {found.interval.low:.4f} to {high} ({found.interval.confidence:.0%} interval)."


def _criteria(verdict: Verdict) -> str:
    return _table([["criterion", "status", "why"], *([one.name, one.status, one.reason] for one in verdict.criteria)])


def _guardrails(verdict: Verdict) -> str:
    lines = [["guardrail", "status", "why"], *([one.name, one.status, one.reason] for one in verdict.guardrails)]
    return _table(lines) + "".join(f"\n\nNot checked: {_text(what)}." for what in verdict.not_checked)


def _actions(ending: DecisionRecord) -> str:
    rows = [["what", "before", "after"]]
    for what in ("traffic", "registry"):
        change: Any = ending.payload.get(what)
        if isinstance(change, dict) and {"before", "after"} <= change.keys():
            rows.append([what, str(change["before"]), str(change["after"])])
    archive: Any = ending.payload.get("archive")
    if isinstance(archive, dict):
        rows.append(["archive", "", ", ".join(f"{key} {value}" for key, value in archive.items())])
    if why := ending.payload.get("why"):
        rows.append(["why", "", str(why)])
    return _table(rows) if len(rows) > 1 else "None."


def _references(decision: Decision, ending: DecisionRecord) -> str:
    links, verdict = decision.request.links, decision.request.verdict
    named = {
        "Prefect run": links.prefect_run,
        "MLflow run": links.mlflow_run,
        "dashboard": links.dashboard,
        "report": links.report,
    }
    lines = [f"- {name}: {address}" for name, address in named.items() if address]
    lines += [f"- evidence {verdict.evidence_digest}", f"- policy {verdict.policy_digest}"]
    return "\n".join([*lines, f"- record {ending.sequence}, {ending.hash}, {ending.at:%Y-%m-%d %H:%M} UTC"])


def _section(title: str, parts: Iterable[str]) -> str:
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _text(foreign: str) -> str:
    """Foreign text on one line, with nothing in it that Markdown or HTML would obey."""
    harmless = " ".join(foreign.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return harmless.replace("`", "'").replace("[", "\\[")
