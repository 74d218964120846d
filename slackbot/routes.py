"""One table: what Slack sends → who listens. Each is parsed before, and everything but a submission acknowledged before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from slackbot.door import guarded
from slackbot.identifiers import HOME_OPENED, Action, Command, View
from slackbot.listeners.confirm import confirm_pressed, confirm_submitted
from slackbot.listeners.force_rollback import force_rollback_pressed, force_rollback_submitted
from slackbot.listeners.fraud_rollback import breach_revert_pressed, fraud_rollback_submitted, fraud_rollback_typed
from slackbot.listeners.investigate import fraud_investigate_typed
from slackbot.listeners.postpone import postpone_pressed, postpone_submitted
from slackbot.listeners.status import fraud_status_typed, home_opened
from slackbot.metrics import Outcome
from slackbot.payloads import HomeOpened, Press, SlashCommand, Submission

if TYPE_CHECKING:
    from slack_bolt import Ack, App

    from slackbot.bot import Bot

PRESSES: Mapping[Action, Callable[[Bot, Press], None]] = {
    Action.CONFIRM: confirm_pressed,
    Action.POSTPONE: postpone_pressed,
    Action.FORCE_ROLLBACK: force_rollback_pressed,
    Action.REVERT: breach_revert_pressed,
}
SUBMISSIONS: Mapping[View, Callable[[Bot, Submission, Ack], None]] = {
    View.CONFIRM: confirm_submitted,
    View.POSTPONE: postpone_submitted,
    View.FORCE_ROLLBACK: force_rollback_submitted,
    View.FRAUD_ROLLBACK: fraud_rollback_submitted,
}
COMMANDS: Mapping[Command, Callable[[Bot, SlashCommand], None]] = {
    Command.FRAUD_ROLLBACK: fraud_rollback_typed,
    Command.FRAUD_STATUS: fraud_status_typed,
    Command.FRAUD_INVESTIGATE: fraud_investigate_typed,
}

Body = dict[str, Any]
T = TypeVar("T")


def add_routes(app: App, bot: Bot) -> None:
    for action, pressed in PRESSES.items():
        app.action(action.value)(_acknowledged_first(action, bot, Press.parse, pressed))
    for view, submitted in SUBMISSIONS.items():
        app.view(view.value)(_submitted(view, bot, submitted))
    for command, typed in COMMANDS.items():
        app.command(command.value)(_acknowledged_first(command, bot, SlashCommand.parse, typed))
    app.event(HOME_OPENED)(_acknowledged_first(HOME_OPENED, bot, HomeOpened.parse, home_opened))


def _acknowledged_first(
    kind: str, bot: Bot, parse: Callable[[Body], T], listener: Callable[[Bot, T], None]
) -> Callable[..., None]:
    """What is delivered again is acknowledged again, and that is all."""

    def handle(ack: Ack, body: Body) -> None:
        is_new = bot.answers.note(body, ack())
        with bot.metrics.press(kind) as note:
            if is_new:
                own = replace(bot, note=note)
                guarded(own, body, ack, lambda: listener(own, parse(body)))
            else:
                note(Outcome.REPEATED)

    return handle


def _submitted(kind: str, bot: Bot, listener: Callable[[Bot, Submission, Ack], None]) -> Callable[..., None]:
    """The acknowledgement tells the person something, so the same one is given again."""

    def handle(ack: Ack, body: Body) -> None:
        with bot.metrics.press(kind) as note:
            if (given := bot.answers.given(body)) is not None:
                ack.response = given
                note(Outcome.REPEATED)
                return
            own = replace(bot, note=note)
            guarded(own, body, ack, lambda: listener(own, Submission.parse(body), ack))
            bot.answers.note(body, ack.response)

    return handle
