"""The finding about the holdout: was it like production, as training is, or did it flatter the candidate?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.domain.data_findings import drift_numbers, is_unnatural
from flows.domain.distances import ks_chance
from flows.domain.drift import FeatureDrift, Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.guardrails import percent
from flows.domain.recalls import WORTH_TALKING, Caught, together, weekly_p

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLATTERING = 2 * WORTH_TALKING
EASIER = 0.04  # points of recall, over training's frauds and production's on average: neighbouring weeks differ by half of it
EASIER_P = 0.03  # beside so large a difference
FARTHER = 3.0  # than training, and than weeks from each other
_ADVICE = "Choose the holdout from the last matured weeks before the test, and evaluate the candidate anew."


@dataclass(frozen=True, slots=True)
class Likeness:
    """One feature `among` all transactions or frauds: distances (0..1) of holdout and training from production, and between
    weeks of training beyond chance."""

    among: str
    holdout: FeatureDrift
    training_distance: float
    natural_distance: float

    @property
    def is_unlike(self) -> bool:
        """Whether the holdout is, beyond chance, much farther from production than training is, and than weeks are from each
        other."""
        if self.holdout.severity is Severity.NONE or not self.holdout.distance:
            return False
        beyond_chance = self.holdout.distance - ks_chance(self.holdout.training.values, self.holdout.production.values)
        return beyond_chance > 0 and beyond_chance >= FARTHER * max(self.training_distance, self.natural_distance)

    @property
    def said(self) -> str:
        distances = f"{self.holdout.measure} {self.holdout.distance or 0:.2f}; training {self.training_distance:.2f}"
        return f"It is unlike production in {self.holdout.feature} among {self.among} ({distances})."


@dataclass(frozen=True, slots=True)
class Ease:
    """What the baseline, which nobody fitted or tuned to this holdout, catches of each part's frauds, by week (at least one)."""

    holdout: tuple[Caught, ...]
    training: tuple[Caught, ...]
    production: tuple[Caught, ...]

    @property
    def is_flattering(self) -> bool:
        """Whether the holdout's frauds are much easier than training's and than production's, and its weeks stand out from all
        others: what training and production differ by is nothing that a holdout could be blamed for."""
        recall = together(self.holdout).recall
        more = [recall - together(weeks).recall for weeks in (self.training, self.production)]
        is_much = min(more) >= FLATTERING and sum(more) / len(more) >= EASIER
        return is_much and weekly_p(self.holdout, self.training + self.production) < EASIER_P

    @property
    def said(self) -> str:
        shares = [percent(together(weeks).recall) for weeks in (self.holdout, self.production, self.training)]
        return f"The baseline too catches {shares[0]} of its frauds, {shares[1]} of production's and {shares[2]} of training's."


def find_holdout(
    promised: Caught | None,
    production: Caught | None,
    likenesses: Sequence[Likeness] | None,
    ease: Ease | None,
    elsewhere: float,
    from_training: Sequence[FeatureDrift] = (),
    natural: Mapping[str, float] | None = None,
) -> Finding:
    """Whether the holdout was unlike production, where training is not, and flattered the candidate.

    Args:
        promised: the candidate on the holdout, as it was promised.
        production: the candidate on production's frauds.
        likenesses: features of which holdout, training and production can be compared; None without a holdout.
        ease: the baseline on the same frauds; None where it cannot be run.
        elsewhere: points of recall (0..1) that other causes explain.
        from_training: every feature of the holdout beside training: one that is not representative of training was drawn from
            other rows, which is worth knowing and costs no recall by itself.
        natural: by feature the largest distance (0..1) between two weeks of training.
    """
    if promised is None or production is None or likenesses is None:
        return not_testable(Hypothesis.HOLDOUT, "Give the holdout's rows with their labels, and its recall, to compare them.")
    unlike = sorted((one for one in likenesses if one.is_unlike), key=lambda one: -(one.holdout.distance or 0.0))
    difference, low, _ = promised.above(production)
    said = [f"The holdout promised a recall of {percent(promised.recall)}, production has {percent(production.recall)}."]
    said += [unlike[0].said] if unlike else []
    said += [ease.said] if ease and ease.is_flattering else []
    is_unlike = len(said) > 1
    is_supported = is_unlike and low > elsewhere and difference - elsewhere >= FLATTERING
    if not is_supported:
        is_explained = low > 0 and difference >= FLATTERING
        unlike_words = "Other causes explain that." if is_explained else "So it did not flatter."
        said.append(unlike_words if is_unlike else "It is as much like production as training is.")
    other = [drift for drift in from_training if is_unnatural(drift, (natural or {}).get(drift.feature, 0.0))]
    said += [_beside_training(len(from_training), other)] if from_training else []
    return Finding(
        Hypothesis.HOLDOUT,
        FindingStatus.SUPPORTED if is_supported else FindingStatus.NOT_SUPPORTED,
        " ".join(said),
        ("recall promised too much", difference - elsewhere),
        difference - elsewhere if is_supported else None,
        Severity.SEVERE if is_supported else Severity.NONE,
        _ADVICE if is_supported else "",
        {
            "unlike_production": {f"{one.holdout.feature} among {one.among}": drift_numbers(one.holdout) for one in unlike},
            "unlike_training": {drift.feature: drift_numbers(drift) for drift in other},
        },
    )


def _beside_training(features: int, other: Sequence[FeatureDrift]) -> str:
    if not other:
        return f"It is representative of training: none of {features} features differs beyond what weeks differ by themselves."
    most = max(other, key=lambda drift: drift.distance or 0.0)
    return (
        f"It is not representative of training: {len(other)} of {features} features differ beyond what weeks differ by"
        f" themselves, {most.feature} most ({most.measure} {most.distance or 0:.2f})."
    )
