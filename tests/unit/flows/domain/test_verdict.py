from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from pydantic import TypeAdapter

from flows.domain.counts import (
    AmountCounts,
    ArmCounts,
    CardCounts,
    CardProducts,
    Coverage,
    Design,
    LabelCounts,
    ModelCounts,
    Outcomes,
    Overlap,
    QualityCounts,
    RequestBucket,
)
from flows.domain.criteria import SignificanceTest
from flows.domain.errors import NotEnoughEvidence
from flows.domain.evidence import Evidence
from flows.domain.metrics import transaction_products
from flows.domain.policy import Policy, load_policy
from flows.domain.sequential import Look
from flows.domain.verdict import CriterionName, CriterionStatus, Verdict, VerdictKind, decide_verdict
from tests.strategies import outcomes as any_outcomes

POLICY = Policy()


def kind(evidence: Evidence, policy: Policy = POLICY) -> VerdictKind:
    return decide_verdict(evidence, policy).kind


def status(evidence: Evidence, name: CriterionName, policy: Policy = POLICY) -> CriterionStatus:
    return decide_verdict(evidence, policy).criterion(name).status


def paired(both: int, b: int, c: int, neither: int, flagged: tuple[int, int, int, int]) -> Evidence:
    n, (t1, m1, t2, m2) = both + b + c + neither, flagged
    frauds = Overlap(both, b, c, neither)
    return Evidence(
        counted=Outcomes(Design.PAIRED, ModelCounts(n, both + b, m1, t1), ModelCounts(n, both + c, m2, t2), frauds=frauds)
    )


def test_a_clear_win_is_promoted_at_the_first_look(build) -> None:
    verdict = decide_verdict(build.evidence(), POLICY)
    assert verdict.kind is VerdictKind.PROMOTE
    assert {criterion.status for criterion in verdict.criteria} == {CriterionStatus.PASSED}
    assert len(verdict.reasons) == 2


def test_the_edge_of_the_recall_is_inside_and_one_fraud_fewer_is_not() -> None:
    flagged = (9100, 10_000, 9100, 10_000)
    at_edge, below = paired(7800, 200, 600, 1400, flagged), paired(7800, 200, 599, 1401, flagged)
    assert status(at_edge, CriterionName.RECALL_IMPROVEMENT) is CriterionStatus.PASSED
    assert status(below, CriterionName.RECALL_IMPROVEMENT) is CriterionStatus.FAILED
    assert (
        "+4.9875 %, at least +4.2813 %; +5.0 %"
        in decide_verdict(below, POLICY).criterion(CriterionName.RECALL_IMPROVEMENT).reason
    )
    assert (kind(at_edge), kind(below)) == (VerdictKind.PROMOTE, VerdictKind.KEEP_BASELINE)


@pytest.mark.parametrize("true", [92_000, 90_000])
def test_the_edges_of_the_precision_band_are_inside(true: int) -> None:
    assert kind(paired(780, 20, 100, 100, (91_000, 100_000, true, 100_000))) is VerdictKind.PROMOTE


@pytest.mark.parametrize("true", [92_001, 89_999])
def test_one_alert_beyond_the_precision_band_is_outside(true: int) -> None:
    assert kind(paired(780, 20, 100, 100, (91_000, 100_000, true, 100_000))) is VerdictKind.KEEP_BASELINE


def test_a_rise_of_precision_may_be_allowed() -> None:
    policy = load_policy('precision_band = {absolute = "0.01", sides = "lower"}', "policy.toml")
    assert kind(paired(780, 20, 100, 100, (910, 1000, 990, 1000)), policy) is VerdictKind.PROMOTE
    assert kind(paired(780, 20, 100, 100, (910, 1000, 890, 1000)), policy) is VerdictKind.KEEP_BASELINE


def test_counts_alone_that_pass_without_significance_are_inconclusive_and_say_what_they_are() -> None:
    verdict = decide_verdict(paired(8, 0, 1, 1, (91, 100, 91, 100)), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.is_calculation
    assert "not a decision" in verdict.reasons[1]
    assert verdict.criterion(CriterionName.LATENCY).status is CriterionStatus.NOT_CHECKED


def test_counts_without_frauds_or_alerts_are_inconclusive_and_never_zero() -> None:
    verdict = decide_verdict(paired(0, 0, 0, 0, (0, 0, 0, 0)), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.metrics.baseline.recall is None
    assert verdict.metrics.candidate.precision is None
    assert verdict.significance is None
    assert "no labelled fraud" in verdict.reasons[0]


def test_a_baseline_that_caught_nothing_has_no_relative_improvement() -> None:
    verdict = decide_verdict(paired(0, 0, 30, 5, (0, 1, 30, 33)), POLICY)
    assert verdict.criterion(CriterionName.RECALL_IMPROVEMENT).observed is None
    assert verdict.reasons[0].endswith("baseline 0.0 %.")


@pytest.mark.parametrize("field", ["latency_breach", "error_breach"])
def test_a_sustained_breach_keeps_the_baseline_even_when_labels_are_broken(build, field: str) -> None:
    feedback = build.feedback(labels=LabelCounts(90_000, 0, 1000, 10))
    breach = build.evidence(feedback=feedback, telemetry=build.telemetry(**{field: 3}))
    verdict = decide_verdict(breach, POLICY)
    assert verdict.kind is VerdictKind.KEEP_BASELINE
    assert "15 minutes" in verdict.reasons[1]
    assert kind(build.evidence(feedback=feedback, telemetry=build.telemetry(**{field: 2}))) is VerdictKind.NOT_EVALUABLE


BROKEN = {
    "label_maturity": {"baseline": ArmCounts(9, 0, 0, 0, 0), "candidate": ArmCounts(9, 0, 0, 0, 0)},
    "late labels": {"labels": LabelCounts(90_000, 89_000, 1000, 51)},
    "label_coverage": {"labels": LabelCounts(90_000, 20_000, 1000, 10)},
    "sample_ratio": {"cards": CardCounts(7_700, 2_300, 0)},
    "crossover": {"cards": CardCounts(8_000, 2_000, 300)},
    "data_quality": {"quality": QualityCounts(100_000, 0, 101, 0, 0)},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("days", [14, 28])
def test_a_failed_guardrail_vetoes_a_win(build, broken: dict, days: int) -> None:
    verdict = decide_verdict(build.evidence(days, feedback=build.feedback(**broken)), POLICY)
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert ("the baseline stays" in verdict.reasons[1]) is (days == 28)


def test_missing_telemetry_is_never_healthy(build) -> None:
    no_errors = build.telemetry(candidate=RequestBucket(20_000, 19_700, 0, 0))
    no_latency = build.telemetry(candidate=RequestBucket(0, 0, 20_000, 20), candidate_p95_ms=None)
    few = build.telemetry(latency_coverage=Coverage("candidate", None, 10, 20_000))
    none = build.telemetry(error_coverage=Coverage("baseline", None, 0, 0))
    for telemetry in (None, no_errors, no_latency, few, none):
        assert kind(build.evidence(telemetry=telemetry)) is VerdictKind.NOT_EVALUABLE
    relaxed = load_policy('required_telemetry = ["latency"]', "policy.toml")
    assert kind(build.evidence(telemetry=no_errors), relaxed) is VerdictKind.PROMOTE


@pytest.mark.parametrize("field", ["latency_coverage", "error_coverage"])
def test_telemetry_with_a_hole_is_missing_and_names_the_hole(build, field: str) -> None:
    gap = build.telemetry(**{field: Coverage("baseline", 3, 949, 1000)})
    verdict = decide_verdict(build.evidence(telemetry=gap), POLICY)
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert "only 949 of the baseline's 1,000 requests on day 3; 95 % are required" in verdict.reasons[1]
    assert kind(build.evidence(telemetry=build.telemetry(**{field: Coverage("baseline", 3, 950, 1000)}))) is VerdictKind.PROMOTE


def test_a_slow_candidate_fails_and_noise_does_not_fail_it(build) -> None:
    slow = build.telemetry(candidate=RequestBucket(20_000, 18_000, 20_000, 20), candidate_p95_ms=120)
    noisy = build.telemetry(candidate=RequestBucket(20_000, 18_999, 20_000, 20), candidate_p95_ms=101)
    edge = build.telemetry(candidate=RequestBucket(20_000, 19_000, 20_000, 20), candidate_p95_ms=100)
    assert kind(build.evidence(telemetry=slow)) is VerdictKind.KEEP_BASELINE
    assert status(build.evidence(telemetry=noisy), CriterionName.LATENCY) is CriterionStatus.UNDECIDED
    assert kind(build.evidence(telemetry=noisy)) is VerdictKind.INCONCLUSIVE
    assert kind(build.evidence(28, telemetry=noisy)) is VerdictKind.KEEP_BASELINE
    assert kind(build.evidence(28, telemetry=edge)) is VerdictKind.PROMOTE


def test_both_arms_above_the_limit_are_no_fault_of_the_candidate(build) -> None:
    arms = {"baseline": RequestBucket(80_000, 40_000, 80_000, 80), "candidate": RequestBucket(20_000, 9_900, 20_000, 20)}
    always = build.telemetry(**arms, baseline_p95_ms=200, candidate_p95_ms=200)
    sustained = replace(always, shared_latency_breach=9)
    once = build.telemetry(shared_latency_breach=3)
    for telemetry, words in ((always, "both arms are above"), (sustained, "for 45 minutes"), (once, "for 15 minutes")):
        verdict = decide_verdict(build.evidence(telemetry=telemetry), POLICY)
        assert verdict.kind is VerdictKind.NOT_EVALUABLE
        assert words in verdict.reasons[1]
    assert kind(build.evidence(telemetry=build.telemetry(shared_latency_breach=2))) is VerdictKind.PROMOTE
    alone = replace(sustained, latency_breach=3)
    assert kind(build.evidence(telemetry=alone)) is VerdictKind.KEEP_BASELINE


def test_latency_is_reported_for_both_arms_with_p(build) -> None:
    reason = decide_verdict(build.evidence(), POLICY).criterion(CriterionName.LATENCY).reason
    assert "98.5 % of the candidate's requests (p95 83 ms) and 98.8 % of the baseline's (p95 81 ms; p = 0.0033" in reason


NEAR = (Fraction(50), Fraction(250))


@pytest.mark.parametrize(
    ("within", "near", "expected"),
    [
        (19_000, 900, CriterionStatus.PASSED),
        (18_999, 1, CriterionStatus.NOT_CHECKED),
        (10_000, 8_999, CriterionStatus.FAILED),
    ],
)
def test_without_a_boundary_at_the_limit_only_what_its_neighbours_show_is_judged(build, within, near, expected) -> None:
    telemetry = build.telemetry(candidate=RequestBucket(20_000, within, 20_000, 20, near), near_ms=NEAR)
    evidence = build.evidence(28, telemetry=telemetry)
    assert status(evidence, CriterionName.LATENCY) is expected
    assert "only at 50 and 250 ms" in decide_verdict(evidence, POLICY).criterion(CriterionName.LATENCY).reason
    assert (kind(evidence) is VerdictKind.NOT_EVALUABLE) is (expected is CriterionStatus.NOT_CHECKED)


def test_errors_fail_only_beyond_the_allowed_excess_and_chance(build) -> None:
    many = build.telemetry(candidate=RequestBucket(20_000, 19_700, 20_000, 200))
    few = {"baseline": RequestBucket(400, 400, 400, 0), "candidate": RequestBucket(100, 100, 100, 1)}
    one = build.telemetry(**few)
    allowed = build.telemetry(candidate=RequestBucket(20_000, 19_700, 20_000, 120))
    assert status(build.evidence(telemetry=many), CriterionName.ERROR_RATE) is CriterionStatus.FAILED
    assert status(build.evidence(28, telemetry=many), CriterionName.ERROR_RATE) is CriterionStatus.FAILED
    assert status(build.evidence(telemetry=one), CriterionName.ERROR_RATE) is CriterionStatus.UNDECIDED
    assert kind(build.evidence(28, telemetry=one)) is VerdictKind.PROMOTE
    assert status(build.evidence(telemetry=allowed), CriterionName.ERROR_RATE) is CriterionStatus.PASSED
    reason = decide_verdict(build.evidence(telemetry=allowed), POLICY).criterion(CriterionName.ERROR_RATE).reason
    assert reason.startswith("0.6 % of the candidate's requests fail against 0.1 % (one-sided p = 3.8e-35); +0.5 points")


def test_the_resolution_of_breaches_is_told(build) -> None:
    hours = decide_verdict(build.evidence(telemetry=build.telemetry(bucket_seconds=21_600)), POLICY)
    assert "stretches of 6 hours" in hours.criterion(CriterionName.LATENCY).reason
    none = decide_verdict(build.evidence(telemetry=build.telemetry(bucket_seconds=None)), POLICY)
    assert "too few requests" in none.criterion(CriterionName.LATENCY).reason


def test_a_worse_candidate_loses_at_the_first_look(build) -> None:
    worse = build.outcomes(frauds=Overlap(7600, 600, 200, 1600))
    verdict = decide_verdict(build.evidence(feedback=build.feedback(outcomes=worse)), POLICY)
    assert verdict.kind is VerdictKind.KEEP_BASELINE
    assert verdict.criterion(CriterionName.RECALL_SIGNIFICANCE).status is CriterionStatus.FAILED


def test_a_little_better_is_undecided_before_the_horizon_and_lost_at_it(build) -> None:
    little = build.feedback(outcomes=build.outcomes(frauds=Overlap(780, 30, 60, 130)))
    assert kind(build.evidence(feedback=little)) is VerdictKind.INCONCLUSIVE
    assert kind(build.evidence(28, feedback=little)) is VerdictKind.KEEP_BASELINE


def test_significance_at_an_early_look_needs_more_than_at_the_last(build) -> None:
    outcomes = build.outcomes(frauds=Overlap(300, 20, 42, 38), false=Overlap(32, 0, 0))
    early = build.evidence(14, feedback=build.feedback(outcomes=outcomes))
    late = build.evidence(28, feedback=build.feedback(outcomes=outcomes))
    assert status(early, CriterionName.RECALL_SIGNIFICANCE) is CriterionStatus.UNDECIDED
    assert status(late, CriterionName.RECALL_SIGNIFICANCE) is CriterionStatus.PASSED
    looks = (Look(14, 10_000, 0.5), Look(21, 15_000, 0.75), Look(28, 20_000, 1.0))
    verdict = decide_verdict(build.evidence(28, looks=looks), POLICY)
    assert verdict.significance is not None
    assert verdict.significance.look == 3
    assert verdict.significance.alpha == pytest.approx(0.044, abs=1e-3)


def test_an_imprecise_precision_is_undecided_before_the_horizon(build) -> None:
    few_alerts = build.outcomes(frauds=Overlap(780, 20, 100, 100), false=Overlap(20, 60, 65))
    verdict = decide_verdict(build.evidence(feedback=build.feedback(outcomes=few_alerts)), POLICY)
    criterion = verdict.criterion(CriterionName.PRECISION_STABILITY)
    assert criterion.status is CriterionStatus.UNDECIDED
    assert "standard error" in criterion.reason


@pytest.mark.parametrize("false", [Overlap(0, 91, 2000), Overlap(0, 2000, 91)])
def test_a_precision_far_outside_fails_at_once(build, false: Overlap) -> None:
    outcomes = build.outcomes(false=false)
    assert kind(build.evidence(feedback=build.feedback(outcomes=outcomes))) is VerdictKind.KEEP_BASELINE


def test_a_young_test_is_inconclusive_and_not_broken(build) -> None:
    verdict = decide_verdict(build.evidence(7), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "7 days" in verdict.reasons[1]
    assert kind(build.evidence(15)) is VerdictKind.INCONCLUSIVE


def test_between_the_planned_looks_nothing_is_won_or_lost(build) -> None:
    policy = load_policy("looks = [21, 28]", "policy.toml")
    verdict = decide_verdict(build.evidence(14, looks=()), policy)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "no planned look (21, 28 days); the next look is due on 2026-02-21" in verdict.reasons[1]
    assert verdict.criterion(CriterionName.RECALL_SIGNIFICANCE).status is CriterionStatus.UNDECIDED
    worse = build.feedback(outcomes=build.outcomes(frauds=Overlap(7600, 600, 200, 1600)))
    assert kind(build.evidence(14, looks=(), feedback=worse), policy) is VerdictKind.INCONCLUSIVE


def test_the_verdict_says_how_many_rows_it_rests_on(build) -> None:
    outcomes = replace(build.outcomes(), rows=98_000, left_out=1_234)
    verdict = decide_verdict(build.evidence(feedback=build.feedback(outcomes=outcomes)), POLICY)
    assert "98,000 labelled transactions were used and 1,234 left out" in verdict.reasons[0]


def test_too_few_counts_are_inconclusive_and_keep_the_baseline_at_the_horizon(build) -> None:
    few = build.feedback(outcomes=build.outcomes(frauds=Overlap(3, 0, 15, 2), false=Overlap(0, 0, 0)))
    verdict = decide_verdict(build.evidence(feedback=few), POLICY)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "20 labelled frauds" in verdict.reasons[1]
    assert "3 alerts" in verdict.reasons[1]
    assert kind(build.evidence(28, feedback=few)) is VerdictKind.KEEP_BASELINE


def test_the_lower_bound_may_have_to_reach_the_margin(build) -> None:
    policy = load_policy('margin = "lower_bound"', "policy.toml")
    near = build.evidence(feedback=build.feedback(outcomes=build.outcomes(frauds=Overlap(7800, 200, 620, 1380))))
    assert kind(near) is VerdictKind.PROMOTE
    assert kind(near, policy) is VerdictKind.INCONCLUSIVE
    assert "at least" in decide_verdict(near, policy).criterion(CriterionName.RECALL_IMPROVEMENT).reason


def test_cards_that_carry_many_frauds_decide_as_cards(build) -> None:
    outcomes = build.outcomes()
    products = transaction_products(outcomes)
    assert products is not None
    alike = replace(outcomes, cards=CardProducts(9_000, products))
    bunched = replace(outcomes, cards=CardProducts(900, tuple(10 * product for product in products)))
    plain = decide_verdict(build.evidence(feedback=build.feedback(outcomes=alike)), POLICY).significance
    clustered = decide_verdict(build.evidence(feedback=build.feedback(outcomes=bunched)), POLICY).significance
    assert plain is not None
    assert clustered is not None
    assert plain.test is SignificanceTest.MCNEMAR_MIDP
    assert clustered.test is SignificanceTest.CLUSTERED
    assert clustered.p_value > plain.p_value
    assert clustered.interval is not None
    assert plain.interval is not None
    assert clustered.interval.low < plain.interval.low


def split(before: ModelCounts, after: ModelCounts, cards: CardProducts | None = None) -> Evidence:
    return Evidence(counted=Outcomes(Design.SPLIT, before, after, cards=cards))


def test_a_split_is_tested_by_score_small_cells_by_boschloo_and_never_by_mcnemar() -> None:
    large = decide_verdict(split(ModelCounts(4000, 3200, 3500, 3200), ModelCounts(1000, 880, 962, 880)), POLICY)
    small = decide_verdict(split(ModelCounts(400, 395, 430, 395), ModelCounts(100, 99, 108, 99)), POLICY)
    assert large.significance is not None
    assert small.significance is not None
    assert (large.significance.test, small.significance.test) == (SignificanceTest.SCORE, SignificanceTest.BOSCHLOO)
    assert large.significance.exact_p_value is None


def test_a_split_with_bunched_cards_is_clustered() -> None:
    before, after = ModelCounts(4000, 3200, 3500, 3200), ModelCounts(1000, 880, 962, 880)
    single = transaction_products(Outcomes(Design.SPLIT, before, after))
    assert single is not None
    verdict = decide_verdict(split(before, after, CardProducts(500, tuple(4 * product for product in single))), POLICY)
    assert verdict.significance is not None
    assert verdict.significance.test is SignificanceTest.CLUSTERED


def test_savings_weigh_caught_fraud_against_false_alerts(build) -> None:
    policy = load_policy('false_positive_cost = "2"\ncurrency = "EUR"', "policy.toml")
    saved = decide_verdict(build.evidence(), policy).savings_per_month
    assert saved is not None
    # 500.00 more caught fraud, 40 more false alerts at 2.00, in 14 days
    assert (saved.amount, saved.currency) == (f"{(500 - 80) * 30 / 14:.2f}", "EUR")


def test_savings_of_a_split_are_scaled_to_the_whole_traffic(build) -> None:
    outcomes = Outcomes(Design.SPLIT, ModelCounts(800, 640, 720, 640), ModelCounts(200, 170, 191, 170))
    feedback = build.feedback(
        outcomes=outcomes,
        amounts=AmountCounts(
            *(1_000_000, 800_000, 640_000, 200_000, 170_000, 79_000, 19_800), ((0,) * 10, (0,) * 10), by_card=True
        ),
    )
    policy = load_policy('false_positive_cost = "1"', "policy.toml")
    saved = decide_verdict(build.evidence(feedback=feedback), policy).savings_per_month
    more_false = 98_800 * (21 / 19_800 - 80 / 79_000)
    assert saved is not None
    assert float(saved.amount) == pytest.approx((500 - more_false) * 30 / 14, abs=0.01)


def test_unknown_savings_are_not_zero(build) -> None:
    assert decide_verdict(build.evidence(feedback=build.feedback(amounts=None)), POLICY).savings_per_month is None
    nothing = AmountCounts(0, 0, 0, 0, 0, 0, 0, (), by_card=True)
    assert decide_verdict(build.evidence(feedback=build.feedback(amounts=nothing)), POLICY).savings_per_month is None


def test_an_arm_without_frauds_has_no_detection_rate(build) -> None:
    feedback = build.feedback(candidate=ArmCounts(20_000, 20_000, 19_800, 0, 0))
    assert decide_verdict(build.evidence(feedback=feedback), POLICY).metrics.candidate.fraud_detection_rate is None


def test_evidence_and_verdict_survive_json(build) -> None:
    evidence = build.evidence()
    verdict = decide_verdict(evidence, POLICY)
    again = Evidence.from_json(json.loads(json.dumps(evidence.to_json())))
    assert again == evidence
    assert again.digest == evidence.digest == verdict.evidence_digest
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    assert decide_verdict(again, POLICY) == verdict


def test_any_change_of_the_evidence_changes_its_digest(build) -> None:
    assert build.evidence().digest != build.evidence(telemetry=build.telemetry(candidate_p95_ms=84)).digest


def test_empty_evidence_says_so() -> None:
    with pytest.raises(NotEnoughEvidence, match="nothing to compare"):
        _ = Evidence().outcomes


@given(any_outcomes)
def test_every_table_of_counts_gets_a_verdict_that_json_can_hold(outcomes: Outcomes) -> None:
    verdict = decide_verdict(Evidence(counted=outcomes), POLICY)
    text = json.dumps(verdict.to_json(), allow_nan=False)
    TypeAdapter(Verdict).validate_json(text)
    if verdict.kind is VerdictKind.PROMOTE:
        assert (
            outcomes.candidate.caught * outcomes.baseline.frauds * 20 >= 21 * outcomes.baseline.caught * outcomes.candidate.frauds
        )
        assert verdict.significance is not None
        assert verdict.significance.p_value < 0.05
