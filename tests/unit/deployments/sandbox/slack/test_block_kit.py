"""Slack's rules for blocks and views, each at its limit and one beyond."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.sandbox.slack.block_kit import (
    as_slack_keeps,
    block_problems,
    entry,
    state_values,
    unfilled_inputs,
    view_problems,
)


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def button(**more: Any) -> dict[str, Any]:
    return {"type": "button", "text": plain("b"), **more}


def actions(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"type": "actions", "elements": list(elements)}


def field(element: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "input", "label": plain("l"), "element": element, **more}


def choice(*options: dict[str, Any]) -> dict[str, Any]:
    return field({"type": "static_select", "options": list(options)})


def option(value: str) -> dict[str, Any]:
    return {"text": plain(value), "value": value}


def modal(**more: Any) -> dict[str, Any]:
    return {"type": "modal", "title": plain("t"), "blocks": [{"type": "divider"}], **more}


ABOVE_AND_BELOW = [
    ("header", 150, lambda text: {"type": "header", "text": plain(text)}),
    ("section", 3000, lambda text: {"type": "section", "text": {"type": "mrkdwn", "text": text}}),
    ("field", 2000, lambda text: {"type": "section", "fields": [plain(text)]}),
    ("button text", 75, lambda text: actions(button(text=plain(text)))),
    ("button value", 2000, lambda text: actions(button(value=text))),
    ("action_id", 255, lambda text: actions(button(action_id=text))),
    ("block_id", 255, lambda text: {"type": "divider", "block_id": text}),
    ("option text", 75, lambda text: choice({"text": plain(text), "value": "v"})),
    ("option value", 150, lambda text: choice({"text": plain("t"), "value": text})),
    ("alt text", 2000, lambda text: {"type": "image", "image_url": "https://example.org", "alt_text": text}),
]


@pytest.mark.parametrize(("what", "limit", "make"), ABOVE_AND_BELOW, ids=[row[0] for row in ABOVE_AND_BELOW])
def test_a_text_is_accepted_up_to_its_limit_and_not_beyond(what: str, limit: int, make: Any) -> None:
    assert block_problems([make("x" * limit)]) == []
    (problem,) = block_problems([make("x" * (limit + 1))])
    assert f"must be less than {limit + 1} characters [json-pointer:/blocks/0/" in problem
    assert block_problems([make("")])


@pytest.mark.parametrize(
    ("count", "make"),
    [
        (50, lambda n: [{"type": "divider"}] * n),
        (25, lambda n: [actions(*[button() for _ in range(n)])]),
        (10, lambda n: [{"type": "section", "fields": [plain("f")] * n}]),
        (10, lambda n: [{"type": "context", "elements": [plain("c")] * n}]),
        (100, lambda n: [choice(*[option(str(i)) for i in range(n)])]),
    ],
)
def test_a_list_is_accepted_up_to_its_limit_and_not_beyond(count: int, make: Any) -> None:
    assert block_problems(make(count)) == []
    assert f"no more than {count} items allowed" in block_problems(make(count + 1))[0]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "header", "text": {"type": "mrkdwn", "text": "h"}},
        {"type": "section"},
        {"type": "image", "alt_text": "a"},
        {"type": "image", "alt_text": "a", "image_url": "https://example.org", "slack_file": {"id": "F1"}},
        actions(button(action_id="a"), button(action_id="a")),
        actions(button(style="green")),
        actions({"type": "plain_text_input", "action_id": "a"}),
        actions({"type": "static_select", "options": [option("x")]}),
        actions(),
        {"type": "input", "element": {"type": "plain_text_input"}},
        {"type": "divider", "colour": "red"},
        {"type": "banner"},
        "text",
    ],
)
def test_a_wrong_block_is_refused_in_one_sentence_that_points_at_it(block: Any) -> None:
    (problem,) = block_problems([block])
    assert "[json-pointer:/blocks/0" in problem


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([{"type": "banner"}], "unsupported type: banner [json-pointer:/blocks/0/type]"),
        ([{}], "missing required field: type [json-pointer:/blocks/0]"),
        ([{"type": "section"}], "must define one of text or fields [json-pointer:/blocks/0]"),
        ([actions(button(colour="red"))], "invalid additional property: colour [json-pointer:/blocks/0/elements/0]"),
        ([actions(button(style="green"))], "must be one of primary, danger [json-pointer:/blocks/0/elements/0/style]"),
        ([{"type": "divider", "block_id": 7}], "must be of type string [json-pointer:/blocks/0/block_id]"),
        ("text", "must be of type array [json-pointer:/blocks]"),
    ],
)
def test_a_refusal_says_what_and_where(blocks: Any, problem: str) -> None:
    assert block_problems(blocks) == [problem]


def test_the_same_action_id_may_stand_in_two_blocks_but_a_block_id_only_once() -> None:
    assert block_problems([actions(button(action_id="a")), actions(button(action_id="a"))]) == []
    assert "already exists" in block_problems([{"type": "divider", "block_id": "b"}] * 2)[0]


@pytest.mark.parametrize(("field", "limit"), [("title", 24), ("submit", 24), ("close", 24)])
def test_a_modals_words_have_limits(field: str, limit: int) -> None:
    assert view_problems(modal(**{field: plain("x" * limit)})) == []
    assert f"[json-pointer:/view/{field}/text]" in view_problems(modal(**{field: plain("x" * (limit + 1))}))[0]


def test_a_modal_with_inputs_needs_a_submit_button() -> None:
    blocks = [field({"type": "plain_text_input"})]
    assert "must define" in view_problems(modal(blocks=blocks))[0]
    assert view_problems(modal(blocks=blocks, submit=plain("s"))) == []
    assert view_problems({"type": "home", "blocks": blocks}) == []


def test_private_metadata_ends_at_3000_characters() -> None:
    assert view_problems(modal(private_metadata="m" * 3000)) == []
    assert view_problems(modal(private_metadata="m" * 3001))


def test_slack_fills_in_ids_and_defaults_in_a_copy() -> None:
    given = [actions(button())]
    (kept,) = as_slack_keeps(given)
    assert kept["block_id"]
    assert kept["elements"][0]["action_id"]
    assert kept["elements"][0]["text"]["emoji"] is True
    assert given == [actions(button())]
    assert block_problems([kept]) == []


CHOICE = {"type": "static_select", "action_id": "c", "options": [option("x"), option("y")], "initial_option": option("y")}
WORDS = {"type": "plain_text_input", "action_id": "w", "min_length": 3}


def test_what_was_not_touched_keeps_its_initial_value() -> None:
    assert entry(CHOICE, None)["selected_option"]["value"] == "y"
    assert entry(CHOICE, "x")["selected_option"]["value"] == "x"
    assert entry(WORDS, "")["value"] is None


def test_entries_are_found_by_block_or_by_action_and_required_ones_are_missed() -> None:
    blocks = [
        field(WORDS, block_id="one"),
        field({**CHOICE, "action_id": "d"}, block_id="two", optional=True),
        field(CHOICE, block_id="three"),
    ]
    values = state_values(blocks, {"one": {"w": "ab"}, "d": "x"})
    assert values["one"]["w"]["value"] == "ab"
    assert values["two"]["d"]["selected_option"] == option("x")
    assert values["three"]["c"]["selected_option"]["value"] == "y"
    assert unfilled_inputs(blocks, values) == {"one": "Enter at least 3 characters."}
    assert unfilled_inputs(blocks, state_values(blocks, {})) == {"one": "Please complete this required field."}
