"""Reminders of a question nobody has answered, and its end: the baseline stays. Nothing is ever promoted by silence."""

from __future__ import annotations

from prefect import flow

from flows.steps import step
from flows.wiring import systems
from slackbot.messages import wording

ESCALATE_FROM_SHARE = 0.8


@flow(name="remind-pending-decision", persist_result=True, flow_run_name="{decision_id}-{share}")
def remind_pending_decision(decision_id: str, share: float) -> str:
    """Remind in the thread; at the deadline let the question expire.

    Args:
        share: how much of the time to decide is over, 0..1.
    """
    if share >= 1:
        return expire(decision_id)
    return remind(decision_id, share)


@step("remind")
def remind(decision_id: str, share: float) -> str:
    decision = systems().decision_log.read(decision_id)
    systems().publisher.publish_decision(decision_id)
    if not decision.is_pending:
        return "already decided"
    people = systems().policy.escalation if share >= ESCALATE_FROM_SHARE else systems().policy.promoters
    systems().publisher.thread_line(decision_id, f"reminder-{share}", wording.remind(decision, people))
    return "reminded"


@step("let overdue questions expire")
def expire(decision_id: str) -> str:
    log = systems().decision_log
    expired = [decision.decision_id for decision in log.claim_overdue()]
    systems().publisher.publish_decision(decision_id)
    return "expired" if decision_id in expired else "nothing to expire"
