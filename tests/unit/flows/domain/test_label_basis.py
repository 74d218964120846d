from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flows.domain.counts import ArmCounts, AuditCounts, Design, LabelCounts, ModelCounts, Outcomes, Overlap, PairSelection
from flows.domain.criteria import SignificanceTest
from flows.domain.label_basis import audit_weighted, outcomes_by
from flows.domain.metrics import relative_improvement
from flows.domain.policy import LabelBasis, Policy, load_policy
from flows.domain.verdict import CriterionName, CriterionStatus, VerdictKind, decide_verdict

FLAGGED, AUDIT = load_policy('labels = "flagged"', "p"), load_policy('labels = "audit"', "p")
CHOSEN = PairSelection(8_000, 8_000, 90_000, 90_000)
UNLABELLED = {
    "baseline": ArmCounts(80_000, 80_000, 8_000, 700, 640, 8_000, 7_920),
    "candidate": ArmCounts(20_000, 20_000, 2_000, 180, 168, 2_000, 1_980),
    "selection": CHOSEN,
}


def pairs_without_unflagged_labels(build, frauds: Overlap = Overlap(7800, 200, 600, 0), **changes):  # noqa: B008 - frozen
    labels = LabelCounts(90_000, 0, 1_000, 10)
    return build.evidence(feedback=build.feedback(outcomes=build.outcomes(frauds=frauds), labels=labels, **UNLABELLED, **changes))


def test_without_unflagged_labels_nothing_is_evaluable_and_what_this_data_allows_is_named(build) -> None:
    verdict = decide_verdict(pairs_without_unflagged_labels(build), Policy())
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert 'set labels = "flagged"' in verdict.reasons[1]
    assert 'set labels = "audit"' not in verdict.reasons[1]
    audited = pairs_without_unflagged_labels(build, audits=(AuditCounts(90_000, 3_000, 12),))
    assert 'set labels = "audit"' in decide_verdict(audited, Policy()).reasons[1]
    split = build.evidence(feedback=replace(audited.feedback, selection=None, audits=()))
    reason = decide_verdict(split, Policy()).reasons[1]
    assert "label a random sample" in reason
    assert "score both models" in reason
    assert "set labels" not in reason


def test_pairs_whose_flagged_rows_are_labelled_give_the_ratio_and_no_recall(build) -> None:
    evidence = pairs_without_unflagged_labels(build)
    verdict = decide_verdict(evidence, FLAGGED)
    assert verdict.kind is VerdictKind.PROMOTE
    assert verdict.label_basis is LabelBasis.FLAGGED
    assert (verdict.metrics.baseline.recall, verdict.metrics.candidate.fraud_detection_rate) == (None, None)
    assert verdict.metrics.candidate.false_negatives is None
    assert "unknown" in verdict.reasons[0]
    labelled = decide_verdict(build.evidence(), Policy()).significance
    assert (verdict.significance.test, verdict.significance.p_value) == (labelled.test, labelled.p_value)
    assert verdict.significance.interval.low == pytest.approx(labelled.interval.low)


@pytest.mark.parametrize("neither", [0, 17, 1400])
def test_the_ratio_needs_no_frauds_that_neither_flagged_and_its_edge_is_exact(build, neither: int) -> None:
    for candidate_only, status in ((600, CriterionStatus.PASSED), (599, CriterionStatus.UNDECIDED)):
        evidence = pairs_without_unflagged_labels(build, Overlap(7800, 200, candidate_only, neither))
        verdict = decide_verdict(evidence, FLAGGED)
        assert verdict.criterion(CriterionName.RECALL_IMPROVEMENT).status is status
        assert outcomes_by(LabelBasis.FLAGGED, evidence.feedback).baseline.frauds == 8_000 + candidate_only


def test_flagged_labels_that_are_missing_or_no_pairs_are_not_evaluable(build) -> None:
    evidence = pairs_without_unflagged_labels(build)
    arm = evidence.feedback.candidate
    thin = replace(evidence.feedback, candidate=replace(arm, flagged_labelled=1_800))
    verdict = decide_verdict(replace(evidence, feedback=thin), FLAGGED)
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert "only 90.0 % of the matured flagged transactions served by the candidate have a label" in verdict.reasons[1]
    unequal = replace(evidence.feedback, candidate=replace(arm, flagged_labelled=1_910))
    assert (
        "labels are not equally complete in both arms: 99.0 % against 95.5 %"
        in (decide_verdict(replace(evidence, feedback=unequal), FLAGGED).reasons[1])
    )
    split = replace(evidence.feedback, selection=None)
    verdict = decide_verdict(replace(evidence, feedback=split), FLAGGED)
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert "needs pairs" in verdict.reasons[1]


def test_the_pairs_audit_gives_the_recalls(build) -> None:
    audits = (AuditCounts(90_000, 9_000, 140),)
    verdict = decide_verdict(pairs_without_unflagged_labels(build, audits=audits), AUDIT)
    assert verdict.kind is VerdictKind.PROMOTE
    assert verdict.metrics.baseline.recall == pytest.approx(8000 / (8600 + 1400))
    assert verdict.metrics.candidate.false_negatives == 8600 + 1400 - 8400
    assert verdict.significance.test is SignificanceTest.MCNEMAR_MIDP


def split_with_audit(build, before: ModelCounts, after: ModelCounts, *audits: AuditCounts):
    labels = LabelCounts(90_000, 3_000, 1_000, 10)
    outcomes = Outcomes(Design.SPLIT, before, after)
    return build.feedback(outcomes=outcomes, labels=labels, **(UNLABELLED | {"selection": None, "amounts": None}), audits=audits)


def test_a_split_with_an_audit_is_tested_with_its_weights(build) -> None:
    audits = AuditCounts(400_000, 40_000, 100), AuditCounts(100_000, 10_000, 15)
    feedback = split_with_audit(build, ModelCounts(3_100, 3_000, 3_300, 3_000), ModelCounts(865, 850, 935, 850), *audits)
    verdict = decide_verdict(build.evidence(feedback=feedback), AUDIT)
    assert verdict.significance.test is SignificanceTest.AUDIT_WEIGHTED
    assert verdict.metrics.baseline.recall == pytest.approx(3_000 / 4_000)
    assert verdict.metrics.candidate.recall == pytest.approx(850 / 1_000)
    assert relative_improvement(outcomes_by(LabelBasis.AUDIT, feedback)) == pytest.approx(0.85 / 0.75 - 1)


def test_an_audit_with_few_frauds_is_inconclusive(build) -> None:
    audits = AuditCounts(400_000, 40_000, 100), AuditCounts(100_000, 10_000, 9)
    feedback = split_with_audit(build, ModelCounts(3_100, 3_000, 3_300, 3_000), ModelCounts(865, 850, 935, 850), *audits)
    verdict = decide_verdict(build.evidence(feedback=feedback), AUDIT)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "the audit found 9 frauds" in verdict.reasons[1]
    none = split_with_audit(build, ModelCounts(3_100, 3_000, 3_300, 3_000), ModelCounts(865, 850, 935, 850))
    assert decide_verdict(build.evidence(feedback=none), AUDIT).kind is VerdictKind.NOT_EVALUABLE


def test_the_audits_interval_covers_the_true_ratio_as_often_as_it_says(build) -> None:
    rng = np.random.default_rng(3)
    covered, rejected = 0, 0
    for _ in range(600):
        audits, models = [], []
        for rows, frauds in ((200_000, 3_000), (50_000, 1_000)):
            caught = int(rng.binomial(frauds, 0.8))
            unflagged, missed = rows - caught, frauds - caught
            audited = unflagged // 5
            audits.append(AuditCounts(unflagged, audited, int(rng.hypergeometric(missed, unflagged - missed, audited))))
            models.append(ModelCounts(caught, caught, caught, caught))
        p_value, interval = audit_weighted(split_with_audit(build, *models, *audits))
        covered += interval.low <= 1 <= interval.high
        rejected += p_value < 0.05
    assert 0.93 <= covered / 600 <= 0.97
    assert covered + rejected == 600


def test_an_audit_that_found_nothing_tests_nothing(build) -> None:
    """Also pairs, whose ratio needs no audit."""
    assert audit_weighted(build.feedback(audits=())) is None
    split = replace(build.outcomes(), design=Design.SPLIT, frauds=None, false_alerts=None)
    nothing = AuditCounts(20_000, 1_000, 0)
    assert audit_weighted(build.feedback(outcomes=split, audits=(nothing, nothing))) is None
