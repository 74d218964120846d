"""What the Slack stand-in remembers: messages, views, files, triggers and response URLs, under one lock.

Only in memory, and only what Slack itself would keep: no retries, no transport, nothing about who is connected.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.sandbox.slack import people
from deployments.sandbox.slack.block_kit import Json, as_slack_keeps, block_problems, view_problems

TEXT_LIMIT = 40_000
BLOCKS_JSON_LIMIT = 13_000  # undocumented: Slack refuses messages of about this size that keep every documented limit
METADATA_LIMIT = 8_000
TRIGGER_SECONDS = 3.0
RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60


class SlackRefusal(Exception):
    """Slack's `ok: false`, by its error code and what else the body carries."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.body: Json = {"ok": False, "error": error, **more}


def refuse_problems(error: str, problems: list[str]) -> None:
    if problems:
        raise SlackRefusal(error, errors=problems, response_metadata={"messages": [f"[ERROR] {one}" for one in problems]})


@dataclass(slots=True)
class Message:
    """A message; `visible_to` names the one person who sees an ephemeral one."""

    channel: str
    ts: str
    text: str
    blocks: list[Json]
    thread_ts: str | None = None
    visible_to: str | None = None
    broadcast: bool = False
    metadata: Json | None = None
    edited: str | None = None
    files: list[Json] = field(default_factory=list[Json])


@dataclass(slots=True)
class Upload:
    """A file between the three calls of an upload and afterwards."""

    id: str
    name: str
    alt_text: str
    content: bytes = b""
    about: Json = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Trigger:
    """The right to open one modal for one person, for three seconds."""

    user: str
    until: float
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """The right to answer an interaction five times within half an hour."""

    user: str
    channel: str
    message_ts: str | None
    until: float
    left: int = RESPONSE_URL_USES


class Workspace:
    """The state; every method takes the lock, `changed` is a condition of the same lock."""

    def __init__(self, users: Sequence[people.SandboxUser], *, clock: Callable[[], float]) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.revision = 0
        self.clock = clock
        self.url = ""  # known once the server has its port
        self.people = {user.id: user for user in users}
        self.groups = {group.id: group for group in people.GROUPS}
        directs = [people.SandboxChannel(user.direct_channel, "directmessage") for user in users]
        self.channels = {channel.id: channel for channel in (*people.CHANNELS, *directs)}
        self.messages: dict[tuple[str, str], Message] = {}
        self.modals: dict[str, Json] = {}
        self.homes: dict[str, Json] = {}
        self.uploads: dict[str, Upload] = {}
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self._last_micros = 0

    def touch(self) -> None:
        """Something changed: wake whoever waits for it."""
        with self.lock:
            self.revision += 1
            self.changed.notify_all()

    def new_ts(self) -> str:
        with self.lock:
            self._last_micros = max(int(self.clock() * 1e6), self._last_micros + 1)
            return f"{self._last_micros // 1_000_000}.{self._last_micros % 1_000_000:06d}"

    # messages

    def channel_id(self, named: str) -> str:
        """The id of a channel given by id, by name, or by the person in a direct one."""
        for channel in self.channels.values():
            if named.lstrip("#") in (channel.id, channel.name) or (named.startswith("U") and channel.id == f"D{named[1:]}"):
                return channel.id
        raise SlackRefusal("channel_not_found")

    def checked_content(self, args: Json) -> tuple[str, list[Json]]:
        """The text and blocks of a message as Slack would keep them; refused as Slack refuses them."""
        text, blocks = args.get("text") or "", args.get("blocks") or []
        refuse_problems("invalid_blocks", block_problems(blocks))
        if not text and not blocks:
            raise SlackRefusal("no_text")
        if len(text) > TEXT_LIMIT:
            raise SlackRefusal("msg_too_long")
        if len(json.dumps(blocks, separators=(",", ":"), ensure_ascii=False)) >= BLOCKS_JSON_LIMIT:
            raise SlackRefusal("msg_blocks_too_long")
        return text, as_slack_keeps(blocks)

    def checked_metadata(self, metadata: Any) -> Json | None:
        if metadata in (None, "", {}):
            return None
        parts = (metadata.get("event_type"), metadata.get("event_payload")) if isinstance(metadata, dict) else (None, None)
        if not isinstance(parts[0], str) or not isinstance(parts[1], dict):
            raise SlackRefusal("invalid_metadata_format")
        if len(json.dumps(metadata)) > METADATA_LIMIT:
            raise SlackRefusal("metadata_too_large")
        return metadata

    def post(self, args: Json, *, visible_to: str | None = None) -> Message:
        """Keep a message: `args` as `chat.postMessage` takes them."""
        with self.lock:
            channel = self.channel_id(args.get("channel") or "")
            text, blocks = self.checked_content(args)
            thread = args.get("thread_ts") or None
            if thread and visible_to is None:
                parent = self.message(channel, thread, missing="thread_not_found")
                thread = parent.thread_ts or parent.ts
            metadata = self.checked_metadata(args.get("metadata"))
            broadcast = bool(thread) and is_true(args.get("reply_broadcast"))
            message = Message(channel, self.new_ts(), text, blocks, thread, visible_to, broadcast, metadata)
            self.messages[channel, message.ts] = message
            self.touch()
            return message

    def message(self, channel: str, ts: str, *, missing: str = "message_not_found") -> Message:
        """A message that everybody in the channel can see."""
        found = self.messages.get((self.channel_id(channel), str(ts)))
        if found is None or found.visible_to is not None:
            raise SlackRefusal(missing)
        return found

    def in_channel(self, channel: str) -> list[Message]:
        """What everybody sees in a channel, oldest first; replies only if they were also sent to the channel."""
        everything = self.messages.values()
        return [m for m in everything if m.channel == channel and not m.visible_to and (not m.thread_ts or m.broadcast)]

    def replies(self, ts: str) -> list[Message]:
        return [m for m in self.messages.values() if m.thread_ts == ts and not m.visible_to]

    def as_slack(self, message: Message, *, with_metadata: bool = False) -> Json:
        """A message as the Web API and the payloads show it."""
        app = {"user": people.BOT_USER_ID, "bot_id": people.BOT_ID, "app_id": people.APP_ID, "team": people.TEAM_ID}
        body: Json = {"type": "message", "text": message.text, "ts": message.ts, **app}
        if message.broadcast:
            body["subtype"] = "thread_broadcast"
        replies = [] if message.thread_ts else self.replies(message.ts)
        if message.thread_ts or replies:
            body["thread_ts"] = message.thread_ts or message.ts
        if replies:
            body["reply_count"] = len(replies)
        if message.edited:
            body["edited"] = {"user": people.BOT_USER_ID, "ts": message.edited}
        if message.metadata and with_metadata:
            body["metadata"] = message.metadata
        lists = {"blocks": message.blocks, "files": message.files}
        return body | {name: items for name, items in lists.items() if items}

    # triggers and response URLs

    def new_trigger(self, user: str) -> str:
        with self.lock:
            name = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
            self.triggers[name] = Trigger(user, self.clock() + TRIGGER_SECONDS)
            return name

    def spend_trigger(self, name: Any) -> str:
        """The person whose trigger it was; a trigger works once and for three seconds."""
        trigger = self.triggers.get(name)
        if trigger is None:
            raise SlackRefusal("invalid_trigger_id")
        if trigger.used:
            raise SlackRefusal("exchanged_trigger_id")
        if self.clock() > trigger.until:
            raise SlackRefusal("expired_trigger_id")
        trigger.used = True
        return trigger.user

    def new_response_url(self, user: str, channel: str, message_ts: str | None = None) -> str:
        with self.lock:
            name = secrets.token_urlsafe(18)
            self.response_urls[name] = ResponseUrl(user, channel, message_ts, self.clock() + RESPONSE_URL_SECONDS)
            return f"{self.url}/actions/{people.TEAM_ID}/{name}"

    def respond(self, name: str, body: Json) -> None:
        """What a POST to a response URL does: replace the message it came from, or post a new one."""
        with self.lock:
            right = self.response_urls.get(name)
            if right is None or self.clock() > right.until:
                raise SlackRefusal("expired_url")
            if right.left == 0:
                raise SlackRefusal("used_url")
            origin = self.messages.get((right.channel, right.message_ts or ""))
            if is_true(body.get("replace_original")) and origin:
                origin.text, origin.blocks = self.checked_content(body)
            else:
                visible_to = None if body.get("response_type") == "in_channel" else right.user
                self.post({**body, "channel": right.channel}, visible_to=visible_to)
            right.left -= 1
            self.touch()

    # views

    def keep_view(self, given: Json, user: str, *, instead_of: Json | None = None) -> Json:
        """Check a view and show it to a person, as their modal or their App Home; `instead_of` gives it its id."""
        refuse_problems("invalid_arguments", view_problems(given))
        with self.lock:
            kept = {
                "private_metadata": "",
                "callback_id": "",
                "submit": None,
                "close": None,
                **given,
                "id": instead_of["id"] if instead_of else f"V{secrets.token_hex(5).upper()}",
                "blocks": as_slack_keeps(given["blocks"]),
                "team_id": people.TEAM_ID,
                "app_id": people.APP_ID,
                "bot_id": people.BOT_ID,
                "state": {"values": {}},
                "hash": f"{self.new_ts()}{secrets.token_hex(3)}",
            }
            (self.modals if given["type"] == "modal" else self.homes)[user] = kept
            self.touch()
            return kept

    def close_modal(self, user: str) -> None:
        with self.lock:
            self.modals.pop(user, None)
            self.touch()


def is_true(value: Any) -> bool:
    """Slack's booleans: JSON's, or 1 and true in a form."""
    return value in (True, 1, "1", "true", "True")
