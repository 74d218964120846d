"""Reminders of a question nobody has answered, and its end: the baseline stays. Nothing is ever promoted by silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow

from flows.steps import step
from flows.wiring import systems
from slackbot.messages.wording import who_confirms

if TYPE_CHECKING:
    from flows.domain.decision import Decision

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
    systems().publisher.thread_line(decision_id, f"reminder-{share}", _sentence(decision, share))
    return "reminded"


@step("let overdue questions expire")
def expire(decision_id: str) -> str:
    log = systems().decision_log
    expired = [decision.decision_id for decision in log.claim_overdue()]
    systems().publisher.publish_decision(decision_id)
    return "expired" if decision_id in expired else "nothing to expire"


def _sentence(decision: Decision, share: float) -> str:
    people = systems().policy.escalation if share >= ESCALATE_FROM_SHARE else systems().policy.promoters
    mentions = " ".join(f"<!subteam^{person}>" if person.startswith("S") else f"<@{person}>" for person in people)
    seconds = int(decision.deadline.timestamp())
    until = f"<!date^{seconds}^{{date_short_pretty}} at {{time}}|{decision.deadline:%Y-%m-%d %H:%M} UTC>"
    state = f"this decision is still open. {who_confirms(decision)}".rstrip()
    return f"{mentions} {state} Without an answer by {until} the baseline stays in charge.".strip()
