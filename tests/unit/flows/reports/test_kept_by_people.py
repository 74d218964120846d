"""The generated part of a page goes to its place, and what people wrote around it is never touched."""

from __future__ import annotations

import pytest

from flows.reports.lifecycle_page import BEGIN, END, merge_page


def part(generated: str) -> str:
    return f"{BEGIN}\n{generated}\n{END}"


LOST_END = f"above\n\n{BEGIN}\nold\n\nwritten by hand\n"
LOST_BEGIN = f"above\n\nold\n{END}\n\nwritten by hand\n"
TURNED_ROUND = f"above\n{END}\nwritten by hand\n{BEGIN}\nold\n"
TWO_PARTS_ONE_END = f"{part('old')}\n\nwritten by hand\n\n{BEGIN}\nolder\n"


@pytest.mark.parametrize("page", [LOST_END, LOST_BEGIN, TURNED_ROUND, TWO_PARTS_ONE_END])
def test_a_page_that_has_lost_a_marker_loses_nothing_else_however_often_it_is_written(page: str) -> None:
    once = merge_page(page, "first")
    assert once == f"{page.rstrip()}\n\n{part('first')}\n"
    below = f"{once}\nwritten below\n"
    assert merge_page(below, "second") == below.replace("first", "second")
    assert merge_page(once, "first") == once
