"""What follows acknowledgements: after them all, but not for ever, and an emergency at once."""

from __future__ import annotations

import threading
import time

from slackbot import follow_ups
from slackbot.follow_ups import FollowUps

SECONDS = 10


def test_work_waits_until_nobody_is_owed_an_acknowledgement() -> None:
    done, emergency = threading.Event(), threading.Event()
    with FollowUps() as work:
        with work.acknowledging():
            work.start(done.set)
            work.start(emergency.set, is_emergency=True)
            assert emergency.wait(SECONDS)
            assert not done.is_set()
        assert done.wait(SECONDS)


def test_in_a_flood_that_does_not_end_people_are_still_answered() -> None:
    done = threading.Event()
    with FollowUps() as work, work.acknowledging():
        began = time.monotonic()
        work.start(done.set)
        assert done.wait(SECONDS)
        assert time.monotonic() - began >= follow_ups.PATIENCE_SECONDS


def test_what_has_been_started_is_finished_at_the_end() -> None:
    done: list[int] = []
    with FollowUps() as work:
        for number in range(200):
            work.start(lambda number=number: done.append(number), is_emergency=number % 2 == 0)
    assert sorted(done) == list(range(200))


def test_a_failing_acknowledgement_is_owed_no_longer() -> None:
    done = threading.Event()
    with FollowUps() as work:
        try:
            with work.acknowledging():
                raise ValueError
        except ValueError:
            work.start(done.set)
        assert done.wait(SECONDS)
