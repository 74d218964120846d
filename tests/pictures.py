"""The pictures of the documents: where they are, which the documents show, and how each is looked at and stored."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SHADES, COLOURS = 9, 32


def pictures_in_the_docs() -> frozenset[str]:
    """The names, without folder and ending, of the pictures that README and docs/ show."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    return frozenset(name for text in texts for name in re.findall(r"pictures/([a-z_]+)\.png", text))


def sticking_out(found: Any) -> Sequence[str]:
    """What is wider than its place, so that it would be cut off or would scroll sideways."""
    return found.evaluate(
        """(root) => {
            const edge = root.getBoundingClientRect().right + 1;
            return [...root.querySelectorAll("*")]
              .filter((one) => one.getBoundingClientRect().right > edge
                || one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1)
              .map((one) => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 60)}`);
        }"""
    )


def keep(name: str, png: bytes, digest: str) -> None:
    """Look that it is a picture of something, and store it."""
    pixels = image.imread(BytesIO(png), format="png")[..., :3]
    levels = np.round(pixels * SHADES).astype(int)  # fewer colours: half the bytes
    counts = np.bincount((levels @ [1, SHADES + 1, (SHADES + 1) ** 2]).ravel())
    assert (counts > 0).sum() > 16, "blank"
    assert counts.max() < 0.98 * counts.sum(), "blank"
    folders = [ROOT / "build" / "pictures"]
    if os.environ.get("FRAUD_AB_PICTURES") == "1" and name in pictures_in_the_docs():
        folders.append(PICTURES)
    shown = Image.fromarray(np.round(levels * (255 / SHADES)).astype(np.uint8)).quantize(COLOURS, dither=Image.Dither.NONE)
    told = PngInfo()
    told.add_text("Shows", digest)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        shown.save(folder / f"{name}.png", optimize=True, pnginfo=told)
