"""The decision document in Markdown: what was decided, on which evidence, by whom, and what was done."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.criteria import CriterionName
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from flows.domain.guardrails import percent
from flows.domain.verdict import VerdictKind
from flows.reports.charts import chart_in_words, charted_feedback
from flows.reports.dossier import Dossier, actions, business_impact, failure_analysis, outcome_sentence
from flows.reports.markdown import address, harmless, section, table, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.criteria import Criterion
    from flows.domain.decision import DecisionRequest, Person
    from flows.domain.verdict import ModelMetrics, Verdict

DOCUMENT_NAME, CHART_NAME = "decision_document.md", "chart.png"  # beside each other
STABILITY = (CriterionName.LATENCY, CriterionName.ERROR_RATE)
INVESTIGATED = (
    "data (drift of every feature, labels, whether the holdout was representative), overfitting, the model itself, and the "
    "pipeline (serving skew, scaling, integrity and version of the artifacts)"
)


def decision_document(dossier: Dossier) -> str:
    """The whole document; its sections are the same for every outcome, and say so where there is nothing to tell."""
    verdict, test = dossier.verdict, dossier.test
    models = f"{harmless(test.candidate.name)} against {harmless(test.baseline.name)}"
    none = "No question about this test had been asked yet, so no evidence stands behind this."
    sections = [
        f"# Decision {harmless(dossier.ending.decision_id)}: {models}",
        section("Outcome", [f"**{harmless(outcome_sentence(dossier))}**", _by_whom(dossier)]),
        section("Evidence", _evidence(dossier) or [none]),
        section("Statistical significance", [_significance(verdict) if verdict else "Not tested."]),
        section("Stability", [_stability(verdict) if verdict else "Not judged."]),
        section("Validity of the evidence", [_guardrails(verdict) if verdict else "Not judged."]),
        section("Business impact", [harmless(business_impact(dossier))]),
        *([section("Failure analysis", _failure(dossier))] if dossier.is_lost or dossier.investigation else []),
        section("Actions taken", [_actions(dossier)]),
        section("References", _references(dossier)),
    ]
    return "\n\n".join(sections) + "\n"


def _by_whom(dossier: Dossier) -> str:
    told = dossier.ending.payload
    if dossier.ending.kind is not RecordKind.EMERGENCY_REVERT:
        return _decided_by(dossier)
    reason = f"; reason: {harmless(told['reason'])}" if told.get("reason") else "; no reason was given"
    when = f"{datetime.fromisoformat(str(told['at'])):%Y-%m-%d %H:%M} UTC" if "at" in told else "at an unknown time"
    by = f"Reverted by {harmless(told.get('actor', 'somebody'))}, {when}{reason}."
    before = _decided_by(dossier)
    if dossier.decision is None or not before:
        return by
    return f"{by} The test's latest decision before it ({harmless(dossier.decision.decision_id)}): {before}"


def _decided_by(dossier: Dossier) -> str:
    claim, decision = dossier.claim, dossier.decision
    if claim is None or decision is None:
        return ""
    first = (
        f"First confirmed by {_answer(claim.first.actor, claim.first.confirmed_at, claim.first.reason)} " if claim.first else ""
    )
    if claim.choice is Choice.EXPIRE:
        second = "No second person confirmed" if claim.first else "Nobody decided"
        return f"{first}{second} until {decision.deadline:%Y-%m-%d %H:%M} UTC, so the baseline stays: silence never promotes."
    choice = words(claim.choice)
    return f"{first}Decided by {_answer(claim.actor, claim.claimed_at, claim.reason, choice)}"


def _answer(actor: Person, at: datetime, reason: str, choice: str = "") -> str:
    parts = [f"{harmless(actor.name)} ({harmless(actor.id)})", choice, f"{at:%Y-%m-%d %H:%M} UTC"]
    return ", ".join(part for part in parts if part) + (f"; reason: {harmless(reason)}." if reason else ".")


def _evidence(dossier: Dossier) -> list[str]:
    verdict, decision = dossier.verdict, dossier.decision
    if verdict is None or decision is None:
        return []
    days = f" over {verdict.exposure_days} days of exposure" if verdict.exposure_days else ""
    counts = "" if verdict.kind is not VerdictKind.NOT_EVALUABLE else "The numbers cannot be judged, so no criterion counts."
    return [
        f"Verdict of the rules: **{words(verdict.kind)}**, round {decision.request.round}{days}.",
        *(harmless(reason) for reason in verdict.reasons),
        _metrics(dossier, verdict),
        counts,
        _criteria([one for one in verdict.criteria if one.name not in STABILITY]),
        _chart(decision.request),
    ]


def _metrics(dossier: Dossier, verdict: Verdict) -> str:
    def row(arm: Arm, metrics: ModelMetrics) -> list[str]:
        shares = [metrics.recall, metrics.precision, metrics.fraud_detection_rate]
        counts = [metrics.true_positives, metrics.false_negatives, metrics.false_positives]
        return [
            f"{dossier.test.model(arm).name} ({arm})",
            *("unknown" if share is None else f"{share:.4f}" for share in shares),
            *("unknown" if count is None else f"{count:,}" for count in counts),
        ]

    head = ["model", "recall", "precision", "fraud detection rate", "frauds caught", "frauds missed", "false alerts"]
    return table([head, row(Arm.BASELINE, verdict.metrics.baseline), row(Arm.CANDIDATE, verdict.metrics.candidate)])


def _chart(request: DecisionRequest) -> str:
    return f"![{harmless(chart_in_words(request))}]({CHART_NAME})" if charted_feedback(request) else ""


def _significance(verdict: Verdict) -> str:
    found = verdict.significance
    if found is None:
        return "Not tested: the evidence did not allow it."
    test = f"Test: {harmless(found.test)}, p = {found.p_value:.4g} at alpha {found.alpha:.4g} (look {found.look})."
    text = f"Design: {verdict.design}. {test}"
    if found.interval is None:
        return text
    high = "no upper end" if found.interval.high is None else f"{found.interval.high:.4f}"
    what = f"{found.interval.what[:1].upper()}{found.interval.what[1:]}"
    return f"{text} {what}: {found.interval.low:.4f} to {high} ({percent(found.interval.confidence, 0)} interval)."


def _stability(verdict: Verdict) -> str:
    return _criteria([one for one in verdict.criteria if one.name in STABILITY])


def _criteria(criteria: Sequence[Criterion]) -> str:
    rows = ([words(one.name), words(one.status), one.reason] for one in criteria)
    return table([["criterion", "status", "why"], *rows])


def _guardrails(verdict: Verdict) -> str:
    rows = [["guardrail", "status", "why"], *([words(one.name), words(one.status), one.reason] for one in verdict.guardrails)]
    return table(rows) + "".join(f"\n\nNot checked: {harmless(what)}." for what in verdict.not_checked)


def _failure(dossier: Dossier) -> list[str]:
    """What was found out about the loss, or what is looked at to find out."""
    found = dossier.investigation
    if found is None:
        return [f"Not investigated when this was written. An investigation looks at {INVESTIGATED}."]
    return failure_analysis(found)


def _actions(dossier: Dossier) -> str:
    rows = actions(dossier)
    return table([("what", "before", "after"), *rows]) if rows else "None."


def _references(dossier: Dossier) -> list[str]:
    decision = dossier.decision
    links = decision.request.links if decision else None
    named = (
        {"Prefect run": links.prefect_run, "MLflow run": links.mlflow_run, "Dashboard": links.dashboard, "Report": links.report}
        if links
        else {}
    )
    lines = [f"- {name}: {address(url)}" for name, url in named.items() if url]
    if dossier.verdict:
        lines += [f"- Evidence {dossier.verdict.evidence_digest}", f"- Policy {dossier.verdict.policy_digest}"]
    records = dossier.records or (dossier.ending,)
    rows = [(one.sequence, words(one.kind), f"{one.at:%Y-%m-%d %H:%M} UTC", one.hash) for one in records]
    return ["\n".join(lines), "Records in the decision log:", table([("record", "what", "at", "hash"), *rows])]
