"""The pictures of the documents: where they are, and which documents show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"


def pictures_in_the_docs() -> frozenset[str]:
    """The names, without folder and ending, of the pictures that README and docs/ show."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    return frozenset(name for text in texts for name in re.findall(r"pictures/([a-z_]+)\.png", text))
