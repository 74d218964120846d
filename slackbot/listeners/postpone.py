"""Postpone…: choose when to evaluate again, in one's own time zone or by the frauds seen, then claim the decision."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from flows.domain.decision import Choice, refuse_postponement
from flows.domain.errors import PostponementRefused
from slackbot.authorization import Permission
from slackbot.bot import REFUSALS, Presser
from slackbot.identifiers import Field
from slackbot.messages.modals import notice_modal, postpone_modal
from slackbot.payloads import AskedQuestion, Press, Submission
from slackbot.postponements import moment, needs_time_zone, wanted_frauds

if TYPE_CHECKING:
    from datetime import datetime

    from slack_bolt import Ack

    from slackbot.bot import Bot
    from slackbot.follow_ups import FollowUp


def postpone_pressed(bot: Bot, press: Press) -> None:
    presser, question = Presser.of(press), press.question
    try:
        bot.require(Permission.DECIDE, presser.person)
        decision = bot.pending(question)
    except REFUSALS as refusal:
        bot.tell(presser, bot.explain(refusal, presser, question.decision_id))
        return
    asked = AskedQuestion.of(question, presser.channel)
    bot.open_modal(press.trigger_id, postpone_modal(decision, asked, bot.policy.postponements))
    bot.directory.time_zone(presser.person.id)  # so that it is known when they submit


def postpone_submitted(bot: Bot, submission: Submission, ack: Ack) -> FollowUp | None:
    """As a confirmation; a time that the policy does not allow is said at its field."""
    asked = AskedQuestion.parse(submission.view.private_metadata)
    presser = Presser.of_modal(submission, asked)
    try:
        bot.require(Permission.DECIDE, presser.person)
        decision, now = bot.pending(asked), bot.decision_log.now()
        words = _offered(bot, submission.entered(Field.UNTIL))
        frauds = wanted_frauds(words)
        until = _until(bot, words, presser, now) if frauds is None else decision.request.horizon_at
        refuse_postponement(decision.request, until, now, frauds)
    except PostponementRefused as refusal:
        ack(response_action="errors", errors={Field.UNTIL: f"{refusal}."})
        return None
    except REFUSALS as refusal:
        ack(response_action="update", view=notice_modal(bot.explain(refusal, presser, asked.decision_id)))
        return None
    ack()
    return lambda: _claim(bot, submission, asked, until, frauds)


def _claim(bot: Bot, submission: Submission, asked: AskedQuestion, until: datetime | None, frauds: int | None) -> None:
    presser = Presser.of_modal(submission, asked)
    try:
        reason = submission.entered(Field.REASON)
        bot.claim(presser, asked, Choice.POSTPONE, reason, until=until, wanted_frauds=frauds)
    except REFUSALS as refusal:
        bot.tell(presser, bot.explain(refusal, presser, asked.decision_id))


def _offered(bot: Bot, words: str) -> str:
    if words not in bot.policy.postponements:
        raise PostponementRefused("the policy no longer offers this: close this and press Postpone… again")
    return words


def _until(bot: Bot, words: str, presser: Presser, now: datetime) -> datetime:
    if not needs_time_zone(words):
        return moment(words, now.astimezone(UTC), ZoneInfo("UTC"))
    zone = bot.directory.time_zone(presser.person.id)
    if zone is None:
        raise PostponementRefused("Slack did not tell your time zone: choose a number of hours or days, or try again")
    return moment(words, now, zone)
