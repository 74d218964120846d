"""Force rollback…: first the traffic, then the decision that it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.decision import Choice
from flows.domain.errors import NotAuthorized
from slackbot.authorization import Permission
from slackbot.bot import Presser
from slackbot.listeners.fraud_rollback import chosen_reason, roll_back
from slackbot.messages.modals import force_rollback_modal, notice_modal
from slackbot.payloads import AskedQuestion, Press, Submission

if TYPE_CHECKING:
    from slack_bolt import Ack

    from slackbot.bot import Bot
    from slackbot.follow_ups import FollowUp


def force_rollback_pressed(bot: Bot, press: Press) -> None:
    """The modal needs nothing but the button: it opens also when the database is down."""
    presser, question = Presser.of(press), press.question
    try:
        bot.require(Permission.ROLL_BACK, presser.person)
    except NotAuthorized as refusal:
        bot.tell(presser, bot.explain(refusal, presser, question.decision_id))
        return
    asked = AskedQuestion.of(question, presser.channel)
    bot.open_modal(press.trigger_id, force_rollback_modal(asked))


def force_rollback_submitted(bot: Bot, submission: Submission, ack: Ack) -> FollowUp | None:
    """The traffic moves whatever has become of the decision meanwhile; who lost that race is told who decided what."""
    asked = AskedQuestion.parse(submission.view.private_metadata)
    presser = Presser.of_modal(submission, asked)
    try:
        bot.require(Permission.ROLL_BACK, presser.person)
    except NotAuthorized as refusal:
        ack(response_action="update", view=notice_modal(bot.explain(refusal, presser, asked.decision_id)))
        return None
    ack()
    reason = chosen_reason(submission)
    return lambda: roll_back(
        bot,
        presser,
        submission.press_id,
        reason,
        answer_decision=lambda: bot.claim(presser, asked, Choice.FORCE_ROLLBACK, reason),
        decision_id=asked.decision_id,
    )
