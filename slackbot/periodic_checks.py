"""Checks that a thread makes again and again: each brings something in order, and none can stop the others or the thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

Check = Callable[[], object]


class PeriodicChecks:
    """A thread that makes every check each `period_seconds`, and at once after a `nudge`.

    Args:
        name: of the thread.
        checks: by name, in the order in which they are made. One that waits for a system that hangs holds the later ones up, so
            checks of different systems belong into threads of their own.
    """

    def __init__(self, name: str, checks: Mapping[str, Check], *, period_seconds: float) -> None:
        self._name = name
        self._checks = dict(checks)
        self._period_seconds = period_seconds
        self._troubles: dict[str, str] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = False
        self._thread = threading.Thread(target=self._look_for_ever, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """End the thread after the look that it is at."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    @property
    def name(self) -> str:
        return self._name

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def nudge(self) -> None:
        """Look now: something has just changed."""
        self._wake.set()

    @property
    def troubles(self) -> Mapping[str, str]:
        """What failed when it was last made, by the check's name."""
        return dict(self._troubles)

    def check_once(self) -> None:
        """Make every check once; a check that fails is logged and made again next time."""
        with self._looking:
            for name, check in self._checks.items():
                self.guarded(name, check)

    def guarded(self, name: str, check: Check) -> None:
        """Make one check, whatever it raises; its trouble is told under its name."""
        try:
            check()
        except Exception as error:  # noqa: BLE001 - this thread has to outlive every outage, whatever it looks like
            self._tell(name, f"{type(error).__name__}: {error}")
        else:
            self._tell(name, None)

    def _look_for_ever(self) -> None:
        while not self._stopping:
            self.check_once()
            self._wake.wait(self._period_seconds)
            self._wake.clear()

    def _tell(self, name: str, trouble: str | None) -> None:
        """Log a trouble when it begins or changes, and its end; not at every look."""
        if trouble == self._troubles.get(name):
            return
        if trouble is None:
            del self._troubles[name]
            logger.info("%s check=%s works again", self._name, name)
        else:
            self._troubles[name] = trouble
            logger.warning(
                "%s check=%s failed and is tried again every %s s: %s", self._name, name, self._period_seconds, trouble
            )
