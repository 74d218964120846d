"""The five required conditions of a win, each judged on its own: what was observed, what is required, and why it came out so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from flows.domain.guardrails import percent
from flows.domain.intervals import Interval, newcombe, precision_change, recall_ratio
from flows.domain.label_basis import audit_weighted
from flows.domain.metrics import (
    CLUSTERED_FROM,
    SUSTAINED_BUCKETS,
    boschloo,
    clustered_recall_z,
    equivalence_p,
    error_share,
    has_small_cell,
    is_over_latency_limit,
    is_within_band,
    mcnemar,
    precision_difference,
    precision_standard_error,
    recall_design_effect,
    relative_improvement,
    score_z,
    two_sided_p,
)
from flows.domain.policy import LabelBasis, Margin, Sides
from flows.domain.sequential import nominal_alpha

if TYPE_CHECKING:
    from flows.domain.counts import Outcomes, RequestBucket, TelemetrySummary
    from flows.domain.evidence import Evidence
    from flows.domain.policy import Policy

_CONFIDENCE = 0.95
_Z = 1.959963984540054


class CriterionName(StrEnum):
    """The required conditions of a win, in the order in which they are shown."""

    RECALL_IMPROVEMENT = "recall_improvement"
    PRECISION_STABILITY = "precision_stability"
    RECALL_SIGNIFICANCE = "recall_significance"
    LATENCY = "latency"
    ERROR_RATE = "error_rate"


class CriterionStatus(StrEnum):
    """Before the horizon noise fails nothing: a point that misses is undecided until its interval rules the requirement out."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NOT_CHECKED = "not_checked"


class SignificanceTest(StrEnum):
    """How the p-value was computed; the design decides."""

    MCNEMAR_MIDP = "mcnemar_midp"
    SCORE = "score"
    BOSCHLOO = "boschloo"
    CLUSTERED = "clustered"
    AUDIT_WEIGHTED = "audit_weighted"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One condition: what was observed (None: unknown) against the threshold, in `unit`, and why in a sentence."""

    name: CriterionName
    status: CriterionStatus
    observed: float | None
    threshold: float
    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class Significance:
    """Test of equal recalls, two-sided; `alpha` is the level of this look. `exact_p_value`: McNemar's exact p, in pairs only."""

    test: SignificanceTest
    p_value: float
    exact_p_value: float | None
    alpha: float
    look: int
    interval: Interval | None


def measure_significance(evidence: Evidence, policy: Policy) -> Significance | None:
    """Test equal recalls as the design demands, at the level that this look may spend; None without frauds of either model."""
    outcomes = evidence.outcomes
    if not outcomes.baseline.frauds or not outcomes.candidate.frauds:
        return None
    test, p_value, exact = _test(outcomes)
    interval = recall_ratio(outcomes, clustered=test is SignificanceTest.CLUSTERED, confidence=_CONFIDENCE)
    alpha = (
        nominal_alpha(float(policy.alpha), evidence.looks)
        if evidence.looks
        else 0.0
        if evidence.feedback
        else float(policy.alpha)
    )
    audited = audit_weighted(evidence.feedback) if evidence.feedback and policy.labels is LabelBasis.AUDIT else None
    if audited is not None:
        test, (p_value, interval) = SignificanceTest.AUDIT_WEIGHTED, audited
    return Significance(test, p_value, exact, alpha, max(1, len(evidence.looks)), interval)


def _test(outcomes: Outcomes) -> tuple[SignificanceTest, float, float | None]:
    effect = recall_design_effect(outcomes)
    exact: float | None = None
    if outcomes.frauds is not None:
        midp, exact = mcnemar(outcomes.frauds.baseline_only, outcomes.frauds.candidate_only)
        test, p_value = SignificanceTest.MCNEMAR_MIDP, midp
    elif has_small_cell(outcomes):
        test, p_value = SignificanceTest.BOSCHLOO, boschloo(outcomes.baseline, outcomes.candidate)
    else:
        test, p_value = SignificanceTest.SCORE, two_sided_p(score_z(outcomes.baseline, outcomes.candidate))
    if outcomes.cards is not None and effect is not None and effect > CLUSTERED_FROM:
        return SignificanceTest.CLUSTERED, two_sided_p(clustered_recall_z(outcomes, outcomes.cards)), exact
    return test, p_value, exact


def check_criteria(evidence: Evidence, policy: Policy, significance: Significance | None) -> tuple[Criterion, ...]:
    """The five criteria in the order of `CriterionName`; at the horizon, and for counts alone, the point decides."""
    is_final = evidence.is_at_horizon or evidence.feedback is None
    return (
        _recall_improvement(evidence.outcomes, policy, significance, is_final=is_final),
        _precision_stability(evidence.outcomes, policy, is_final=is_final),
        _recall_significance(evidence.outcomes, policy, significance, is_final=evidence.is_at_horizon),
        _latency(evidence.telemetry, policy, is_final=evidence.is_at_horizon),
        _error_rate(evidence.telemetry, policy, is_final=evidence.is_at_horizon),
    )


def _status(*, meets: bool, is_refuted: bool, is_final: bool) -> CriterionStatus:
    if meets:
        return CriterionStatus.PASSED
    return CriterionStatus.FAILED if is_final or is_refuted else CriterionStatus.UNDECIDED


def _recall_improvement(outcomes: Outcomes, policy: Policy, significance: Significance | None, *, is_final: bool) -> Criterion:
    name, required = CriterionName.RECALL_IMPROVEMENT, policy.recall_improvement.relative
    observed, interval = relative_improvement(outcomes), significance.interval if significance else None
    if observed is None or interval is None:
        reason = "there are no frauds to compare, or the baseline caught none of them"
        return Criterion(name, CriterionStatus.UNDECIDED, None, float(required), "relative", reason)
    decisive = observed if policy.margin is Margin.POINT else Fraction(interval.low) - 1
    is_refuted = interval.high is not None and interval.high < 1 + required
    status = _status(meets=decisive >= required, is_refuted=is_refuted, is_final=is_final)
    digits = _digits(decisive, required)
    end = "" if policy.margin is Margin.POINT else f", at least {signed(decisive, digits)}"
    reason = f"recall changes by {signed(observed, digits)}{end}; {signed(required)} is required"
    return Criterion(name, status, float(observed), float(required), "relative", reason)


def _precision_stability(outcomes: Outcomes, policy: Policy, *, is_final: bool) -> Criterion:
    name, band, sides = CriterionName.PRECISION_STABILITY, policy.precision_band.absolute, policy.precision_band.sides
    difference, interval = precision_difference(outcomes), precision_change(outcomes, _CONFIDENCE)
    if difference is None or interval is None or interval.high is None:
        reason = "one of the models raised no alert, so its precision is unknown"
        return Criterion(name, CriterionStatus.UNDECIDED, None, float(band), "absolute", reason)
    error = precision_standard_error(outcomes)
    error = (interval.high - interval.low) / (2 * _Z) if error is None else error
    is_known_well = is_final or error <= band / 2
    is_refuted = interval.high < -band or (sides is Sides.TWO and interval.low > band)
    meets = is_within_band(difference, band, sides) and is_known_well
    digits = _digits(abs(difference), band)
    allowed = (
        f"±{float(band) * 100:g} points are allowed" if sides is Sides.TWO else f"it may fall by {float(band) * 100:g} points"
    )
    reason = f"precision changes by {points(difference, digits)}; {allowed}"
    if not is_known_well:
        reason += f", but it is known only to within {error * 100:.1f} points (standard error)"
    reason += f"; equivalence test p = {equivalence_p(float(difference), error, float(band)):.2g}"
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    return Criterion(name, status, float(difference), float(band), "absolute", reason)


def _recall_significance(outcomes: Outcomes, policy: Policy, significance: Significance | None, *, is_final: bool) -> Criterion:
    name = CriterionName.RECALL_SIGNIFICANCE
    if significance is None:
        return Criterion(name, CriterionStatus.UNDECIDED, None, float(policy.alpha), "p-value", "there are no frauds to compare")
    improvement, interval = relative_improvement(outcomes), significance.interval
    is_better = (outcomes.candidate.recall or 0) > (outcomes.baseline.recall or 0)
    is_refuted = improvement is not None and interval is not None and interval.high is not None and interval.high < 1
    meets = is_better and significance.p_value < significance.alpha
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    reason = f"p = {significance.p_value:.2g}, and this look requires less than {significance.alpha:.2g}"
    if not is_better:
        reason += "; the candidate catches no more than the baseline"
    return Criterion(name, status, significance.p_value, significance.alpha, "p-value", reason)


def _latency(telemetry: TelemetrySummary | None, policy: Policy, *, is_final: bool) -> Criterion:
    name, limit = CriterionName.LATENCY, policy.latency.p95_ms
    if telemetry is None or not telemetry.candidate.timed or telemetry.candidate_p95_ms is None:
        return Criterion(name, CriterionStatus.NOT_CHECKED, None, float(limit), "ms", "the candidate's latency was not measured")
    candidate, p95 = telemetry.candidate, telemetry.candidate_p95_ms
    is_sustained = telemetry.latency_breach >= SUSTAINED_BUCKETS
    is_refuted = is_sustained or is_over_latency_limit(candidate, (1 - _CONFIDENCE) / 2)
    meets = 100 * candidate.within_limit >= 95 * candidate.timed and not is_sustained
    reason = f"the candidate answers 95 % of its requests within {p95} ms; {float(limit):g} ms are allowed"
    if is_sustained:
        reason += f"; it stayed above for {_duration(telemetry.latency_breach, telemetry.bucket_seconds)}"
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    return Criterion(name, status, float(p95), float(limit), "ms", reason + _resolution(telemetry))


def _error_rate(telemetry: TelemetrySummary | None, policy: Policy, *, is_final: bool) -> Criterion:
    name, excess = CriterionName.ERROR_RATE, policy.error_rate.excess
    before = error_share(telemetry.baseline) if telemetry else None
    after = error_share(telemetry.candidate) if telemetry else None
    if telemetry is None or before is None or after is None:
        return Criterion(
            name, CriterionStatus.NOT_CHECKED, None, float(excess), "absolute", "errors of both arms were not measured"
        )
    is_sustained = telemetry.error_breach >= SUSTAINED_BUCKETS
    is_refuted = is_sustained or _error_difference_low(telemetry.baseline, telemetry.candidate) > excess
    meets = after - before <= excess and not is_sustained
    reason = f"{percent(after)} of its requests fail against {percent(before)}; +{float(excess) * 100:g} points are allowed"
    if is_sustained:
        reason += f"; it stayed above for {_duration(telemetry.error_breach, telemetry.bucket_seconds)}"
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    return Criterion(name, status, float(after - before), float(excess), "absolute", reason + _resolution(telemetry))


def _error_difference_low(before: RequestBucket, after: RequestBucket) -> float:
    return newcombe(after.errors, after.answered, before.errors, before.answered, _CONFIDENCE)[0]


def signed(share: Fraction | float, digits: int = 1) -> str:
    """A relative change in words, such as +6.3 %."""
    return f"{float(share) * 100:+z.{digits}f} %"


def points(share: Fraction | float, digits: int = 1) -> str:
    """An absolute change of a share in words, such as -0.4 points."""
    return f"{float(share) * 100:+z.{digits}f} points"


def _duration(buckets: int, seconds: int | None) -> str:
    minutes = buckets * (seconds or 0) // 60
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def _resolution(telemetry: TelemetrySummary) -> str:
    """Say when breaches could not be looked for at the usual five minutes."""
    if telemetry.bucket_seconds is None:
        return "; too few requests to look for sustained breaches"
    if telemetry.bucket_seconds > 300:
        return f"; sustained breaches were looked for in stretches of {_duration(1, telemetry.bucket_seconds)}"
    return ""


def _digits(observed: Fraction, edge: Fraction) -> int:
    """Decimals to show, in per cent: 4.96 % must not read as 5.0 % beside an edge of 5 %."""
    return 1 if observed == edge or abs(observed - edge) >= Fraction(1, 1000) else 4
