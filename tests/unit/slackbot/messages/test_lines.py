"""Several lines as one message: each stays a line, all fit, and an address stays whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackbot.messages.block_kit import LINES_BYTES, SlackMessage, escape, lines, place

WORDS = "In production amount is 100 times as large in about 37 % of the rows, q <0.01 & more "


def test_each_line_is_one_and_nothing_in_it_formats() -> None:
    told = lines(["Why *fraud_v2* lost", "Cause 1: a\nb <@U0ANA>", "Next: mend it."])
    assert told == "Why ∗fraud_v2∗ lost\nCause 1: a b &lt;@U0ANA&gt;\nNext: mend it."


def test_what_fits_is_left_whole_beside_what_is_too_long() -> None:
    short = ["Why fraud_v2 did not win: amounts have drifted.", "Next: retrain."]
    told = lines([short[0], WORDS * 60, WORDS * 50, short[1]]).split("\n")
    assert (told[0], told[3]) == tuple(short)
    assert all(line.endswith(" …") for line in told[1:3])
    assert abs(len(told[1]) - len(told[2])) < 60, "what is too long shares the room"
    whole = escape(WORDS).split()
    assert set(told[1].removesuffix(" …").split()) <= set(whole), "cut between two words, so that no number is cut"


@pytest.mark.parametrize("text", ["&" * 5000, "模型 " * 900, "😀" * 3000, '"x" ' * 900, "2e-05 " * 900])
def test_the_worst_ten_lines_fit(text: str) -> None:
    told = lines([text] * 10)
    assert len(told.split("\n")) == 10
    SlackMessage(told)


def test_no_number_is_cut() -> None:
    for count in range(1, 11):
        assert set(lines(["2e-05 2026-01-05 " * 300] * count).split()) == {"2e-05", "2026-01-05", "…"}


@given(st.lists(st.text(max_size=600), min_size=1, max_size=10))
def test_whatever_is_said_is_accepted_and_has_as_many_lines(texts: list[str]) -> None:
    told = lines(texts)
    assert len(told.encode()) <= LINES_BYTES
    assert told.count("\n") == len(texts) - 1
    SlackMessage(told)


def test_an_address_is_whole_however_long_it_is() -> None:
    address = f"runs:/{'0a1b2c3d' * 4}/investigations/fraud-2026-01-1/root_cause.md"
    assert place(address) == f"`{address}`"
    assert place("git@host:a`b\n<c>&d") == "`git@host:ab &lt;c&gt;&amp;d`"
