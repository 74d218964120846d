"""Drift in words and as a picture."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.domain.drift import compare_feature, feature_drifts
from flows.reports.drift_chart import drift_chart, suspect_chart
from flows.reports.drift_words import conclude_drift, describe_drift

Column = NDArray[Any]
BASE = np.arange(1.0, 1_001.0)
SKEWED = np.random.default_rng(1).lognormal(3, 2, 5_000)
TEXTS = np.array(["web", "shop"] * 500, object)


@pytest.mark.parametrize(
    ("training", "production", "said"),
    [
        (BASE, BASE, "as in training"),
        (BASE, BASE * 2, "larger: median 500 → 1e+03"),
        (BASE, BASE - 400, "smaller: median 500 → 100"),
        (BASE, np.repeat([500.0, 501.0], 500), "another scale: its spread is 0.002 times that in training"),
        (np.repeat([1.0, 5.0, 9.0], 400), np.repeat([4.0, 5.0, 7.0], 400), "larger: mean 5 → 5.33"),
        (np.repeat([1.0, 5.0, 9.0], 400), np.repeat([4.0, 5.0, 6.0], 400), "another shape of the distribution"),
        (BASE, np.zeros(1_000), "always 0"),
        (BASE, np.full(1_000, np.inf), "always infinite"),
        (BASE, np.full(1_000, np.nan), "always null (0.0 % in training)"),
        (np.full(1_000, np.nan), BASE, "cannot be compared: training has no values"),
        (BASE, np.where(BASE > 700, BASE, 0), "more zeros: 0.0 % → 70.0 %"),
        (BASE, np.where(BASE > 700, BASE * 100, np.nan), "more nulls: 0.0 % → 70.0 %; another scale: its spread is 30 times"),
        (TEXTS, np.array(["web", "web", "web", "shop"] * 250, object), "other shares: shop 50.0 % → 25.0 %"),
        (TEXTS, np.array(["app"] * 500 + ["tv"] * 500, object), "other shares: shop 50.0 % → 0.0 %"),
        (TEXTS, np.array(["web"] * 1_000, object), "always web"),
    ],
)
def test_the_words_say_how_production_differs(training: Column, production: Column, said: str) -> None:
    (drift,) = feature_drifts([("x", training, production)])
    assert describe_drift(drift).startswith(said)
    picture = matplotlib.image.imread(BytesIO(drift_chart(drift, training, production)))
    assert picture.shape[:2] == (462, 990)


def test_the_conclusion_counts_and_names_the_worst() -> None:
    same, moved, zeroed = ("hour", BASE, BASE), ("age", BASE, BASE + 70), ("risk", BASE, np.zeros(1_000))
    for columns, said in (
        ([same], "None of 1 features drifted: production is like training in all of them."),
        ([same, moved], "1 of 2 features drifted, none severely; the worst is age (larger: median 500 → 570)."),
        ([same, moved, zeroed], "2 of 3 features drifted, 1 severely; the worst is risk (always 0)."),
        ([zeroed], "1 of 1 features drifted, all severely; the worst is risk (always 0)."),
    ):
        assert conclude_drift(feature_drifts(columns)) == said


def test_the_same_columns_give_the_same_picture_and_others_another_one() -> None:
    (drift,) = feature_drifts([("amount", SKEWED, SKEWED * 3)])
    once = drift_chart(drift, SKEWED, SKEWED * 3)
    assert once == drift_chart(drift, SKEWED, SKEWED * 3)
    assert once != drift_chart(drift, SKEWED, SKEWED * 2)


def test_the_picture_of_a_suspect_says_how_it_drifted() -> None:
    alone = suspect_chart("amount", BASE, BASE * 2)
    assert alone == drift_chart(*feature_drifts([("amount", BASE, BASE * 2)]), BASE, BASE * 2)
    undecided = compare_feature("amount", BASE, BASE * 2)
    assert describe_drift(undecided) == "as in training", "nothing is said of a feature that was not tested"
    assert alone != drift_chart(undecided, BASE, BASE * 2)


def test_a_column_without_values_leaves_its_side_empty() -> None:
    (drift,) = feature_drifts([("x", BASE, np.full(9, None, object))])
    assert drift_chart(drift, BASE, np.full(9, None, object)).startswith(b"\x89PNG")
    (drift,) = feature_drifts([("x", np.full(9, np.inf), np.full(9, np.nan))])
    assert drift_chart(drift, np.full(9, np.inf), np.full(9, np.nan)).startswith(b"\x89PNG")
