"""Deliveries that were answered before: Slack repeats what it believes lost, and what somebody has captured can be sent again.

Kept in this process's memory for longer than a signature is believed. It spares people a second answer; nothing relies on it.
What a press changes is guarded where it is changed, for all processes: an answer by the one conditional UPDATE of the decision
log, a revert by its id on the SeldonDeployment, so that an emergency still needs Kubernetes alone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slack_bolt import BoltResponse

KEEP_SECONDS = 600.0
"""Twice the five minutes for which a signature is believed."""


class Answers:
    """The acknowledgement of each delivery. The same body is the same press: Slack gives each its own trigger or event id.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._given: dict[str, tuple[float, BoltResponse | None]] = {}

    def given(self, body: Mapping[str, Any]) -> BoltResponse | None:
        """How this very delivery was acknowledged before; None when it was not."""
        return self._given.get(_digest(body), (0.0, None))[1]

    def note(self, body: Mapping[str, Any], answer: BoltResponse | None) -> bool:
        """Keep an acknowledgement; whether it is the first one of this delivery."""
        now, key = self._clock(), _digest(body)
        with self._lock:
            while self._given and now - next(iter(self._given.values()))[0] > KEEP_SECONDS:  # the oldest come first
                del self._given[next(iter(self._given))]
            is_first = key not in self._given
            self._given.setdefault(key, (now, answer))
        return is_first


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
