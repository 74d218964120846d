"""Looking more than once: how much of the allowed error each look may spend.

Ten looks at a plain 5 % level err 19 % of the time. Lan and DeMets' spending function needs no fixed plan of looks: what a
look may spend depends on the information at the looks that were really taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import TYPE_CHECKING, cast

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_POINTS = 501
_FURTHEST_Z = 8.0
_LEAST_STEP = 1.01  # of information from look to look: a narrower density falls between the points of the integration


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the outcomes: `frauds`, which it rested on, and `fraction` (0..1], how far the spending of alpha had come.

    `frauds` are those that the comparison rests on: in pairs scored by both, in a split of both arms, where the information is
    proportional to them while the traffic's shares stay. The correlation of the looks follows from them. `fraction` is the
    calendar's: days of exposure over those at the horizon. It is fixed before the first look, whatever number of frauds
    arrives, so the error is kept although the information at the horizon is not known beforehand (Lan & DeMets 1989,
    Biometrics 45:1017-1020).
    """

    exposure_days: int
    frauds: int
    fraction: float


def spent_alpha(alpha: float, fraction: float) -> float:
    """How much of `alpha` (two-sided) may be spent by an information fraction.

    Source:
        Lan & DeMets 1983, Biometrika 70:659-663, the function like O'Brien and Fleming's: 4(1 - Φ(Φ⁻¹(1 - α/4)/√t)).

    Example:
        >>> spent_alpha(0.05, 1.0)
        0.05
    """
    if fraction >= 1:
        return alpha
    return 4 * float(scipy.stats.norm.sf(float(scipy.stats.norm.isf(alpha / 4)) / sqrt(fraction))) if fraction > 0 else 0.0


def boundaries(alpha: float, looks: Sequence[Look]) -> list[float]:
    """The two-sided critical z of each look.

    Args:
        alpha: two-sided error of the whole test, 0..1.
        looks: those really taken, in order of time, with the present one last; frauds rise.

    Returns:
        one critical value of |z| per look; infinity where a look may spend nothing.

    Source:
        Armitage, McPherson & Rowe 1969, JRSS A 132:235-244: the statistic is a Brownian motion in the information, its density
        inside the boundaries is carried from look to look by numerical integration.

    Example:
        >>> plan = [Look(14, 100, 0.5), Look(21, 150, 0.75), Look(28, 200, 1.0)]
        >>> [round(z, 3) for z in boundaries(0.05, plan)]
        [2.963, 2.359, 2.014]
    """
    found: list[float] = []
    inside: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    spent, information = 0.0, 0.0
    for look in looks:
        now = max(float(look.frauds), _LEAST_STEP * information, 1.0)
        budget = max(spent, spent_alpha(alpha, look.fraction)) - spent
        found.append(_critical_z(inside, now, now - information, budget))
        inside = _carry(inside, now, now - information, found[-1])
        spent, information = spent + budget, now
    return found


def nominal_alpha(alpha: float, looks: Sequence[Look]) -> float:
    """The two-sided level at which the last of these looks is significant (0: nothing may be spent)."""
    return 2 * float(scipy.stats.norm.sf(boundaries(alpha, looks)[-1]))


def _critical_z(
    inside: tuple[NDArray[np.float64], NDArray[np.float64]] | None, information: float, step: float, budget: float
) -> float:
    """The z whose crossing at this look, not having crossed before, has the probability `budget`."""

    def excess(z: float) -> float:
        edge = z * sqrt(information)
        if inside is None:
            return 2 * float(scipy.stats.norm.sf(z)) - budget
        grid, density = inside
        crossing = scipy.stats.norm.sf((edge - grid) / sqrt(step)) + scipy.stats.norm.cdf((-edge - grid) / sqrt(step))
        return float(scipy.integrate.simpson(density * crossing, x=grid)) - budget

    if excess(_FURTHEST_Z) >= 0:
        return inf
    return cast("float", scipy.optimize.brentq(excess, 0.0, _FURTHEST_Z, xtol=1e-10))


def _carry(
    inside: tuple[NDArray[np.float64], NDArray[np.float64]] | None, information: float, step: float, z: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density of the motion at this look for those that have not crossed."""
    edge = min(z, _FURTHEST_Z) * sqrt(information)
    grid = np.linspace(-edge, edge, _POINTS)
    if inside is None:
        return grid, scipy.stats.norm.pdf(grid, scale=sqrt(information))
    before, density = inside
    steps = np.exp(-((grid[:, None] - before) ** 2) / (2 * step)) / sqrt(2 * pi * step)
    return grid, np.asarray(scipy.integrate.simpson(density * steps, x=before, axis=1))


def crossing_probability(boundary: Sequence[float], fractions: Sequence[float]) -> float:
    """How often a test without any effect crosses one of these two-sided boundaries.

    Args:
        boundary: z of each look, above 0.
        fractions: information of each look over that of the last, rising, 0..1.

    Example:
        >>> round(crossing_probability([1.96, 1.96], [0.5, 1.0]), 3)
        0.083
    """
    inside: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    before = 0.0
    for z, now in zip(boundary, fractions, strict=True):
        inside = _carry(inside, now, now - before, z)
        before = now
    return 1.0 if inside is None else 1 - float(scipy.integrate.simpson(inside[1], x=inside[0]))


def wang_tsiatis(alpha: float, fractions: Sequence[float], delta: float) -> list[float]:
    """Two-sided boundaries z_k = c·t_k^(delta - 1/2) that are crossed with the probability `alpha` in all.

    Args:
        alpha: 0..1.
        fractions: information of each look over that of the last, rising to 1.
        delta: 0.5 gives Pocock's boundaries, 0 those of O'Brien and Fleming.

    Source:
        Wang & Tsiatis 1987, Biometrics 43:193-199.

    Example:
        >>> [round(z, 2) for z in wang_tsiatis(0.05, [0.5, 1.0], 0.5)]
        [2.18, 2.18]
    """
    shape = [fraction ** (delta - 0.5) for fraction in fractions]

    def excess(scale: float) -> float:
        return crossing_probability([scale * part for part in shape], fractions) - alpha

    scale = cast("float", scipy.optimize.brentq(excess, 0.1, _FURTHEST_Z / 2, xtol=1e-8))
    return [scale * part for part in shape]


def mcnemar_e_value(baseline_only: int, candidate_only: int) -> float:
    """Evidence that the candidate catches more of the same frauds, valid at any time: at most 1 on average while it does not.

    Args:
        baseline_only, candidate_only: frauds that one model alone caught so far, from 0.

    Returns:
        the e-value; 20 or more at any moment is significant at 5 %, however often it was looked at.

    Source:
        a uniform mixture of the candidate's share of disagreements above 1/2 (Ville 1939; Robbins 1970).

    Example:
        >>> round(mcnemar_e_value(baseline_only=0, candidate_only=1), 9)
        1.5
    """
    b, c = baseline_only, candidate_only
    with np.errstate(over="ignore", divide="ignore"):  # overwhelming evidence is infinite, and none at all is 0
        return float(
            np.exp(
                (b + c + 1) * np.log(2) + scipy.special.betaln(c + 1, b + 1) + np.log(scipy.special.betainc(b + 1, c + 1, 0.5))
            )
        )
