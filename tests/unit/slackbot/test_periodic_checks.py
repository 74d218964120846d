"""The thread of checks outlives whatever its checks do."""

from __future__ import annotations

import logging
import threading

import pytest

from flows.domain.errors import OutsideSystemError
from slackbot.periodic_checks import PeriodicChecks


class Flaky:
    """A check that fails until it is repaired, and says when it was made."""

    def __init__(self) -> None:
        self.is_broken = True
        self.made = threading.Semaphore(0)

    def __call__(self) -> None:
        self.made.release()
        if self.is_broken:
            raise OutsideSystemError("Kubernetes", "reading", retryable=True)

    def wait(self) -> None:
        assert self.made.acquire(timeout=10), "the check was not made"


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    check = Flaky()
    checks = PeriodicChecks("production", {"registry": check}, period_seconds=5)
    with caplog.at_level(logging.INFO, logger="slackbot.periodic_checks"):
        checks.check_once()
        checks.check_once()
        check.is_broken = False
        checks.check_once()
        checks.check_once()
    told = [text for record in caplog.records if "check=registry" in (text := record.getMessage())]
    assert len(told) == 2
    assert "Kubernetes failed while reading" in told[0]
    assert told[1].endswith("works again")


def test_one_broken_check_does_not_keep_the_others_from_being_made() -> None:
    check = Flaky()
    PeriodicChecks("production", {"broken": check, "after": check}, period_seconds=5).check_once()
    check.wait()
    check.wait()


def test_the_thread_goes_on_after_failures_hears_nudges_and_stops() -> None:
    check = Flaky()
    checks = PeriodicChecks("production", {"flaky": check}, period_seconds=3600)
    checks.start()
    check.wait()
    checks.nudge()
    check.wait()
    checks.stop()
    assert not any(thread.name == "production" for thread in threading.enumerate())
