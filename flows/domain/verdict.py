"""The verdict: made by rules from evidence and policy, the same every time; people only decide what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
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
from flows.domain.guardrails import Guardrail, GuardrailName, GuardrailStatus, check_guardrails, nothing_checked, percent
from flows.domain.metrics import relative_improvement
from flows.domain.policy import TelemetryKind
from flows.domain.power import Outlook, look_ahead
from flows.domain.requests import is_shared_breach

if TYPE_CHECKING:
    from flows.domain.counts import TelemetrySummary
    from flows.domain.evidence import Evidence
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

    `recall` is over the frauds that the model scored, `fraud_detection_rate` over all frauds of its arm as actually served.
    """

    recall: float | None
    precision: float | None
    fraud_detection_rate: float | None
    true_positives: int
    false_negatives: int
    false_positives: int


@dataclass(frozen=True, slots=True)
class MetricsByArm:
    baseline: ModelMetrics
    candidate: ModelMetrics


@dataclass(frozen=True, slots=True)
class Money:
    """An amount as decimal text, such as 1234.50, and its ISO 4217 currency."""

    amount: str
    currency: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict in its published shape (docs/verdict.schema.json).

    `is_calculation`: made from given counts, so no decision may rest on it. `rows_left_out`: labelled rows that only one model
    scored, when the pairs were evaluated. `savings_per_month`: estimate over 30 days, without interval; None when unknown.
    `outlook`: of an inconclusive test, None otherwise.
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
    outlook: Outlook | None = None
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
    outcomes, feedback = evidence.outcomes, evidence.feedback
    significance = measure_significance(evidence, policy)
    criteria = check_criteria(evidence, policy, significance)
    if feedback is None or evidence.window is None:
        guardrails = nothing_checked("counts alone cannot show it")
    else:
        guardrails = check_guardrails(feedback, evidence.window, policy)
    kind, why = _kind(evidence, policy, criteria, guardrails)
    precision = next(item for item in criteria if item.name is CriterionName.PRECISION_STABILITY)
    outlook = look_ahead(evidence, policy, significance, precision) if kind is VerdictKind.INCONCLUSIVE else None
    return Verdict(
        verdict=kind,
        design=outcomes.design,
        reasons=(_comparison(outcomes, significance), f"{why} {outlook.sentence}" if outlook else why),
        metrics=_metrics(evidence),
        criteria=criteria,
        significance=significance,
        guardrails=guardrails,
        policy_digest=policy.digest,
        evidence_digest=evidence.digest,
        exposure_days=evidence.window.exposure_days if evidence.window else None,
        is_at_horizon=evidence.is_at_horizon,
        is_calculation=feedback is None,
        rows_left_out=outcomes.left_out,
        not_checked=evidence.missing,
        savings_per_month=_savings(evidence, policy),
        outlook=outlook,
    )


def _kind(
    evidence: Evidence, policy: Policy, criteria: tuple[Criterion, ...], guardrails: tuple[Guardrail, ...]
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
    thin = _too_thin(evidence.outcomes, policy, guardrails)
    failed = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.FAILED]
    undecided = [criterion.reason for criterion in criteria if criterion.status is CriterionStatus.UNDECIDED]
    if not thin and not failed and not undecided:
        return VerdictKind.PROMOTE, "Every required criterion is met and the improvement is significant at this look."
    if evidence.is_at_horizon:
        return VerdictKind.KEEP_BASELINE, f"The test is at its end and not won: {_joined(thin + failed + undecided)}."
    if failed and not thin:
        return VerdictKind.KEEP_BASELINE, f"The candidate fails what is required: {_joined(failed)}."
    return VerdictKind.INCONCLUSIVE, f"It is too early to tell: {_joined(thin or undecided)}."


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


def _too_thin(outcomes: Outcomes, policy: Policy, guardrails: tuple[Guardrail, ...]) -> list[str]:
    found = [
        check.reason for check in guardrails if check.name is GuardrailName.WINDOW and check.status is GuardrailStatus.FAILED
    ]
    least = policy.min_counts
    frauds = min(outcomes.baseline.frauds, outcomes.candidate.frauds)
    alerts = min(outcomes.baseline.alerts, outcomes.candidate.alerts)
    if frauds < least.frauds:
        found.append(f"{frauds} labelled frauds are fewer than the {least.frauds} that the policy requires")
    if alerts < least.alerts:
        found.append(f"{alerts} alerts are fewer than the {least.alerts} that the policy requires")
    return found


def _comparison(outcomes: Outcomes, significance: Significance | None) -> str:
    """The first sentence: what was seen, whatever follows from it."""
    before, after, change = outcomes.baseline.recall, outcomes.candidate.recall, relative_improvement(outcomes)
    if before is None or after is None:
        return "There is no labelled fraud to compare the models on yet."
    interval = significance.interval if significance else None
    text = f"The candidate catches {percent(after)} of the fraud it scored and the baseline {percent(before)}"
    if change is None or interval is None:
        return f"{text}."
    high = "no upper end" if interval.high is None else signed(interval.high - 1)
    return f"{text} ({signed(change)}; 95 % interval {signed(interval.low - 1)} to {high})."


def _metrics(evidence: Evidence) -> MetricsByArm:
    outcomes, feedback = evidence.outcomes, evidence.feedback
    rows: list[ModelMetrics] = []
    for model, arm in (
        (outcomes.baseline, feedback.baseline if feedback else None),
        (outcomes.candidate, feedback.candidate if feedback else None),
    ):
        detection = model.recall if arm is None else Fraction(arm.caught, arm.frauds) if arm.frauds else None
        counts = (model.caught, model.frauds - model.caught, model.alerts - model.true_alerts)
        rows.append(ModelMetrics(_number(model.recall), _number(model.precision), _number(detection), *counts))
    return MetricsByArm(*rows)


def _savings(evidence: Evidence, policy: Policy) -> Money | None:
    """Fraud amount caught by the candidate beyond the baseline over 30 days of the whole traffic, less false alerts' cost."""
    outcomes, feedback, window = evidence.outcomes, evidence.feedback, evidence.window
    amounts = feedback.amounts if feedback else None
    if feedback is None or window is None or amounts is None or not window.exposure_days:
        return None
    if not amounts.baseline_scored or not amounts.candidate_scored:
        return None
    shares = Fraction(amounts.candidate_caught, amounts.candidate_scored) - Fraction(
        amounts.baseline_caught, amounts.baseline_scored
    )
    false = [model.alerts - model.true_alerts for model in (outcomes.baseline, outcomes.candidate)]
    more_false = Fraction(false[1] - false[0])
    if outcomes.design is Design.SPLIT and feedback.baseline.labelled and feedback.candidate.labelled:
        rows = feedback.baseline.labelled + feedback.candidate.labelled
        more_false = rows * (Fraction(false[1], feedback.candidate.labelled) - Fraction(false[0], feedback.baseline.labelled))
    gain = (shares * amounts.total / 100 - more_false * policy.false_positive_cost) * 30 / window.exposure_days
    return Money(str((Decimal(round(gain * 100)) / 100).quantize(Decimal("0.01"))), policy.currency)


def _number(share: Fraction | None) -> float | None:
    return None if share is None else float(share)


def _joined(reasons: list[str]) -> str:
    return "; ".join(reasons)
