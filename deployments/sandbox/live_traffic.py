"""Transactions that go on while people decide: routed by what serves now, scored by the simulated models, written as feedback.

Their clock is the simulated world's: it starts at the moment that the loaded feedback knows of and then runs with the wall clock.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from deployments.sandbox.feedback_database import LIVE_PREFIX, FeedbackDatabase

if TYPE_CHECKING:
    import pandas as pd

TICK_SECONDS = 0.5
ROWS_PER_TICK = 60


class LiveTraffic:
    """A thread that replays later simulated transactions as if they happened now.

    Args:
        future: feedback rows of the world after the loaded moment; they are replayed in a circle.
        route: card → predictor that serves it now.
        arms: predictor → arm.
    """

    def __init__(
        self,
        database: FeedbackDatabase,
        future: pd.DataFrame,
        *,
        route: Callable[[str], str],
        arms: dict[str, str],
        now: datetime,
    ) -> None:
        self._database = database
        self._rows = future.reset_index(drop=True)
        self._route = route
        self._arms = arms
        self._begin = now
        self._begin_monotonic = time.monotonic()
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._prefix = f"{LIVE_PREFIX}{now:%j}-"
        self._thread = threading.Thread(target=self._run, name="live-traffic", daemon=True)

    def now(self) -> datetime:
        """The simulated world's clock."""
        return self._begin + timedelta(seconds=time.monotonic() - self._begin_monotonic)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        offset = 0
        while not self._stop.wait(TICK_SECONDS):
            take = [(offset + i) % len(self._rows) for i in range(ROWS_PER_TICK)]
            offset += ROWS_PER_TICK
            self._database.append(self._as_live(self._rows.iloc[take].copy()))

    def _as_live(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows["transaction_id"] = [f"{self._prefix}{next(self._numbers):09d}" for _ in range(len(rows))]
        rows["event_time"] = self.now()
        rows["arm"] = [self._arms[self._route(card)] for card in rows["entity_id"]]
        rows["is_fraud"] = None
        rows["label_time"] = None
        rows["label_source"] = None
        return rows
