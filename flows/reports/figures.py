"""How every picture of the reports looks, and its bytes: the same figure gives the same ones."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by the colour-blind too
_WIDTH_INCHES, _DOTS_PER_INCH = 9.0, 110


def new_figure(height_inches: float) -> Figure:
    """An empty one, as wide as all others."""
    from matplotlib.figure import Figure  # a second of imports

    return Figure(figsize=(_WIDTH_INCHES, height_inches), dpi=_DOTS_PER_INCH, layout="constrained")


def png_of(figure: Figure) -> bytes:
    """Without the drawing software's version, which would make the bytes differ."""
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
