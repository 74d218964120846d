"""Drift, scale, serving skew, the holdout and the labels: what counts as a cause, and what is nature or costs nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flows.domain.data_findings import (
    Labels,
    Restoration,
    Suspects,
    find_feature_drift,
    find_label_drift,
    find_scaling,
    find_serving_skew,
    sort_suspects,
)
from flows.domain.drift import FeatureDrift, Severity, feature_drifts
from flows.domain.findings import FindingStatus
from flows.domain.recalls import Replayed
from flows.domain.rescaling import Rescaling, Transformation

RANDOM = np.random.default_rng(3)
VALUES = RANDOM.lognormal(3.0, 0.7, 4000)
COSTLY = Restoration(Replayed(1000, gained=90, lost=10), "With the values as they were")
CHEAP = Restoration(Replayed(1000, gained=3, lost=2), "With the values as they were")
UNKNOWN = Restoration(None, "the registered candidate is missing.")
CENTS = Rescaling("amount", Transformation("100 times as large", 100.0), 1.0, 0.9, 0.01)
NOTHING = Suspects((), (), (), {})


def drifts(**served: np.ndarray) -> tuple[FeatureDrift, ...]:
    return feature_drifts((name, VALUES, values) for name, values in served.items())


SHIFTED, ZEROED, SAME = VALUES * 1.6, np.where(RANDOM.random(4000) < 0.7, 0.0, VALUES), VALUES[::-1]

FIVE = drifts(amount=SAME, risk=SAME, hour=SAME, day=VALUES * 1.02, month=SAME)


def test_each_changed_feature_comes_under_one_cause() -> None:
    found = sort_suspects(drifts(amount=VALUES * 100, risk=ZEROED, hour=SHIFTED, day=SAME), [CENTS], {}, {})
    assert [drift.feature for drift in found.drifted] == ["hour"]
    assert [drift.feature for drift in found.broken] == ["risk"]
    assert found.features == {"amount", "hour", "risk"}


def test_what_weeks_differ_by_themselves_is_no_drift() -> None:
    shifted = drifts(hour=SHIFTED)
    distance = shifted[0].distance or 0.0
    assert not sort_suspects(shifted, [], {"hour": distance * 0.6}, {}).drifted
    assert sort_suspects(shifted, [], {"hour": distance * 0.4}, {}).drifted


def test_a_shape_is_drift_whatever_weeks_differ_by() -> None:
    found = sort_suspects(drifts(risk=ZEROED), [], {"risk": 1.0}, {"risk": 0.0})
    assert [drift.feature for drift in found.drifted] == ["risk"], "broken in the data, as the offline pipeline has it too"


def test_a_feature_that_the_reference_does_not_tell_of_is_judged_by_its_shape() -> None:
    found = sort_suspects(drifts(risk=ZEROED, hour=SHIFTED), [], {}, {"day": 0.0})
    assert [drift.feature for drift in found.broken] == ["risk"]
    assert [drift.feature for drift in found.drifted] == ["hour"]


def test_served_values_that_are_not_the_offline_ones_are_broken_without_any_drift() -> None:
    found = sort_suspects(drifts(day=SAME), [], {}, {"day": 0.2})
    assert [drift.feature for drift in found.broken] == ["day"]
    assert not sort_suspects(drifts(day=SAME), [], {}, {"day": 0.001}).broken


def test_drift_that_costs_recall_is_a_cause_with_its_points() -> None:
    suspects = sort_suspects(drifts(amount=SHIFTED, hour=VALUES * 1.3), [], {}, {})
    found = find_feature_drift(FIVE, suspects, COSTLY)
    assert found.is_supported
    assert found.explained_recall == pytest.approx(0.08)
    assert found.severity is Severity.SEVERE
    assert found.said.startswith("amount drifted from a median of ")
    assert "and so did hour" in found.said
    assert found.feature == "amount"
    assert found.said.endswith("With the values as they were the candidate's recall changes by +8.0 points.")


def test_a_damage_that_makes_false_alerts_is_a_cause_without_points_of_recall() -> None:
    caught, alarms = Replayed(1000, gained=0, lost=5, both=800), Replayed(20_000, gained=10, lost=90, both=300)
    restored = Restoration(caught, "With the values as they were", alarms, honest=40_000)
    assert restored.lost_precision == pytest.approx(800 / (800 + 620) - 805 / (805 + 780))
    found = find_scaling((), Suspects((), (), (CENTS,), {}), restored)
    assert found.is_supported
    assert found.explained_recall == 0
    assert found.said.endswith("the candidate's recall changes by -0.5 points and its precision by +5.5 points.")
    assert found.numbers["lost_precision"] == pytest.approx(restored.lost_precision)


@pytest.mark.parametrize(
    "alarms",
    [
        Replayed(20_000, gained=90, lost=10, both=300),  # fewer of them
        Replayed(20_000, gained=10, lost=14, both=300),  # chance
        Replayed(20_000, gained=0, lost=20, both=9000),  # hardly any change
    ],
)
def test_false_alerts_that_hardly_change_are_none(alarms: Replayed) -> None:
    restored = Restoration(Replayed(1000, gained=3, lost=2, both=800), "As it was", alarms, honest=40_000)
    found = find_scaling((), Suspects((), (), (CENTS,), {}), restored)
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert (found.severity, found.next_step) == (Severity.NONE, "")


def test_a_model_that_flags_nothing_has_no_precision_to_lose() -> None:
    silent = Restoration(Replayed(1000, gained=0, lost=0), "", Replayed(1000, gained=0, lost=0), honest=1000)
    assert silent.lost_precision == 0
    assert Restoration(Replayed(1000, gained=0, lost=0), "").lost_precision == 0
    assert UNKNOWN.lost_precision == 0
    assert not UNKNOWN.is_precision_worth_talking


def test_drift_that_costs_no_recall_is_said_and_is_no_cause() -> None:
    found = find_feature_drift(FIVE, sort_suspects(drifts(amount=SHIFTED), [], {}, {}), CHEAP)
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert "changes by +0.1 points" in found.said


def test_drift_whose_cost_nobody_can_tell_counts_by_its_severity() -> None:
    found = find_feature_drift(FIVE, sort_suspects(drifts(amount=SHIFTED), [], {}, {}), UNKNOWN)
    assert found.is_supported
    assert found.explained_recall is None
    assert found.said.endswith("What it costs cannot be told: the registered candidate is missing.")


def test_drift_of_categories_has_no_medians() -> None:
    names = np.array(["a", "b"], dtype=object)
    found = feature_drifts([("kind", names[[0] * 90 + [1] * 10], names[[0] * 10 + [1] * 90])])
    drifted = find_feature_drift(found, sort_suspects(found, [], {}, {}), UNKNOWN)
    assert drifted.said.startswith("kind drifted (total variation 0.80")
    assert drifted.effect == ("total variation of kind", pytest.approx(0.8))


def test_drift_without_a_distance_says_what_came_instead() -> None:
    texts = feature_drifts([("risk", VALUES, np.array(["low", "high"] * 2000, object))])
    said = find_feature_drift(texts, sort_suspects(texts, [], {}, {"risk": 0.0}), UNKNOWN).said
    assert said.startswith("risk drifted (it comes as text instead of numbers, or the other way round). What it costs")


def test_no_drift_says_how_many_features_were_compared() -> None:
    found = find_feature_drift(FIVE, NOTHING, UNKNOWN)
    assert found.said.startswith("None of the 5 features of the candidate drifted beyond what weeks differ by themselves; ")
    assert found.said.endswith("; farthest from training is day (KS distance 0.01).")
    assert found.effect == ("KS distance of day", pytest.approx(0.013, abs=0.002))
    assert found.feature is None


def test_what_comes_under_another_cause_or_has_no_values_is_not_the_farthest() -> None:
    broken = sort_suspects(zeroed := drifts(risk=ZEROED), [], {}, {})
    assert find_feature_drift((*zeroed, *FIVE), broken, UNKNOWN).effect == find_feature_drift(FIVE, NOTHING, UNKNOWN).effect
    empty = find_feature_drift(drifts(risk=np.full(4000, np.nan)), NOTHING, UNKNOWN)
    assert empty.effect == ("features that drifted", 0.0)
    assert empty.said.endswith("by themselves.")


def test_other_units_that_cost_recall_are_a_cause() -> None:
    found = find_scaling((), Suspects((), (), (CENTS,), {}), COSTLY)
    assert found.is_supported
    assert found.said.startswith("In production amount is 100 times as large.")
    assert found.effect == ("KS distance of amount", 0.9)
    four = find_scaling((), Suspects((), (), (CENTS,) * 4, {}), COSTLY)
    assert "; and 1 more." in four.said


def test_the_feature_to_draw_is_the_one_that_differs_most() -> None:
    less = replace(CENTS, feature="balance", distance=0.4)
    assert find_scaling((), Suspects((), (), (less, CENTS), {}), COSTLY).feature == "amount"


def test_without_other_units_scaling_is_ruled_out() -> None:
    found = find_scaling(drifts(amount=SAME, risk=VALUES * 0.8), NOTHING, UNKNOWN)
    assert found.status is FindingStatus.NOT_SUPPORTED
    assert found.said.endswith("than in training; the spread of risk changed most, to 0.80 of training's.")
    assert found.effect == ("ratio of spreads of risk", pytest.approx(0.8))
    none = find_scaling((), NOTHING, UNKNOWN)
    assert (none.said[-12:], none.effect) == ("in training.", ("ratio of spreads of no feature", 1.0))


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (ZEROED, "has many more zeros"),
        (np.full(4000, np.nan), "is empty"),
        (np.full(4000, 7.0), "is always the same"),
        (np.where(RANDOM.random(4000) < 0.5, np.nan, VALUES), "has many more nulls"),
    ],
)
def test_every_shape_that_serving_breaks_is_named(served: np.ndarray, words: str) -> None:
    found = find_serving_skew(sort_suspects(drifts(risk=served), [], {}, {}), COSTLY, {}, [])
    assert found.is_supported
    assert found.said.startswith(f"In production risk {words}. ")
    assert found.effect is not None
    assert found.effect[0] == "KS distance of risk"
    assert found.feature == "risk"


def test_a_category_that_serving_breaks_is_measured_by_its_own_distance() -> None:
    names = np.array(["a", "b"], dtype=object)
    constant = feature_drifts([("kind", names[[0] * 200 + [1] * 200], names[[1] * 400])])
    found = find_serving_skew(sort_suspects(constant, [], {}, {}), COSTLY, {}, [])
    assert found.effect == ("total variation of kind", pytest.approx(0.5))


def test_text_instead_of_numbers_is_broken_in_serving() -> None:
    texts = feature_drifts([("risk", VALUES, np.array(["low", "high"] * 2000, object))])
    found = find_serving_skew(sort_suspects(texts, [], {}, {}), UNKNOWN, {}, [])
    assert found.is_supported
    assert found.said.startswith("In production risk comes as text instead of numbers, or the other way round. What it costs")


def test_served_rows_that_differ_from_the_offline_ones_are_counted() -> None:
    found = find_serving_skew(sort_suspects(drifts(risk=ZEROED), [], {}, {"risk": 0.7}), COSTLY, {"risk": 0.7}, [])
    assert found.effect == ("share of changed rows of risk", 0.7)
    assert "has many more zeros and is not what the offline pipeline computes in 70.0 % of the rows" in found.said


def test_no_skew_says_what_was_compared() -> None:
    assert "those of the offline pipeline" in find_serving_skew(NOTHING, UNKNOWN, {"risk": 0.002}, []).said
    alone = find_serving_skew(NOTHING, UNKNOWN, {}, []).said
    assert alone == "No feature came empty, constant, or with many more nulls or zeros than in training."
    assert find_serving_skew(NOTHING, UNKNOWN, {}, []).effect == ("features that came damaged", 0.0)
    compared = find_serving_skew(NOTHING, UNKNOWN, {"risk": 0.002, "hour": 0.0}, [])
    assert compared.effect == ("share of changed rows, at most", 0.002)


def test_no_skew_says_what_a_reference_did_not_tell() -> None:
    some = find_serving_skew(NOTHING, UNKNOWN, {"amount": 0.002}, ["risk", "hour"]).said
    assert some.endswith(
        "offline pipeline. It does not tell of risk, hour; nothing there came empty, constant, or with many more"
        " nulls or zeros than in training."
    )
    none = find_serving_skew(NOTHING, UNKNOWN, {}, ["risk"]).said
    assert none.startswith("No feature came empty")
    assert "The reference has too few of production's rows" in none


STEADY = Labels(((10_000, 300), (10_000, 305), (10_000, 295)))


def test_many_more_frauds_than_in_training_are_a_drift_of_labels() -> None:
    found = find_label_drift(STEADY, Labels(((10_000, 420), (10_000, 410))))
    assert found.is_supported
    assert found.effect == ("ratio of fraud shares", pytest.approx(415 / 300))
    assert find_label_drift(STEADY, Labels(((10_000, 200),))).is_supported


@pytest.mark.parametrize(
    "production",
    [
        Labels(((10_000, 330), (10_000, 340))),  # beyond chance and small
        Labels(((300, 12),)),  # large and chance
        Labels(((10_000, 100), (10_000, 740))),  # large, as weeks differ by themselves
    ],
)
def test_small_changes_and_natural_ones_are_none(production: Labels) -> None:
    assert find_label_drift(STEADY, production).status is FindingStatus.NOT_SUPPORTED


def test_where_everything_is_fraud_nothing_varies() -> None:
    assert Labels(((5, 5), (5, 5))).overdispersion == 1
    assert not find_label_drift(Labels(((5, 5),)), Labels(((5, 5),))).is_supported


@pytest.mark.parametrize(("training", "production"), [(None, STEADY), (STEADY, None), (STEADY, Labels(((100, 0),)))])
def test_without_labelled_frauds_their_share_cannot_be_compared(training: Labels | None, production: Labels | None) -> None:
    assert find_label_drift(training, production).status is FindingStatus.NOT_TESTABLE
