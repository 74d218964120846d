"""Slack's rules for Block Kit as tables: what is refused, what Slack fills in, and what a person's entries look like.

Only the types that the page can show are known: one that nobody would see is refused, as Slack refuses what it does not know.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Check = Callable[[Any, str, list[str]], None]

BLOCKS_IN_A_MESSAGE = 50
BLOCKS_IN_A_VIEW = 100


def _problem(out: list[str], what: str, at: str) -> None:
    out.append(f"{what} [json-pointer:{at}]")


def _string(limit: int) -> Check:
    def check(value: Any, at: str, out: list[str]) -> None:
        if not isinstance(value, str):
            _problem(out, "must be a string", at)
        elif not value:
            _problem(out, "must be more than 0 characters", at)
        elif len(value) > limit:
            _problem(out, f"must be less than {limit + 1} characters", at)

    return check


def _text(limit: int, *, plain: bool = False) -> Check:
    def check(value: Any, at: str, out: list[str]) -> None:
        kinds = ("plain_text",) if plain else ("plain_text", "mrkdwn")
        if not isinstance(value, dict) or value.get("type") not in kinds:
            _problem(out, f"must be a text object of type {' or '.join(kinds)}", at)
            return
        allowed = {"plain_text": _string(limit), "mrkdwn": _string(limit)}
        _SHAPES[value["type"]].check(value, at, out, text=allowed[value["type"]])

    return check


def _flag(value: Any, at: str, out: list[str]) -> None:
    if not isinstance(value, bool):
        _problem(out, "must be a boolean", at)


def _whole_number(value: Any, at: str, out: list[str]) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        _problem(out, "must be an integer", at)


def _one_of(*allowed: str) -> Check:
    def check(value: Any, at: str, out: list[str]) -> None:
        if value not in allowed:
            _problem(out, f"must be one of {', '.join(allowed)}", at)

    return check


def _list(limit: int, each: Check) -> Check:
    def check(value: Any, at: str, out: list[str]) -> None:
        if not isinstance(value, list) or not value:
            _problem(out, "no less than 1 items required", at)
        elif len(value) > limit:
            _problem(out, f"no more than {limit} items allowed", at)
        else:
            for index, item in enumerate(value):
                each(item, f"{at}/{index}", out)

    return check


def _shape(*names: str) -> Check:
    def check(value: Any, at: str, out: list[str]) -> None:
        only = names[0] if len(names) == 1 else ""
        kind = str(value.get("type", only)) if isinstance(value, dict) else ""
        if kind not in names:
            _problem(out, f"unsupported type: {kind}", f"{at}/type")
        else:
            _SHAPES[kind].check(value, at, out)

    return check


@dataclass(frozen=True, slots=True)
class _Shape:
    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict[str, Check])

    def check(self, value: Json, at: str, out: list[str], **instead: Check) -> None:
        known = {**self.required, **self.optional, **instead}
        for name in self.required:
            if name not in value:
                _problem(out, f"missing required field: {name}", at)
        for name, item in value.items():
            if name in known:
                known[name](item, f"{at}/{name}", out)
            elif name != "type":
                _problem(out, f"invalid additional property: {name}", at)


_ID = {"action_id": _string(255)}
_BLOCK = {"block_id": _string(255)}
_PICKED = {"confirm": _shape("confirm"), "focus_on_load": _flag, **_ID}
_IMAGE = {"image_url": _string(3000), "slack_file": _shape("slack_file")}
_CHOICES = ("static_select", "radio_buttons", "checkboxes", "datepicker")
_STATEFUL = (*_CHOICES, "plain_text_input")
_SHAPES: dict[str, _Shape] = {
    "plain_text": _Shape({"text": _string(3000)}, {"emoji": _flag}),
    "mrkdwn": _Shape({"text": _string(3000)}, {"verbatim": _flag}),
    "confirm": _Shape(
        {"title": _text(100, plain=True), "text": _text(300)},
        {"confirm": _text(30, plain=True), "deny": _text(30, plain=True), "style": _one_of("primary", "danger")},
    ),
    "option": _Shape({"text": _text(75), "value": _string(150)}, {"description": _text(75)}),
    "slack_file": _Shape({}, {"id": _string(255), "url": _string(3000)}),
    "dispatch": _Shape({}, {"trigger_actions_on": _list(2, _one_of("on_enter_pressed", "on_character_entered"))}),
    # elements
    "button": _Shape(
        {"text": _text(75, plain=True)},
        {
            "value": _string(2000),
            "url": _string(3000),
            "style": _one_of("primary", "danger"),
            "confirm": _shape("confirm"),
            "accessibility_label": _string(75),
            **_ID,
        },
    ),
    "static_select": _Shape(
        {"options": _list(100, _shape("option"))},
        {"placeholder": _text(150, plain=True), "initial_option": _shape("option"), **_PICKED},
    ),
    "radio_buttons": _Shape({"options": _list(10, _shape("option"))}, {"initial_option": _shape("option"), **_PICKED}),
    "checkboxes": _Shape({"options": _list(10, _shape("option"))}, {"initial_options": _list(10, _shape("option")), **_PICKED}),
    "datepicker": _Shape({}, {"placeholder": _text(150, plain=True), "initial_date": _string(10), **_PICKED}),
    "plain_text_input": _Shape(
        {},
        {
            "placeholder": _text(150, plain=True),
            "initial_value": _string(3000),
            "multiline": _flag,
            "min_length": _whole_number,
            "max_length": _whole_number,
            "dispatch_action_config": _shape("dispatch"),
            "focus_on_load": _flag,
            **_ID,
        },
    ),
    # blocks; an image is both
    "image": _Shape({"alt_text": _string(2000)}, {"title": _text(2000, plain=True), **_IMAGE, **_BLOCK}),
    "header": _Shape({"text": _text(150, plain=True)}, _BLOCK),
    "divider": _Shape({}, _BLOCK),
    "section": _Shape(
        {},
        {
            "text": _text(3000),
            "fields": _list(10, _text(2000)),
            "accessory": _shape("button", "image", *_CHOICES),
            "expand": _flag,
            **_BLOCK,
        },
    ),
    "context": _Shape({"elements": _list(10, _shape("plain_text", "mrkdwn", "image"))}, _BLOCK),
    "actions": _Shape({"elements": _list(25, _shape("button"))}, _BLOCK),
    "input": _Shape(
        {"label": _text(2000, plain=True), "element": _shape(*_STATEFUL)},
        {"hint": _text(2000, plain=True), "optional": _flag, "dispatch_action": _flag, **_BLOCK},
    ),
    # views
    "modal": _Shape(
        {"title": _text(24, plain=True)},
        {"submit": _text(24, plain=True), "close": _text(24, plain=True)},
    ),
    "home": _Shape({}),
}
_ANY_BLOCK = _shape("section", "header", "divider", "context", "actions", "image", "input")
_VIEW = {"callback_id": _string(255), "private_metadata": _string(3000)}


def elements_of(block: Json) -> list[Json]:
    """The elements of a block that a person can press or fill."""
    found = [*block.get("elements", []), block.get("accessory"), block.get("element")]
    return [item for item in found if isinstance(item, dict) and item.get("type") in (*_STATEFUL, "button")]


def block_problems(blocks: Any, *, limit: int = BLOCKS_IN_A_MESSAGE, at: str = "/blocks") -> list[str]:
    """What Slack would refuse about these blocks, in its words; empty if nothing."""
    if not isinstance(blocks, list) or any(not isinstance(block, dict) for block in blocks):
        return [f"must be an array of blocks [json-pointer:{at}]"]
    out: list[str] = []
    if blocks:
        _list(limit, _ANY_BLOCK)(blocks, at, out)
    seen: set[str] = set()
    for index, block in enumerate([] if out else blocks):
        where = f"{at}/{index}"
        if block["type"] == "section" and "text" not in block and "fields" not in block:
            _problem(out, "missing required field: text or fields", where)
        if block["type"] == "image" and ("image_url" in block) == ("slack_file" in block):
            _problem(out, "must define exactly one of image_url and slack_file", where)
        if block.get("block_id") in seen:
            _problem(out, f"`block_id` {block['block_id']} already exists", f"{where}/block_id")
        seen.update([block["block_id"]] if "block_id" in block else [])
        ids = [element["action_id"] for element in elements_of(block) if "action_id" in element]
        for repeated in sorted({one for one in ids if ids.count(one) > 1}):
            _problem(out, f"`action_id` {repeated} already exists in this block", where)
    return out


def view_problems(view: Any) -> list[str]:
    """What Slack would refuse about a modal or home view, in its words; empty if nothing."""
    if not isinstance(view, dict) or view.get("type") not in ("modal", "home"):
        return ["must be a view of type modal or home [json-pointer:/view/type]"]
    out: list[str] = []
    blocks = view.get("blocks")
    given = {name: value for name, value in view.items() if value not in (None, "") and name != "blocks"}
    known = _SHAPES[view["type"]]
    _Shape(known.required, {**known.optional, **_VIEW}).check(given, "/view", out)
    out += block_problems(blocks, limit=BLOCKS_IN_A_VIEW, at="/view/blocks")
    if not blocks:
        _problem(out, "missing required field: blocks", "/view")
    elif not out and view["type"] == "modal" and "submit" not in given and any(b["type"] == "input" for b in blocks):
        _problem(out, 'must define "submit" to use an "input" block in modals', "/view")
    return out


def as_slack_keeps(blocks: list[Json]) -> list[Json]:
    """A copy with what Slack fills in: block and action ids, `emoji` and `verbatim`. So what comes back is not what was sent."""

    def copied(value: Any) -> Any:
        if isinstance(value, list):
            return [copied(item) for item in value]
        if not isinstance(value, dict):
            return value
        defaults = {"plain_text": {"emoji": True}, "mrkdwn": {"verbatim": False}}.get(value.get("type", ""), {})
        return {**defaults, **{name: copied(item) for name, item in value.items()}}

    kept = copied(blocks)
    for block in kept:
        block.setdefault("block_id", secrets.token_urlsafe(4)[:5])
        for element in elements_of(block):
            element.setdefault("action_id", secrets.token_urlsafe(4)[:5])
    return kept


def find_button(blocks: list[Json], action_id: str, block_id: str | None) -> tuple[Json, Json] | None:
    """The block and the button with that action id, in any block unless one is named."""
    for block in blocks:
        for element in elements_of(block):
            if element["action_id"] == action_id and block_id in (None, block["block_id"]):
                return block, element
    return None


def _inputs(blocks: list[Json]) -> Iterator[tuple[Json, Json]]:
    for block in blocks:
        for element in elements_of(block):
            if element["type"] in _STATEFUL:
                yield block, element


def entry(element: Json, raw: Any) -> Json:
    """What Slack sends for an element in which a person chose or typed `raw`; its initial value if they touched nothing."""
    options = {option["value"]: option for option in element.get("options", [])}
    match element["type"]:
        case "plain_text_input":
            value = {"value": (element.get("initial_value") if raw is None else str(raw)) or None}
        case "checkboxes":
            chosen = element.get("initial_options", []) if raw is None else [options[one] for one in raw]
            value = {"selected_options": chosen}
        case "datepicker":
            value = {"selected_date": (element.get("initial_date") if raw is None else raw) or None}
        case _:
            value = {"selected_option": element.get("initial_option") if raw is None else options.get(raw)}
    return {"type": element["type"], **value}


def state_values(blocks: list[Json], entered: Mapping[str, Any]) -> dict[str, dict[str, Json]]:
    """`state.values` as Slack sends it; `entered` maps an action id, or a block id and then an action id, to what was entered."""
    values: dict[str, dict[str, Json]] = {}
    for block, element in _inputs(blocks):
        name = element["action_id"]
        inner = entered.get(block["block_id"])
        raw = inner[name] if isinstance(inner, dict) and name in inner else entered.get(name)
        values.setdefault(block["block_id"], {})[name] = entry(element, raw)
    return values


def unfilled_inputs(blocks: list[Json], values: Mapping[str, Mapping[str, Json]]) -> dict[str, str]:
    """What Slack's own client says at fields before it sends anything, by block id."""
    said: dict[str, str] = {}
    for block, element in _inputs(blocks):
        given = next(value for key, value in values[block["block_id"]][element["action_id"]].items() if key != "type")
        if block["type"] == "input" and not given and not block.get("optional"):
            said[block["block_id"]] = "Please complete this required field."
        elif isinstance(given, str) and len(given) < element.get("min_length", 0):
            said[block["block_id"]] = f"Enter at least {element['min_length']} characters."
        elif isinstance(given, str) and len(given) > element.get("max_length", 3000):
            said[block["block_id"]] = f"Enter at most {element.get('max_length', 3000)} characters."
    return said
