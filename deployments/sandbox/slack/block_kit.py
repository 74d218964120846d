"""Slack's rules for Block Kit: what is refused, what Slack fills in, and what a person's entries look like.

Only what the page can show is known: anything else is refused, as Slack refuses what it does not know.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Json = dict[str, Any]


def _string(limit: int) -> Json:
    return {"type": "string", "minLength": 1, "maxLength": limit}


def _list(limit: int, item: Json) -> Json:
    return {"type": "array", "minItems": 1, "maxItems": limit, "items": item}


def _object(required: str, **properties: Json) -> Json:
    return {"required": required.split(), "properties": {"type": {}, **properties}, "additionalProperties": False}


def _one_of(**shapes: Json) -> Json:
    """An object of one of these types; chosen by its `type`, so that a wrong one is told what is wrong with that type alone."""
    chosen = [{"if": {"properties": {"type": {"const": kind}}}, "then": shape} for kind, shape in shapes.items()]
    is_known = {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(shapes)}}}
    return {"if": is_known, "then": {"allOf": chosen}, "else": is_known}


def _plain(limit: int) -> Json:
    return _one_of(plain_text=_object("text", text=_string(limit), emoji=_FLAG))


def _text(limit: int) -> Json:
    text = _string(limit)
    return _one_of(plain_text=_object("text", text=text, emoji=_FLAG), mrkdwn=_object("text", text=text, verbatim=_FLAG))


_FLAG: Json = {"type": "boolean"}
_NUMBER: Json = {"type": "integer"}
_ID = _string(255)
_OPTION: Json = {"type": "object", **_object("text value", text=_text(75), value=_string(150))}
_FILE: Json = {"type": "object", **_object("", id=_ID, url=_string(3000))}
_BUTTON = _object("text", action_id=_ID, text=_plain(75), value=_string(2000), style={"enum": ["primary", "danger"]})
_SELECT = _object("options", action_id=_ID, options=_list(100, _OPTION), initial_option=_OPTION, placeholder=_plain(150))
_INPUT = _object(
    "",
    action_id=_ID,
    placeholder=_plain(150),
    initial_value=_string(3000),
    multiline=_FLAG,
    min_length=_NUMBER,
    max_length=_NUMBER,
)
_IMAGE = _object("alt_text", block_id=_ID, alt_text=_string(2000), title=_plain(2000), image_url=_string(3000), slack_file=_FILE)
_BLOCK = _one_of(
    header=_object("text", block_id=_ID, text=_plain(150)),
    divider=_object("", block_id=_ID),
    section=_object("", block_id=_ID, text=_text(3000), fields=_list(10, _text(2000)))
    | {"anyOf": [{"required": ["text"]}, {"required": ["fields"]}]},
    context=_object("elements", block_id=_ID, elements=_list(10, _text(3000))),
    actions=_object("elements", block_id=_ID, elements=_list(25, _one_of(button=_BUTTON))),
    image=_IMAGE | {"oneOf": [{"required": ["image_url"]}, {"required": ["slack_file"]}]},
    input=_object(
        "label element",
        block_id=_ID,
        label=_plain(2000),
        element=_one_of(static_select=_SELECT, plain_text_input=_INPUT),
        hint=_plain(2000),
        optional=_FLAG,
    ),
)
_VIEW: Json = {"blocks": _list(100, _BLOCK), "callback_id": _ID, "private_metadata": _string(3000)}
_MODAL = _object("title blocks", title=_plain(24), submit=_plain(24), close=_plain(24), **_VIEW)
_WORDS = {
    "type": "must be of type {}",
    "minLength": "must be more than 0 characters",
    "minItems": "no less than {} items required",
    "maxItems": "no more than {} items allowed",
}
_A_MESSAGES_BLOCKS = Draft202012Validator(_list(50, _BLOCK))
_A_VIEW = Draft202012Validator(_one_of(modal=_MODAL, home=_object("blocks", **_VIEW)))


def block_problems(blocks: Any) -> list[str]:
    """What Slack would refuse about a message's blocks, in its words; empty if nothing."""
    if blocks == []:
        return []
    return _problems(_A_MESSAGES_BLOCKS, blocks, "/blocks") or _repeated_ids(blocks, "/blocks")


def view_problems(view: Any) -> list[str]:
    """What Slack would refuse about a modal or home view, in its words; empty if nothing."""
    given = {name: value for name, value in view.items() if value not in (None, "")} if isinstance(view, dict) else view
    problems = _problems(_A_VIEW, given, "/view") or _repeated_ids(given["blocks"], "/view/blocks")
    if not problems and given["type"] == "modal" and "submit" not in given and any(_inputs(given["blocks"])):
        return ['must define "submit" to use an "input" block in modals [json-pointer:/view]']
    return problems


def _problems(validator: Draft202012Validator, value: Any, at: str) -> list[str]:
    found = validator.iter_errors(value)
    return [f"{_said(error)} [json-pointer:{'/'.join(map(str, (at, *error.absolute_path)))}]" for error in found]


def _said(error: ValidationError) -> str:
    """A schema's complaint as Slack words it."""
    limit: Any = error.validator_value
    found: Any = error.instance
    match error.validator:
        case "enum":
            is_type = list(error.path)[-1:] == ["type"]
            return f"unsupported type: {found}" if is_type else f"must be one of {', '.join(limit)}"
        case "required":
            return f"missing required field: {error.message.split(chr(39))[1]}"
        case "additionalProperties":
            schema: Any = error.schema
            return f"invalid additional property: {', '.join(sorted(found.keys() - schema['properties'].keys()))}"
        case "maxLength":
            return f"must be less than {limit + 1} characters"
        case "anyOf" | "oneOf":
            choices = " or ".join(name for choice in limit for name in choice["required"])
            return f"must define {'exactly one' if error.validator == 'oneOf' else 'one'} of {choices}"
        case other:
            return _WORDS[str(other)].format(limit)


def _repeated_ids(blocks: list[Json], at: str) -> list[str]:
    """A block's id may stand once in a message or view, an action's id once in a block."""
    blocks_by_id = [block["block_id"] for block in blocks if "block_id" in block]
    repeated = [f"`block_id` {one} already exists [json-pointer:{at}]" for one in _repeated(blocks_by_id)]
    for index, block in enumerate(blocks):
        ids = [element["action_id"] for element in elements_of(block) if "action_id" in element]
        repeated += [f"`action_id` {one} already exists [json-pointer:{at}/{index}]" for one in _repeated(ids)]
    return repeated


def _repeated(ids: list[str]) -> list[str]:
    return sorted({one for one in ids if ids.count(one) > 1})


def elements_of(block: Json) -> list[Json]:
    """The elements of a block that a person can press or fill."""
    if block["type"] == "input":
        return [block["element"]]
    return block["elements"] if block["type"] == "actions" else []


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
    return ((block, block["element"]) for block in blocks if block["type"] == "input")


def entry(element: Json, raw: Any) -> Json:
    """What Slack sends for an element in which a person chose or typed `raw`; its initial value if they touched nothing."""
    if element["type"] == "plain_text_input":
        return {"type": element["type"], "value": (element.get("initial_value") if raw is None else str(raw)) or None}
    chosen = [option for option in element["options"] if option["value"] == raw]
    return {
        "type": element["type"],
        "selected_option": element.get("initial_option") if raw is None else next(iter(chosen), None),
    }


def state_values(blocks: list[Json], entered: Mapping[str, Any]) -> dict[str, dict[str, Json]]:
    """`state.values` as Slack sends it; `entered` maps an action id, or a block id and then an action id, to what was entered."""
    values: dict[str, dict[str, Json]] = {}
    for block, element in _inputs(blocks):
        name, inner = element["action_id"], entered.get(block["block_id"])
        raw = inner[name] if isinstance(inner, dict) and name in inner else entered.get(name)
        values[block["block_id"]] = {name: entry(element, raw)}
    return values


def unfilled_inputs(blocks: list[Json], values: Mapping[str, Mapping[str, Json]]) -> dict[str, str]:
    """What Slack's own client says at fields before it sends anything, by block id."""
    said: dict[str, str] = {}
    for block, element in _inputs(blocks):
        entered = values[block["block_id"]][element["action_id"]]
        text, most = entered.get("value") or "", element.get("max_length", 3000)
        if not text and not entered.get("selected_option"):
            said |= {} if block.get("optional") else {block["block_id"]: "Please complete this required field."}
        elif text and len(text) < element.get("min_length", 0):
            said[block["block_id"]] = f"Enter at least {element['min_length']} characters."
        elif len(text) > most:
            said[block["block_id"]] = f"Enter at most {most} characters."
    return said
