"""Markdown from other people's words: nothing in them that Markdown or HTML would obey."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"[\\|\[*]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside of a word, as in fraud_v1, means nothing


def harmless(foreign: object) -> str:
    """Foreign text on one line."""
    text = _MARKS.sub(r"\\\g<0>", " ".join(str(foreign).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "'")


def section(title: str, parts: Iterable[str]) -> str:
    """A heading with its paragraphs; empty ones are left out."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


def table(rows: Sequence[Sequence[object]]) -> str:
    """The first row is the head."""
    lines = ["| " + " | ".join(harmless(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {harmless(line)}" for line in lines)


def address(url: str) -> str:
    """A link that shows where it leads; as text where it is none."""
    is_link = url.startswith(("http://", "https://")) and not set("<> \n") & set(url)
    return f"<{url}>" if is_link else harmless(url)


def words(name: str) -> str:
    """A name of the domain as people write it: `fraud detection rate`."""
    return name.replace("_", " ")
