"""Answers the verdict message as a person would: press the button, fill the modal, submit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.decision import Choice
from slackbot.identifiers import Action, Field

if TYPE_CHECKING:
    from deployments.sandbox.slack import SandboxSlack

ANA = "U0ANA"
MODAL_SECONDS = 10.0
BUTTONS = {
    Choice.CONFIRM: Action.CONFIRM,
    Choice.POSTPONE: Action.POSTPONE,
    Choice.FORCE_ROLLBACK: Action.FORCE_ROLLBACK,
}


class AnswerNotTaken(RuntimeError):
    """The app did not take the person's answer."""


def answer(slack: SandboxSlack, choice: Choice, *, user: str = ANA) -> None:
    """Press a button of the newest verdict message and submit its modal with the presets, the first of every choice.

    Raises:
        AnswerNotTaken: a press was not acknowledged, no modal came, or it was refused.
    """
    pressed = slack.press(user, BUTTONS[choice])
    if not pressed.acked:
        raise AnswerNotTaken(f"the press was not acknowledged ({pressed.error})")
    view = slack.wait_for(lambda: slack.open_view(user), seconds=MODAL_SECONDS)
    entered = {str(Field.REASON): "seen in the demo"} if choice is Choice.CONFIRM else {}
    submitted = slack.submit(user, {name: value for name, value in entered.items() if name in str(view)})
    if submitted.error or submitted.field_errors:
        raise AnswerNotTaken(f"the modal was refused ({submitted.error} {dict(submitted.field_errors)})")
