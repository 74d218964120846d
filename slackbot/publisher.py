"""Posts once, redraws from the decision log, adds thread lines. The flows and the app use the same publisher.

What a message shows is always read from the log while its slot of the outbox is held, so the last redraw shows the latest truth,
whoever draws. A post whose answer was lost is looked up by its metadata before anything is posted again: therefore the calls that
post are the only ones which the client does not repeat by itself after a lost connection. What Slack does not take is kept in the
outbox and said later, in order: an outage delays messages and loses none.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from http.client import HTTPException
from ssl import SSLContext, create_default_context
from typing import TYPE_CHECKING, Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.http_retry.handler import RetryHandler

from flows.domain.errors import OutsideSystemError
from slackbot.messages.block_kit import Json, SlackMessage, context, local_time
from slackbot.messages.verdict_message import verdict_message

if TYPE_CHECKING:
    from datetime import datetime

    from slack_sdk.web import SlackResponse

    from flows.domain.policy import Policy
    from flows.ports import DecisionLog, KeptMessage, Outbox, OutboxSlot, PostedMessage

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
RETRIES = 3
LOOKUP_PAGES = 5
REFUSED_FOR = timedelta(days=1)
"""How long a message is tried again that Slack refuses for what it is: somebody may let the app into the channel meanwhile."""
METADATA_EVENT = "fraud_ab_message"
_PASSING = {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}


def passing_troubles() -> list[RetryHandler]:
    """Waits out rate limits, server errors and lost connections."""
    return [
        ConnectionErrorRetryHandler(max_retry_count=RETRIES),
        RateLimitErrorRetryHandler(max_retry_count=RETRIES),
        ServerErrorRetryHandler(max_retry_count=RETRIES),
    ]


def slack_client(token: str, api_url: str) -> WebClient:
    return WebClient(token, base_url=api_url, timeout=TIMEOUT_SECONDS, ssl=tls(), retry_handlers=passing_troubles())


@cache
def tls() -> SSLContext:
    """One for all calls: else Python makes one for each connection, which takes 25 ms in which no other press is answered."""
    return create_default_context()


def _posting_client(client: WebClient) -> WebClient:
    """A client for what must not happen twice: it repeats only what Slack has refused for the rate."""
    handlers: list[RetryHandler] = [RateLimitErrorRetryHandler(max_retry_count=RETRIES)]
    return WebClient(client.token, base_url=client.base_url, timeout=client.timeout, ssl=tls(), retry_handlers=handlers)


@contextmanager
def slack_errors(doing: str) -> Generator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except SlackApiError as error:
        status, code = error.response.status_code, str(error.response.get("error", ""))
        retryable = status == 429 or status >= 500 or code in _PASSING
        raise OutsideSystemError("Slack", f"{doing} ({code or f'HTTP {status}'})", retryable=retryable) from error
    except (SlackClientError, OSError, HTTPException) as error:
        raise OutsideSystemError("Slack", f"{doing} (no answer)", retryable=True) from error


class Publisher:
    """The messages of one channel."""

    def __init__(self, client: WebClient, outbox: Outbox, decision_log: DecisionLog, policy: Policy, *, channel: str) -> None:
        self._client = client
        self._posting = _posting_client(client)
        self._outbox = outbox
        self._log = decision_log
        self._policy = policy
        self._channel = channel

    @property
    def channel(self) -> str:
        return self._channel

    @property
    def _here(self) -> Json:
        return {"channel": self._channel}

    def publish_decision(self, decision_id: str, *, redraw: bool = False) -> PostedMessage:
        """Post the decision's message, or redraw it when what it shows is no longer so.

        Args:
            redraw: also when the outbox believes it to be up to date, because somebody was shown something else.

        Raises:
            OutsideSystemError: Slack or the database failed; calling again is safe.
        """
        key = message_key(decision_id)
        kept = self._kept_if_slack_fails(key, "publish_decision", {"decision_id": decision_id, "redraw": True})
        with kept, self._outbox.slot(key, self._channel) as slot:
            kinds = [record.kind for record in self._log.records(decision_id)]
            message = verdict_message(self._log.read(decision_id), self._policy, recorded=kinds)
            return self._bring_up_to_date(slot, key, message, redraw=redraw)

    def thread_line(
        self, decision_id: str, key: str, text: str, *, blocks: Sequence[Json] = (), also_to_channel: bool = False
    ) -> PostedMessage:
        """Add a line below the decision's message, once per `key`.

        Args:
            text: mrkdwn; foreign parts escaped by the caller.
            blocks: what is shown instead of the text, with buttons maybe.
            also_to_channel: for failures and rollbacks only.

        Raises:
            OutsideSystemError: as `publish_decision`.
        """
        line = {"decision_id": decision_id, "key": key, "text": text, "blocks": list(blocks), "also_to_channel": also_to_channel}
        line_key = f"{message_key(decision_id)}/{key}"
        with self._kept_if_slack_fails(line_key, "thread_line", line):
            parent = self._outbox.find(message_key(decision_id)) or self.publish_decision(decision_id)
            where = self._here | {"thread_ts": parent.ts} | ({"reply_broadcast": True} if also_to_channel else {})
            return self._post_once(line_key, SlackMessage(text, tuple(blocks)), where)

    def thread_picture(self, decision_id: str, name: str, png: bytes, alt_text: str) -> PostedMessage:
        """Upload a picture below the decision's message, once per `name`; a message with the picture inside would not be
        posted at all whenever Slack has trouble with the file.

        Raises:
            OutsideSystemError: as `publish_decision`.
        """
        key, filename = f"{message_key(decision_id)}/{name}", f"{decision_id}-{name}.png"
        picture = {"decision_id": decision_id, "name": name, "png": base64.b64encode(png).decode(), "alt_text": alt_text}
        with self._kept_if_slack_fails(key, "thread_picture", picture):
            parent = self._outbox.find(message_key(decision_id)) or self.publish_decision(decision_id)
            with self._outbox.slot(key, self._channel) as slot:
                if slot.posted is not None:
                    return slot.posted
                ts = self._find_file(filename, self._here | {"thread_ts": parent.ts}) if slot.attempted else None
                return slot.record(ts or self._upload(filename, parent.ts, name, png, alt_text), "")

    def _upload(self, filename: str, thread_ts: str, name: str, png: bytes, alt_text: str) -> str:
        with slack_errors(f"uploading {filename}"):
            answer = self._posting.files_upload_v2(
                channel=self._channel, thread_ts=thread_ts, file=png, filename=filename, title=name, alt_txt=alt_text
            )
        uploaded: Any = answer["files"]
        return str(uploaded[0]["id"])

    def address(self, decision_id: str) -> str:
        """Where the decision's message is, for a browser; empty when it is not posted, or Slack does not tell."""
        posted = self._outbox.find(message_key(decision_id))
        if posted is None:
            return ""
        try:
            with slack_errors("asking where a message is"):
                answer = self._client.chat_getPermalink(channel=posted.channel, message_ts=posted.ts)
        except OutsideSystemError:
            return ""
        return str(answer.get("permalink") or "")

    def announce(self, key: str, text: str, blocks: Sequence[Json] | None = None, *, channel: str = "") -> PostedMessage:
        """Post a message of its own, once per `key`, to the channel or to another one. Raises as `publish_decision`."""
        message = {"key": key, "text": text, "blocks": list(blocks or ()), "channel": channel}
        with self._kept_if_slack_fails(key, "announce", message):
            return self._post_once(key, SlackMessage(text, tuple(blocks or ())), {"channel": channel or self._channel})

    def say_kept(self) -> int:
        """Say what Slack did not take before, oldest first, each with when it was to be said. Returns how many it has now.

        Raises:
            OutsideSystemError: Slack still fails, or the database does; what is not said stays kept.
        """
        refused: list[OutsideSystemError] = []
        kept = self._outbox.kept()
        for message in kept:
            try:
                self._say(message)
            except OutsideSystemError as error:
                if error.retryable:
                    raise
                refused.append(error)  # one that Slack will not have must not hold up the others
                if self._log.now() - message.at > REFUSED_FOR:
                    logger.error("not_said key=%s error=%s", message.key, error)
                    self._outbox.drop(message)
            else:
                self._outbox.drop(message)
        if refused:
            raise refused[0]
        return len(kept)

    def _say(self, message: KeptMessage) -> None:
        content = json.loads(message.content)
        given: dict[str, Any] = content["arguments"]
        match content["call"]:
            case "thread_line":
                self.thread_line(**given | _late(given, message.at))
            case "announce":
                self.announce(**given | _late(given, message.at))
            case "thread_picture":
                png = base64.b64decode(given["png"])
                self.thread_picture(given["decision_id"], given["name"], png, given["alt_text"])
            case _:
                self.publish_decision(**given)

    @contextmanager
    def _kept_if_slack_fails(self, key: str, call: str, arguments: Json) -> Generator[None]:
        try:
            yield
        except OutsideSystemError as error:
            if error.system == "Slack":
                self._outbox.keep(
                    key, arguments.get("channel") or self._channel, json.dumps({"call": call, "arguments": arguments})
                )
            raise

    def _post_once(self, key: str, message: SlackMessage, where: Json) -> PostedMessage:
        with self._outbox.slot(key, where["channel"]) as slot:
            return slot.posted or self._find_or_post(slot, key, message, where)

    def _bring_up_to_date(self, slot: OutboxSlot, key: str, message: SlackMessage, *, redraw: bool) -> PostedMessage:
        posted = slot.posted
        if posted is None:
            return self._find_or_post(slot, key, message, self._here)
        if posted.content_digest == message.digest and not redraw:
            return posted
        return self._redraw(slot, key, posted.channel, posted.ts, message)

    def _redraw(self, slot: OutboxSlot, key: str, channel: str, ts: str, message: SlackMessage) -> PostedMessage:
        """Text and blocks in full: an update without blocks drops them."""
        try:
            with slack_errors(f"redrawing {key}"):
                self._client.chat_update(channel=channel, ts=ts, text=message.text, blocks=list(message.blocks))
        except OutsideSystemError as error:
            if "message_not_found" not in str(error):
                raise
            return self._post(slot, key, message, {"channel": channel})  # somebody deleted it; the decision still needs a place
        return slot.record(ts, message.digest)

    def _find_or_post(self, slot: OutboxSlot, key: str, message: SlackMessage, where: Json) -> PostedMessage:
        if not slot.attempted:
            return self._post(slot, key, message, where)
        ts = self._find(key, where)
        if ts is None:
            return self._post(slot, key, message, where)
        return self._redraw(slot, key, where["channel"], ts, message)  # what it shows is not known

    def _post(self, slot: OutboxSlot, key: str, message: SlackMessage, where: Json) -> PostedMessage:
        with slack_errors(f"posting {key}"):
            answer = self._posting.chat_postMessage(
                text=message.text,
                blocks=list(message.blocks) or None,
                metadata={"event_type": METADATA_EVENT, "event_payload": {"key": key}},
                unfurl_links=False,
                unfurl_media=False,
                **where,
            )
        return slot.record(str(answer["ts"]), message.digest)

    def _find(self, key: str, where: Json) -> str | None:
        """The `ts` of a message that an earlier attempt may have posted."""
        for message in self._messages(where, key):
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == METADATA_EVENT and metadata.get("event_payload", {}).get("key") == key:
                return str(message["ts"])
        return None

    def _find_file(self, filename: str, where: Json) -> str | None:
        """The id of a file that an earlier attempt may have uploaded."""
        files = (file for message in self._messages(where, filename) for file in message.get("files") or [])
        return next((str(file["id"]) for file in files if file.get("name") == filename), None)

    def _messages(self, where: Json, wanted: str) -> Iterator[dict[str, Any]]:
        """Those of a channel or, with `thread_ts`, of a thread, page by page."""
        cursor = ""
        for _ in range(LOOKUP_PAGES):
            with slack_errors(f"looking for {wanted}"):
                page = self._page(where, cursor)
            yield from page.get("messages") or []
            cursor = str((page.get("response_metadata") or {}).get("next_cursor") or "")
            if not cursor:
                return

    def _page(self, where: Json, cursor: str) -> SlackResponse:
        asked: dict[str, Any] = {"include_all_metadata": True, "limit": 200, "cursor": cursor}
        if "thread_ts" in where:
            return self._client.conversations_replies(channel=where["channel"], ts=where["thread_ts"], **asked)
        return self._client.conversations_history(channel=where["channel"], **asked)


def _late(arguments: Json, at: datetime) -> Json:
    """The same words, with when they were to be said."""
    note = f"Said late, Slack was away: {local_time(at)}"
    blocks = [*arguments["blocks"], context(note)] if arguments["blocks"] else []
    return {"text": f"{arguments['text']} ({note})", "blocks": blocks}


def message_key(decision_id: str) -> str:
    return f"decision:{decision_id}"
