"""How many points of recall each supported finding explains: one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.reports.figures import ORANGE, new_figure, png_of
from flows.reports.root_cause_report import title_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.findings import Finding


def findings_chart(findings: Sequence[Finding], lost_recall: float | None) -> bytes | None:
    """A PNG with one bar for each supported finding that explains something, the gravest on top.

    Args:
        lost_recall: points (0..1) between what was promised and what was measured, drawn as a line; None: not drawn.

    Returns:
        None when nothing can be said of any finding.
    """
    shown = [one for one in findings if one.is_supported and one.explained_recall]
    if not shown:
        return None
    figure = new_figure(1.6 + 0.5 * len(shown))
    axes = figure.subplots()
    points = [100 * (one.explained_recall or 0.0) for one in shown]
    bars = axes.barh([title_of(one.hypothesis) for one in shown], points, color=ORANGE, height=0.55)
    axes.bar_label(bars, [f"{value:.1f}" for value in points], padding=4)
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the first on top
    axes.set(xlabel="points of recall explained", xlim=(0, 1.15 * max([*points, 100 * (lost_recall or 0.0)])))
    if lost_recall and lost_recall > 0:
        axes.axvline(100 * lost_recall, color="black", linestyle="--", linewidth=1, label="lost against the holdout")
        figure.legend(frameon=False, loc="outside lower center")  # beside the bars it would lie on the line
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)
