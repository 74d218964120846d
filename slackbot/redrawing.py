"""Redraws of messages, one after the other and beside everything else: a person's answer must not wait for Slack's editing."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from flows.domain.errors import FraudABError

if TYPE_CHECKING:
    from slackbot.publisher import Publisher

logger = logging.getLogger(__name__)


class Redrawer:
    """Brings messages up to date from a thread of its own. However many ask before a message's turn, it is drawn once."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="redraw")
        self._lock = threading.Lock()
        self._waiting: dict[str, bool] = {}

    def redraw(self, decision_id: str, *, for_certain: bool = False) -> None:
        """Soon; what Slack does not take then is kept and drawn later.

        Args:
            for_certain: also when the message is believed to be up to date.
        """
        with self._lock:
            is_waiting = decision_id in self._waiting
            self._waiting[decision_id] = for_certain or self._waiting.get(decision_id, False)
        if not is_waiting:
            self._pool.submit(self._draw, decision_id)

    def close(self) -> None:
        """Draw what waits, and end."""
        self._pool.shutdown()

    def _draw(self, decision_id: str) -> None:
        with self._lock:  # whoever asks from now on is shown what is read below, or asks for another turn
            for_certain = self._waiting.pop(decision_id)
        try:
            self._publisher.publish_decision(decision_id, redraw=for_certain)
        except FraudABError as error:
            logger.warning("not_redrawn decision_id=%s error=%s", decision_id, error)
