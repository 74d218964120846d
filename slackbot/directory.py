"""What Slack knows of people: their time zones, and who is in a user group. Kept for a while, asked for with little patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slack_sdk import WebClient

from flows.domain.errors import OutsideSystemError
from slackbot.publisher import slack_errors, tls

if TYPE_CHECKING:
    from slackbot.authorization import Groups

KEEP_SECONDS = 300.0
TIMEOUT_SECONDS = 1  # Slack waits three seconds for an answer, and this may be asked for before it

T = TypeVar("T")


class Directory:
    """Look-ups that never raise: None means that Slack did not tell."""

    def __init__(self, client: WebClient) -> None:
        self._client = WebClient(client.token, base_url=client.base_url, timeout=TIMEOUT_SECONDS, ssl=tls(), retry_handlers=[])
        self._known: dict[str, tuple[float, object]] = {}
        self._lock = threading.Lock()

    def time_zone(self, user_id: str) -> ZoneInfo | None:
        return self._kept(f"time zone of {user_id}", lambda: self._ask_time_zone(user_id))

    def groups(self, group_ids: Iterable[str]) -> Groups:
        return {one: self._kept(f"members of {one}", lambda one=one: self._ask_members(one)) for one in group_ids}

    def _ask_time_zone(self, user_id: str) -> ZoneInfo:
        answer = self._client.users_info(user=user_id)
        return ZoneInfo(str((answer.get("user") or {}).get("tz") or "Etc/UTC"))

    def _ask_members(self, group_id: str) -> frozenset[str]:
        return frozenset(self._client.usergroups_users_list(usergroup=group_id).get("users") or ())

    def _kept(self, what: str, ask: Callable[[], T]) -> T | None:
        with self._lock:
            asked_at, known = self._known.get(what, (float("-inf"), None))
        if time.monotonic() - asked_at < KEEP_SECONDS:
            return known  # pyright: ignore[reportReturnType]  (it was stored under this name by this very question)
        try:
            with slack_errors(f"asking for the {what}"):
                answer = ask()
        except (OutsideSystemError, ZoneInfoNotFoundError):
            return None
        with self._lock:
            self._known[what] = (time.monotonic(), answer)
        return answer
