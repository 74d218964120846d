"""Findings about the data: what drifted, what came in another scale, what serving broke, and the labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import log, sqrt
from typing import TYPE_CHECKING

from flows.domain.criteria import points
from flows.domain.drift import FeatureDrift, Severity, Shape
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.guardrails import percent
from flows.domain.metrics import two_sided_p
from flows.domain.recalls import CHANCE_P, WORTH_TALKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.domain.recalls import Replayed
    from flows.domain.rescaling import Rescaling

NATURAL_TIMES = 2.0
"""So many times the largest distance between two weeks of training must a change have to be no natural variation."""
REPEATABLE = frozenset({Shape.EMPTY, Shape.CONSTANT, Shape.NULLS, Shape.ZEROS})
"""Damages that can be done to intact rows as well, so that their cost can be told without a reference."""
BROKEN = REPEATABLE | {Shape.TYPE}
LEAST_MISMATCH = 0.01  # of the rows whose served value is not the offline one
OTHER_FRAUD_SHARE = 1.25  # as a factor, in either direction


@dataclass(frozen=True, slots=True)
class Suspects:
    """The features that changed beyond natural variation, each under the one cause that fits it best.

    `mismatches`: of broken features the share (0..1) of rows whose served value is not the offline pipeline's.
    """

    drifted: tuple[FeatureDrift, ...]
    broken: tuple[FeatureDrift, ...]
    rescaled: tuple[Rescaling, ...]
    mismatches: Mapping[str, float]

    @property
    def features(self) -> frozenset[str]:
        return frozenset(
            [*(drift.feature for drift in (*self.drifted, *self.broken)), *(found.feature for found in self.rescaled)]
        )


@dataclass(frozen=True, slots=True)
class Restoration:
    """The candidate without a suspected cause: what it catches then (None: nobody can tell), and `how` that was found out.

    Where nobody can tell, `how` says what is missing. `alarms`: the same of transactions that are no fraud, a sample of the
    `honest` ones that came with these frauds.
    """

    replayed: Replayed | None
    how: str
    alarms: Replayed | None = None
    honest: int = 0

    @property
    def lost_precision(self) -> float:
        """Points of precision (0..1) that the cause costs; 0 where it costs none, or nobody can tell."""
        if self.replayed is None or self.alarms is None:
            return 0.0
        precision = []
        for only in ("gained", "lost"):
            right = self.replayed.both + getattr(self.replayed, only)
            wrong = (self.alarms.both + getattr(self.alarms, only)) * self.honest / self.alarms.frauds
            precision.append(right / (right + wrong) if right + wrong else 0.0)
        return precision[0] - precision[1]

    @property
    def is_precision_worth_talking(self) -> bool:
        """Whether the cause makes false alerts beyond chance, and so many that they are worth talking about."""
        if self.alarms is None or self.alarms.lost <= self.alarms.gained:
            return False
        return self.lost_precision >= WORTH_TALKING and self.alarms.p_value < CHANCE_P


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled rows and frauds by week, in order."""

    weeks: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.weeks)

    @property
    def frauds(self) -> int:
        return sum(frauds for _, frauds in self.weeks)

    @property
    def share(self) -> float:
        return self.frauds / self.rows

    @property
    def overdispersion(self) -> float:
        """How many times the weeks' fraud shares vary more than independent frauds would; at least 1."""
        if len(self.weeks) < 2 or not 0 < self.share < 1:
            return 1.0
        squares = [(frauds - rows * self.share) ** 2 / (rows * self.share * (1 - self.share)) for rows, frauds in self.weeks]
        return max(1.0, sum(squares) / (len(squares) - 1))


def sort_suspects(
    drifts: Sequence[FeatureDrift],
    rescaled: Sequence[Rescaling],
    natural: Mapping[str, float],
    mismatches: Mapping[str, float],
) -> Suspects:
    """Put each changed feature under one cause: rescaled, broken in serving, or drifted.

    Args:
        drifts: of all features.
        rescaled: the features of which a change of scale explains the difference.
        natural: by feature the largest distance between two weeks of training; without it only the drift's thresholds count.
        mismatches: by feature that could be compared the share (0..1) of rows whose served value is not the offline pipeline's.
            A broken feature that is the same offline is broken in the data and not in serving: it counts as drifted. The
            features that could not be compared are judged by their shapes.
    """
    named = {found.feature for found in rescaled}
    differ = {name: share for name, share in mismatches.items() if share >= LEAST_MISMATCH}
    changed = [drift for drift in drifts if drift.feature not in named]
    broken = [
        drift for drift in changed if drift.feature in differ or (drift.feature not in mismatches and BROKEN & set(drift.shapes))
    ]
    drifted = [drift for drift in changed if drift not in broken and is_unnatural(drift, natural.get(drift.feature, 0.0))]
    return Suspects(tuple(drifted), tuple(broken), tuple(rescaled), differ)


def is_unnatural(drift: FeatureDrift, natural: float) -> bool:
    """Whether a feature differs by more than weeks do by themselves: `natural`, the largest distance of one from the others."""
    return drift.severity is not Severity.NONE and (bool(drift.shapes) or (drift.distance or 0.0) >= NATURAL_TIMES * natural)


def find_feature_drift(drifts: Sequence[FeatureDrift], suspects: Suspects, restored: Restoration) -> Finding:
    """Whether shifted distributions cost recall or precision.

    Args:
        drifts: of all features of the candidate that were compared.
        suspects: as `sort_suspects` finds them.
        restored: the candidate with the drifted features' distributions as in training.
    """
    drifted = suspects.drifted
    if not drifted:
        said = f"None of the {len(drifts)} features of the candidate drifted beyond what weeks differ by themselves"
        named, effect = _most(drifts, suspects.features)
        return Finding(Hypothesis.FEATURE_DRIFT, FindingStatus.NOT_SUPPORTED, f"{said}{named}.", effect)
    worst = drifted[0]
    others = f", and so did {', '.join(drift.feature for drift in drifted[1:])}" if drifted[1:] else ""
    size = f"it {' and '.join(_shapes(worst))}"
    if worst.distance is not None:
        size = f"{worst.measure} {worst.distance:.2f}, PSI {worst.psi or 0:.2f}"
    said = f"{worst.feature} drifted{_medians(worst)} ({size}){others}"
    severity = max((drift.severity for drift in drifted), key=list(Severity).index)
    return _judge_restored(
        Finding(
            Hypothesis.FEATURE_DRIFT,
            FindingStatus.SUPPORTED,
            said,
            (f"{worst.measure} of {worst.feature}", worst.distance or 0.0),
            severity=severity,
            next_step=f"Retrain on weeks that have today's {worst.feature}, and watch its distribution.",
            numbers={"drifted": {drift.feature: drift_numbers(drift) for drift in drifted}},
            feature=worst.feature,
        ),
        restored,
    )


def _most(drifts: Sequence[FeatureDrift], others: frozenset[str]) -> tuple[str, tuple[str, float]]:
    """The feature that is farthest from training without being one of `others`, in words and as the size of an effect."""
    apart = [(drift.distance, drift) for drift in drifts if drift.distance is not None and drift.feature not in others]
    if not apart:
        return "", ("features that drifted", 0.0)
    distance, most = max(apart, key=lambda found: found[0])
    said = f"; farthest from training is {most.feature} ({most.measure} {distance:.2f})"
    return said, (f"{most.measure} of {most.feature}", distance)


def find_scaling(drifts: Sequence[FeatureDrift], suspects: Suspects, restored: Restoration) -> Finding:
    """Whether production's values come in another unit or scale than training's.

    Args:
        drifts: of all features of the candidate that were compared.
        suspects: as `sort_suspects` finds them.
        restored: the candidate with the rescaled features as training has them.
    """
    rescaled = suspects.rescaled
    if not rescaled:
        ratios = [(drift.scale_ratio, drift.feature) for drift in drifts if drift.scale_ratio]
        ratio, most = max(ratios, key=lambda found: max(found[0], 1 / found[0]), default=(1.0, ""))
        named = f"; the spread of {most} changed most, to {ratio:.2f} of training's" if most else ""
        said = f"No feature comes in another unit or scale than in training{named}."
        effect = (f"ratio of spreads of {most or 'no feature'}", ratio)
        return Finding(Hypothesis.SCALING, FindingStatus.NOT_SUPPORTED, said, effect)
    worst = max(rescaled, key=lambda found: found.distance)
    shown = "; ".join(found.said for found in rescaled[:3]) + (f"; and {len(rescaled) - 3} more" if rescaled[3:] else "")
    return _judge_restored(
        Finding(
            Hypothesis.SCALING,
            FindingStatus.SUPPORTED,
            f"In production {shown}",
            (f"KS distance of {worst.feature}", worst.distance),
            severity=Severity.SEVERE,
            next_step=f"Make the serving path give {worst.feature} as the training had it, and test one row through both.",
            numbers={"rescaled": {found.feature: _scaled_numbers(found) for found in rescaled}},
            feature=worst.feature,
        ),
        restored,
    )


def find_serving_skew(
    suspects: Suspects, restored: Restoration, compared: Mapping[str, float], uncompared: Sequence[str]
) -> Finding:
    """Whether the serving path computes features otherwise than the offline pipeline.

    Args:
        suspects: as `sort_suspects` finds them.
        restored: the candidate with the broken features as they should be.
        compared: by feature that the reference tells of the share (0..1) of rows whose served value is not the offline one.
        uncompared: the features that a reference should have told of and did not.
    """
    broken = suspects.broken
    if not broken:
        effect = ("share of changed rows, at most", max(compared.values())) if compared else ("features that came damaged", 0.0)
        said = _no_skew(uncompared, is_compared=bool(compared))
        return Finding(Hypothesis.SERVING_SKEW, FindingStatus.NOT_SUPPORTED, said, effect)
    said = "; ".join(_broken_words(drift, suspects.mismatches) for drift in broken)
    worst = broken[0]
    share = suspects.mismatches.get(worst.feature)
    effect = (worst.measure if share is None else "share of changed rows") + f" of {worst.feature}"
    return _judge_restored(
        Finding(
            Hypothesis.SERVING_SKEW,
            FindingStatus.SUPPORTED,
            f"In production {said}",
            (effect, (worst.distance or 0.0) if share is None else share),
            severity=Severity.SEVERE,
            next_step=f"Repair {worst.feature} in the serving path, and compare served with offline values on the same rows.",
            numbers={
                "broken": {drift.feature: drift_numbers(drift) for drift in broken},
                "mismatches": dict(suspects.mismatches),
            },
            feature=worst.feature,
        ),
        restored,
    )


def _no_skew(uncompared: Sequence[str], *, is_compared: bool) -> str:
    intact = "came empty, constant, or with many more nulls or zeros than in training."
    if not is_compared:
        why = " The reference has too few of production's rows, not all of its time, or none of these features."
        return f"No feature {intact}{why if uncompared else ''}"
    said = "The served features of the rows that the reference has are those of the offline pipeline"
    return f"{said}. It does not tell of {', '.join(uncompared)}; nothing there {intact}" if uncompared else f"{said}."


def find_label_drift(training: Labels | None, production: Labels | None) -> Finding:
    """Whether frauds are more or less frequent than in training, beyond what weeks differ by themselves."""
    if training is None or production is None or not (training.frauds and production.frauds):
        return not_testable(Hypothesis.LABEL_DRIFT, "Give training and production with is_fraud, and frauds in both.")
    variation = max(training.overdispersion, production.overdispersion)
    variance = sum(labels.share * (1 - labels.share) / labels.rows for labels in (training, production)) * variation
    p_value = two_sided_p((production.share - training.share) / sqrt(variance)) if variance else 1.0
    ratio = production.share / training.share
    said = f"{percent(production.share)} of production's transactions are fraud and {percent(training.share)} of training's"
    is_large = p_value < CHANCE_P and abs(log(ratio)) >= log(OTHER_FRAUD_SHARE)
    return Finding(
        Hypothesis.LABEL_DRIFT,
        FindingStatus.SUPPORTED if is_large else FindingStatus.NOT_SUPPORTED,
        f"{said} (p = {p_value:.2g}).",
        ("ratio of fraud shares", ratio),
        severity=Severity.MILD if is_large else Severity.NONE,
        next_step="Choose the threshold on recent weeks: precision follows the share of frauds." if is_large else "",
        numbers={"training": training.share, "production": production.share, "p_value": p_value, "overdispersion": variation},
    )


def _judge_restored(found: Finding, restored: Restoration) -> Finding:
    """A suspicion with what the replay says of it: a change that costs neither recall nor precision is no cause of a loss."""
    replayed = restored.replayed
    if replayed is None:
        return replace(found, said=f"{found.said}. What it costs cannot be told: {restored.how}")
    change = points((replayed.gained - replayed.lost) / replayed.frauds)
    said = f"{found.said}. {restored.how} the candidate's recall changes by {change}"
    numbers = dict(found.numbers) | asdict(replayed) | {"p_value": replayed.p_value}
    if restored.alarms is not None:
        said += f" and its precision by {points(restored.lost_precision)}"
        numbers |= {"lost_precision": restored.lost_precision, "alarms": asdict(restored.alarms)}
    if replayed.is_worth_talking or restored.is_precision_worth_talking:
        return replace(found, said=f"{said}.", explained_recall=replayed.explained, numbers=numbers)
    return Finding(found.hypothesis, FindingStatus.NOT_SUPPORTED, f"{said}.", found.effect, replayed.explained, numbers=numbers)


def _medians(drift: FeatureDrift) -> str:
    before, after = drift.training.median, drift.production.median
    return "" if before is None or after is None else f" from a median of {before:.4g} to {after:.4g}"


_SHAPE_WORDS = {
    Shape.EMPTY: "is empty",
    Shape.CONSTANT: "is always the same",
    Shape.NULLS: "has many more nulls",
    Shape.ZEROS: "has many more zeros",
    Shape.TYPE: "comes as text instead of numbers, or the other way round",
}


def _shapes(drift: FeatureDrift) -> list[str]:
    return [words for shape, words in _SHAPE_WORDS.items() if shape in drift.shapes]


def _broken_words(drift: FeatureDrift, mismatches: Mapping[str, float]) -> str:
    shown = _shapes(drift)
    if drift.feature in mismatches:
        shown.append(f"is not what the offline pipeline computes in {percent(mismatches[drift.feature])} of the rows")
    return f"{drift.feature} {' and '.join(shown)}"


def drift_numbers(drift: FeatureDrift) -> dict[str, object]:
    """What a reader may want to recompute of a drift."""
    return {
        "distance": drift.distance,
        "psi": drift.psi,
        "q_value": drift.q_value,
        "scale_ratio": drift.scale_ratio,
        "shapes": [shape.value for shape in drift.shapes],
    }


def _scaled_numbers(found: Rescaling) -> dict[str, object]:
    return {"share": found.share, "distance": found.distance, "left": found.left, "what": found.transformation.said}
