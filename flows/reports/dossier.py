"""Everything that is told of one decision, and the sentences that all of its documents share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.domain.criteria import CriterionName
from flows.domain.decision import Choice, NextStep, next_step
from flows.domain.decision_record import DecisionRecord, RecordKind, is_lost, latest_investigation
from flows.domain.guardrails import percent
from flows.domain.policy import Policy
from flows.reports.markdown import address, bullets, table, words

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.decision import Claim, Decision
    from flows.domain.decision_record import Investigation
    from flows.domain.verdict import Verdict

_REGISTRY_FOLLOWS = (RecordKind.COMPENSATED, RecordKind.EMERGENCY_REVERT)
"""Traffic and record come first in these: the record cannot tell what became of the registry."""


@dataclass(frozen=True, slots=True)
class Dossier:
    """A decision and what came of it.

    `decision`: None for an emergency before the test's first question. `ending`: the record that the documents are about.
    `records`: all of this decision so far, in the order of the chain. `registry`: both models as the registry has them when this
    is written; empty where that is not known.
    """

    test: ABTest
    decision: Decision | None
    ending: DecisionRecord
    records: tuple[DecisionRecord, ...] = ()
    registry: str = ""

    @property
    def verdict(self) -> Verdict | None:
        return self.decision.request.verdict if self.decision else None

    @property
    def claim(self) -> Claim | None:
        return self.decision.claim if self.decision else None

    @property
    def policy(self) -> Policy:
        """That which was decided by."""
        return (self.decision.request.policy if self.decision else None) or Policy()

    @property
    def investigation(self) -> Investigation | None:
        return latest_investigation(self.records)

    @property
    def is_lost(self) -> bool:
        """Whether it is investigated why the candidate is out."""
        verdict, claim = self.verdict, self.claim
        return is_lost(self.ending.kind, verdict.kind if verdict else None, claim.choice if claim else None)


def document_folder(decision_id: str) -> str:
    """Where a decision's documents are on the test's run; `decision_id` is an emergency's own id for those of an emergency."""
    return f"decisions/{re.sub(r'[^A-Za-z0-9._-]+', '-', decision_id)}"


def investigation_folder(decision_id: str) -> str:
    """Where an investigation's report, charts and drift report are on the test's run."""
    return f"investigations/{decision_id}"


def outcome_sentence(dossier: Dossier) -> str:
    """What has happened, in one sentence."""
    baseline, candidate = dossier.test.models
    sentences = {
        RecordKind.FAILED: f"The promotion of {candidate} failed and is being undone.",
        RecordKind.PROMOTED: f"{candidate} is promoted and serves 100 % of the traffic; {baseline} is archived.",
        RecordKind.BASELINE_KEPT: f"{baseline} is retained and serves 100 % of the traffic; {candidate} is archived.",
        RecordKind.COMPENSATED: f"The promotion of {candidate} was undone; {baseline} serves 100 % of the traffic.",
        RecordKind.SUPERSEDED: "A newer change came first; this decision was not carried out.",
        RecordKind.EMERGENCY_REVERT: f"{baseline} was put back in an emergency and serves 100 % of the traffic.",
        RecordKind.DECIDED: _answer_sentence(dossier),
    }
    return sentences[dossier.ending.kind]


def business_impact(dossier: Dossier) -> str:
    """What it means for the business: savings where they are known, continuity where the baseline stays."""
    test, verdict = dossier.test, dossier.verdict
    goes_on = f"Fraud detection goes on unchanged with {test.baseline.name}; customers and reviewers notice nothing."
    why = f"Why {test.candidate.name} is not in charge is investigated before it, or a successor, is tested again."
    later = why if dossier.is_lost else f"{test.candidate.name} can be tested again."
    match dossier.ending.kind:
        case RecordKind.DECIDED:
            return f"None yet: {test.baseline} stays in charge while the test goes on."
        case RecordKind.FAILED:
            return f"Not known yet: until it is undone {test.candidate.name} may answer beside {test.baseline.name}."
        case RecordKind.SUPERSEDED:
            return "None by this decision: what came first tells what changed."
        case RecordKind.PROMOTED if verdict is not None:
            if verdict.savings_per_month is None:
                return f"{_caught(test, verdict)} The savings are not quantified: the feedback carries no amounts."
            return f"{_caught(test, verdict)} Estimated savings over 30 days of all traffic: {verdict.savings_per_month}."
        case RecordKind.EMERGENCY_REVERT | RecordKind.COMPENSATED:
            return (
                f"Fraud detection goes on with {test.baseline.name}. What {test.candidate.name} let pass or stopped wrongly "
                f"until then is in the feedback. {later}"
            )
        case _:
            return f"{goes_on} {later}"


def _caught(test: ABTest, verdict: Verdict) -> str:
    """What more is caught, in a sentence for who reads no statistics."""
    before, after = verdict.metrics.baseline.recall, verdict.metrics.candidate.recall
    if before is None or after is None:  # where only flagged transactions are labelled
        reason = verdict.criterion(CriterionName.RECALL_IMPROVEMENT).reason
        return f"{reason[:1].upper()}{reason[1:]}."
    names = test.candidate.name, test.baseline.name
    return f"{names[0]} catches {percent(after)} of the fraud that it sees, {names[1]} caught {percent(before)}."


def actions(dossier: Dossier) -> list[tuple[str, str, str]]:
    """What was changed: what, before, after."""
    told: Any = dossier.ending.payload
    rows: list[tuple[str, str, str]] = []
    for what in ("traffic", "registry"):
        change = told.get(what)
        if isinstance(change, dict):
            rows.append((what, str(change.get("before", "")), str(change.get("after", ""))))
    if dossier.ending.kind is RecordKind.EMERGENCY_REVERT:
        rows.append(("traffic", str(told.get("before") or "not known"), f"{dossier.test.baseline.predictor} 100 %"))
    if dossier.ending.kind is RecordKind.SUPERSEDED:
        rows.append(("traffic", str(told.get("now") or "not known"), "left as it is"))
    if dossier.ending.kind in _REGISTRY_FOLLOWS and dossier.registry:
        rows.append(("registry", _registry_before(dossier), dossier.registry))
    if isinstance(told.get("archive"), dict):
        rows.append(("archive", "", _archived(told["archive"])))
    rows += [("monitoring", "both models", monitoring) for monitoring in [_monitoring(dossier)] if monitoring]
    if why := told.get("why"):
        rows.append(("why", "", str(why)))
    return rows


def _registry_before(dossier: Dossier) -> str:
    """As the latest change before left it, else as it was when the question was asked; empty where neither is known."""
    left = [record.payload["registry"] for record in dossier.records if isinstance(record.payload.get("registry"), dict)]
    if left:
        latest: Any = left[-1]
        return str(latest.get("after", ""))
    plan = dossier.decision.request.plan if dossier.decision else None
    return "; ".join(change.before for change in plan.changes if change.what == "registry") if plan else ""


def failure_analysis(found: Investigation) -> list[str]:
    """The investigation's own lines, then each finding with its next step, in the order in which they are ranked: paragraphs."""
    head = ["hypothesis", "finding", "what the data say", "next step"]
    keys = ("hypothesis", "status", "said", "next_step")
    rows = [
        [words(str(finding.get(key, ""))) if key in keys[:2] else finding.get(key, "") for key in keys]
        for finding in found.findings
    ]
    report = f"Report: {address(found.report)}" if found.report else ""
    return [bullets(found.summary), table([head, *rows]) if rows else "", report]


def _answer_sentence(dossier: Dossier) -> str:
    """Of an answer that nothing has come of yet."""
    claim, verdict = dossier.claim, dossier.verdict
    if claim is None or verdict is None or next_step(verdict.kind, claim.choice) is not NextStep.EVALUATE_AGAIN:
        return "Decided, and not carried out yet."
    what = "Postponed" if claim.choice is Choice.POSTPONE else "Extended"
    frauds = f" when {claim.wanted_frauds:,} frauds are seen, at the latest" if claim.wanted_frauds else ""
    when = f"{frauds} on {claim.due_at:%Y-%m-%d %H:%M} UTC" if claim.due_at else ""
    return f"{what}. The test goes on and is evaluated again{when}; production is as it was."


def _archived(receipt: dict[str, Any]) -> str:
    if "uri" not in receipt:
        return ", ".join(f"{key}: {value}" for key, value in receipt.items())
    digest = f", manifest SHA-256 {receipt['manifest_sha256']}" if "manifest_sha256" in receipt else ""
    return f"{receipt['uri']}, {receipt['files']} files{digest}"


def _monitoring(dossier: Dossier) -> str:
    """The adjustment of the monitoring that a change brings with it."""
    baseline, candidate = dossier.test.models
    if dossier.ending.kind is not RecordKind.PROMOTED:
        return f"dashboards and alerts follow {baseline.name}" if dossier.ending.kind.is_change else ""
    hours = dossier.policy.bake_hours
    watched = (
        f"its latency, errors, traffic and flag rate are watched for {hours:g} h after the promotion" if hours else "not watched"
    )
    return f"dashboards and alerts follow {candidate.name}; {watched}"
