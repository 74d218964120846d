"""How a model's losses went while it was trained: one picture."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from flows.domain.model_findings import LOSS_RISE, divergence_point

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZE_INCHES, _DOTS_PER_INCH = (9.0, 3.6), 110
_CURVES = (("training", "#0072B2", "-"), ("validation", "#D55E00", "--"))  # told apart without colours too


def loss_chart(training: Sequence[float], validation: Sequence[float]) -> bytes | None:
    """A PNG of both losses by step, and where the validation loss begins to rise for good, if it does.

    Returns:
        None when no curve was logged.
    """
    curves = [(look, losses) for look, losses in zip(_CURVES, (training, validation), strict=True) if len(losses) > 1]
    if not curves:
        return None
    from matplotlib.figure import Figure  # a second of imports

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for (name, colour, line), losses in curves:
        axes.plot(range(len(losses)), losses, line, color=colour, linewidth=1.8, label=f"{name} loss")
    step, rise = divergence_point(validation) if len(validation) > 1 else (0, 0.0)
    if rise >= LOSS_RISE:
        axes.axvline(step, color="black", linestyle=":", linewidth=1.2, label=f"validation loss rises after step {step}")
    axes.set(xlabel="step of the training", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})  # the same curves give the same bytes
    return picture.getvalue()
