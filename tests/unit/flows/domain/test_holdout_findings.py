"""Whether the holdout was like production, or flattered the candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flows.domain.data_findings import drift_numbers
from flows.domain.drift import FeatureDrift, Severity, feature_drifts
from flows.domain.findings import FindingStatus
from flows.domain.holdout_findings import Ease, Likeness, find_holdout
from flows.domain.recalls import Caught

VALUES = np.random.default_rng(3).lognormal(3.0, 0.7, 4000)


def drift(served: np.ndarray) -> FeatureDrift:
    return feature_drifts([("amount", VALUES, served)])[0]


def likeness(training: float = 0.02, natural: float = 0.01, among: str = "frauds") -> Likeness:
    return Likeness(among, drift(VALUES * 1.6), training, natural)


@pytest.mark.parametrize(("training", "natural", "unlike"), [(0.02, 0.01, 1), (0.1, 0.01, 0), (0.02, 0.1, 0)])
def test_a_holdout_is_unlike_production_only_where_training_and_weeks_are_nearer(
    training: float, natural: float, unlike: int
) -> None:
    assert likeness(training, natural).is_unlike == bool(unlike)
    assert not Likeness("frauds", drift(VALUES[::-1]), 0.0, 0.0).is_unlike


def test_a_holdout_of_few_frauds_is_not_unlike_where_chance_alone_makes_as_much() -> None:
    before, served = VALUES[:300], VALUES[300:600] * 1.15
    found = feature_drifts([("amount", before, served)])[0]
    assert found.severity is not Severity.NONE
    assert found.distance == pytest.approx(0.14), "chance alone makes 0.11"
    assert not Likeness("frauds", found, 0.02, 0.0).is_unlike
    more = feature_drifts([("amount", before, VALUES[300:600] * 1.5)])[0]
    assert Likeness("frauds", more, 0.02, 0.0).is_unlike


def test_a_feature_that_came_empty_tells_nothing_of_the_holdout() -> None:
    assert not Likeness("frauds", drift(np.full(4000, np.nan)), 0.0, 0.0).is_unlike, "training has values there as well"


PROMISED, PRODUCTION = Caught(4000, 3600), Caught(8000, 6400)


def test_an_unlike_holdout_that_flattered_is_a_cause() -> None:
    found = find_holdout(PROMISED, PRODUCTION, [likeness(), likeness(among="all transactions")], None, 0.03)
    assert found.is_supported
    assert found.explained_recall == pytest.approx(0.07)
    assert "unlike production in amount among frauds" in found.said
    assert "baseline" not in found.said
    assert found.numbers["unlike_production"] == {
        f"amount among {among}": drift_numbers(likeness().holdout) for among in ("frauds", "all transactions")
    }


@pytest.mark.parametrize(
    ("production", "elsewhere", "why"),
    [
        (Caught(8000, 7100), 0.0, "So it did not flatter."),
        (Caught(80, 70), 0.0, "So it did not flatter."),  # by chance
        (PRODUCTION, 0.1, "Other causes explain that."),
        (PRODUCTION, 0.085, "Other causes explain that."),
    ],
)
def test_an_unlike_holdout_that_did_not_flatter_is_none(production: Caught, elsewhere: float, why: str) -> None:
    found = find_holdout(PROMISED, production, [likeness()], None, elsewhere)
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert found.said.endswith(why)


def test_an_unlike_share_of_categories_is_called_by_its_own_measure() -> None:
    names = np.array(["a", "b"], dtype=object)
    [kinds] = feature_drifts([("kind", names[[0] * 90 + [1] * 10], names[[0] * 10 + [1] * 90])])
    assert "(total variation 0.80; training 0.02)" in Likeness("frauds", kinds, 0.02, 0.01).said
    assert "(KS distance " in likeness().said


STEADY, UNSTEADY = (1570, 1580, 1575, 1575), (1450, 1700, 1500, 1650)
"""What the baseline catches of 2,000 frauds a week, 78.8 % of all in either case."""


def weekly(*caught: int) -> tuple[Caught, ...]:
    return tuple(Caught(2000, number) for number in caught)


def test_frauds_that_are_easier_for_the_baseline_too_make_a_holdout_flatter() -> None:
    easier = Ease(weekly(1745, 1755), weekly(*STEADY[:3]), weekly(*STEADY))
    found = find_holdout(PROMISED, PRODUCTION, [], easier, 0.0)
    assert found.is_supported
    assert "The baseline too catches 87.5 % of its frauds, 78.8 % of production's and 78.8 % of training's." in found.said
    harder = replace(easier, training=weekly(1500, 1510, 1505))
    assert find_holdout(PROMISED, PRODUCTION, [], harder, 0.0).is_supported, "the holdout is easier than either"


@pytest.mark.parametrize(
    ("holdout", "training", "production"),
    [
        ((1745, 1755) * 3, (1711, 1711, 1711), STEADY),  # as easy as training's, to within 2 points
        ((1745, 1755) * 3, (1500, 1505, 1510), (1715, 1720, 1720, 1725)),  # as easy as production's
        ((1745, 1755), (1400, 1600, 1800), STEADY),  # training differs as much, so that is what such periods do
        ((1595, 1605), STEADY[:3], STEADY),  # too little to speak of
        ((1645, 1655), STEADY[:3], STEADY),  # 3.7 points, which neighbouring weeks may differ by
        ((1700, 1650), UNSTEADY[:3], UNSTEADY),  # weeks differ as much within production
        ((1750,), (1575,), (1575,)),  # nobody knows how much weeks differ
    ],
)
def test_frauds_that_are_no_easier_than_weeks_differ_anyway_flatter_nobody(
    holdout: tuple[int, ...], training: tuple[int, ...], production: tuple[int, ...]
) -> None:
    alike = Ease(weekly(*holdout), weekly(*training), weekly(*production))
    assert find_holdout(PROMISED, PRODUCTION, [], alike, 0.0).status is FindingStatus.NOT_SUPPORTED


def test_whether_the_holdout_is_representative_of_training_is_judged_and_accuses_nobody() -> None:
    same, other = drift(VALUES[::-1]), drift(VALUES * 1.6)
    alike = find_holdout(PROMISED, PRODUCTION, [], None, 0.0, [same, same])
    assert alike.said.endswith("of training: none of 2 features differs beyond what weeks differ by themselves.")
    assert alike.numbers["unlike_training"] == {}
    differs = find_holdout(PROMISED, PRODUCTION, [], None, 0.0, [same, other])
    assert "It is not representative of training: 1 of 2 features differ beyond what weeks differ" in differs.said
    assert differs.said.endswith("amount most (KS distance 0.26).")
    assert differs.numbers["unlike_training"] == {"amount": drift_numbers(other)}
    assert differs.status is FindingStatus.NOT_SUPPORTED
    distance = other.distance or 0.0
    for natural, is_alike in ((distance * 0.4, False), (distance * 0.6, True)):
        found = find_holdout(PROMISED, PRODUCTION, [], None, 0.0, [other], {"amount": natural})
        assert ("It is representative of training" in found.said) == is_alike


def test_a_holdout_like_production_is_ruled_out() -> None:
    assert find_holdout(PROMISED, PRODUCTION, [likeness(training=0.3)], None, 0.0).status is FindingStatus.NOT_SUPPORTED


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_without_holdout_or_production_nothing_is_told(missing: int) -> None:
    arguments = [PROMISED, PRODUCTION, [likeness()]]
    arguments[missing] = None  # type: ignore[call-overload]
    found = find_holdout(arguments[0], arguments[1], arguments[2], None, 0.0)  # type: ignore[arg-type]
    assert found.status is FindingStatus.NOT_TESTABLE
