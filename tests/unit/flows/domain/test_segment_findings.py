"""In which segments the candidate loses."""

from __future__ import annotations

import pytest

from flows.domain.counts import Overlap
from flows.domain.findings import FindingStatus
from flows.domain.segment_findings import Band, find_segments

NIGHT, DAY = (
    Band("hour", "hour from 0 to 6", Overlap(100, 80, 10, 10)),
    Band("hour", "hour from 6 to 24", Overlap(300, 20, 25, 55)),
)


def test_the_segment_where_the_candidate_loses_is_named() -> None:
    found = find_segments([NIGHT, DAY, Band("amount", "small", Overlap(0, 0, 0, 3))])
    assert found.is_supported
    assert found.said.startswith("With hour from 0 to 6 the candidate misses 80 frauds that the baseline catches, and catches 10")
    assert found.effect == ("recall lost with hour from 0 to 6", pytest.approx(70 / 600))


@pytest.mark.parametrize(
    "bands",
    [
        [NIGHT, Band("hour", "day", Overlap(300, 20, 95, 55))],  # it wins on the whole
        [Band("hour", "night", Overlap(100, 12, 10, 10)), DAY],  # chance
        [
            Band("hour", "night", Overlap(100, 30, 2, 10)),
            Band("hour", "day", Overlap(9000, 20, 25, 55)),
        ],  # too little
        [Band("hour", "night", Overlap(300, 80, 20, 100)), Band("hour", "day", Overlap(600, 160, 40, 200))],  # the same elsewhere
    ],
)
def test_without_a_segment_worth_talking_about_there_is_none(bands: list[Band]) -> None:
    assert find_segments(bands).status is FindingStatus.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("night", "elsewhere"),
    [
        (NIGHT.frauds, Overlap(300, 20, 88, 55)),  # 2 of 600 behind: chance
        (Overlap(100, 180, 30, 10), Overlap(9000, 20, 80, 55)),  # 90 of 9,475 behind: beyond chance, and not a point
    ],
)
def test_a_candidate_that_is_not_behind_on_the_whole_lost_nothing_in_its_worst_segment(
    night: Overlap, elsewhere: Overlap
) -> None:
    found = find_segments([Band("hour", "night", night), Band("hour", "day", elsewhere)])
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert "is not a point behind the baseline beyond chance; it is weakest with night (-" in found.said


@pytest.mark.parametrize("bands", [[], [Band("hour", "night", Overlap(10, 9, 0, 0))]])
def test_without_enough_frauds_segments_are_not_testable(bands: list[Band]) -> None:
    assert find_segments(bands).status is FindingStatus.NOT_TESTABLE
