"""A business summary of each final outcome, in a channel of its own; without that setting no step is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.decision_record import RecordKind
from flows.steps import step
from flows.telling import announce_message
from flows.wiring import systems
from slackbot.messages.stakeholder_message import stakeholder_message

if TYPE_CHECKING:
    from slackbot.messages.block_kit import SlackMessage


def tell_stakeholders(decision_id: str, kind: RecordKind, epoch: int = 0) -> None:
    """Once for each outcome of a decision; `epoch` tells several ends of the same kind apart."""
    if systems().settings.stakeholder_channel:
        post_summary(decision_id, kind, epoch)


def tell_stakeholders_of_reverts(recorded: list[str]) -> None:
    """Once for each emergency revert; those of a deployment without a test name no models."""
    if systems().settings.stakeholder_channel and recorded:
        post_revert_summaries(recorded)


@step("Tell the stakeholders")
def post_summary(decision_id: str, kind: str, epoch: int) -> None:
    """A silent Slack undoes nothing: what it does not take is said later."""
    decision = systems().decision_log.read(decision_id)
    message = stakeholder_message(decision.request.test, RecordKind(kind), decision)
    _post(f"stakeholders:{decision_id}-{kind}-{epoch}", message)


@step("Tell the stakeholders of the emergency")
def post_revert_summaries(recorded: list[str]) -> None:
    test = systems().serving.read().test
    if test is None:
        return
    latest = next(iter(systems().decision_log.decisions(test.test_id)), None)
    for revert_id in recorded:
        _post(f"stakeholders:{revert_id}", stakeholder_message(test, RecordKind.EMERGENCY_REVERT, latest))


def _post(key: str, message: SlackMessage) -> None:
    announce_message(key, message, systems().settings.stakeholder_channel)
