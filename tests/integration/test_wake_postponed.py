"""Postponed until frauds are seen: woken by the feedback as it grows, by the number that the next evaluation rests on."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from flows.adapters.feedback_ibis import IbisFeedback
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.decision import Choice, Decision, DecisionRequest, Links, Person
from flows.domain.errors import FeedbackInvalid
from flows.domain.policy import Policy
from flows.evaluate_ab_test import Evaluation, evaluate, frauds_seen
from flows.settings import Settings, load_settings
from flows.wake_postponed import wake_postponed
from flows.wiring import Systems
from tests.feedback_tables import START, feedback_frame, written

POLICY = Policy()
BEGAN = START.to_pydatetime()
ROWS = 6_000


@pytest.fixture
def systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systems:
    for name, value in {
        "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{tmp_path / 'log.db'}",
        "FRAUD_AB_FEEDBACK_URL": str(tmp_path / "feedback.parquet"),
        "FRAUD_AB_LIFECYCLE_REPOSITORY": str(tmp_path),
        "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
        "MLFLOW_TRACKING_URI": "unused",
        "SLACK_BOT_TOKEN": "unused",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FRAUD_AB_POLICY_FILE", raising=False)
    return Systems(load_settings(Settings))


def known_after(days: float, folder: Path, *, is_paired: bool = True) -> datetime:
    """The feedback as it is so long after the start of the test: rows to come and labels to come are not there. Returns when."""
    frame, now = feedback_frame(ROWS, is_paired=is_paired), START + pd.Timedelta(days=days)
    frame = frame[frame.event_time < now].copy()
    frame.loc[frame.label_time >= now, ["is_fraud", "label_time"]] = None
    written(frame, folder)
    return now.to_pydatetime()


def judged(systems: Systems, at: datetime) -> Evaluation:
    return evaluate(systems.feedback, None, systems.policy, BEGAN, at)


def postpone(systems: Systems, found: Evaluation, wanted_frauds: int) -> Decision:
    models = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
    log, plan = systems.decision_log, ActionPlan(Arm.BASELINE, (100,), ())
    asked = DecisionRequest(
        test=ABTest("autumn", *models, BEGAN, "run"),
        round=1,
        flow_run_id="run-1",
        verdict=found.verdict,
        plan=plan,
        rollback_plan=plan,
        epoch=1,
        links=Links(),
        decide_within_hours=72,
        next_look_at=None,
        horizon_at=log.now() + timedelta(days=14),
        evidence=found.evidence,
        policy=systems.policy,
    )
    opened = log.open(asked)
    return log.claim(
        opened.decision_id,
        evidence_digest=found.verdict.evidence_digest,
        choice=Choice.POSTPONE,
        actor=Person("U0ANA", "ana"),
        reason="",
        postponed_until=asked.horizon_at,
        wanted_frauds=wanted_frauds,
    )


@pytest.mark.parametrize("is_paired", [True, False])
def test_it_is_woken_when_the_evidence_has_as_many_frauds_and_not_before(
    systems: Systems, tmp_path: Path, *, is_paired: bool
) -> None:
    at_first_look, at_second_look = (known_after(days, tmp_path, is_paired=is_paired) for days in (45, 52))
    wanted = judged(systems, at_second_look).evidence.outcomes.compared_frauds
    known_after(45, tmp_path, is_paired=is_paired)
    first = judged(systems, at_first_look)
    decision = postpone(systems, first, wanted)
    assert decision.request.frauds_seen == first.evidence.outcomes.compared_frauds < wanted
    assert wake_postponed(systems) == []
    known_after(50, tmp_path, is_paired=is_paired)
    assert wake_postponed(systems) == [], "more rows and labels, but the next look's have not matured"
    assert systems.decision_log.undelivered() == []
    known_after(52, tmp_path, is_paired=is_paired)
    assert wake_postponed(systems) == [decision.decision_id]
    assert [one.decision_id for one in systems.decision_log.undelivered()] == [decision.decision_id]
    assert wake_postponed(systems) == []
    again = judged(systems, at_second_look)
    assert again.evidence.outcomes.compared_frauds == wanted
    assert [look.exposure_days for look in again.evidence.looks] == [21], "a look of its own, and the only one by then"


def test_one_fraud_more_than_there_will_ever_be_is_left_to_the_last_look(systems: Systems, tmp_path: Path) -> None:
    end = known_after(58, tmp_path)
    everything = judged(systems, end).evidence.outcomes.compared_frauds
    known_after(45, tmp_path)
    postpone(systems, judged(systems, end), everything + 1)
    known_after(58, tmp_path)
    assert wake_postponed(systems) == []
    assert len(systems.decision_log.waiting_for_frauds()) == 1


def test_the_feedback_is_read_only_for_somebody_who_waits(systems: Systems, tmp_path: Path) -> None:
    assert wake_postponed(systems) == []  # there is no such file
    now = known_after(45, tmp_path)
    postpone(systems, judged(systems, now), 10_000)
    (tmp_path / "feedback.parquet").unlink()
    with pytest.raises(FeedbackInvalid):
        wake_postponed(systems)


def test_the_number_is_what_a_verdict_shows(tmp_path: Path) -> None:
    now = known_after(52, tmp_path)
    feedback = IbisFeedback(str(tmp_path / "feedback.parquet"), POLICY)
    found = evaluate(feedback, None, POLICY, BEGAN, now)
    shown = found.verdict.metrics.baseline
    assert frauds_seen(feedback, POLICY, BEGAN, now) == shown.true_positives + (shown.false_negatives or 0)
