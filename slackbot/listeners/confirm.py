"""Confirm…: show the exact change, then claim the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.decision import Choice, refuse_confirmation
from slackbot.authorization import Permission
from slackbot.bot import REFUSALS, Presser
from slackbot.identifiers import Field
from slackbot.messages import wording
from slackbot.messages.modals import confirm_modal, notice_modal
from slackbot.payloads import AskedQuestion, Press, Submission

if TYPE_CHECKING:
    from slack_bolt import Ack

    from slackbot.bot import Bot
    from slackbot.follow_ups import FollowUp


def confirm_pressed(bot: Bot, press: Press) -> None:
    presser, question = Presser.of(press), press.question
    try:
        bot.require(Permission.DECIDE, presser.person)
        decision = bot.pending(question)
        refuse_confirmation(decision, presser.person.id)
    except REFUSALS as refusal:
        bot.tell(presser, bot.explain(refusal, presser, question.decision_id))
        return
    asked = AskedQuestion.of(question, presser.channel)
    bot.open_modal(press.trigger_id, confirm_modal(decision, asked))


def confirm_submitted(bot: Bot, submission: Submission, ack: Ack) -> FollowUp | None:
    """Rights and evidence are looked at again, then it is acknowledged, then the decision is claimed."""
    asked = AskedQuestion.parse(submission.view.private_metadata)
    presser = Presser.of_modal(submission, asked)
    try:
        bot.require(Permission.DECIDE, presser.person)
        refuse_confirmation(bot.pending(asked), presser.person.id)
    except REFUSALS as refusal:
        ack(response_action="update", view=notice_modal(bot.explain(refusal, presser, asked.decision_id)))
        return None
    ack()
    return lambda: _claim(bot, submission, asked)


def _claim(bot: Bot, submission: Submission, asked: AskedQuestion) -> None:
    presser = Presser.of_modal(submission, asked)
    try:
        decision = bot.claim(presser, asked, Choice.CONFIRM, submission.entered(Field.REASON))
    except REFUSALS as refusal:
        bot.tell(presser, bot.explain(refusal, presser, asked.decision_id))
        return
    if decision.is_pending:
        bot.tell(presser, wording.confirmed_first(decision))
        bot.ask_second_person(decision)
