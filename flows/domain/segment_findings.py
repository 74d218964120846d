"""The finding about segments: where the candidate loses frauds that the baseline catches."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import scipy

from flows.domain.counts import Overlap
from flows.domain.criteria import points
from flows.domain.drift import Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.recalls import CHANCE_P, WORTH_TALKING, points_behind

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_BAND_FRAUDS = 50


@dataclass(frozen=True, slots=True)
class Band:
    """A segment: some of the frauds that have a value of `feature`, which they are (`said`), and which model caught them."""

    feature: str
    said: str
    frauds: Overlap


def find_segments(bands: Sequence[Band]) -> Finding:
    """Where the candidate loses frauds that the baseline catches, and more than elsewhere, if it is behind on the whole: every
    two models have segments in which one is better, and those of an equal one cost no recall.

    Args:
        bands: of every feature all its bands, which hold the frauds that have a value of it. Bands with few frauds are left out.

    Source:
        Fisher's exact test of a band against the feature's other ones, on the share of frauds that the baseline alone caught;
        Benjamini & Hochberg 1995 over all bands.
    """
    tested = [band for band in bands if band.frauds.total >= LEAST_BAND_FRAUDS]
    if not tested:
        return not_testable(Hypothesis.SEGMENTS, "Give both models, or their predictions, on the same 50 frauds in a segment.")
    of_feature = {feature: _together(bands, feature) for feature in {band.feature for band in bands}}
    whole = max(of_feature.values(), key=lambda frauds: frauds.total)
    p_values = [_lost_here_p(band.frauds, of_feature[band.feature]) for band in tested]
    q_values = scipy.stats.false_discovery_control(p_values, method="bh")
    lost = {
        index: (band.frauds.baseline_only - band.frauds.candidate_only) / whole.total
        for index, band in enumerate(tested)
        if q_values[index] < CHANCE_P
    }
    worst = max(lost, key=lambda index: lost[index], default=None)
    if worst is None or lost[worst] < WORTH_TALKING or not points_behind(whole):
        said = f"In none of {len(tested)} segments the candidate loses more to the baseline than elsewhere."
        if worst is not None and lost[worst] >= WORTH_TALKING:
            said = (
                f"On the whole the candidate is not a point behind the baseline beyond chance; it is weakest with"
                f" {tested[worst].said} ({points(-lost[worst])} of recall on the whole)."
            )
        most = max((band.frauds.baseline_only - band.frauds.candidate_only) / whole.total for band in tested)
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


def _together(bands: Sequence[Band], feature: str) -> Overlap:
    """All frauds of a feature's bands."""
    own = [astuple(band.frauds) for band in bands if band.feature == feature]
    return Overlap(*(sum(counts) for counts in zip(*own, strict=True)))


def _lost_here_p(here: Overlap, everywhere: Overlap) -> float:
    """p of so many lost frauds in a band, if those that the feature's bands lost were spread over all their frauds by chance."""
    return float(scipy.stats.hypergeom.sf(here.baseline_only - 1, everywhere.total, everywhere.baseline_only, here.total))
