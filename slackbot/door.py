"""The one door at which an error that nobody expected ends: logged with a reference, which the person reads too.

A log line has types, our own messages and code places; never a body, a token, or a foreign error's text, which may quote them.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from flows.domain.errors import FraudABError
from slackbot.bot import Presser
from slackbot.identifiers import Command
from slackbot.messages.block_kit import escape
from slackbot.messages.modals import notice_modal
from slackbot.metrics import Outcome
from slackbot.payloads import Origin, PayloadInvalid

if TYPE_CHECKING:
    from slack_bolt import Ack

    from slackbot.bot import Bot

T = TypeVar("T")

logger = logging.getLogger(__name__)


def guarded(bot: Bot, body: dict[str, Any], ack: Ack, work: Callable[[], T]) -> T | None:
    """Run a listener, or what follows its acknowledgement; whatever it raises ends here."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the door: every press gets an answer
        bot.note(Outcome.FAILED)
        reference = secrets.token_hex(4)
        logger.error("failed reference=%s error=%s at=%s", reference, _chain(error), _places(error))
        text = _said(error, reference)
        if body.get("type") == "view_submission" and ack.response is None:
            ack(response_action="update", view=notice_modal(text))
        elif (presser := _presser(body)) is not None:
            bot.tell(presser, text)
        return None


def _said(error: Exception, reference: str) -> str:
    own = f"{escape(str(error))}. " if isinstance(error, FraudABError) else "Something went wrong in the app. "
    return (
        f"That did not work: {own}The message of the decision shows what has been recorded; press again if it still waits. "
        f"In an emergency: `{Command.FRAUD_ROLLBACK} now`. Reference `{reference}`, for who runs the app."
    )


def _presser(body: Mapping[str, Any]) -> Presser | None:
    """Who is to be told, as far as the body can be read; who submitted a modal is told directly."""
    try:
        return Presser.of(Origin.parse({"channel": body.get("user"), **body}))
    except PayloadInvalid:
        return None


def _chain(error: BaseException | None) -> str:
    found: list[str] = []
    while error is not None:
        found.append(f"{type(error).__name__}({error})" if isinstance(error, FraudABError) else type(error).__name__)
        error = error.__cause__ or error.__context__
    return " <- ".join(found)


def _places(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in frames)
