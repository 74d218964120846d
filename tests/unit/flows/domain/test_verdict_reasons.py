"""What a verdict says, word for word, and what it decides exactly at its limits."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import pytest
from scipy.stats import binom

from flows.domain.counts import ArmCounts, AuditCounts, Design, LabelCounts, ModelCounts, Outcomes, Overlap, QualityCounts
from flows.domain.criteria import CriterionName
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy, load_policy
from flows.domain.verdict import ModelMetrics, Verdict, VerdictKind, decide_verdict

POLICY = Policy()
NOT_A_DECISION = (
    "; this is a calculation from counts and not a decision: latency, errors and the validity of the data were not checked."
)


def counted(caught: int, alerts: int, true: int, frauds: int = 4_000) -> Evidence:
    baseline = ModelCounts(frauds, frauds * 4 // 5, 100_000, 91_000)
    return Evidence(counted=Outcomes(Design.SPLIT, baseline, ModelCounts(frauds, caught, alerts, true)))


@pytest.mark.parametrize(
    ("evidence", "kind", "start", "wrong"),
    [
        (counted(3_600, 100_000, 91_000), VerdictKind.PROMOTE, "The counts meet the three criteria that can be counted", []),
        (counted(3_300, 100_000, 91_000), VerdictKind.KEEP_BASELINE, "The counts miss what is required: ", [0]),
        (counted(3_000, 100_000, 95_000), VerdictKind.KEEP_BASELINE, "The counts miss what is required: ", [0, 1, 2]),
        (counted(45, 100_000, 91_000, 50), VerdictKind.INCONCLUSIVE, "The counts do not settle it: ", [2]),
        (counted(45, 0, 0, 50), VerdictKind.INCONCLUSIVE, "The counts do not settle it: ", [1, 2]),
    ],
)
def test_a_calculation_says_what_it_is_and_what_is_wrong(
    evidence: Evidence, kind: VerdictKind, start: str, wrong: list[int]
) -> None:
    verdict = decide_verdict(evidence, POLICY)
    outlook = f" {verdict.outlook.sentence}" if verdict.outlook else ""
    reasons = "; ".join(verdict.criterion(list(CriterionName)[number]).reason for number in wrong)
    assert (verdict.kind, verdict.reasons[1]) == (kind, f"{start}{reasons}{NOT_A_DECISION}{outlook}")
    assert bool(outlook) is (kind is VerdictKind.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (13, "13 days of matured exposure are no planned look (14, 21, 28 days); the next look is due on 2026-02-14, when"),
        (20, "20 days of matured exposure are no planned look (14, 21, 28 days); the next look is due on 2026-02-21, when"),
        (35, "35 days of matured exposure are no planned look (14, 21, 28 days). "),
    ],
)
def test_between_the_looks_the_next_one_is_told_if_there_is_one(build: Any, days: int, told: str) -> None:
    reason = decide_verdict(build.evidence(days), POLICY).reasons[1]
    assert reason.startswith(f"It is too early to tell: {told}")
    assert ("when its labels have matured." in reason) is (days < 28)


def test_a_day_without_transactions_makes_a_planned_look_too_early(build: Any) -> None:
    feedback = build.feedback(days=tuple(build.day(day) for day in range(28) if day != 3))
    verdict = decide_verdict(build.evidence(feedback=feedback), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.reasons[1].startswith("It is too early to tell: no transactions on 1 of 14 days.")


@pytest.mark.parametrize(("least", "told"), [(10_000, ""), (10_001, "10000 labelled frauds are fewer than the 10001 that")])
def test_as_many_frauds_as_required_are_enough(build: Any, least: int, told: str) -> None:
    """The healthy test has 10,000 frauds."""
    verdict = decide_verdict(build.evidence(), load_policy(f"min_counts = {{frauds = {least}}}", "policy.toml"))
    assert (verdict.kind is VerdictKind.PROMOTE) is (not told)
    assert told in verdict.reasons[1]


@pytest.mark.parametrize(
    ("least", "told"), [(8_791, ""), (8_792, "8791 alerts are fewer than the 8792 that the policy requires")]
)
def test_as_many_alerts_as_required_are_enough(build: Any, least: int, told: str) -> None:
    """The healthy baseline raised 8,000 true and 791 false alerts, the candidate more."""
    verdict = decide_verdict(build.evidence(), load_policy(f"min_counts = {{alerts = {least}}}", "policy.toml"))
    assert (verdict.kind is VerdictKind.PROMOTE) is (not told)
    assert told in verdict.reasons[1]


@pytest.mark.parametrize(
    ("fewest", "told"), [(10, ""), (9, "the audit found 9 frauds, and 10 are needed: audit more transactions")]
)
def test_as_many_audited_frauds_as_required_are_enough(build: Any, fewest: int, told: str) -> None:
    feedback = build.feedback(
        outcomes=Outcomes(Design.SPLIT, ModelCounts(3_100, 3_000, 3_300, 3_000), ModelCounts(865, 850, 935, 850)),
        labels=LabelCounts(90_000, 3_000, 1_000, 10),
        baseline=ArmCounts(80_000, 80_000, 4_000, 800, 640, 3_000, 3_000),
        candidate=ArmCounts(20_000, 20_000, 1_000, 200, 168, 900, 900),
        amounts=None,
        audits=(AuditCounts(400_000, 40_000, 100), AuditCounts(100_000, 10_000, fewest)),
    )
    verdict = decide_verdict(build.evidence(28, feedback=feedback), load_policy('labels = "audit"', "policy.toml"))
    assert verdict.kind is (VerdictKind.KEEP_BASELINE if told else VerdictKind.PROMOTE)
    assert told in verdict.reasons[1]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, VerdictKind.PROMOTE), ({"latency_breach": 1}, "KEEP_BASELINE"), ({"error_breach": 1}, "KEEP_BASELINE")],
)
def test_one_stretch_may_be_what_is_sustained(build: Any, changes: dict[str, int], kind: str) -> None:
    policy = load_policy("latency = {sustained_buckets = 1}", "policy.toml")
    verdict = decide_verdict(build.evidence(telemetry=build.telemetry(**changes)), policy)
    assert verdict.kind == kind
    names = {"latency_breach": CriterionName.LATENCY, "error_breach": CriterionName.ERROR_RATE}
    for field in changes:
        assert verdict.reasons[1] == f"The baseline stays at once: {verdict.criterion(names[field]).reason}."


def test_everything_that_is_wrong_is_told_in_one_sentence(build: Any) -> None:
    worse = build.feedback(outcomes=build.outcomes(frauds=Overlap(7600, 600, 200, 1600)))
    for days, start in ((14, "The candidate fails what is required"), (28, "The test is at its end and not won")):
        verdict = decide_verdict(build.evidence(days, feedback=worse), POLICY)
        failed = (
            verdict.criterion(name).reason for name in list(CriterionName)[:3] if name is not CriterionName.PRECISION_STABILITY
        )
        assert verdict.reasons[1].startswith(f"{start}: {'; '.join(failed)}")


PAIRED = (ModelMetrics(0.8, 8000 / 8791, 640 / 800, 8000, 2000, 791), ModelMetrics(0.84, 8400 / 9231, 168 / 200, 8400, 1600, 831))


def metrics_of(verdict: Verdict) -> tuple[ModelMetrics, ModelMetrics]:
    return verdict.metrics.baseline, verdict.metrics.candidate


def test_the_metrics_are_each_models_own_and_detection_is_what_its_arm_caught(build: Any) -> None:
    assert metrics_of(decide_verdict(build.evidence(), POLICY)) == PAIRED
    served_worse = build.feedback(baseline=ArmCounts(80_000, 80_000, 79_000, 800, 600))
    found = metrics_of(decide_verdict(build.evidence(feedback=served_worse), POLICY))
    assert found == (replace(PAIRED[0], fraud_detection_rate=0.75), PAIRED[1])
    nothing_served = build.feedback(candidate=ArmCounts(20_000, 20_000, 19_800, 0, 0))
    found = metrics_of(decide_verdict(build.evidence(feedback=nothing_served), POLICY))
    assert found == (PAIRED[0], replace(PAIRED[1], fraud_detection_rate=None))
    alone = metrics_of(decide_verdict(Evidence(counted=build.outcomes()), POLICY))
    assert alone == tuple(replace(one, fraud_detection_rate=one.recall) for one in PAIRED)


def test_where_only_a_part_is_labelled_detection_is_known_only_by_a_splits_audit(build: Any) -> None:
    flagged = decide_verdict(build.evidence(), load_policy('labels = "flagged"', "policy.toml"))
    unknown = {"recall": None, "fraud_detection_rate": None, "false_negatives": None}
    assert metrics_of(flagged) == tuple(replace(one, **unknown) for one in PAIRED)
    audit = load_policy('labels = "audit"', "policy.toml")
    pairs = build.feedback(audits=(AuditCounts(90_000, 9_000, 140),))  # 1,400 missed by both
    assert metrics_of(decide_verdict(build.evidence(feedback=pairs), audit)) == tuple(
        replace(one, fraud_detection_rate=None) for one in PAIRED
    )
    models = ModelCounts(900, 800, 1000, 800), ModelCounts(900, 840, 1000, 840)
    audits = AuditCounts(20_000, 1_000, 10), AuditCounts(20_000, 1_000, 8)  # 200 and 160 missed
    split = build.feedback(outcomes=Outcomes(Design.SPLIT, *models), audits=audits, amounts=None)
    assert metrics_of(decide_verdict(build.evidence(feedback=split), audit)) == (
        ModelMetrics(0.8, 0.8, 0.8, 800, 200, 200),
        ModelMetrics(0.84, 0.84, 0.84, 840, 160, 160),
    )


def test_the_first_sentence_says_what_was_seen(build: Any) -> None:
    outcomes = replace(build.outcomes(), rows=98_800, left_out=7)
    verdict = decide_verdict(build.evidence(feedback=build.feedback(outcomes=outcomes)), POLICY)
    assert verdict.significance is not None
    interval = verdict.significance.interval
    assert interval is not None
    assert interval.high is not None
    ends = [f"{(end - 1) * 100:+.1f} %" for end in (interval.low, interval.high)]
    assert verdict.reasons[0] == (
        "The candidate catches 84.0 % of the fraud it scored and the baseline 80.0 % "
        f"(+5.0 %; 95 % interval {ends[0]} to {ends[1]}); 98,800 labelled transactions were used and 7 left out."
    )
    flagged = decide_verdict(build.evidence(), load_policy('labels = "flagged"', "policy.toml"))
    assert flagged.reasons[0].startswith(
        "The candidate catches 97.7 % and the baseline 93.0 % of the fraud that either flagged, "
        "and how much both miss is unknown ("
    )


@pytest.mark.parametrize(
    ("baseline", "candidate", "said"),
    [
        ((0, 0), (0, 0), "There is no labelled fraud to compare the models on yet."),
        ((9, 3), (0, 0), "There is no labelled fraud to compare the models on yet."),
        ((0, 0), (9, 3), "There is no labelled fraud to compare the models on yet."),
        ((9, 0), (9, 3), "The candidate catches 33.3 % of the fraud it scored and the baseline 0.0 %."),
    ],
)
def test_without_two_recalls_or_a_ratio_that_is_said(baseline: tuple[int, int], candidate: tuple[int, int], said: str) -> None:
    models = [ModelCounts(frauds, caught, 9, caught) for frauds, caught in (baseline, candidate)]
    assert decide_verdict(Evidence(counted=Outcomes(Design.SPLIT, *models)), POLICY).reasons[0] == said


def test_a_ratio_without_an_upper_end_says_so() -> None:
    frauds = Overlap(1, 0, 5, 94)
    outcomes = Outcomes(Design.PAIRED, ModelCounts(100, 1, 1, 1), ModelCounts(100, 6, 6, 6), frauds, Overlap(0, 0, 0))
    assert " % to no upper end)." in decide_verdict(Evidence(counted=outcomes), POLICY).reasons[0]


def test_a_win_and_an_end_without_evidence_say_what_follows(build: Any) -> None:
    won = decide_verdict(build.evidence(), POLICY)
    assert won.reasons[1] == "Every required criterion is met and the improvement is significant at this look."
    assert won.exposure_days == 14
    assert won.significance is not None
    assert won.significance.exact_p_value == pytest.approx(2 * binom.cdf(200, 800, 0.5))
    broken = build.feedback(quality=QualityCounts(100_000, 5_000, 0, 0, 0))
    for days, end in ((14, "."), (28, ". The test is at its end, so the baseline stays.")):
        verdict = decide_verdict(build.evidence(days, feedback=broken), POLICY)
        assert verdict.kind is VerdictKind.NOT_EVALUABLE
        what = "5,000 of 100,000 rows lack an id, a time or a known arm"
        assert verdict.reasons[1] == f"The numbers cannot carry a verdict: {what}{end}"
    alone = decide_verdict(Evidence(counted=build.outcomes()), POLICY)
    assert alone.exposure_days is None
    assert {check.reason for check in alone.guardrails} == {"counts alone cannot show it"}


def test_another_confidence_of_the_policy_is_that_of_every_interval(build: Any) -> None:
    policy = load_policy('labels = "audit"\n[statistics]\nconfidence = "0.9"', "policy.toml")
    models = ModelCounts(900, 800, 1000, 800), ModelCounts(900, 840, 1000, 840)
    audits = AuditCounts(20_000, 1_000, 10), AuditCounts(20_000, 1_000, 8)
    split = build.feedback(outcomes=Outcomes(Design.SPLIT, *models), audits=audits, amounts=None)
    narrow, wide = (decide_verdict(build.evidence(feedback=split), one) for one in (policy, load_policy('labels = "audit"', "p")))
    for verdict, confidence in ((narrow, 0.9), (wide, 0.95)):
        assert verdict.significance is not None
        intervals = [verdict.significance.interval, verdict.criterion(CriterionName.PRECISION_STABILITY).interval]
        assert [one and one.confidence for one in intervals] == [confidence, confidence]
        assert [one and one.what for one in intervals] == ["recall ratio", "precision difference"]
    widths = [one.significance.interval.high / one.significance.interval.low for one in (narrow, wide)]
    assert log(widths[0]) / log(widths[1]) == pytest.approx(1.644854 / 1.959964, rel=1e-5)
