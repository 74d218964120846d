"""Reads that are shared by those who ask at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.domain.errors import UnknownDecision
from slackbot.shared_reads import SharedReads

SECONDS = 30.0


class SlowStore:
    """A store whose every read waits until it is let go; it answers with the number of that read."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.names: list[str] = []

    def read(self, name: str) -> int:
        self.names.append(name)
        number = len(self.names)
        self.begun.release()
        assert self.let_go.acquire(timeout=SECONDS)
        if name == "unknown":
            raise UnknownDecision("no decision is called unknown")
        return number


class Name(str):
    """A name that tells when it has been looked up: who asks for it has then asked."""

    __slots__ = ("asked",)

    def __init__(self, _: str) -> None:
        self.asked = threading.Event()

    def __hash__(self) -> int:
        self.asked.set()
        return super().__hash__()


def test_a_hundred_who_ask_during_a_read_share_the_next_one() -> None:
    store = SlowStore()
    reads = SharedReads(store.read)
    names = [Name("d-1") for _ in range(100)]

    with ThreadPoolExecutor(101) as pool:
        first = pool.submit(reads, "d-1")
        assert store.begun.acquire(timeout=SECONDS)
        later = [pool.submit(reads, name) for name in names]
        assert all(name.asked.wait(SECONDS) for name in names)
        store.let_go.release(101)
        assert first.result(SECONDS) == 1
        answers = [one.result(SECONDS) for one in later]

    assert answers == [2] * 100
    assert store.names == ["d-1", "d-1"]


def test_who_asks_for_something_else_gets_that() -> None:
    reads = SharedReads(lambda name: f"the decision {name}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(reads, [f"d-{number % 5}" for number in range(50)]))

    assert answers == [f"the decision d-{number % 5}" for number in range(50)]


def test_a_failure_is_everybody_s_and_the_next_read_is_a_new_one() -> None:
    store = SlowStore()
    store.let_go.release()
    reads = SharedReads(store.read)

    with pytest.raises(UnknownDecision):
        reads("unknown")

    store.let_go.release()
    assert reads("d-1") == 2


def test_nothing_is_kept() -> None:
    answers = iter((1, 2))
    reads = SharedReads(lambda _: next(answers))

    assert [reads("d-1"), reads("d-1")] == [1, 2]
