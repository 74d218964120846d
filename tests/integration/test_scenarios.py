"""The simulated worlds through the real evaluator: the promised verdicts for the demo's seed, and one seed that nobody chose.

The seed comes from FRAUD_AB_RANDOM_SEED (CI draws one) and is printed, so that a failure can be repeated.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from deployments.demo import PROMISED
from deployments.sandbox.simulator import simulate_test
from flows.adapters.feedback_ibis import IbisFeedback
from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.domain.criteria import CriterionName, CriterionStatus
from flows.domain.guardrails import GuardrailName, GuardrailStatus
from flows.domain.policy import Policy
from flows.domain.verdict import Verdict, VerdictKind
from flows.evaluate_ab_test import evaluate

DEMO_SEED = 7
LOOK_DAY, MATURITY_DAYS = 21, 30
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def random_seed() -> int:
    seed = int(os.environ.get("FRAUD_AB_RANDOM_SEED", "4711"))
    print(f"\nseed of the simulated world: {seed}")  # noqa: T201 - a failure must be repeatable
    return seed


def verdict_of(scenario: str, seed: int, folder: Path, *, shadow: bool = True) -> Verdict:
    test = simulate_test(scenario, seed, shadow=shadow, cache=folder / "cache")
    feedback: pd.DataFrame = test.feedback(test.test_start + timedelta(days=LOOK_DAY + MATURITY_DAYS, seconds=1))
    # what the demo's live traffic adds: the feedback knows of the moment at which the look is due
    last = feedback.tail(1).assign(transaction_id="last", event_time=test.test_start + timedelta(days=LOOK_DAY + MATURITY_DAYS))
    file = folder / f"{scenario}.parquet"
    pd.concat([feedback, last.assign(is_fraud=None, label_time=pd.NaT)]).to_parquet(file)
    policy = Policy()
    return evaluate(IbisFeedback(str(file), policy), FeedbackTelemetry(str(file), policy), policy, test.test_start, NOW).verdict


@pytest.mark.parametrize("scenario", ["split-bug", "slow-candidate"])
def test_the_demos_seed_gives_the_promised_verdict(scenario: str, tmp_path: Path) -> None:
    assert verdict_of(scenario, DEMO_SEED, tmp_path).kind is PROMISED[scenario]


def test_a_better_candidate_is_seen_to_be_better_with_any_seed(random_seed: int, tmp_path: Path) -> None:
    verdict = verdict_of("win", random_seed, tmp_path)
    assert verdict.design == "paired"
    assert verdict.criterion(CriterionName.RECALL_IMPROVEMENT).status is CriterionStatus.PASSED, verdict.reasons
    assert verdict.criterion(CriterionName.RECALL_SIGNIFICANCE).status is CriterionStatus.PASSED, verdict.reasons
    assert all(guardrail.status is not GuardrailStatus.FAILED for guardrail in verdict.guardrails), verdict.guardrails


def test_a_candidate_on_drifted_data_is_never_promoted_with_any_seed(random_seed: int, tmp_path: Path) -> None:
    assert verdict_of("drifted", random_seed, tmp_path).kind is VerdictKind.KEEP_BASELINE


def test_without_shadow_scoring_the_split_is_evaluated_and_mcnemar_is_not_used(random_seed: int, tmp_path: Path) -> None:
    verdict = verdict_of("win", random_seed, tmp_path, shadow=False)
    assert verdict.design == "split"
    assert verdict.significance is not None
    assert "mcnemar" not in verdict.significance.test
    sample_ratio = next(guardrail for guardrail in verdict.guardrails if guardrail.name is GuardrailName.SAMPLE_RATIO)
    assert sample_ratio.status is GuardrailStatus.PASSED
