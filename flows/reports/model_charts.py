"""How the candidate does, in pictures: recall by part, its scores then and now, and the segments in which it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from flows.domain.findings import Hypothesis
from flows.reports.figures import BLUE, ORANGE, new_figure, png_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.domain.findings import Finding
    from flows.domain.recalls import Caught

SEGMENTS_SHOWN = 8


def recall_chart(parts: Mapping[str, Caught]) -> bytes | None:
    """A PNG of each part's recall with Wilson's 95 % interval, the first on top; None unless there are two to compare."""
    if len(parts) < 2:
        return None
    figure = new_figure(1.2 + 0.45 * len(parts))
    axes = figure.subplots()
    recalls = 100 * np.array([one.recall for one in parts.values()])
    ends = 100 * np.array([one.interval for one in parts.values()])
    errors = np.abs(ends.T - recalls)
    axes.errorbar(recalls, list(parts), xerr=errors, fmt="o", color=BLUE, capsize=4, linewidth=1.8)
    for place, recall in enumerate(recalls):
        axes.annotate(f"{recall:.1f} %", (recall, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylim(len(parts) - 0.5, -0.7)
    axes.set(xlabel="recall (%), with its 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)


def scores_chart(findings: Iterable[Finding]) -> bytes | None:
    """A PNG of how the candidate's scores are spread on holdout and in production; None where the scores could not be had."""
    numbers = _numbers(findings, Hypothesis.CALIBRATION)
    spread = cast("Mapping[str, Sequence[float]]", numbers.get("scores", {}))
    if not spread:
        return None
    figure = new_figure(3.2)
    axes = figure.subplots()
    for (name, shares), (colour, line) in zip(spread.items(), ((BLUE, "-"), (ORANGE, "--")), strict=True):
        edges = np.linspace(0, 1, len(shares) + 1)
        axes.stairs(100 * np.array(shares), edges, color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.set_yscale("log")  # almost all transactions are honest
    axes.set(xlabel="the candidate's score", ylabel="share of the rows (%)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png_of(figure)


def segments_chart(findings: Iterable[Finding]) -> bytes | None:
    """A PNG of the segments in which the candidate loses most, the worst on top; None where it loses nowhere in particular."""
    lost = cast("Mapping[str, float]", _numbers(findings, Hypothesis.SEGMENTS).get("segments", {}))
    worst = [(name, share) for name, share in sorted(lost.items(), key=lambda one: -one[1]) if share > 0][:SEGMENTS_SHOWN]
    if not worst:
        return None
    figure = new_figure(1.4 + 0.4 * len(worst))
    axes = figure.subplots()
    points = [100 * share for _, share in worst]
    bars = axes.barh([name for name, _ in worst], points, color=ORANGE, height=0.55)
    axes.bar_label(bars, [f"{value:.1f}" for value in points], padding=4)
    axes.set_ylim(len(worst) - 0.4, -0.6)
    axes.set(xlabel="points of recall on the whole that the candidate loses there to the baseline", xlim=(0, 1.15 * max(points)))
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)


def _numbers(findings: Iterable[Finding], hypothesis: Hypothesis) -> Mapping[str, object]:
    return next((one.numbers for one in findings if one.hypothesis is hypothesis), {})
