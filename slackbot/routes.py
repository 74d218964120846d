"""One table: what Slack sends → who listens. Each is parsed before, and everything but a submission acknowledged before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slackbot.door import guarded
from slackbot.identifiers import HOME_OPENED, Action, Command, View
from slackbot.listeners.confirm import confirm_pressed, confirm_submitted
from slackbot.listeners.force_rollback import force_rollback_pressed, force_rollback_submitted
from slackbot.listeners.fraud_rollback import breach_revert_pressed, fraud_rollback_submitted, fraud_rollback_typed
from slackbot.listeners.postpone import postpone_pressed, postpone_submitted
from slackbot.listeners.status import fraud_status_typed, home_opened
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
}

Body = dict[str, Any]


def add_routes(app: App, bot: Bot) -> None:
    for action, pressed in PRESSES.items():
        app.action(action.value)(_pressed(pressed, bot))
    for view, submitted in SUBMISSIONS.items():
        app.view(view.value)(_submitted(submitted, bot))
    for command, typed in COMMANDS.items():
        app.command(command.value)(_typed(typed, bot))
    app.event(HOME_OPENED)(_opened(bot))


def _pressed(listener: Callable[[Bot, Press], None], bot: Bot) -> Callable[..., None]:
    def handle(ack: Ack, body: Body) -> None:
        ack()
        guarded(bot, body, ack, lambda: listener(bot, Press.parse(body)))

    return handle


def _typed(listener: Callable[[Bot, SlashCommand], None], bot: Bot) -> Callable[..., None]:
    def handle(ack: Ack, body: Body) -> None:
        ack()
        guarded(bot, body, ack, lambda: listener(bot, SlashCommand.parse(body)))

    return handle


def _opened(bot: Bot) -> Callable[..., None]:
    def handle(ack: Ack, body: Body) -> None:
        ack()
        guarded(bot, body, ack, lambda: home_opened(bot, HomeOpened.parse(body)))

    return handle


def _submitted(listener: Callable[[Bot, Submission, Ack], None], bot: Bot) -> Callable[..., None]:
    def handle(ack: Ack, body: Body) -> None:
        guarded(bot, body, ack, lambda: listener(bot, Submission.parse(body), ack))

    return handle
