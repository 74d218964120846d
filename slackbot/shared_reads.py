"""Reads that are shared: when a hundred people submit at once, the database is asked a few times and not a hundred times."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Whoever asks while another read is under way waits for the next one, together with all who ask until it begins.

    What is returned has therefore been read after it was asked for, never before.

    Args:
        read: reads what has this name; what it raises, all who wait for it raise.
    """

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._next: dict[str, Future[T]] = {}

    def __call__(self, name: str) -> T:
        with self._lock:
            is_first = name not in self._next
            answer = self._next.setdefault(name, Future())
        if is_first:
            with self._reading:
                with self._lock:
                    del self._next[name]
                try:
                    answer.set_result(self._read(name))
                except BaseException as error:  # noqa: BLE001 - not swallowed: raised below, and by all who wait
                    answer.set_exception(error)
        return answer.result()
