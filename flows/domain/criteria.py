"""The five required conditions of a win, each judged on its own: what was observed, what is required, and why it came out so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING

from flows.domain.intervals import Interval, precision_change, precision_error, recall_ratio
from flows.domain.label_basis import audit_weighted
from flows.domain.metrics import (
    boschloo,
    equivalence_p,
    has_small_cell,
    is_within_band,
    mcnemar,
    precision_difference,
    recall_design_effect,
    recall_z,
    relative_improvement,
    two_sided_p,
)
from flows.domain.policy import LabelBasis, Margin, Sides
from flows.domain.requests import (
    error_share,
    has_more_errors,
    is_over_latency_limit,
    is_shared_breach,
    more_errors_p,
    slower_p,
)
from flows.domain.sequential import nominal_alpha

if TYPE_CHECKING:
    from flows.domain.counts import Coverage, Outcomes, RequestBucket, TelemetrySummary
    from flows.domain.evidence import Evidence
    from flows.domain.policy import Policy

_LEAST_ALPHA = 1e-9  # a look that may spend nothing still has a (very wide) interval


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
    """One condition: what was observed (None: unknown) against the threshold, in `unit`, and why in a sentence.

    `interval`: of the recalls' ratio at this look's level, or of the precisions' difference; `equivalence_p_value`: of the
    tests that the precisions differ by no more than the band.
    """

    name: CriterionName
    status: CriterionStatus
    observed: float | None
    threshold: float
    unit: str
    reason: str
    interval: Interval | None = None
    equivalence_p_value: float | None = None


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
    test, p_value, exact = _test(outcomes, policy)
    confidence = float(policy.statistics.confidence)
    interval = recall_ratio(outcomes, clustered=_is_clustered(outcomes, policy), confidence=confidence)
    audited = audit_weighted(evidence.feedback, confidence) if evidence.feedback and policy.labels is LabelBasis.AUDIT else None
    if audited is not None:
        test, (p_value, interval) = SignificanceTest.AUDIT_WEIGHTED, audited
    return Significance(test, p_value, exact, _look_alpha(evidence, policy), max(1, len(evidence.looks)), interval)


def _look_alpha(evidence: Evidence, policy: Policy) -> float:
    """What this look may spend: nothing before the first planned one, all of alpha for counts alone."""
    if evidence.looks:
        return nominal_alpha(float(policy.alpha), evidence.looks)
    return 0.0 if evidence.feedback else float(policy.alpha)


def _is_clustered(outcomes: Outcomes, policy: Policy) -> bool:
    return (recall_design_effect(outcomes) or 0.0) > policy.statistics.design_effect


def _test(outcomes: Outcomes, policy: Policy) -> tuple[SignificanceTest, float, float | None]:
    """The test that the design demands; with frauds that come in bunches, the larger p-value of it and of the cards' test."""
    exact: float | None = None
    if outcomes.frauds is not None:
        found = mcnemar(outcomes.frauds.baseline_only, outcomes.frauds.candidate_only)
        test, p_value, exact = SignificanceTest.MCNEMAR_MIDP, found.midp_p_value, found.exact_p_value
    elif has_small_cell(outcomes, policy.statistics.small_cell):
        test, p_value = SignificanceTest.BOSCHLOO, boschloo(outcomes.baseline, outcomes.candidate)
    else:
        test, p_value = SignificanceTest.SCORE, two_sided_p(recall_z(outcomes))
    if _is_clustered(outcomes, policy):
        by_card = two_sided_p(recall_z(outcomes) / sqrt(recall_design_effect(outcomes) or 1.0))
        if by_card > p_value:
            return SignificanceTest.CLUSTERED, by_card, exact
    return test, p_value, exact


def check_criteria(evidence: Evidence, policy: Policy, significance: Significance | None) -> tuple[Criterion, ...]:
    """The five criteria in the order of `CriterionName`; at the horizon, and for counts alone, the point decides."""
    is_final = evidence.is_at_horizon or evidence.feedback is None
    return (
        _recall_improvement(evidence.outcomes, policy, significance, is_final=is_final),
        _precision_stability(evidence.outcomes, policy, is_final=is_final),
        _recall_significance(evidence.outcomes, policy, significance, is_final=evidence.is_at_horizon),
        *check_stability(evidence.telemetry, policy, is_final=evidence.is_at_horizon),
    )


def check_stability(telemetry: TelemetrySummary | None, policy: Policy, *, is_final: bool) -> tuple[Criterion, Criterion]:
    """The two criteria that rest on no outcome: latency and error rate."""
    return _latency(telemetry, policy, is_final=is_final), _error_rate(telemetry, policy, is_final=is_final)


def _status(*, meets: bool, is_refuted: bool, is_final: bool) -> CriterionStatus:
    if meets:
        return CriterionStatus.PASSED
    return CriterionStatus.FAILED if is_final or is_refuted else CriterionStatus.UNDECIDED


def _recall_improvement(outcomes: Outcomes, policy: Policy, significance: Significance | None, *, is_final: bool) -> Criterion:
    name, required = CriterionName.RECALL_IMPROVEMENT, policy.recall_improvement.relative
    observed = relative_improvement(outcomes)
    if observed is None or significance is None or significance.interval is None:
        reason = "there are no frauds to compare, or the baseline caught none of them"
        return Criterion(name, CriterionStatus.UNDECIDED, None, float(required), "relative", reason)
    confidence = 1 - max(significance.alpha, _LEAST_ALPHA)
    bound = recall_ratio(outcomes, clustered=_is_clustered(outcomes, policy), confidence=confidence)
    least = Fraction(bound.low) - 1 if bound else Fraction(-1)
    meets = (observed if policy.margin is Margin.POINT else least) >= required
    high = significance.interval.high
    is_refuted = high is not None and high < 1 + required
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    digits = _digits(observed if policy.margin is Margin.POINT else least, required)
    reason = (
        f"recall changes by {signed(observed, digits)}, at least {signed(least, digits)}; {signed(required)} is required "
        f"(≥ {float(required) * 100:g} % {'confirmed' if least >= required else 'not confirmed'})"
    )
    return Criterion(name, status, float(observed), float(required), "relative", reason, bound)


def _precision_stability(outcomes: Outcomes, policy: Policy, *, is_final: bool) -> Criterion:
    name, band, sides = CriterionName.PRECISION_STABILITY, policy.precision_band.absolute, policy.precision_band.sides
    difference, error = precision_difference(outcomes), precision_error(outcomes)
    interval = precision_change(outcomes, float(policy.statistics.confidence))
    if difference is None or error is None or interval is None or interval.high is None:
        reason = "one of the models raised no alert, so its precision is unknown"
        return Criterion(name, CriterionStatus.UNDECIDED, None, float(band), "absolute", reason)
    is_known_well = error <= band / 2
    is_refuted = interval.high < -band or (sides is Sides.TWO and interval.low > band)
    meets = is_within_band(difference, band, sides) and (is_final or is_known_well)
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    equivalence = equivalence_p(float(difference), error, float(band), sides)
    reason = _precision_reason(policy, difference, equivalence)
    if not is_known_well:
        reason += f"; known only to within {error * 100:.1f} points (standard error), so stability is not confirmed"
    return Criterion(name, status, float(difference), float(band), "absolute", reason, interval, equivalence)


def _precision_reason(policy: Policy, difference: Fraction, equivalence: float) -> str:
    band, sides = policy.precision_band.absolute, policy.precision_band.sides
    change = points(difference, _digits(abs(difference), band))
    allowed = f"±{float(band) * 100:g} points are allowed"
    if sides is Sides.LOWER:
        allowed = f"it may fall by {float(band) * 100:g} points"
    elif difference > band:
        allowed += ", and a rise beyond them fails too"
    return f"precision changes by {change}; {allowed}; equivalence test p = {equivalence:.2g}"


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
    name, limit = CriterionName.LATENCY, float(policy.latency.p95_ms)
    is_sustained = telemetry is not None and telemetry.latency_breach >= policy.latency.sustained_buckets
    missing = "" if is_sustained else _unmeasured("latency", telemetry and telemetry.latency_coverage, policy)
    if telemetry is None or not telemetry.candidate.timed or missing:
        return Criterion(
            name, CriterionStatus.NOT_CHECKED, None, limit, "ms", missing or "the candidate's latency was not measured"
        )
    candidate, required = telemetry.candidate, policy.latency.share * telemetry.candidate.timed
    is_unclear = candidate.within_limit < required <= candidate.within_limit + candidate.near_limit
    is_refuted = is_sustained or is_over_latency_limit(candidate, policy.latency, _refuting(policy))
    status = _status(meets=candidate.within_limit >= required and not is_sustained, is_refuted=is_refuted, is_final=is_final)
    status = CriterionStatus.NOT_CHECKED if is_unclear and not is_sustained else status
    observed = None if telemetry.candidate_p95_ms is None else float(telemetry.candidate_p95_ms)
    return Criterion(name, status, observed, limit, "ms", _latency_reason(telemetry, policy) + _resolution(telemetry, policy))


def _latency_reason(telemetry: TelemetrySummary, policy: Policy) -> str:
    limit, required = f"{float(policy.latency.p95_ms):g} ms", policy.latency.share
    before, after = _within(telemetry.baseline, required), _within(telemetry.candidate, required)
    reason = (
        f"within {limit} are {after} of the candidate's requests (p95 {_ms(telemetry.candidate_p95_ms)}) and {before} of the"
        f" baseline's (p95 {_ms(telemetry.baseline_p95_ms)}; p = {slower_p(telemetry.baseline, telemetry.candidate):.2g} for the"
        f" candidate being slower); {float(required) * 100:g} % are required"
    )
    if telemetry.near_ms:
        edges = " and ".join(f"{float(edge):g}" for edge in telemetry.near_ms)
        reason += f"; no histogram boundary lies at {limit}, only at {edges} ms"
    if telemetry.latency_breach >= policy.latency.sustained_buckets:
        reason += f"; the candidate alone stayed above for {_duration(telemetry.latency_breach, telemetry.bucket_seconds)}"
    elif telemetry.shared_latency_breach >= policy.latency.sustained_buckets:
        reason += f"; both arms stayed above for {_duration(telemetry.shared_latency_breach, telemetry.bucket_seconds)}"
    elif is_shared_breach(telemetry, policy.latency):
        reason += "; both arms are above over the whole time"
    return reason


def _within(arm: RequestBucket, required: Fraction) -> str:
    """The share within the limit in words; with a histogram that has no boundary there, its lowest and highest value."""
    if not arm.timed:
        return "an unknown share"
    low, high = (Fraction(count, arm.timed) for count in (arm.within_limit, arm.within_limit + arm.near_limit))
    shown = [f"{float(share) * 100:.{_digits(share, required)}f} %" for share in (low, high)]
    return shown[0] if low == high else f"{shown[0]} to {shown[1]}"


def _error_rate(telemetry: TelemetrySummary | None, policy: Policy, *, is_final: bool) -> Criterion:
    name, excess = CriterionName.ERROR_RATE, policy.error_rate.excess
    is_sustained = telemetry is not None and telemetry.error_breach >= policy.latency.sustained_buckets
    missing = "" if is_sustained else _unmeasured("the outcome", telemetry and telemetry.error_coverage, policy)
    before = error_share(telemetry.baseline) if telemetry else None
    after = error_share(telemetry.candidate) if telemetry else None
    if telemetry is None or before is None or after is None or missing:
        reason = missing or "errors of both arms were not measured"
        return Criterion(name, CriterionStatus.NOT_CHECKED, None, float(excess), "absolute", reason)
    is_refuted = is_sustained or has_more_errors(telemetry.baseline, telemetry.candidate, excess, _refuting(policy))
    # beyond the allowed excess, but within chance: too early to tell, and at the end no reason to lose
    meets = not is_refuted and (is_final or after - before <= excess)
    reason = (
        f"{float(after) * 100:.3g} % of the candidate's requests fail against {float(before) * 100:.3g} % (one-sided"
        f" p = {more_errors_p(telemetry.baseline, telemetry.candidate):.2g}); +{float(excess) * 100:g} points are allowed"
    )
    if is_sustained:
        reason += f"; it stayed above for {_duration(telemetry.error_breach, telemetry.bucket_seconds)}"
    status = _status(meets=meets, is_refuted=is_refuted, is_final=is_final)
    return Criterion(name, status, float(after - before), float(excess), "absolute", reason + _resolution(telemetry, policy))


def _refuting(policy: Policy) -> float:
    """The one-sided level at which an interval of the policy's confidence rules a requirement out."""
    return float(1 - policy.statistics.confidence) / 2


def _unmeasured(what: str, coverage: Coverage | None, policy: Policy) -> str:
    """What is missing of a measurement, in words; empty when enough is there."""
    least = policy.validity.min_telemetry_coverage
    if coverage is None or not coverage.rows:
        return f"{what} was not measured"
    if coverage.share >= least:
        return ""
    when = "" if coverage.day is None else f" on day {coverage.day}"
    return (
        f"{what} is known for only {coverage.measured:,} of the {coverage.arm}'s {coverage.rows:,} requests{when};"
        f" {float(least) * 100:g} % are required"
    )


def signed(share: Fraction | float, digits: int = 1) -> str:
    """A relative change in words, such as +6.3 %."""
    return f"{float(share) * 100:+z.{digits}f} %"


def points(share: Fraction | float, digits: int = 1) -> str:
    """An absolute change of a share in words, such as -0.4 points."""
    return f"{float(share) * 100:+z.{digits}f} points"


def _ms(p95: int | None) -> str:
    return "unknown" if p95 is None else f"{p95} ms"


def _duration(buckets: int, seconds: int | None) -> str:
    minutes = buckets * (seconds or 0) // 60
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def _resolution(telemetry: TelemetrySummary, policy: Policy) -> str:
    """Say when breaches could not be looked for in the policy's own stretches."""
    if telemetry.bucket_seconds is None:
        return "; too few requests to look for sustained breaches"
    if telemetry.bucket_seconds > policy.latency.bucket_seconds:
        return f"; sustained breaches were looked for in stretches of {_duration(1, telemetry.bucket_seconds)}"
    return ""


def _digits(observed: Fraction, edge: Fraction) -> int:
    """Decimals to show, in per cent: 4.96 % must not read as 5.0 % beside an edge of 5 %."""
    return 1 if observed == edge or abs(observed - edge) >= Fraction(1, 1000) else 4
