"""`/fraud-rollback`, and the button of a breach: the emergency. The traffic first, through Kubernetes alone.

Everything else follows and may fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.deployment_names import FOLLOW_UP
from flows.domain.errors import FraudABError, NotAuthorized, OutsideSystemError, Superseded
from slackbot.authorization import Permission
from slackbot.bot import REFUSALS, Presser
from slackbot.identifiers import Field
from slackbot.messages import rollback_messages, wording
from slackbot.messages.block_kit import section
from slackbot.messages.modals import fraud_rollback_modal, notice_modal
from slackbot.metrics import Outcome
from slackbot.payloads import MAX_INPUT_CHARACTERS, AskedRollback, Press, SlashCommand, Submission

if TYPE_CHECKING:
    from slack_bolt import Ack

    from slackbot.bot import Bot
    from slackbot.follow_ups import FollowUp
    from slackbot.messages.block_kit import SlackMessage

logger = logging.getLogger(__name__)


def fraud_rollback_typed(bot: Bot, command: SlashCommand) -> None:
    presser = Presser.of(command)
    form, _, rest = command.text.strip().partition(" ")
    match form.lower():
        case "help":
            bot.tell(presser, rollback_messages.help_message())
        case "preview":
            bot.tell(presser, _preview(bot))
        case "" | "now":
            _start(bot, command, presser, is_now=bool(form), cause=rest.strip())
        case _:
            bot.tell(presser, rollback_messages.help_message(unknown=form))


def _start(bot: Bot, command: SlashCommand, presser: Presser, *, is_now: bool, cause: str) -> None:
    try:
        bot.require(Permission.ROLL_BACK, presser.person)
    except NotAuthorized as refusal:
        bot.tell(presser, bot.explain(refusal, presser))
        return
    if is_now:
        roll_back(bot, presser, command.press_id, cause[:MAX_INPUT_CHARACTERS] or str(wording.Cause.MISBEHAVES))
    else:
        bot.open_modal(command.trigger_id, fraud_rollback_modal(AskedRollback(channel=presser.channel)))


def breach_revert_pressed(bot: Bot, press: Press) -> None:
    """The command's own modal with the breach as the note; it needs nothing but the button."""
    presser, alarm = Presser.of(press), press.alarm
    try:
        bot.require(Permission.ROLL_BACK, presser.person)
    except NotAuthorized as refusal:
        bot.tell(presser, bot.explain(refusal, presser, alarm.decision_id))
        return
    asked = AskedRollback(channel=presser.channel, decision_id=alarm.decision_id)
    bot.open_modal(press.trigger_id, fraud_rollback_modal(asked, alarm.cause))


def fraud_rollback_submitted(bot: Bot, submission: Submission, ack: Ack) -> FollowUp | None:
    asked = AskedRollback.parse(submission.view.private_metadata)
    presser = Presser.of_modal(submission, asked)
    try:
        bot.require(Permission.ROLL_BACK, presser.person)
    except NotAuthorized as refusal:
        ack(response_action="update", view=notice_modal(bot.explain(refusal, presser)))
        return None
    ack()
    reason, promoted_by = chosen_reason(submission), asked.decision_id or ""
    return lambda: roll_back(bot, presser, submission.press_id, reason, only_promoted_by=promoted_by)


def chosen_reason(submission: Submission) -> str:
    """The preset cause, with the note if there is one."""
    return ": ".join(part for part in (submission.entered(Field.CAUSE), submission.entered(Field.NOTE)) if part)


def _preview(bot: Bot) -> SlackMessage:
    try:
        return rollback_messages.preview(bot.emergency.read())
    except OutsideSystemError as error:
        return rollback_messages.unreachable(bot.emergency.namespace, bot.emergency.name, str(error))


def roll_back(
    bot: Bot,
    presser: Presser,
    press_id: str,
    reason: str,
    *,
    answer_decision: Callable[[], object] | None = None,
    decision_id: str = "",
    only_promoted_by: str = "",
) -> None:
    """Move the traffic and say so; then answer the decision, start the follow-up, tell the channel, say what could not be done.

    A decision is answered also when Kubernetes failed: its flow then brings the baseline back as soon as it can.
    """
    revert_id = f"revert-{press_id}"
    done = _revert(bot, presser, revert_id, reason, only_promoted_by)
    problems = _answer(bot, presser, answer_decision, decision_id)
    if done is None:
        if problems:
            bot.tell(presser, rollback_messages.follow_up("", problems))
        return
    parameters = {"revert_id": revert_id, "actor": _actor(presser), "reason": reason}
    run_url = ""
    try:
        run_url = bot.gateway.start_run(FOLLOW_UP, parameters, idempotency_key=revert_id)
    except FraudABError as error:
        problems.append(str(error))
    after = rollback_messages.follow_up(run_url, problems)
    try:
        bot.publisher.announce(revert_id, done.text, [*done.blocks, section(after)])
    except OutsideSystemError as error:
        bot.tell(presser, rollback_messages.follow_up(run_url, [*problems, str(error)]))
    else:
        if problems:
            bot.tell(presser, after)


def _revert(bot: Bot, presser: Presser, revert_id: str, reason: str, only_promoted_by: str) -> SlackMessage | None:
    """Revert and tell the person how it went; None when Kubernetes did not do it."""
    where = (bot.emergency.namespace, bot.emergency.name)

    def when_slow() -> None:
        bot.tell(presser, rollback_messages.still_trying(*where))

    try:
        outcome = bot.emergency.revert(
            revert_id=revert_id,
            actor=_actor(presser),
            reason=reason,
            when_slow=when_slow,
            only_promoted_by=only_promoted_by,
        )
    except Superseded as error:
        bot.note(Outcome.REFUSED)
        logger.warning("not_reverted revert_id=%s actor=%s error=%s", revert_id, presser.person.id, error)
        bot.tell(presser, rollback_messages.not_reverted(*where, str(error)))
        return None
    except OutsideSystemError as error:
        bot.note(Outcome.FAILED)
        logger.error("revert_failed revert_id=%s actor=%s error=%s", revert_id, presser.person.id, error)
        bot.tell(presser, rollback_messages.unreachable(*where, str(error)))
        return None
    bot.note(Outcome.REVERTED)
    logger.warning("reverted revert_id=%s actor=%s epoch=%s", revert_id, presser.person.id, outcome.after.epoch)
    done = rollback_messages.rolled_back(outcome.before, outcome.after, presser.person.id, reason)
    bot.tell(presser, done)
    return done


def _answer(bot: Bot, presser: Presser, answer_decision: Callable[[], object] | None, decision_id: str) -> list[str]:
    """Answer the decision behind a forced rollback; what could not be recorded, in words."""
    if answer_decision is None:
        return []
    try:
        try:
            answer_decision()
        except REFUSALS as refusal:
            bot.tell(presser, bot.explain(refusal, presser, decision_id))
    except OutsideSystemError as error:
        return [f"the decision {decision_id} is not answered: {error}"]
    return []


def _actor(presser: Presser) -> str:
    return f"{presser.person.name} ({presser.person.id})"
