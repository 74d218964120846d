"""The contract of the outbox, on SQLite and on PostgreSQL, with real processes and threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from flows.adapters.outbox_sql import SqlOutbox
from flows.ports import PostedMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

DIES_AFTER_POSTING = """
import os, sys
from flows.adapters.outbox_sql import SqlOutbox
with SqlOutbox(sys.argv[1]).slot("decision:1", "C1") as slot:
    assert slot.posted is None and not slot.attempted
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def outbox(database_url: str) -> Iterator[SqlOutbox]:
    box = SqlOutbox(database_url)
    yield box
    box.close()


def test_the_first_attempt_finds_nothing_posted_and_nothing_attempted(outbox: SqlOutbox) -> None:
    with outbox.slot("decision:1", "C1") as slot:
        assert slot.posted is None
        assert not slot.attempted
    assert outbox.find("decision:1") is None


def test_what_was_recorded_is_found_by_everybody(outbox: SqlOutbox, database_url: str) -> None:
    with outbox.slot("decision:1", "C1") as slot:
        assert slot.record("17.1", "sha256:a") == slot.posted
    message = PostedMessage("decision:1", "C1", "17.1", "sha256:a")
    assert SqlOutbox(database_url).find("decision:1") == message
    with outbox.slot("decision:1", "C1") as slot:
        assert slot.posted == message
        assert not slot.attempted
        slot.record("17.1", "sha256:b")
    assert outbox.find("decision:1") == PostedMessage("decision:1", "C1", "17.1", "sha256:b")


def test_an_attempt_that_failed_is_told_to_the_next(outbox: SqlOutbox) -> None:
    with pytest.raises(ConnectionError), outbox.slot("decision:1", "C1"):
        raise ConnectionError("Slack did not answer")
    with outbox.slot("decision:1", "C1") as slot:
        assert slot.posted is None
        assert slot.attempted


def test_an_attempt_whose_process_was_killed_is_told_to_the_next(outbox: SqlOutbox, database_url: str) -> None:
    child = subprocess.run([sys.executable, "-c", DIES_AFTER_POSTING, database_url], timeout=60, check=False)
    assert child.returncode == -9
    with outbox.slot("decision:1", "C1") as slot:
        assert slot.posted is None
        assert slot.attempted


def test_a_second_one_waits_and_then_sees_it_posted(outbox: SqlOutbox, database_url: str) -> None:
    boxes = [SqlOutbox(database_url) for _ in range(6)]
    posts: list[str] = []
    holders: list[int] = []

    def publish(box: SqlOutbox) -> None:
        with box.slot("decision:1", "C1") as slot:
            holders.append(1)
            assert len(holders) == 1, "two held the slot at once"
            if slot.posted is None:
                posts.append("posted")
                slot.record("17.1", "sha256:a")
            holders.pop()

    threads = [threading.Thread(target=publish, args=(box,)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert posts == ["posted"]
    assert holders == []
    for box in boxes:
        box.close()


def test_nobody_enters_a_slot_that_is_held(outbox: SqlOutbox, database_url: str) -> None:
    second, entered = SqlOutbox(database_url), threading.Event()
    seen: list[PostedMessage | None] = []

    def enter() -> None:
        with second.slot("decision:1", "C1") as slot:
            entered.set()
            seen.append(slot.posted)

    waiting = threading.Thread(target=enter)
    with outbox.slot("decision:1", "C1") as slot:
        waiting.start()
        assert not entered.wait(1), "two held the slot at once"
        message = slot.record("17.1", "sha256:a")
    waiting.join(30)
    assert seen == [message]
    second.close()


def test_while_one_slot_is_held_other_messages_are_found_and_the_decision_log_is_free(
    outbox: SqlOutbox, database_url: str
) -> None:
    from flows.adapters.decision_log_sql import SqlDecisionLog
    from flows.domain.decision_record import RecordKind

    log = SqlDecisionLog(database_url)
    with outbox.slot("decision:1", "C1") as slot:
        slot.record("17.1", "sha256:a")
    with outbox.slot("decision:2", "C1"):
        assert outbox.find("decision:1") is not None
        log.append_record(RecordKind.PROMOTED, "t-1", {})
    log.close()


def test_what_slack_did_not_take_is_kept_in_order_until_it_is_dropped(outbox: SqlOutbox, database_url: str) -> None:
    for key in ("b", "a"):
        outbox.keep(key, "C1", f"content of {key}")
    outbox.keep("b", "C1", "another try of b")
    found = SqlOutbox(database_url).kept()
    assert [(message.key, message.content, message.times) for message in found] == [
        ("b", "content of b", 2),
        ("a", "content of a", 1),
    ]
    assert outbox.find("a") is None
    outbox.drop(found[1])
    assert [message.key for message in outbox.kept()] == ["b"]


def test_what_was_kept_again_since_it_was_read_is_not_dropped(outbox: SqlOutbox) -> None:
    with outbox.slot("decision:1", "C1") as slot:
        slot.record("17.1", "sha256:a")
    outbox.keep("decision:1", "C1", "redraw")
    [first] = outbox.kept()
    outbox.keep("decision:1", "C1", "redraw")
    outbox.drop(first)
    [again] = outbox.kept()
    outbox.drop(again)
    assert outbox.kept() == []
    assert outbox.find("decision:1") == PostedMessage("decision:1", "C1", "17.1", "sha256:a")
