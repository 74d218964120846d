"""The verdict: made by rules from evidence and policy, the same every time; people only decide what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flows.domain.counts import Design, Outcomes
from flows.domain.criteria import (
    Criterion,
    CriterionName,
    CriterionStatus,
    Significance,
    check_criteria,
    measure_significance,
    signed,
)
from flows.domain.evidence import plain, rebuilt
from flows.domain.feedback import next_look_due
from flows.domain.guardrails import (
    Guardrail,
    GuardrailName,
    GuardrailStatus,
    check_guardrails,
    nothing_checked,
    percent,
)
from flows.domain.homogeneity import Homogeneity, compare_weeks
from flows.domain.label_basis import outcomes_by
from flows.domain.metrics import relative_improvement
from flows.domain.policy import LabelBasis, TelemetryKind
from flows.domain.power import Outlook, look_ahead
from flows.domain.requests import is_shared_breach
from flows.domain.savings import Money, monthly_savings

if TYPE_CHECKING:
    from flows.domain.counts import TelemetrySummary
    from flows.domain.evidence import Evidence
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy


class VerdictKind(StrEnum):
    """What the rules say."""

    PROMOTE = "PROMOTE"
    KEEP_BASELINE = "KEEP_BASELINE"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_EVALUABLE = "NOT_EVALUABLE"


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One model's shares (0..1, None where unknown) and the counts behind them.

    `recall` is over the frauds that the model scored, unknown where only flagged transactions are labelled;
    `fraud_detection_rate` is over all frauds of its arm as actually served.
    """

    recall: float | None
    precision: float | None
    fraud_detection_rate: float | None
    true_positives: int
    false_negatives: int | None
    false_positives: int


@dataclass(frozen=True, slots=True)
class MetricsByArm:
    baseline: ModelMetrics
    candidate: ModelMetrics


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict in its published shape (docs/verdict.schema.json).

    `is_calculation`: made from given counts, so no decision may rest on it. `rows_left_out`: labelled rows that only one model
    scored, when the pairs were evaluated. `savings_per_month`: estimate over 30 days; None when unknown. `homogeneity`: over
    the weeks; None with counts alone. `outlook`: of an inconclusive test, None otherwise.
    """

    verdict: VerdictKind
    design: Design
    reasons: tuple[str, ...]
    metrics: MetricsByArm
    criteria: tuple[Criterion, ...]
    significance: Significance | None
    guardrails: tuple[Guardrail, ...]
    policy_digest: str
    evidence_digest: str
    exposure_days: int | None
    is_at_horizon: bool
    is_calculation: bool
    rows_left_out: int
    not_checked: tuple[str, ...]
    savings_per_month: Money | None
    homogeneity: Homogeneity | None
    outlook: Outlook | None = None
    label_basis: LabelBasis = LabelBasis.ALL
    schema: int = 1

    @property
    def kind(self) -> VerdictKind:
        return self.verdict

    def criterion(self, name: CriterionName) -> Criterion:
        return next(criterion for criterion in self.criteria if criterion.name is name)

    def to_json(self) -> dict[str, Any]:
        return plain(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        return rebuilt(cls, data)


def decide_verdict(evidence: Evidence, policy: Policy) -> Verdict:
    """Apply the policy's rules to the evidence.

    Args:
        evidence: the frozen counts of one look, or counts alone.
        policy: what a win requires.

    Returns:
        the verdict with every criterion and guardrail; two sentences in `reasons` that say why.

    Source:
        the order of the rules is that of the design's "Which verdict": a sustained breach, then validity, then the criteria.
    """
    feedback, digest = evidence.feedback, evidence.digest
    basis = policy.labels if feedback else LabelBasis.ALL
    significance = measure_significance(evidence, policy)
    if feedback is not None:
        feedback = replace(feedback, outcomes=outcomes_by(basis, feedback))
        evidence = replace(evidence, feedback=feedback)
    outcomes = evidence.outcomes
    criteria = check_criteria(evidence, policy, significance)
    if feedback is None or evidence.window is None:
        guardrails = nothing_checked("counts alone cannot show it")
    else:
        guardrails = check_guardrails(feedback, evidence.window, policy)
    homogeneity = compare_weeks(feedback, policy) if feedback else None
    kind, why = _kind(evidence, policy, criteria, guardrails, homogeneity)
    precision = next(item for item in criteria if item.name is CriterionName.PRECISION_STABILITY)
    outlook = look_ahead(evidence, policy, significance, precision) if kind is VerdictKind.INCONCLUSIVE else None
    return Verdict(
        verdict=kind,
        design=outcomes.design,
        reasons=(_comparison(outcomes, significance, basis), f"{why} {outlook.sentence}" if outlook else why),
        metrics=_metrics(evidence, basis),
        criteria=criteria,
        significance=significance,
        guardrails=guardrails,
        policy_digest=policy.digest,
        evidence_digest=digest,
        exposure_days=evidence.window.exposure_days if evidence.window else None,
        is_at_horizon=evidence.is_at_horizon,
        is_calculation=feedback is None,
        rows_left_out=outcomes.left_out,
        not_checked=evidence.missing,
        savings_per_month=monthly_savings(evidence, policy),
        homogeneity=homogeneity,
        outlook=outlook,
        label_basis=basis,
    )


def _kind(
    evidence: Evidence,
    policy: Policy,
    criteria: tuple[Criterion, ...],
    guardrails: tuple[Guardrail, ...],
    homogeneity: Homogeneity | None,
) -> tuple[VerdictKind, str]:
    """Which verdict, in the order of the rules, and the sentence that says why."""
    if evidence.feedback is None:
        return _calculated(criteria)
    breaches = _sustained(evidence.telemetry, policy, criteria)
    if breaches:
        return VerdictKind.KEEP_BASELINE, f"The baseline stays at once: {_joined(breaches)}."
    broken = _broken(evidence.telemetry, policy, criteria, guardrails)
    if broken:
        end = " The test is at its end, so the baseline stays." if evidence.is_at_horizon else ""
        return VerdictKind.NOT_EVALUABLE, f"The numbers cannot carry a verdict: {_joined(broken)}.{end}"
    if evidence.window and evidence.window.exposure_days not in policy.looks:
        return VerdictKind.INCONCLUSIVE, _unplanned(evidence.window, policy)
    thin = _too_thin(evidence, policy, guardrails) + (homogeneity.problems(policy) if homogeneity else [])
    failed = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.FAILED]
    undecided = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.UNDECIDED]
    if not thin and not failed and not undecided:
        return VerdictKind.PROMOTE, "Every required criterion is met and the improvement is significant at this look."
    if evidence.is_at_horizon:
        return VerdictKind.KEEP_BASELINE, f"The test is at its end and not won: {_joined(thin + failed + undecided)}."
    if failed and not thin:
        return VerdictKind.KEEP_BASELINE, f"The candidate fails what is required: {_joined(failed)}."
    return VerdictKind.INCONCLUSIVE, f"It is too early to tell: {_joined(thin or undecided)}."


def _unplanned(window: ExposureWindow, policy: Policy) -> str:
    """Between the planned looks nothing can be won, and nothing is lost by noise."""
    due = next_look_due(window, policy)
    when = f"; the next look is due on {due:%Y-%m-%d}, when its labels have matured" if due else ""
    planned = ", ".join(map(str, policy.looks))
    return f"It is too early to tell: {window.exposure_days} days of matured exposure are no planned look ({planned} days){when}."


def _calculated(criteria: tuple[Criterion, ...]) -> tuple[VerdictKind, str]:
    """The point rule at full alpha; latency, errors and validity are unknown, and the text says so."""
    end = "; this is a calculation from counts and not a decision: latency, errors and the validity of the data were not checked."
    failed = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.FAILED]
    undecided = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.UNDECIDED]
    if failed:
        return VerdictKind.KEEP_BASELINE, f"The counts miss what is required: {_joined(failed)}{end}"
    if undecided:
        return VerdictKind.INCONCLUSIVE, f"The counts do not settle it: {_joined(undecided)}{end}"
    return VerdictKind.PROMOTE, f"The counts meet the three criteria that can be counted{end}"


def _sustained(telemetry: TelemetrySummary | None, policy: Policy, criteria: tuple[Criterion, ...]) -> list[str]:
    if telemetry is None:
        return []
    breaches = {CriterionName.LATENCY: telemetry.latency_breach, CriterionName.ERROR_RATE: telemetry.error_breach}
    return [item.reason for item in criteria if breaches.get(item.name, 0) >= policy.latency.sustained_buckets]


def _broken(
    telemetry: TelemetrySummary | None, policy: Policy, criteria: tuple[Criterion, ...], guardrails: tuple[Guardrail, ...]
) -> list[str]:
    """What vetoes any verdict. The window does not: a young test is inconclusive, not broken."""
    failed = [check for check in guardrails if check.status is GuardrailStatus.FAILED and check.name is not GuardrailName.WINDOW]
    required = {TelemetryKind.LATENCY: CriterionName.LATENCY, TelemetryKind.ERRORS: CriterionName.ERROR_RATE}
    needed = {required[kind] for kind in policy.required_telemetry}
    missing = [item for item in criteria if item.name in needed and item.status is CriterionStatus.NOT_CHECKED]
    is_shared = telemetry is not None and is_shared_breach(telemetry, policy.latency)
    shared = [item for item in criteria if is_shared and item.name is CriterionName.LATENCY and item not in missing]
    return [check.reason for check in failed] + [criterion.reason for criterion in (*missing, *shared)]


def _too_thin(evidence: Evidence, policy: Policy, guardrails: tuple[Guardrail, ...]) -> list[str]:
    found = [
        check.reason for check in guardrails if check.name is GuardrailName.WINDOW and check.status is GuardrailStatus.FAILED
    ]
    least, outcomes = policy.min_counts, evidence.outcomes
    if policy.labels is LabelBasis.AUDIT and evidence.feedback:
        audited = min((audit.frauds for audit in evidence.feedback.audits), default=0)
        if audited < least.audited_frauds:
            found.append(f"the audit found {audited} frauds, and {least.audited_frauds} are needed: audit more transactions")
    frauds = min(outcomes.baseline.frauds, outcomes.candidate.frauds)
    alerts = min(outcomes.baseline.alerts, outcomes.candidate.alerts)
    if frauds < least.frauds:
        found.append(f"{frauds} labelled frauds are fewer than the {least.frauds} that the policy requires")
    if alerts < least.alerts:
        found.append(f"{alerts} alerts are fewer than the {least.alerts} that the policy requires")
    return found


def _comparison(outcomes: Outcomes, significance: Significance | None, basis: LabelBasis) -> str:
    """The first sentence: what was seen, whatever follows from it."""
    before, after, change = outcomes.baseline.recall, outcomes.candidate.recall, relative_improvement(outcomes)
    if before is None or after is None:
        return "There is no labelled fraud to compare the models on yet."
    interval = significance.interval if significance else None
    text = f"The candidate catches {percent(after)} of the fraud it scored and the baseline {percent(before)}"
    if basis is LabelBasis.FLAGGED:
        text = f"The candidate catches {percent(after)} and the baseline {percent(before)} of the fraud that either flagged"
        text += ", and how much both miss is unknown"
    used = f"; {outcomes.rows:,} labelled transactions were used and {outcomes.left_out:,} left out" if outcomes.rows else ""
    if change is None or interval is None:
        return f"{text}{used}."
    high = "no upper end" if interval.high is None else signed(interval.high - 1)
    return f"{text} ({signed(change)}; {interval.confidence * 100:g} % interval {signed(interval.low - 1)} to {high}){used}."


def _metrics(evidence: Evidence, basis: LabelBasis) -> MetricsByArm:
    outcomes, feedback = evidence.outcomes, evidence.feedback
    rows: list[ModelMetrics] = []
    for model, arm in (
        (outcomes.baseline, feedback.baseline if feedback else None),
        (outcomes.candidate, feedback.candidate if feedback else None),
    ):
        is_known = basis is not LabelBasis.FLAGGED
        recall, missed = (model.recall, model.frauds - model.caught) if is_known else (None, None)
        detection = recall
        if arm is not None and basis is LabelBasis.ALL:
            detection = Fraction(arm.caught, arm.frauds) if arm.frauds else None
        elif outcomes.design is Design.PAIRED and basis is LabelBasis.AUDIT:
            detection = None  # the pairs' audit says nothing of an arm as it was served
        counts = (model.caught, missed, model.alerts - model.true_alerts)
        rows.append(ModelMetrics(_number(recall), _number(model.precision), _number(detection), *counts))
    return MetricsByArm(*rows)


def _number(share: Fraction | None) -> float | None:
    return None if share is None else float(share)


def _joined(reasons: list[str]) -> str:
    return "; ".join(reasons)
