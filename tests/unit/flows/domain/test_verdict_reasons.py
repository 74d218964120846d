"""What a verdict says, word for word, and what it decides exactly at its limits."""

from __future__ import annotations

from typing import Any

import pytest

from flows.domain.counts import ArmCounts, AuditCounts, Design, LabelCounts, ModelCounts, Outcomes, Overlap
from flows.domain.criteria import CriterionName
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy, load_policy
from flows.domain.verdict import VerdictKind, decide_verdict

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
