"""Recalls of one model in different places, and of one model with and without a suspected cause on the same frauds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flows.domain.intervals import newcombe, wilson
from flows.domain.metrics import mcnemar

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class Replayed:
    """One model on the same frauds with and without a cause: those caught only without it (`gained`), only with it (`lost`)."""

    frauds: int
    gained: int
    lost: int

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
        Replayed(frauds=3, gained=1, lost=0)
    """
    if not len(without):
        return None
    return Replayed(len(without), int((without & ~with_cause).sum()), int((with_cause & ~without).sum()))
