"""Saying what has happened, in Slack and in Prefect. Neither of them, when it is down, may undo or hold up what was done."""

from __future__ import annotations

import hashlib
import logging
import re
import textwrap
from typing import TYPE_CHECKING

import httpx
from prefect.artifacts import create_table_artifact
from prefect.exceptions import PrefectException
from prefect.runtime import task_run

from flows.domain.errors import FraudABError, OutsideSystemError
from flows.prefect_calls import no_retries
from flows.wiring import systems
from slackbot.messages.block_kit import ExceedsSlackLimit, escape, link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.domain.action_plan import Change
    from slackbot.messages.block_kit import SlackMessage

LONGEST_REASON = 600
SHOW_SECONDS = 3.0
_log = logging.getLogger(__name__)


def tell(
    decision_id: str, key: str, text: str, changes: Sequence[Change] = (), *, also_to_channel: bool = False, page: str = ""
) -> None:
    """Say what has happened: an artifact of the run and a line in the thread. A silent Slack undoes nothing.

    Args:
        page: the address at which a browser shows what the text is about; empty when there is none.
    """
    show_in_prefect(f"{decision_id}-{key}", text, changes)
    line = link(page, text) if page else "\n".join(map(escape, text.splitlines()))
    _post(lambda: systems().publisher.thread_line(decision_id, key, line, also_to_channel=also_to_channel))


def show_in_prefect(key: str, text: str, changes: Sequence[Change]) -> None:
    """What a step changed, before and after, as an artifact of it; outside of a step, or without changes, nothing."""
    if not task_run.id or not changes:
        return
    table = [{"what": change.what, "before": change.before, "after": change.after} for change in changes]
    artifact_key = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")
    try:
        with no_retries(SHOW_SECONDS):
            create_table_artifact(table=table, key=artifact_key, description=text)
    except (httpx.HTTPError, PrefectException) as error:
        _log.warning("not shown in Prefect: %s", error)


def tell_message(decision_id: str, key: str, message: SlackMessage) -> None:
    """A message with its own blocks in the thread and in the channel."""
    _post(lambda: systems().publisher.thread_line(decision_id, key, message.text, blocks=message.blocks, also_to_channel=True))


def tell_trouble(decision_id: str, key: str, why: str, text: str) -> None:
    """Say, also in the channel, what is tried again and again; another time only when `why` is another."""
    digest = hashlib.sha256(why.encode()).hexdigest()[:12]
    tell(decision_id, f"{key}-{digest}", text, also_to_channel=True)


def redraw(decision_id: str) -> None:
    """Show in the decision's message what the records tell now."""
    _post(lambda: systems().publisher.publish_decision(decision_id))


def show_picture(decision_id: str, name: str, png: bytes, alt_text: str) -> None:
    """In the thread of the decision's message."""
    _post(lambda: systems().publisher.thread_picture(decision_id, name, png, alt_text))


def announce(key: str, text: str, changes: Sequence[Change] = ()) -> None:
    """A message of its own in the channel, where there is no decision to hang it on."""
    show_in_prefect(key, text, changes)
    _post(lambda: systems().publisher.announce(key, escape(text)))


def announce_message(key: str, message: SlackMessage, channel: str) -> None:
    """A message with its own blocks in another channel."""
    _post(lambda: systems().publisher.announce(key, message.text, message.blocks, channel=channel))


def _post(post: Callable[[], object]) -> None:
    try:
        post()
    except (OutsideSystemError, ExceedsSlackLimit) as error:
        _log.warning("not told in Slack: %s", error)


def describe_failure(error: Exception) -> str:
    """An error for people, short enough for a message: ours are sentences already, of others the type helps."""
    text = str(error) if isinstance(error, FraudABError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, LONGEST_REASON, placeholder=" …")
