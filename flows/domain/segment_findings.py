"""The finding about segments: where the candidate loses frauds that the baseline catches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import scipy

from flows.domain.criteria import points
from flows.domain.drift import Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.recalls import CHANCE_P, WORTH_TALKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.counts import Overlap

LEAST_BAND_FRAUDS = 50


@dataclass(frozen=True, slots=True)
class Band:
    """A segment: some of the frauds that have a value of `feature`, which they are (`said`), and which model caught them."""

    feature: str
    said: str
    frauds: Overlap


def find_segments(bands: Sequence[Band]) -> Finding:
    """Where the candidate loses frauds that the baseline catches, and more than elsewhere, if it loses on the whole.

    Args:
        bands: of every feature all its bands, which hold the frauds that have a value of it. Bands with few frauds are left out.

    Source:
        Fisher's exact test of a band against the feature's other ones, on the share of frauds that the baseline alone caught;
        Benjamini & Hochberg 1995 over all bands.
    """
    tested = [band for band in bands if band.frauds.total >= LEAST_BAND_FRAUDS]
    if not tested:
        return not_testable(Hypothesis.SEGMENTS, "Give both models, or their predictions, on the same 50 frauds in a segment.")
    of_feature = {feature: _sums(bands, feature) for feature in {band.feature for band in bands}}
    total, whole = max((frauds, gained - lost) for frauds, lost, gained in of_feature.values())
    p_values = [_lost_here_p(band, *of_feature[band.feature][:2]) for band in tested]
    q_values = scipy.stats.false_discovery_control(p_values, method="bh")
    lost = {
        index: (band.frauds.baseline_only - band.frauds.candidate_only) / total
        for index, band in enumerate(tested)
        if q_values[index] < CHANCE_P
    }
    worst = max(lost, key=lambda index: lost[index], default=None)
    if whole >= 0 or worst is None or lost[worst] < WORTH_TALKING:
        said = f"In none of {len(tested)} segments the candidate loses more to the baseline than elsewhere."
        most = max((band.frauds.baseline_only - band.frauds.candidate_only) / total for band in tested)
        return Finding(Hypothesis.SEGMENTS, FindingStatus.NOT_SUPPORTED, said, ("recall lost in the worst segment", most))
    band = tested[worst]
    where = band.said
    said = f"With {where} the candidate misses {band.frauds.baseline_only:,} frauds that the baseline catches, and catches"
    return Finding(
        Hypothesis.SEGMENTS,
        FindingStatus.SUPPORTED,
        f"{said} {band.frauds.candidate_only:,} more: {points(-lost[worst])} of recall on the whole, and worse than elsewhere"
        f" (q = {q_values[worst]:.2g}).",
        (f"recall lost with {where}", lost[worst]),
        severity=Severity.MILD,
        next_step=f"Look at missed frauds with {where}: what do they have in common?",
        numbers={"segments": {tested[index].said: share for index, share in lost.items()}},
    )


def _sums(bands: Sequence[Band], feature: str) -> tuple[int, int, int]:
    """All frauds of a feature's bands, those that the baseline caught alone, and those that the candidate caught alone."""
    own = [band for band in bands if band.feature == feature]
    lost, gained = (sum(getattr(band.frauds, which) for band in own) for which in ("baseline_only", "candidate_only"))
    return sum(band.frauds.total for band in own), lost, gained


def _lost_here_p(band: Band, total: int, lost: int) -> float:
    """p of so many lost frauds in a band, if those that the feature's bands lost were spread over all their frauds by chance."""
    return float(scipy.stats.hypergeom.sf(band.frauds.baseline_only - 1, total, lost, band.frauds.total))
