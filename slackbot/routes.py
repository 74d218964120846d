"""One table: what Slack sends → who listens. Each is parsed before, and everything but a submission acknowledged before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
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
    from slackbot.follow_ups import FollowUp

PRESSES: Mapping[Action, Callable[[Bot, Press], None]] = {
    Action.CONFIRM: confirm_pressed,
    Action.POSTPONE: postpone_pressed,
    Action.FORCE_ROLLBACK: force_rollback_pressed,
    Action.REVERT: breach_revert_pressed,
}
SUBMISSIONS: Mapping[View, Callable[[Bot, Submission, Ack], FollowUp | None]] = {
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
EMERGENCIES = frozenset({View.FORCE_ROLLBACK, View.FRAUD_ROLLBACK, Command.FRAUD_ROLLBACK})

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
        bot.follow_ups.start(lambda: follow(ack, body, is_new=is_new), is_emergency=kind in EMERGENCIES)

    def follow(ack: Ack, body: Body, *, is_new: bool) -> None:
        with bot.metrics.press(kind) as note:
            if is_new:
                own = replace(bot, note=note)
                guarded(own, body, ack, lambda: listener(own, parse(body)))
            else:
                note(Outcome.REPEATED)

    return handle


def _submitted(kind: str, bot: Bot, listener: Callable[[Bot, Submission, Ack], FollowUp | None]) -> Callable[..., None]:
    """The acknowledgement tells the person something, so the same one is given again."""

    def handle(ack: Ack, body: Body) -> None:
        with ExitStack() as press:
            note = press.enter_context(bot.metrics.press(kind))
            if (given := bot.answers.given(body)) is not None:
                ack.response = given
                note(Outcome.REPEATED)
                return
            own = replace(bot, note=note)
            work = guarded(own, body, ack, lambda: listener(own, Submission.parse(body), ack))
            bot.answers.note(body, ack.response)
            if work is not None:
                ends = press.pop_all()
                bot.follow_ups.start(lambda: follow(ends, own, body, ack, work), is_emergency=kind in EMERGENCIES)

    def follow(press: ExitStack, own: Bot, body: Body, ack: Ack, work: FollowUp) -> None:
        with press:
            guarded(own, body, ack, work)

    return handle
