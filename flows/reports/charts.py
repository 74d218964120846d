"""Recall and precision of both models, over the window and by day, with their intervals: one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.guardrails import percent
from flows.domain.intervals import wilson
from flows.domain.policy import Policy
from flows.reports.figures import BLUE, ORANGE, new_figure, png_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from flows.domain.counts import DayCounts, FeedbackCounts, ModelCounts
    from flows.domain.decision import DecisionRequest

_LOOKS = {Arm.BASELINE: (BLUE, "o"), Arm.CANDIDATE: (ORANGE, "^")}  # told apart without colours too
_HEIGHT_INCHES = 5.4


def recall_and_precision_chart(request: DecisionRequest) -> bytes | None:
    """A PNG with a row for recall and one for precision: left the whole window, right day by day.

    Bars are Wilson's intervals of transactions; where frauds of a card come together they are too short, and the verdict's own
    interval is the one to read.

    Returns:
        None when the evidence holds no days, as with counts alone.
    """
    feedback = charted_feedback(request)
    if feedback is None:
        return None
    figure = new_figure(_HEIGHT_INCHES)
    rows = figure.subplots(2, 2, width_ratios=(1, 3), sharey="row")
    names = {Arm.BASELINE: request.test.baseline.name, Arm.CANDIDATE: request.test.candidate.name}
    confidence = _confidence(request)
    models = {Arm.BASELINE: feedback.outcomes.baseline, Arm.CANDIDATE: feedback.outcomes.candidate}
    for (whole, daily), measure in zip(rows, ("recall", "precision"), strict=True):
        for position, arm in enumerate(Arm):
            _draw(whole, [position], [_shares(models[arm], measure)], arm, names[arm], confidence)
            _draw_days(daily, feedback.days, measure, arm, names[arm], confidence)
        whole.set(title=f"{measure}, whole window", xlim=(-0.6, 1.6), xticks=[0, 1], xticklabels=list(names.values()))
        daily.set(title=f"{measure} by day of exposure", xticks=range(7, feedback.days[-1].day + 2, 7))
        daily.yaxis.set_major_formatter("{x:.0%}")
        for axes in (whole, daily):
            axes.grid(axis="y", alpha=0.3)
    figure.legend(*rows[0][1].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)
    return png_of(figure)


def charted_feedback(request: DecisionRequest) -> FeedbackCounts | None:
    """What the picture is drawn of; None when the evidence holds no days."""
    feedback = request.evidence.feedback if request.evidence else None
    return feedback if feedback and feedback.days else None


def chart_in_words(request: DecisionRequest) -> str:
    """What the picture shows, for who cannot see it."""
    one, two, names = request.verdict.metrics.baseline, request.verdict.metrics.candidate, request.test

    def shown(share: float | None) -> str:
        return "unknown" if share is None else percent(share)

    return (
        f"Recall: {names.baseline.name} {shown(one.recall)}, {names.candidate.name} {shown(two.recall)}. "
        f"Precision: {names.baseline.name} {shown(one.precision)}, {names.candidate.name} {shown(two.precision)}. "
        f"With {_confidence(request) * 100:g} % intervals, for the whole window and for each day."
    )


def _confidence(request: DecisionRequest) -> float:
    return float((request.policy or Policy()).statistics.confidence)


def _draw_days(axes: Axes, days: Sequence[DayCounts], measure: str, arm: Arm, name: str, confidence: float) -> None:
    found = [(day.day + 1, _shares(day.baseline if arm is Arm.BASELINE else day.candidate, measure)) for day in days]
    beside = -0.15 if arm is Arm.BASELINE else 0.15
    _draw(axes, [day + beside for day, _ in found], [shares for _, shares in found], arm, name, confidence)


def _draw(axes: Axes, at: Sequence[float], counts: Sequence[tuple[int, int]], arm: Arm, name: str, confidence: float) -> None:
    """Points with intervals; nothing where nothing was counted."""
    known = [
        (x, caught / total, *wilson(caught, total, confidence)) for x, (caught, total) in zip(at, counts, strict=True) if total
    ]
    if not known:
        return
    xs, shares, lows, highs = zip(*known, strict=True)
    below = [share - low for share, low in zip(shares, lows, strict=True)]
    above = [high - share for share, high in zip(shares, highs, strict=True)]
    colour, marker = _LOOKS[arm]
    axes.errorbar(xs, shares, yerr=[below, above], fmt=marker, color=colour, markersize=5, elinewidth=1, capsize=2, label=name)


def _shares(model: ModelCounts, measure: str) -> tuple[int, int]:
    return (model.caught, model.frauds) if measure == "recall" else (model.true_alerts, model.alerts)
