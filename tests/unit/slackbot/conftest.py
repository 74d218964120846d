"""Questions to people, complete and of every verdict, to be drawn and answered in the tests of the Slack app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan, Change
from flows.domain.counts import Design
from flows.domain.criteria import Criterion, CriterionName, CriterionStatus, Significance, SignificanceTest
from flows.domain.decision import Choice, Claim, Decision, DecisionRequest, Links, Person
from flows.domain.guardrails import Guardrail, GuardrailName, GuardrailStatus
from flows.domain.homogeneity import Homogeneity
from flows.domain.intervals import Interval
from flows.domain.savings import Money
from flows.domain.verdict import MetricsByArm, ModelMetrics, Verdict, VerdictKind

ASKED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WHY = {
    VerdictKind.PROMOTE: "Every required criterion is met and the improvement is significant at this look.",
    VerdictKind.KEEP_BASELINE: "The candidate fails what is required: recall changes by +1.2 %; +5.0 % is required.",
    VerdictKind.INCONCLUSIVE: "It is too early to tell: 21 labelled frauds are fewer than the 30 that the policy requires.",
    VerdictKind.NOT_EVALUABLE: "The numbers cannot carry a verdict: 31.0 % of 9,120 cards met the candidate.",
}

Asking = Callable[..., Decision]


def criteria(status: CriterionStatus) -> tuple[Criterion, ...]:
    passed = CriterionStatus.PASSED
    return (
        Criterion(CriterionName.RECALL_IMPROVEMENT, status, 0.063, 0.05, "relative", "recall changes by +6.3 %"),
        Criterion(CriterionName.PRECISION_STABILITY, passed, 0.002, 0.01, "absolute", "precision changes by +0.2 points"),
        Criterion(CriterionName.RECALL_SIGNIFICANCE, status, 0.00041, 0.0144, "p-value", "p = 0.00041"),
        Criterion(CriterionName.LATENCY, passed, 83.0, 100.0, "ms", "within 83 ms"),
        Criterion(CriterionName.ERROR_RATE, CriterionStatus.NOT_CHECKED, None, 0.005, "absolute", "errors were not measured"),
    )


def verdict(kind: VerdictKind) -> Verdict:
    status = {VerdictKind.PROMOTE: CriterionStatus.PASSED, VerdictKind.KEEP_BASELINE: CriterionStatus.FAILED}
    interval = Interval("recall ratio", 1.021, 1.104, 0.95)
    return Verdict(
        verdict=kind,
        design=Design.PAIRED,
        reasons=(
            "The candidate catches 85.0 % of the fraud it scored and the baseline 80.0 % (+6.3 %; interval +2.1 % to +10 %).",
            WHY[kind],
        ),
        metrics=MetricsByArm(ModelMetrics(0.8, 0.91, 0.79, 240, 60, 24), ModelMetrics(0.85, 0.912, 0.86, 255, 45, 25)),
        criteria=criteria(status.get(kind, CriterionStatus.UNDECIDED)),
        significance=Significance(SignificanceTest.MCNEMAR_MIDP, 0.00041, 0.0005, 0.0144, 2, interval),
        guardrails=(
            Guardrail(GuardrailName.CROSSOVER, GuardrailStatus.NOT_CHECKED, "without entity_id cards cannot be counted"),
        ),
        policy_digest="sha256:" + "b" * 64,
        evidence_digest="sha256:" + "a" * 64,
        exposure_days=21,
        is_at_horizon=False,
        is_calculation=False,
        rows_left_out=0,
        not_checked=(),
        savings_per_month=Money("12345.60", "2345.60", "22345.60", "EUR"),
        homogeneity=Homogeneity(0.4, 0.6),
    )


def make_request(
    kind: VerdictKind = VerdictKind.PROMOTE, *, baseline: str = "fraud_v1", candidate: str = "fraud_v2", **more: Any
) -> DecisionRequest:
    one, two = Model(baseline, "1", "fraud-v1"), Model(candidate, "2", "fraud-v2")
    target = Arm.CANDIDATE if kind is VerdictKind.PROMOTE else Arm.BASELINE
    winner, loser = (two, one) if target is Arm.CANDIDATE else (one, two)
    plan = ActionPlan(
        target,
        (50, 100) if target is Arm.CANDIDATE else (100,),
        (
            Change("traffic", f"{one.predictor} 80 %, {two.predictor} 20 %", f"{winner.predictor} 100 %, {loser.predictor} 0 %"),
            Change("registry", f"{winner}: None", f"{winner}: Production (champion)"),
            Change("registry", f"{loser}: Production (champion)", f"{loser}: Archived"),
            Change("archive", "", f"{loser} is kept in the archive with its checksums"),
        ),
    )
    asked = DecisionRequest(
        test=ABTest("ab-2026-03", one, two, ASKED_AT - timedelta(days=51), "run-1"),
        round=1,
        flow_run_id="0197b1f2-0000-7000-8000-000000000000",
        verdict=verdict(kind),
        plan=plan,
        rollback_plan=replace(plan, target=Arm.BASELINE, traffic_steps=(100,)),
        epoch=3,
        links=Links("https://prefect.example/runs/1", "https://mlflow.example/#/runs/1", "https://grafana.example/d/1", ""),
        decide_within_hours=72,
        next_look_at=ASKED_AT + timedelta(days=7),
        horizon_at=ASKED_AT + timedelta(days=7),
    )
    return replace(asked, **more)


def make_decision(
    kind: VerdictKind = VerdictKind.PROMOTE,
    choice: Choice | None = None,
    *,
    reason: str = "checked with the analysts",
    **more: Any,
) -> Decision:
    asked, claim = make_request(kind, **more), None
    if choice is not None:
        actor = Person("expiry", "nobody") if choice is Choice.EXPIRE else Person("U0ANA", "ana")
        due = ASKED_AT + timedelta(days=1) if choice is Choice.POSTPONE else None
        claim = Claim(choice, actor, reason, ASKED_AT + timedelta(hours=2), due)
    return Decision(asked, ASKED_AT, ASKED_AT + timedelta(hours=72), claim)


@pytest.fixture
def decision() -> Asking:
    """`decision(kind, choice=None, reason=…, baseline=…, candidate=…, …)`: a decision in that state."""
    return make_decision
