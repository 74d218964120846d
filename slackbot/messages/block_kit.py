"""Block Kit in small typed pieces that refuse to exceed Slack's limits.

Nothing is cut silently: what is too long raises, so that no number is ever shortened. Only words longer than `LONGEST_WORD`
(names of models, say) lose their middle, a person's own text its end and the lines of an investigation their last words, each
with an ellipsis.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Json = dict[str, Any]
Style = Literal["primary", "danger"]

MESSAGE_BYTES = 6000
LINES_BYTES = 2800
LONGEST_WORD = 48
MENTIONED = 15
_LOOKALIKES = str.maketrans({"*": "∗", "~": "∼", "`": "ˋ"})
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class ExceedsSlackLimit(ValueError):
    """A builder was given more than Slack shows; the message names the part and both lengths."""


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """What is posted: `text` is the whole message in a sentence for notifications and screen readers."""

    text: str
    blocks: tuple[Json, ...] = ()

    def __post_init__(self) -> None:
        _limit("the notification text", self.text, 3000)
        if len(self.blocks) > 50:
            raise ExceedsSlackLimit(f"{len(self.blocks)} blocks, Slack shows 50")
        size = len(json.dumps({"text": self.text, "blocks": self.blocks}, ensure_ascii=False).encode())
        if size > MESSAGE_BYTES:
            raise ExceedsSlackLimit(f"the message has {size} bytes, Slack is safe up to {MESSAGE_BYTES}")

    @property
    def digest(self) -> str:
        """Changes when anything that is shown changes."""
        content = json.dumps([self.text, self.blocks], sort_keys=True)
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _limit(what: str, text: str, most: int) -> str:
    if not text:
        raise ExceedsSlackLimit(f"{what} is empty")
    if len(text) > most:
        raise ExceedsSlackLimit(f"{what} has {len(text)} characters, Slack shows {most}")
    return text


# ---- text of other people's making


def plain(text: str) -> str:
    """Foreign text for a place without markup: on one line, unseen characters out, over-long words without their middle."""
    seen = " ".join(_UNSEEN.sub("", text).split())
    return _LONG_WORD.sub(_without_middle, seen) or "(empty)"


def escape(text: str) -> str:
    """Foreign text for mrkdwn: nothing in it links, mentions or formats."""
    return _entities(_EDGE_UNDERSCORE.sub("＿", plain(text).translate(_LOOKALIKES)))


def _entities(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def place(address: str) -> str:
    """A foreign address that no browser opens, whole, for people who copy it."""
    return f"`{_entities(' '.join(_UNSEEN.sub('', address).replace('`', '').split()))}`"


def lines(texts: Sequence[str]) -> str:
    """Foreign lines for mrkdwn, each on its own; where they are too long for one message, the longest end earlier, between two
    words, so that no number is cut."""
    sizes, most = [len(escape(text).encode()) for text in texts], LINES_BYTES
    while sum(min(size, most) + 1 for size in sizes) > LINES_BYTES:
        most -= 10
    return "\n".join(_shortened(text, most) for text in texts)


def _shortened(text: str, most_bytes: int) -> str:
    words = plain(text)[: most_bytes + LONGEST_WORD]  # a character is a byte at least
    told, width = escape(words), len(words)
    while len(told.encode()) > most_bytes:
        width -= 1
        told = escape(textwrap.shorten(words, width, placeholder=" …", break_on_hyphens=False))
    return told


def quote(text: str, most: int = 300) -> str:
    """A person's own words for mrkdwn, with an ellipsis where they are longer than `most` characters."""
    words = plain(text)
    return f"“{escape(words if len(words) <= most else words[: most - 1] + '…')}”"


def _without_middle(word: re.Match[str]) -> str:
    half = (LONGEST_WORD - 1) // 2
    return f"{word[0][:half]}…{word[0][-half:]}"


def mention(slack_ids: Sequence[str]) -> str:
    """User and user group ids as Slack shows them: `@ana or @fraud-on-call`; of very many the first, and how many more."""
    shown = [f"<!subteam^{one}>" if one.startswith("S") else f"<@{one}>" for one in slack_ids[:MENTIONED]]
    more = [f"{len(slack_ids) - MENTIONED} more"] if len(slack_ids) > MENTIONED else []
    return " or ".join([*shown, *more])


def local_time(at: datetime) -> str:
    """A moment in each reader's own time; UTC where that cannot be shown."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def iso_time(text: str) -> str:
    """A moment that is kept as ISO text; as it is where it cannot be read."""
    try:
        return local_time(datetime.fromisoformat(text))
    except ValueError:
        return escape(text)


def link(url: str, label: str) -> str:
    safe = url.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
    return f"<{safe}|{escape(label)}>"


# ---- blocks


def _plain_text(what: str, text: str, most: int) -> Json:
    return {"type": "plain_text", "text": _limit(what, text, most), "emoji": False}


def _mrkdwn(what: str, text: str, most: int) -> Json:
    return {"type": "mrkdwn", "text": _limit(what, text, most)}


def header(text: str) -> Json:
    return {"type": "header", "text": _plain_text("a header", text, 150)}


def section(text: str) -> Json:
    return {"type": "section", "text": _mrkdwn("a section", text, 3000)}


def fields(pairs: Iterable[tuple[str, str]]) -> Json:
    """Two columns: what, and its value."""
    texts = [_mrkdwn("a field", text, 2000) for pair in pairs for text in pair]
    if not 0 < len(texts) <= 10:
        raise ExceedsSlackLimit(f"{len(texts)} fields, Slack shows 1 to 10")
    return {"type": "section", "fields": texts}


def context(*texts: str) -> Json:
    if not 0 < len(texts) <= 10:
        raise ExceedsSlackLimit(f"{len(texts)} context elements, Slack shows 1 to 10")
    return {"type": "context", "elements": [_mrkdwn("a context element", text, 3000) for text in texts]}


def divider() -> Json:
    return {"type": "divider"}


def button(label: str, action_id: str, value: str, *, style: Style | None = None) -> Json:
    made: Json = {"type": "button", "text": _plain_text("a button", label, 75), "action_id": action_id}
    return made | {"value": _limit("a button's value", value, 2000)} | ({"style": style} if style else {})


def actions(*buttons: Json) -> Json:
    return {"type": "actions", "elements": list(buttons)}


def option(label: str, value: str) -> Json:
    return {"text": _plain_text("an option", label, 75), "value": _limit("an option's value", value, 150)}


def select(field: str, label: str, options: Sequence[tuple[str, str]], *, hint: str = "") -> Json:
    """A list to choose from, `(label, value)` each; the first is chosen already."""
    if not 0 < len(options) <= 100:
        raise ExceedsSlackLimit(f"{len(options)} options, Slack shows 1 to 100")
    choices = [option(*one) for one in options]
    return _input(field, label, {"type": "static_select", "options": choices, "initial_option": choices[0]}, hint=hint)


def text_input(field: str, label: str, *, most: int, hint: str = "", initial: str = "") -> Json:
    """An optional field for a person's words, with `initial` written there already."""
    element: Json = {"type": "plain_text_input", "multiline": True, "max_length": most}
    if initial:
        element["initial_value"] = _limit("an initial value", initial, most)
    return _input(field, label, element, hint=hint) | {"optional": True}


def _input(field: str, label: str, element: Json, *, hint: str) -> Json:
    """An input whose block and action carry the same id."""
    made: Json = {"type": "input", "block_id": field, "element": element | {"action_id": field}}
    made["label"] = _plain_text("a label", label, 2000)
    return made | ({"hint": _plain_text("a hint", hint, 2000)} if hint else {})


def home(blocks: Sequence[Json]) -> Json:
    """The App Home of one person."""
    if len(blocks) > 100:
        raise ExceedsSlackLimit(f"{len(blocks)} blocks in the Home, Slack shows 100")
    return {"type": "home", "blocks": list(blocks)}


def modal(title: str, blocks: Sequence[Json], *, submit: str = "", callback_id: str = "", private_metadata: str = "") -> Json:
    """A modal; without `submit` it can only be closed."""
    if len(blocks) > 100:
        raise ExceedsSlackLimit(f"{len(blocks)} blocks in a modal, Slack shows 100")
    made: Json = {"type": "modal", "title": _plain_text("a modal's title", title, 24), "blocks": list(blocks)}
    made["close"] = _plain_text("a modal's close", "Cancel" if submit else "Close", 24)
    if submit:
        made["submit"] = _plain_text("a modal's submit", submit, 24)
        made["callback_id"] = _limit("a callback id", callback_id, 255)
        made["private_metadata"] = _limit("private_metadata", private_metadata, 3000)
    return made
