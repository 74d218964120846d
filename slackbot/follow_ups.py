"""What follows an acknowledgement. Slack waits three seconds for one, so while any is owed, nothing else takes the processor.

A hundred people who press at once are then all acknowledged first, and answered afterwards. An emergency waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

THREADS = 64
PATIENCE_SECONDS = 1.0
"""A modal can be opened for three seconds after its press; in a flood that does not end people are still answered."""


FollowUp = Callable[[], None]


class FollowUps:
    """Threads for the work after acknowledgements; what has been started is finished when the `with` block ends."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="follow-up")
        self._urgent = ThreadPoolExecutor(THREADS, thread_name_prefix="emergency")
        self._owed = 0
        self._none_owed = threading.Condition()

    def __enter__(self) -> FollowUps:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._urgent.shutdown()

    @contextmanager
    def acknowledging(self) -> Generator[None]:
        """Around whatever acknowledges a request."""
        with self._none_owed:
            self._owed += 1
        try:
            yield
        finally:
            with self._none_owed:
                self._owed -= 1
                if not self._owed:
                    self._none_owed.notify_all()

    def start(self, work: FollowUp, *, is_emergency: bool = False) -> None:
        """Run `work`, which must not raise, once no acknowledgement is owed; an emergency at once and in threads of its own."""
        if is_emergency:
            self._urgent.submit(work)
        else:
            self._pool.submit(self._run_later, work)

    def _run_later(self, work: FollowUp) -> None:
        with self._none_owed:
            self._none_owed.wait_for(lambda: not self._owed, PATIENCE_SECONDS)
        work()
