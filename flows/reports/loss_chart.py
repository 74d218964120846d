"""How a model's losses went while it was trained: one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.model_findings import LOSS_RISE, divergence_point
from flows.reports.figures import BLUE, ORANGE, new_figure, png_of

if TYPE_CHECKING:
    from flows.domain.model_findings import Curve

_CURVES = (("training", BLUE, "-"), ("validation", ORANGE, "--"))  # told apart without colours too


def loss_chart(training: Curve, validation: Curve) -> bytes | None:
    """A PNG of both losses by step, and where the validation loss begins to rise for good, if it does.

    Returns:
        None when no curve was logged.
    """
    curves = [(look, losses) for look, losses in zip(_CURVES, (training, validation), strict=True) if len(losses) > 1]
    if not curves:
        return None
    figure = new_figure(3.6)
    axes = figure.subplots()
    for (name, colour, line), losses in curves:
        axes.plot(*zip(*losses, strict=True), line, color=colour, linewidth=1.8, label=f"{name} loss")
    step, rise = divergence_point(validation) if len(validation) > 1 else (0, 0.0)
    if rise >= LOSS_RISE:
        axes.axvline(step, color="black", linestyle=":", linewidth=1.2, label=f"validation loss rises after step {step}")
    axes.set(xlabel="step of the training", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png_of(figure)
