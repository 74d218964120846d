"""Findings about the model: overfitted, simply weaker, badly calibrated, less precise, made otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from flows.domain.criteria import CriterionStatus, points
from flows.domain.drift import Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.guardrails import percent
from flows.domain.intervals import paired_difference, precision_change, score_difference
from flows.domain.metrics import recall_design_effect, two_sided_p
from flows.domain.recalls import CHANCE_P, WORTH_TALKING, Caught, points_behind
from flows.domain.rescaling import Scaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flows.domain.counts import Outcomes, Overlap
    from flows.domain.criteria import Criterion

PROMISE_KEPT = 2 * WORTH_TALKING
FITTED_GAP = 0.05  # points of recall from training to unseen data, beyond chance
LOSS_RISE = 0.02  # of the validation loss above its minimum, as a share
SEVERE_GAP = 0.1
OFF_CALIBRATION = 1.25  # as a factor, in either direction
SCORE_BINS = 20
OUT_OF = {"recall": "frauds", "precision": "alerts"}
"""Of what each share is one."""

Curve = tuple[tuple[int, float], ...]
"""A loss by step, in the order of the steps, of which not every one need be logged."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What was logged of a model's making; what was not logged is empty or None.

    `offline`: metrics by name, such as `train_recall` and `holdout_recall`; `scalers` by feature;
    `trained_on`: first moment and end of its training window.
    """

    name: str
    features: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
    offline: Mapping[str, float] = field(default_factory=dict[str, float])
    training_loss: Curve = ()
    validation_loss: Curve = ()
    scalers: Mapping[str, Scaler] = field(default_factory=dict[str, Scaler])
    trained_on: tuple[datetime, datetime] | None = None

    @property
    def is_logged(self) -> bool:
        """Whether anything is known besides the features, which the model itself may tell."""
        return any((self.parameters, self.offline, self.training_loss, self.validation_loss, self.scalers, self.trained_on))


def logged_share(offline: Mapping[str, float], part: str, metric: str = "recall") -> tuple[float | None, int]:
    """A logged share, such as `holdout_recall`, and of how many it is; None and 0 where it is not logged or no such number.

    Example:
        >>> logged_share({"holdout_recall": 0.8, "holdout_frauds": 500.0}, "holdout")
        (0.8, 500)
        >>> logged_share({"holdout_recall": 80.0, "holdout_frauds": float("nan")}, "holdout")
        (None, 0)
    """
    share, total = offline.get(f"{part}_{metric}", -1.0), offline.get(f"{part}_{OUT_OF[metric]}", 0.0)
    return share if 0 <= share <= 1 else None, int(total) if 0 < total < inf else 0


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of labelled rows summed up: frauds that the scores expect with their variance (Σp(1-p)), and those that came.

    `spread`: how many rows have a score in each of SCORE_BINS equal parts of 0 to 1.
    """

    rows: int
    expected: float
    variance: float
    frauds: int
    spread: tuple[int, ...] = ()

    @property
    def ratio(self) -> float:
        """Frauds that came for each expected one."""
        return self.frauds / self.expected

    @property
    def shares(self) -> list[float]:
        """Of the rows (0..1), by part of the scores' range; empty where the spread is not known."""
        return [count / self.rows for count in self.spread]


def sum_scores(scores: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> Scored:
    """Sum up probabilities of fraud (n,) and labels (n,).

    Example:
        >>> sum_scores(np.array([0.5, 0.5]), np.array([True, False])).ratio
        1.0
    """
    spread = np.histogram(scores, SCORE_BINS, (0, 1))[0]
    return Scored(
        len(scores), float(scores.sum()), float((scores * (1 - scores)).sum()), int(is_fraud.sum()), tuple(map(int, spread))
    )


def divergence_point(validation_loss: Curve) -> tuple[int, float]:
    """The logged step after which the validation loss only rises above its minimum, and by which share it has risen at the end.

    A loss that is no number any more has risen without end.

    Example:
        >>> step, rise = divergence_point(((0, 0.5), (25, 0.2), (50, 0.3)))
        >>> step, round(rise, 2)
        (25, 0.5)
    """
    losses = np.asarray([loss for _, loss in validation_loss], np.float64)
    is_number = np.isfinite(losses)
    if not is_number.any():
        return validation_loss[0][0], inf
    best = int(np.nanargmin(np.where(is_number, losses, np.nan)))
    if not is_number[best:].all():
        return validation_loss[best][0], inf
    least = abs(float(losses[best]))
    return validation_loss[best][0], (float(losses[-1]) - float(losses[best])) / least if least > 0 else 0.0


def find_overfitting(
    making: ModelFacts | None,
    training: Caught | None,
    holdout: Caught | None,
    production: Caught | None,
    elsewhere: float,
    easier: Mapping[str, float] | None = None,
) -> Finding:
    """Whether the candidate learnt its training rows by heart: much better on them than on rows that it has not seen.

    Args:
        making: for its loss curves.
        training, holdout, production: what the candidate catches in each.
        elsewhere: points of recall (0..1) of production that other causes explain.
        easier: for `holdout` and `production` the points of recall (0..1) by which training's frauds are easier, as the baseline
            shows that never saw them; without what nobody can tell.
    """
    easier = easier or {}
    curves = making.validation_loss if making else ()
    if training is None:
        return not_testable(
            Hypothesis.OVERFITTING,
            "Log train_recall and train_frauds with the run, or give the training rows with labels, to compare with.",
        )
    parts = {name: part for name, part in (("holdout", holdout), ("production", production)) if part is not None}
    if not parts:
        return not_testable(
            Hypothesis.OVERFITTING,
            "Give labelled rows of the holdout or of production, or log holdout_recall and holdout_frauds with the run.",
        )
    step, rise = divergence_point(curves) if curves else (0, 0.0)
    less = {"holdout": easier.get("holdout", 0.0), "production": max(elsewhere, easier.get("production", 0.0))}
    gaps = {name: training.recall - part.recall - less[name] for name, part in parts.items()}
    large = [name for name, part in parts.items() if gaps[name] >= FITTED_GAP and training.above(part)[1] > less[name]]
    is_supported = "holdout" in large or (rise >= LOSS_RISE and bool(large))
    said = f"{_recall_words(training, parts, easier)}; {_curve_words(making, step, rise)}."
    gap = max(gaps.values())
    effect = ("gap of recall", gap)
    numbers = {"gaps": gaps, "easier": dict(easier), "loss_rise": rise if isfinite(rise) else None}
    if not is_supported:
        return Finding(Hypothesis.OVERFITTING, FindingStatus.NOT_SUPPORTED, said, effect, numbers=numbers)
    return Finding(
        Hypothesis.OVERFITTING,
        FindingStatus.SUPPORTED,
        said,
        effect,
        _broken_promise(holdout, production, elsewhere),
        Severity.SEVERE if gap >= SEVERE_GAP else Severity.MILD,
        "Regularise: fewer leaves or units, more rows in each, earlier stopping; and a holdout of later weeks.",
        numbers,
    )


def _broken_promise(holdout: Caught | None, production: Caught | None, elsewhere: float) -> float | None:
    """Points of recall that the holdout promised in vain, beyond chance and other causes; None where it kept its promise."""
    if holdout is None or production is None:
        return None
    difference, low, _ = holdout.above(production)
    return difference - elsewhere if low > elsewhere and difference - elsewhere >= WORTH_TALKING else None


def _recall_words(training: Caught, parts: Mapping[str, Caught], easier: Mapping[str, float]) -> str:
    recalls = [f"Training recall {percent(training.recall)}", *(f"{name} {percent(part.recall)}" for name, part in parts.items())]
    natural = [
        f"; the baseline too catches {points(easier[part])[1:]} more of training's frauds than of {name}'s"
        for part, name in (("holdout", "the holdout"), ("production", "production"))
        if part in parts and easier.get(part, 0.0) >= WORTH_TALKING
    ]
    return ", ".join(recalls) + "".join(natural)


def _curve_words(making: ModelFacts | None, step: int, rise: float) -> str:
    if making is None or not making.validation_loss:
        return "no validation loss is logged"
    if rise < LOSS_RISE:
        return "the validation loss does not diverge"
    if rise == inf:
        return f"the validation loss is no number after step {step}"
    until = [loss for logged, loss in making.training_loss if logged <= step]
    still = ", while the training loss still falls" if until and making.training_loss[-1][1] < until[-1] else ""
    return f"the validation loss rises after step {step}, by {percent(rise, 0)} to the end{still}"


def find_weaker_model(
    outcomes: Outcomes | None,
    promised: Caught | None,
    production: Caught | None,
    elsewhere: float,
    *,
    is_overfitted: bool,
    overlap: Overlap | None = None,
    on_holdout: Overlap | None = None,
) -> Finding:
    """Whether the candidate is simply weaker: it catches less than the baseline, and either does as well as it promised or was
    behind on the holdout already.

    Args:
        outcomes: both models in production.
        promised, production: the candidate on its holdout and in production.
        elsewhere: points of recall (0..1) that other causes explain.
        is_overfitted: then its weakness has a name already.
        overlap: which model catches which of the same frauds, where that is known otherwise than from `outcomes`.
        on_holdout: the same of the holdout's frauds, unless the baseline was trained on those days; None: nobody can tell.
    """
    if outcomes is None or not (outcomes.baseline.frauds and outcomes.candidate.frauds):
        return not_testable(Hypothesis.WEAKER_MODEL, "Give production's labels with the predictions of both models.")
    if promised is None or production is None:
        return not_testable(Hypothesis.WEAKER_MODEL, "Give the holdout, or log holdout_recall and holdout_frauds with the run.")
    one, two = (Caught(model.frauds, model.caught) for model in (outcomes.baseline, outcomes.candidate))
    deficit = one.recall - two.recall
    if outcomes.frauds:
        _, high = paired_difference(outcomes.frauds)
    else:
        _, high = score_difference(two.caught, two.frauds, one.caught, one.frauds)
    # a card makes many transactions, whose frauds are caught or missed together
    high = (high + deficit) * sqrt(max(1.0, recall_design_effect(outcomes) or 1.0)) - deficit
    said = (
        f"Recall {percent(two.recall)} against the baseline's {percent(one.recall)}{_overlap_words(outcomes.frauds or overlap)};"
        f" the holdout promised {percent(promised.recall)}."
    )
    is_kept = not promised.is_above(production, PROMISE_KEPT)
    before = points_behind(on_holdout) if on_holdout else 0.0
    said += f" There it was {points(before)[1:]} behind the baseline already." if before else ""
    is_weaker = high < -elsewhere and deficit - elsewhere >= WORTH_TALKING
    effect, numbers = ("difference of recall", -deficit), {"deficit": deficit, "is_promise_kept": is_kept, "before": before}
    if not (is_weaker and (is_kept or before)) or is_overfitted:
        said += _why_not_weaker(deficit, high, is_weaker=is_weaker, is_overfitted=is_overfitted)
        return Finding(Hypothesis.WEAKER_MODEL, FindingStatus.NOT_SUPPORTED, said, effect, numbers=numbers)
    return Finding(
        Hypothesis.WEAKER_MODEL,
        FindingStatus.SUPPORTED,
        said,
        effect,
        deficit - elsewhere if is_kept else min(deficit - elsewhere, before),
        Severity.SEVERE if deficit >= SEVERE_GAP else Severity.MILD,
        "Give the model what it lacks: more features, more capacity, or another architecture such as gradient boosting.",
        numbers,
    )


def _why_not_weaker(deficit: float, high: float, *, is_weaker: bool, is_overfitted: bool) -> str:
    """Why a deficit that is worth talking about does not count here."""
    if deficit < WORTH_TALKING:
        return ""
    if not is_weaker:
        return " Other causes explain that." if high < 0 else " That is within chance."
    return " That counts as overfitting." if is_overfitted else " It promised more, so what broke that promise counts instead."


def _overlap_words(frauds: Overlap | None) -> str:
    if frauds is None:
        return ""
    return f" (caught by the candidate alone {frauds.candidate_only:,}, by the baseline alone {frauds.baseline_only:,})"


def find_calibration(offline: Scored | None, production: Scored | None) -> Finding:
    """Whether scores that meant what they said on the holdout do so no more in production."""
    if offline is None or production is None or not (offline.frauds and offline.expected > 0 and production.expected > 0):
        return not_testable(Hypothesis.CALIBRATION, "Give labelled rows of holdout and production, and a model with scores.")
    wanted = production.expected * offline.ratio
    variance = production.variance * offline.ratio**2 + offline.variance * (wanted / offline.frauds) ** 2
    if variance <= 0:
        return not_testable(Hypothesis.CALIBRATION, "All scores are exactly 0 or 1, so they are no probabilities.")
    z = (production.frauds - wanted) / sqrt(variance)
    change, p_value = production.ratio / offline.ratio, two_sided_p(z)
    is_off = p_value < CHANCE_P and abs(log(max(change, 1e-9))) >= log(OFF_CALIBRATION)
    said = f"For each expected fraud came {production.ratio:.2f} in production and {offline.ratio:.2f} in the holdout"
    said = f"{said} (p = {p_value:.2g})."
    numbers: dict[str, object] = {"production": production.ratio, "offline": offline.ratio, "p_value": p_value}
    if offline.spread and production.spread:
        distance = float(np.abs(np.cumsum(np.subtract(offline.shares, production.shares))).max())
        said += f" The scores' distributions are {distance:.2f} apart (0 is the same, 1 has nothing in common)."
        numbers["scores"] = {"holdout": offline.shares, "production": production.shares}
    return Finding(
        Hypothesis.CALIBRATION,
        FindingStatus.SUPPORTED if is_off else FindingStatus.NOT_SUPPORTED,
        said,
        ("change of observed over expected frauds", change),
        severity=Severity.MILD if is_off else Severity.NONE,
        next_step="Calibrate the scores anew on recent weeks, and choose the threshold after that." if is_off else "",
        numbers=numbers,
    )


def find_precision(outcomes: Outcomes | None, band: float, criterion: Criterion | None = None) -> Finding:
    """Whether the candidate's alerts are right less often, by more than the policy's band (0..1), or as the verdict judged it.

    Args:
        criterion: the verdict's own, which decides where it was judged.
    """
    change = precision_change(outcomes) if outcomes else None
    if change is None or change.high is None:
        return not_testable(Hypothesis.PRECISION, "Give production's labels with alerts of both models.")
    is_lost, middle = change.high < -band, (change.low + change.high) / 2
    said = f"The precisions differ by {points(change.low)} to {points(change.high)} (95 %); ±{band * 100:g} points are allowed."
    if criterion is not None and criterion.status is CriterionStatus.UNDECIDED:
        return not_testable(Hypothesis.PRECISION, f"{said} The verdict left it undecided: {criterion.reason}.")
    if criterion is not None and criterion.status is not CriterionStatus.NOT_CHECKED:
        is_lost = criterion.status is CriterionStatus.FAILED
        said = f"{said} The verdict: {criterion.reason}."
    threshold = "a higher threshold" if middle < 0 else "a lower threshold"
    return Finding(
        Hypothesis.PRECISION,
        FindingStatus.SUPPORTED if is_lost else FindingStatus.NOT_SUPPORTED,
        said,
        ("difference of precision", middle),
        severity=Severity.SEVERE if is_lost else Severity.NONE,
        next_step=f"Choose {threshold} on recent weeks, and see what recall it gives." if is_lost else "",
        numbers={"low": change.low, "high": change.high},
    )


def find_model_changes(baseline: ModelFacts | None, candidate: ModelFacts | None, at: datetime | None) -> Finding:
    """What was changed from the baseline to the candidate, side by side: never supported, because a difference shows no cause.

    Args:
        baseline, candidate: as they were made.
        at: the moment (UTC) for the models' ages; None: no ages.
    """
    if baseline is None or candidate is None or not (baseline.is_logged and candidate.is_logged):
        return not_testable(Hypothesis.MODEL_CHANGES, "Both models' training runs are needed to lay them side by side.")
    one, two = facts_of_making(baseline, at), facts_of_making(candidate, at)
    changes = {name: [one.get(name), two.get(name)] for name in sorted(one | two) if one.get(name) != two.get(name)}
    shown = "; ".join(f"{name}: {_word(before)} → {_word(after)}" for name, (before, after) in changes.items())
    said = f"From baseline to candidate {shown}." if changes else "Both models were made alike."
    effect = ("facts that differ", float(len(changes)))
    return Finding(Hypothesis.MODEL_CHANGES, FindingStatus.NOT_SUPPORTED, said, effect, numbers={"changes": changes})


def _word(value: object) -> str:
    return "not logged" if value is None else str(value)


def facts_of_making(model: ModelFacts, at: datetime | None) -> dict[str, object]:
    """What was logged of a model's making, by name, in words; `at`: the moment (UTC) for its age."""
    facts: dict[str, object] = {name: str(value) for name, value in model.parameters.items()}
    if model.features:
        facts["features"] = ", ".join(sorted(model.features))
    if model.trained_on:
        start, end = model.trained_on
        facts["training window"] = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        if at is not None:
            facts["age in days"] = (at - end).days
    return facts
