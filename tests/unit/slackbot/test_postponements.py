"""When postponements end: in each person's own time, over changes of the clock, and never today."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.policy import Policy
from slackbot.postponements import moment, needs_time_zone, wanted_frauds

BERLIN, NEW_YORK, AUCKLAND = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Pacific/Auckland")
MONDAY = datetime(2026, 3, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "zone", "expected"),
    [
        ("4 hours", BERLIN, "2026-03-23T16:00:00+00:00"),
        ("3 days", BERLIN, "2026-03-26T12:00:00+00:00"),
        ("1 week", BERLIN, "2026-03-30T12:00:00+00:00"),
        ("20 seconds", BERLIN, "2026-03-23T12:00:20+00:00"),
        ("tomorrow 09:00", BERLIN, "2026-03-24T08:00:00+00:00"),
        ("tomorrow 09:00", NEW_YORK, "2026-03-24T13:00:00+00:00"),
        ("tomorrow 09:00", AUCKLAND, "2026-03-24T20:00:00+00:00"),  # there it is Tuesday already
        ("next monday 09:00", BERLIN, "2026-03-30T07:00:00+00:00"),  # a week later, and after the clocks went forward
        ("next tuesday 09:00", BERLIN, "2026-03-24T08:00:00+00:00"),
        ("next sunday 23:30", BERLIN, "2026-03-29T21:30:00+00:00"),
    ],
)
def test_the_words_mean_what_the_person_would_think(words: str, zone: ZoneInfo, expected: str) -> None:
    assert moment(words, MONDAY, zone).isoformat() == expected


@given(
    words=st.sampled_from([*Policy().postponements, "next friday 00:00", "2 weeks"]),
    now=st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the zone is added
    zone=st.sampled_from([BERLIN, NEW_YORK, AUCKLAND, ZoneInfo("Asia/Kathmandu")]),
)
def test_a_postponement_always_lies_in_the_future(words: str, now: datetime, zone: ZoneInfo) -> None:
    assert timedelta(0) < moment(words, now, zone) - now <= timedelta(days=14)


def test_a_number_of_frauds_is_no_time() -> None:
    assert (wanted_frauds("250 frauds"), wanted_frauds("1 fraud")) == (250, 1)
    assert not needs_time_zone("250 frauds")
    assert [wanted_frauds(words) for words in Policy().postponements] == [None] * 4
