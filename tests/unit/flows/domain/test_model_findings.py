"""Overfitted, weaker, badly calibrated, less precise, made otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from flows.domain.counts import VECTOR, CardProducts, Design, ModelCounts, Outcomes, Overlap
from flows.domain.criteria import Criterion, CriterionName, CriterionStatus
from flows.domain.drift import Severity
from flows.domain.findings import FindingStatus
from flows.domain.model_findings import (
    ModelFacts,
    Scored,
    divergence_point,
    find_calibration,
    find_model_changes,
    find_overfitting,
    find_precision,
    find_weaker_model,
    logged_share,
    sum_scores,
)
from flows.domain.recalls import Caught

CURVES = ModelFacts("fraud_v2", validation_loss=((0, 0.5), (1, 0.3), (2, 0.2), (3, 0.22), (4, 0.25)))
SMOOTH = ModelFacts("fraud_v2", validation_loss=((0, 0.5), (1, 0.3), (2, 0.2), (3, 0.19)))
KNOWN, SEEN, SERVED = Caught(4000, 3960), Caught(4000, 3400), Caught(8000, 6000)


def test_a_model_far_better_on_its_training_than_on_the_holdout_is_overfitted() -> None:
    found = find_overfitting(SMOOTH, KNOWN, SEEN, None, 0.0)
    assert found.is_supported
    assert (found.severity, found.explained_recall) == (Severity.SEVERE, None)
    assert found.said == "Training recall 99.0 %, holdout 85.0 %; the validation loss does not diverge."


def test_a_broken_promise_is_what_overfitting_explains() -> None:
    found = find_overfitting(CURVES, KNOWN, SEEN, SERVED, 0.02)
    assert found.explained_recall == pytest.approx(0.08)
    assert found.said.endswith("holdout 85.0 %, production 75.0 %; the validation loss rises after step 2, by 25 % to the end.")
    kept = find_overfitting(CURVES, KNOWN, SEEN, Caught(8000, 6800), 0.0)
    assert kept.is_supported
    assert kept.explained_recall is None


def test_a_gap_to_production_alone_needs_diverging_losses() -> None:
    flattering = Caught(4000, 3950)
    assert find_overfitting(CURVES, KNOWN, flattering, SERVED, 0.0).is_supported
    assert not find_overfitting(SMOOTH, KNOWN, flattering, SERVED, 0.0).is_supported
    assert not find_overfitting(CURVES, KNOWN, flattering, SERVED, 0.22).is_supported
    assert not find_overfitting(CURVES, KNOWN, flattering, None, 0.0).is_supported


def test_frauds_that_are_easier_for_the_baseline_too_were_not_learnt_by_heart() -> None:
    training, holdout, production = Caught(4000, 3400), Caught(4000, 3160), Caught(8000, 6200)
    assert find_overfitting(SMOOTH, training, holdout, production, 0.0).is_supported
    natural = find_overfitting(SMOOTH, training, holdout, production, 0.0, {"holdout": 0.05, "production": 0.004})
    assert not natural.is_supported
    assert natural.said == (
        "Training recall 85.0 %, holdout 79.0 %, production 77.5 %; the baseline too catches 5.0 points more of training's frauds"
        " than of the holdout's; the validation loss does not diverge."
    )
    assert natural.effect == ("gap of recall", pytest.approx(0.071))
    assert natural.numbers["gaps"] == {"holdout": pytest.approx(0.01), "production": pytest.approx(0.071)}
    assert find_overfitting(SMOOTH, KNOWN, SEEN, SERVED, 0.0, {"holdout": 0.05}).is_supported, "far more than is natural"
    few = (Caught(400, 340), Caught(400, 300))
    assert find_overfitting(SMOOTH, *few, None, 0.0).is_supported
    assert not find_overfitting(SMOOTH, *few, None, 0.0, {"holdout": 0.049}).is_supported, "the rest may be chance"


@pytest.mark.parametrize(("elsewhere", "easier", "is_supported"), [(0.18, 0.1, True), (0.1, 0.18, True), (0.1, 0.2, False)])
def test_what_is_natural_in_production_counts_once_beside_other_causes(
    elsewhere: float, easier: float, *, is_supported: bool
) -> None:
    flattering = Caught(4000, 3950)
    found = find_overfitting(CURVES, KNOWN, flattering, SERVED, elsewhere, {"production": easier})
    assert found.is_supported == is_supported
    assert "more of training's frauds than of production's;" in found.said


def test_a_moderate_gap_is_mild_and_without_curves_it_says_so() -> None:
    found = find_overfitting(None, KNOWN, Caught(4000, 3700), None, 0.0)
    assert (found.is_supported, found.severity) == (True, Severity.MILD)
    assert found.said.endswith("no validation loss is logged.")


@pytest.mark.parametrize(
    ("training", "holdout", "missing"),
    [
        (None, SEEN, "Log train_recall and train_frauds with the run"),
        (KNOWN, None, "Give labelled rows of the holdout or of production"),
    ],
)
def test_without_training_or_unseen_rows_overfitting_says_what_is_missing(
    training: Caught | None, holdout: Caught | None, missing: str
) -> None:
    found = find_overfitting(CURVES, training, holdout, None, 0.0)
    assert found.status is FindingStatus.NOT_TESTABLE
    assert found.said.startswith(missing)


@pytest.mark.parametrize(
    ("recall", "frauds", "read"),
    [
        (0.8, 500.0, (0.8, 500)),
        (0.0, 1.0, (0.0, 1)),
        (85.0, 500.0, (None, 500)),
        (-0.1, -5.0, (None, 0)),
        (float("nan"), float("nan"), (None, 0)),
        (float("inf"), float("inf"), (None, 0)),
        (1.0, 0.0, (1.0, 0)),
    ],
)
def test_a_logged_share_or_count_that_can_be_none_is_not_logged(
    recall: float, frauds: float, read: tuple[float | None, int]
) -> None:
    assert logged_share({"holdout_recall": recall, "holdout_frauds": frauds}, "holdout") == read
    assert logged_share({"train_precision": recall, "train_alerts": frauds}, "train", "precision") == read
    assert logged_share({}, "holdout") == (None, 0)


def test_a_loss_that_reaches_zero_has_risen_by_nothing() -> None:
    assert divergence_point(((0, 0.5), (1, 0.0), (2, 0.1))) == (1, 0.0)


@pytest.mark.parametrize(("losses", "step"), [([0.5, 0.2, float("nan"), 0.3], 1), ([float("nan")] * 2, 0)])
def test_a_loss_that_is_no_number_any_more_has_diverged(losses: list[float], step: int) -> None:
    curve = tuple(enumerate(losses))
    assert divergence_point(curve) == (step, float("inf"))
    found = find_overfitting(ModelFacts("fraud_v2", validation_loss=curve), KNOWN, SEEN, None, 0.0)
    assert found.said.endswith(f"the validation loss is no number after step {step}.")
    assert found.numbers["loss_rise"] is None


def test_losses_below_zero_rise_too() -> None:
    step, rise = divergence_point(((0, -1.0), (1, -2.0), (2, -1.5)))
    assert (step, rise) == (1, pytest.approx(0.25))


def test_a_training_loss_that_still_falls_is_told() -> None:
    falling = tuple(enumerate((0.5, 0.3, 0.2, 0.1, 0.05)))
    found = find_overfitting(replace(CURVES, training_loss=falling), KNOWN, SEEN, None, 0.0)
    assert found.said.endswith("by 25 % to the end, while the training loss still falls.")


@pytest.mark.parametrize(
    ("training", "still"),
    [
        (tuple((step, 1 - step / 100) for step in range(100)), ", while the training loss still falls"),
        (tuple((step, max(0.7, 1 - step / 100)) for step in range(100)), ""),  # it fell until step 30 only
        (((0, 0.5), (25, 0.3)), ""),  # no more was logged
        (((60, 0.5), (90, 0.3)), ""),  # nothing was logged until then
    ],
)
def test_losses_are_compared_at_their_steps(training: tuple[tuple[int, float], ...], still: str) -> None:
    making = ModelFacts("fraud_v2", training_loss=training, validation_loss=((0, 0.5), (33, 0.2), (66, 0.22), (99, 0.25)))
    found = find_overfitting(making, KNOWN, SEEN, None, 0.0)
    assert found.said.endswith(f"the validation loss rises after step 33, by 25 % to the end{still}.")


def paired(both: int, baseline: int, candidate: int, neither: int) -> Outcomes:
    frauds, false = Overlap(both, baseline, candidate, neither), Overlap(60, 10, 10)
    total = both + baseline + candidate + neither
    one = ModelCounts(total, both + baseline, both + baseline + 70, both + baseline)
    two = ModelCounts(total, both + candidate, both + candidate + 70, both + candidate)
    return Outcomes(Design.PAIRED, one, two, frauds, false)


WEAKER = paired(700, 100, 20, 180)
PROMISED = Caught(1000, 722)


def test_a_candidate_that_keeps_its_promise_and_catches_less_than_the_baseline_is_weaker() -> None:
    found = find_weaker_model(WEAKER, PROMISED, Caught(1000, 720), 0.0, is_overfitted=False)
    assert found.is_supported
    assert found.explained_recall == pytest.approx(0.08)
    assert found.severity is Severity.MILD
    assert "(caught by the candidate alone 20, by the baseline alone 100)" in found.said
    assert find_weaker_model(paired(600, 200, 0, 200), PROMISED, PROMISED, 0.0, is_overfitted=False).severity is Severity.SEVERE


def test_a_split_tells_a_weaker_candidate_by_separate_groups() -> None:
    split = Outcomes(Design.SPLIT, ModelCounts(4000, 3200, 3500, 3200), ModelCounts(1000, 720, 790, 720))
    found = find_weaker_model(split, PROMISED, Caught(1000, 720), 0.0, is_overfitted=False)
    assert found.is_supported
    assert "alone" not in found.said
    replayed = find_weaker_model(split, PROMISED, Caught(1000, 720), 0.0, is_overfitted=False, overlap=Overlap(700, 100, 20, 180))
    assert "(caught by the candidate alone 20, by the baseline alone 100)" in replayed.said


@pytest.mark.parametrize(
    ("outcomes", "promised", "elsewhere", "overfitted", "why"),
    [
        (WEAKER, PROMISED, 0.0, 1, "72.2 %. That counts as overfitting."),
        (WEAKER, PROMISED, 0.075, 0, "72.2 %. Other causes explain that."),
        (WEAKER, Caught(1000, 800), 0.0, 0, "80.0 %. It promised more, so what broke that promise counts instead."),
        (paired(700, 58, 42, 200), PROMISED, 0.0, 0, "72.2 %. That is within chance."),
        (paired(700, 20, 18, 262), PROMISED, 0.0, 0, "72.2 %."),
        (paired(700, 20, 100, 180), PROMISED, 0.0, 0, "72.2 %."),
    ],
)
def test_a_weakness_with_another_name_or_none_is_not_called_so(
    outcomes: Outcomes, promised: Caught, elsewhere: float, overfitted: int, why: str
) -> None:
    found = find_weaker_model(outcomes, promised, Caught(1000, 720), elsewhere, is_overfitted=bool(overfitted))
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert found.said.endswith(f"the holdout promised {why}")


def by_card(outcomes: Outcomes, cards: int, lost: int, gained: int) -> Outcomes:
    """The same with its frauds in a few cards: on each of one half the candidate loses that many, on each other it wins some."""
    half = cards // 2
    vectors = np.array([[0, lost, 0, 0, 0, 0]] * half + [[0, 0, 0, 0, gained, 0]] * half)
    products = (vectors.T @ vectors)[np.triu_indices(len(VECTOR))]
    return replace(outcomes, cards=CardProducts(cards, tuple(int(product) for product in products)))


def test_frauds_that_come_in_a_few_cards_show_no_weakness() -> None:
    close = paired(700, 100, 60, 140)
    assert find_weaker_model(close, PROMISED, PROMISED, 0.0, is_overfitted=False).is_supported
    few = find_weaker_model(by_card(close, 20, 10, 6), PROMISED, PROMISED, 0.0, is_overfitted=False)
    assert few.status is FindingStatus.NOT_SUPPORTED
    assert few.said.endswith("That is within chance.")
    single = by_card(close, 200, 1, 1)
    assert find_weaker_model(single, PROMISED, PROMISED, 0.0, is_overfitted=False).is_supported
    chance = by_card(paired(700, 58, 42, 200), 2, 1, 1)
    assert not find_weaker_model(chance, PROMISED, PROMISED, 0.0, is_overfitted=False).is_supported, "nothing is narrowed"


def test_a_candidate_that_was_behind_on_an_easier_holdout_already_is_weaker_by_that_much() -> None:
    behind = Overlap(700, 60, 20, 220)
    found = find_weaker_model(WEAKER, Caught(1000, 800), Caught(1000, 720), 0.0, is_overfitted=False, on_holdout=behind)
    assert found.is_supported
    assert found.explained_recall == pytest.approx(0.04), "the rest is the holdout's"
    assert found.said.endswith("the holdout promised 80.0 %. There it was 4.0 points behind the baseline already.")
    much = find_weaker_model(
        WEAKER, Caught(1000, 800), Caught(1000, 720), 0.05, is_overfitted=False, on_holdout=Overlap(600, 150, 20, 230)
    )
    assert much.explained_recall == pytest.approx(0.03), "never more than production lacks"
    kept = find_weaker_model(WEAKER, PROMISED, Caught(1000, 720), 0.0, is_overfitted=False, on_holdout=behind)
    assert kept.explained_recall == pytest.approx(0.08)


@pytest.mark.parametrize(
    "on_holdout",
    [
        pytest.param(None, id="nobody can tell"),
        pytest.param(Overlap(700, 32, 20, 240), id="behind by chance"),
        pytest.param(Overlap(7000, 240, 160, 2600), id="hardly behind"),
        pytest.param(Overlap(700, 20, 60, 220), id="ahead"),
    ],
)
def test_a_broken_promise_without_a_weakness_on_the_holdout_is_no_weaker_model(on_holdout: Overlap | None) -> None:
    found = find_weaker_model(WEAKER, Caught(1000, 800), Caught(1000, 720), 0.0, is_overfitted=False, on_holdout=on_holdout)
    assert found.status is FindingStatus.NOT_SUPPORTED


def test_a_weaker_model_needs_both_models_outcomes_and_the_promise() -> None:
    nothing = Outcomes(Design.SPLIT, ModelCounts(0, 0, 0, 0), ModelCounts(10, 5, 6, 5))
    for outcomes, promised in ((None, PROMISED), (nothing, PROMISED), (WEAKER, None)):
        found = find_weaker_model(outcomes, promised, PROMISED, 0.0, is_overfitted=False)
        assert found.status is FindingStatus.NOT_TESTABLE


EXPECTED = Scored(10_000, 300.0, 250.0, 300)


def test_scores_that_mean_less_than_on_the_holdout_are_off() -> None:
    found = find_calibration(EXPECTED, Scored(10_000, 300.0, 250.0, 450))
    assert found.is_supported
    assert found.effect == ("change of observed over expected frauds", 1.5)
    assert find_calibration(EXPECTED, Scored(10_000, 300.0, 250.0, 0)).is_supported


def test_the_distributions_of_the_scores_are_laid_side_by_side() -> None:
    low, high = (sum_scores(np.full(100, score), np.arange(100) < 30) for score in (0.21, 0.42))
    assert low.spread[4] == high.spread[8] == 100
    found = find_calibration(low, high)
    assert "distributions are 1.00 apart" in found.said
    assert found.numbers["scores"] == {"holdout": [0.0] * 4 + [1.0] + [0.0] * 15, "production": [0.0] * 8 + [1.0] + [0.0] * 11}
    assert "0.00 apart" in find_calibration(low, low).said
    assert "apart" not in find_calibration(EXPECTED, high).said


@pytest.mark.parametrize("production", [Scored(10_000, 300.0, 250.0, 330), Scored(100, 3.0, 2.5, 5)])
def test_scores_off_by_little_or_by_chance_are_calibrated(production: Scored) -> None:
    assert find_calibration(EXPECTED, production).status is FindingStatus.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("offline", "production"),
    [
        (None, EXPECTED),
        (EXPECTED, None),
        (replace(EXPECTED, frauds=0), EXPECTED),
        (replace(EXPECTED, expected=0.0), EXPECTED),
        (EXPECTED, replace(EXPECTED, expected=0.0)),
        (replace(EXPECTED, variance=0.0), replace(EXPECTED, variance=0.0)),
    ],
)
def test_without_scores_calibration_cannot_be_tested(offline: Scored | None, production: Scored | None) -> None:
    assert find_calibration(offline, production).status is FindingStatus.NOT_TESTABLE


def test_scores_are_summed_with_their_variance() -> None:
    found = sum_scores(np.array([0.5, 0.1]), np.array([True, False]))
    assert (found.rows, found.frauds) == (2, 1)
    assert (found.expected, found.variance) == (pytest.approx(0.6), pytest.approx(0.34))


def test_a_precision_lost_beyond_the_band_and_chance_is_found() -> None:
    bad = Outcomes(Design.SPLIT, ModelCounts(4000, 3200, 3500, 3200), ModelCounts(1000, 800, 1100, 800))
    found = find_precision(bad, 0.01)
    assert found.is_supported
    assert found.severity is Severity.SEVERE
    assert not find_precision(paired(700, 20, 20, 260), 0.01).is_supported


def test_a_verdict_on_precision_is_not_contradicted() -> None:
    same = paired(700, 20, 20, 260)
    judged = Criterion(CriterionName.PRECISION_STABILITY, CriterionStatus.FAILED, 0.02, 0.01, "absolute", "precision rises")
    failed = find_precision(same, 0.01, judged)
    assert failed.is_supported
    assert failed.said.endswith("The verdict: precision rises.")
    open_still = find_precision(same, 0.01, replace(judged, status=CriterionStatus.UNDECIDED))
    assert open_still.status is FindingStatus.NOT_TESTABLE
    assert open_still.said.endswith("The verdict left it undecided: precision rises.")
    assert find_precision(same, 0.01, replace(judged, status=CriterionStatus.NOT_CHECKED)) == find_precision(same, 0.01)
    bad = Outcomes(Design.SPLIT, ModelCounts(4000, 3200, 3500, 3200), ModelCounts(1000, 800, 1100, 800))
    assert find_precision(bad, 0.01).next_step.startswith("Choose a higher threshold")
    assert not find_precision(bad, 0.01, replace(judged, status=CriterionStatus.PASSED)).is_supported


def test_without_alerts_precision_is_not_testable() -> None:
    silent = Outcomes(Design.SPLIT, ModelCounts(10, 5, 6, 5), ModelCounts(10, 0, 0, 0))
    assert find_precision(silent, 0.01).status is FindingStatus.NOT_TESTABLE
    assert find_precision(None, 0.01).status is FindingStatus.NOT_TESTABLE


ONE = ModelFacts("v1", ("a",), {"leaves": 15}, trained_on=(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)))
TWO = ModelFacts("v2", ("a", "b"), {"leaves": 31, "l2": 1.0})


def test_what_changed_between_the_models_is_laid_side_by_side_and_is_no_cause() -> None:
    found = find_model_changes(ONE, TWO, datetime(2025, 3, 1, tzinfo=UTC))
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert "features: a → a, b; l2: not logged → 1.0; leaves: 15 → 31" in found.said
    assert "age in days: 28 → not logged" in found.said
    assert "age" not in find_model_changes(ONE, TWO, None).said


def test_models_of_which_only_the_features_are_known_are_not_made_alike() -> None:
    bare = ModelFacts("v1", ("a",))
    for pair in ((bare, bare), (ONE, bare), (bare, TWO)):
        assert find_model_changes(*pair, None).status is FindingStatus.NOT_TESTABLE


def test_models_made_alike_and_models_unknown() -> None:
    assert find_model_changes(ONE, replace(ONE, name="v2"), None).said == "Both models were made alike."
    for pair in ((None, ONE), (ONE, None)):
        assert find_model_changes(*pair, None).status is FindingStatus.NOT_TESTABLE


def test_models_of_which_no_features_are_known_are_laid_side_by_side_by_their_parameters() -> None:
    one, two = (ModelFacts(name, (), {"leaves": leaves}) for name, leaves in (("v1", 15), ("v2", 31)))
    assert find_model_changes(one, two, None).said == "From baseline to candidate leaves: 15 → 31."
