"""However many ask for a message to be redrawn, it is drawn once, and never before the last of them asked."""

from __future__ import annotations

import threading
from typing import Any, cast

from flows.domain.errors import OutsideSystemError
from slackbot.publisher import Publisher
from slackbot.redrawing import Redrawer


class SlowPublisher:
    """Notes what is drawn; each drawing waits until it is let go on."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, bool]] = []
        self.begun, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def publish_decision(self, decision_id: str, *, redraw: bool = False) -> Any:
        self.drawn.append((decision_id, redraw))
        self.begun.release()
        self.may_go_on.acquire()
        if decision_id == "broken":
            raise OutsideSystemError("Slack", "redrawing", retryable=True)


def test_those_who_ask_meanwhile_share_one_more_drawing() -> None:
    publisher = SlowPublisher()
    redrawer = Redrawer(cast(Publisher, publisher))
    redrawer.redraw("broken")
    assert publisher.begun.acquire(timeout=10)
    for number in range(50):  # what the first one reads may be older than what they know
        redrawer.redraw("broken", for_certain=number == 20)
    redrawer.redraw("another")
    for _ in range(3):
        publisher.may_go_on.release()
    redrawer.close()
    assert publisher.drawn == [("broken", False), ("broken", True), ("another", False)]
