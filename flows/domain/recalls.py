"""Recalls of one model in different places, and of one model with and without a suspected cause on the same frauds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr

from flows.domain.intervals import newcombe, paired_difference, wilson
from flows.domain.metrics import mcnemar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flows.domain.counts import Overlap

WORTH_TALKING = 0.01
"""Points of recall (0..1) below which no cause is called one: a weekly recall moves by more on its own."""
CHANCE_P = 0.01


@dataclass(frozen=True, slots=True)
class Caught:
    """How many of some `frauds` (at least one) a model caught."""

    frauds: int
    caught: int

    @property
    def recall(self) -> float:
        return self.caught / self.frauds

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the recall at 95 %."""
        return wilson(self.caught, self.frauds)

    def above(self, other: Caught) -> tuple[float, float, float]:
        """How far this recall is above the other one, with both ends of Newcombe's interval at 95 %.

        Example:
            >>> tuple(round(end, 3) for end in Caught(1000, 850).above(Caught(1000, 800)))
            (0.05, 0.017, 0.083)
        """
        low, high = newcombe(self.caught, self.frauds, other.caught, other.frauds)
        return self.recall - other.recall, low, high

    def is_above(self, other: Caught, least: float) -> bool:
        """Whether this recall is above the other one beyond chance, and by at least that many points."""
        difference, low, _ = self.above(other)
        return low > 0 and difference >= least


def together(weeks: Sequence[Caught]) -> Caught:
    """Several weeks (at least one) as one.

    Example:
        >>> together([Caught(10, 8), Caught(30, 20)])
        Caught(frauds=40, caught=28)
    """
    return Caught(sum(week.frauds for week in weeks), sum(week.caught for week in weeks))


def weekly_p(higher: Sequence[Caught], lower: Sequence[Caught]) -> float:
    """One-sided p of "the first weeks' recalls are no higher than the second weeks'", measured by how much weeks differ anyway.

    Returns:
        1 where neither side has two weeks, so that nobody knows how much weeks differ.

    Source:
        Student's two-sample t-test; the variance is never taken for less than chance alone (binomial) makes it.

    Example:
        >>> steady, easier = [Caught(1000, 800), Caught(1000, 810), Caught(1000, 790)], [Caught(1000, 880), Caught(1000, 870)]
        >>> weekly_p(easier, steady) < 0.01, weekly_p([Caught(1000, 815), Caught(1000, 805)], steady) < 0.01
        (True, False)
    """
    periods = [np.array([week.recall for week in weeks]) for weeks in (higher, lower)]
    freedom = sum(len(recalls) - 1 for recalls in periods)
    if freedom == 0:
        return 1.0
    within = sum(float(((recalls - recalls.mean()) ** 2).sum()) for recalls in periods) / freedom
    by_chance = np.mean([week.recall * (1 - week.recall) / week.frauds for week in (*higher, *lower)])
    error = np.sqrt(max(within, float(by_chance)) * (1 / len(higher) + 1 / len(lower)))
    difference = periods[0].mean() - periods[1].mean()
    if error == 0:  # every fraud of every week caught, or none
        return 1.0
    return float(stdtr(freedom, -difference / error))


def points_behind(frauds: Overlap) -> float:
    """Points of recall (0..1) that the candidate is behind the baseline on the same frauds (at least one), if that is beyond
    chance and worth talking about; else 0.

    Example:
        >>> from flows.domain.counts import Overlap
        >>> points_behind(Overlap(800, 60, 20, 120)), points_behind(Overlap(800, 60, 52, 88))
        (0.04, 0.0)
    """
    _, high = paired_difference(frauds)
    behind = (frauds.baseline_only - frauds.candidate_only) / frauds.total
    return behind if high < 0 and behind >= WORTH_TALKING else 0.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """One model on the same frauds with and without a cause: those caught only without it (`gained`), only with it (`lost`),
    and either way (`both`). Of transactions that are no fraud the same is told of false alerts."""

    frauds: int
    gained: int
    lost: int
    both: int = 0

    @property
    def explained(self) -> float:
        """Points of recall (0..1) that the cause costs; 0 where it costs nothing."""
        return max(0, self.gained - self.lost) / self.frauds

    @property
    def p_value(self) -> float:
        """McNemar's mid-p of "the cause changes no recall"."""
        return mcnemar(self.lost, self.gained).midp_p_value

    @property
    def is_worth_talking(self) -> bool:
        return self.explained >= WORTH_TALKING and self.p_value < CHANCE_P


def compare_replays(without: NDArray[np.bool_], with_cause: NDArray[np.bool_]) -> Replayed | None:
    """What a cause costs on frauds of which a model flagged these without it and those with it; None without frauds.

    Example:
        >>> compare_replays(np.array([True, True, False]), np.array([True, False, False]))
        Replayed(frauds=3, gained=1, lost=0, both=1)
    """
    if not len(without):
        return None
    gained, lost, both = (without & ~with_cause).sum(), (with_cause & ~without).sum(), (without & with_cause).sum()
    return Replayed(len(without), int(gained), int(lost), int(both))
