"""What the rules need of tables: outcomes, weeks, labels, segments."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.frame_table import FrameTable
from flows.domain.counts import Design, ModelCounts, Overlap
from flows.domain.data_findings import Labels
from flows.domain.recalls import Caught
from flows.table_summaries import (
    catches_by_week,
    compare_frauds,
    count_labels,
    count_outcomes,
    distance_between_weeks,
    find_bands,
    rows_from,
    served_answers,
)

RANDOM = np.random.default_rng(11)
ANSWERS = {
    "is_fraud": [1.0, 1.0, 1.0, 0.0, 0.0, np.nan],
    "baseline_prediction": [1.0, 1.0, 0.0, 1.0, 0.0, 1.0],
    "candidate_prediction": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
}


def table(**columns: object) -> FrameTable:
    return FrameTable(pd.DataFrame(columns))


def test_both_models_on_the_same_labelled_rows_are_pairs() -> None:
    found = count_outcomes(table(**ANSWERS))
    assert found is not None
    assert found.design is Design.PAIRED
    assert (found.baseline, found.candidate) == (ModelCounts(3, 2, 3, 2), ModelCounts(3, 1, 3, 1))
    assert (found.frauds, found.false_alerts) == (Overlap(1, 1, 0, 1), Overlap(1, 0, 1, 0))


def test_rows_that_one_model_answered_are_a_split() -> None:
    split = ANSWERS | {"baseline_prediction": [1.0, np.nan, np.nan, 1.0, np.nan, 1.0]}
    split["candidate_prediction"] = [np.nan, 0.0, 1.0, np.nan, 1.0, np.nan]
    found = count_outcomes(table(**split))
    assert found is not None
    assert (found.design, found.frauds) == (Design.SPLIT, None)
    assert (found.baseline, found.candidate) == (ModelCounts(1, 1, 2, 1), ModelCounts(2, 1, 2, 1))


def test_a_single_pair_among_a_split_is_no_paired_design() -> None:
    answers = [1.0, np.nan] * 5, [np.nan, 0.0] * 4 + [1.0, 0.0]
    found = count_outcomes(table(is_fraud=[1.0] * 10, baseline_prediction=answers[0], candidate_prediction=answers[1]))
    assert found is not None
    assert (found.design, found.baseline, found.candidate) == (Design.SPLIT, ModelCounts(5, 5, 5, 5), ModelCounts(6, 1, 1, 1))


@pytest.mark.parametrize("column", list(ANSWERS))
def test_without_labels_or_answers_there_are_no_outcomes(column: str) -> None:
    lacking = table(**{name: values for name, values in ANSWERS.items() if name != column}, amount=np.arange(6.0))
    assert count_outcomes(lacking) is None
    assert served_answers(lacking) is None


def test_the_answers_of_both_to_the_same_frauds_are_those_that_were_served() -> None:
    found = served_answers(table(**ANSWERS | {"candidate_prediction": [1.0, np.nan, 0.0, 1.0, 1.0, 1.0]}))
    assert found is not None
    assert [part.tolist() for part in found] == [[0, 2], [True, False], [True, False]]
    assert served_answers(table(**ANSWERS | {"is_fraud": [0.0] * 6})) is None


def test_segments_hold_each_fraud_once_and_a_feature_of_few_values_by_its_values() -> None:
    frauds = 400
    baseline, candidate = RANDOM.random((2, frauds)) < 0.7
    production = table(
        event_time=pd.date_range("2025-06-02", periods=frauds, freq="h", tz="UTC"),
        amount=RANDOM.random(frauds),
        is_weekend=np.arange(frauds) % 4 == 0,
        same=np.ones(frauds),
        kind=np.array(["a"] * frauds, dtype=object),
        channel=np.array(["web", "web", "shop", None] * 100, dtype=object),
        gaps=np.where(np.arange(frauds) < 100, np.nan, np.arange(frauds)),
    )
    found = find_bands(production, np.arange(frauds), baseline, candidate)
    names = ("amount", "is_weekend", "channel", "gaps", "hour of the day (UTC)")
    by_feature = {name: [band for band in found if band.feature == name] for name in names}
    assert [len(bands) for bands in by_feature.values()] == [4, 2, 2, 4, 4]
    assert {band.feature for band in found} == set(by_feature), "one value makes no segments"
    assert [sum(band.frauds.total for band in bands) for bands in by_feature.values()] == [400, 400, 300, 300, 400]
    whole = [(band.said, band.frauds.total) for name in ("is_weekend", "channel") for band in by_feature[name]]
    assert whole == [
        ("is_weekend from 0 to 0", 300),
        ("is_weekend from 1 to 1", 100),
        ("channel web", 200),
        ("channel shop", 100),
    ]
    assert [band.frauds.total for band in by_feature["amount"]] == [100] * 4
    assert by_feature["hour of the day (UTC)"][0].said == "hour of the day (UTC) from 0 to 5"


TIMES = pd.date_range("2025-06-02", periods=28 * 24, freq="h", tz="UTC")


def test_the_distance_between_weeks_is_that_of_the_oddest_week() -> None:
    values = RANDOM.normal(size=len(TIMES))
    odd = np.where(np.arange(len(TIMES)) < 7 * 24, values + 3, values)
    calm, stirred = (distance_between_weeks(table(event_time=TIMES, a=column), "a") for column in (values, odd))
    assert calm < 0.05
    assert stirred > 0.7
    later = np.arange(len(TIMES)) >= 7 * 24
    assert distance_between_weeks(table(event_time=TIMES, a=odd), "a", later) < 0.2


@pytest.mark.parametrize(
    ("usual", "other"), [(TIMES.hour.to_numpy() * 1.0, 99.0), (np.array(["night", "day"] * (len(TIMES) // 2), object), "dawn")]
)
def test_a_stub_of_a_week_and_rows_without_a_time_are_no_weeks(usual: np.ndarray, other: float | str) -> None:
    stub = pd.date_range(TIMES[-1] + timedelta(hours=1), periods=40, freq="min")
    timeless = pd.DatetimeIndex([pd.NaT] * 150, tz="UTC")
    for times in (stub, timeless):
        values = np.concatenate([usual, np.full(len(times), other, usual.dtype)])
        assert distance_between_weeks(table(event_time=TIMES.append(times), a=values), "a") == 0


def test_categories_that_differ_by_week_have_a_distance_and_chance_has_none() -> None:
    is_first = np.arange(len(TIMES)) < 7 * 24
    web = RANDOM.random(len(TIMES)) < np.where(is_first, 0.8, 0.2)
    channel = np.where(web, "web", "shop").astype(object)
    channel[::50] = None
    assert distance_between_weeks(table(event_time=TIMES, a=channel), "a") == pytest.approx(0.6 - 0.12, abs=0.1)
    shops = RANDOM.integers(0, 40, len(TIMES)).astype(str).astype(object)
    assert distance_between_weeks(table(event_time=TIMES, a=shops), "a") < 0.03


def test_where_weeks_cannot_be_told_apart_they_do_not_differ() -> None:
    assert distance_between_weeks(table(a=[1.0, 2.0]), "a") == 0
    assert distance_between_weeks(table(event_time=TIMES, a=np.array(["x"] * len(TIMES), dtype=object)), "a") == 0
    assert distance_between_weeks(table(event_time=TIMES[:30], a=np.arange(30.0)), "a") == 0


def test_labels_are_counted_by_week_and_unlabelled_rows_not_at_all() -> None:
    label = np.where(np.arange(len(TIMES)) % 10 == 0, 1.0, 0.0)
    label[:24] = np.nan
    found = count_labels(table(event_time=TIMES, is_fraud=label))
    assert found == Labels(((144, 14), (168, 17), (168, 17), (168, 17)))
    assert count_labels(table(is_fraud=[1.0, 0.0])) == Labels(((2, 1),))
    timeless = TIMES.to_series().mask(np.arange(len(TIMES)) < 7 * 24).to_numpy()
    assert count_labels(table(event_time=timeless, is_fraud=np.ones(len(TIMES)))) == Labels(((168, 168),) * 4)


def test_without_labels_there_is_nothing_to_count() -> None:
    for lacking in (None, table(a=[1.0]), table(is_fraud=[np.nan])):
        assert count_labels(lacking) is None


def test_frauds_are_compared_beside_training_and_its_weeks() -> None:
    frauds = np.ones(len(TIMES))
    values, others = RANDOM.normal(size=(2, len(TIMES)))
    training = table(event_time=TIMES, is_fraud=frauds, a=values + (np.arange(len(TIMES)) < 7 * 24) * 0.4)
    production = table(is_fraud=frauds, a=others, only=values + 9)
    holdout = table(is_fraud=frauds, a=values + 2, only=values)
    a, only = sorted(compare_frauds(holdout, training, production), key=lambda found: found.holdout.feature)
    assert (a.among, a.holdout.feature, a.is_unlike) == ("frauds", "a", True)
    assert a.training_distance < 0.12
    assert 0 < a.natural_distance < 0.2
    assert (only.training_distance, only.natural_distance) == (1.0, 0.0), "what training lacks tells nothing"


def test_catches_are_counted_by_week_and_weeks_with_few_frauds_are_left_out() -> None:
    weeks, is_fraud = np.repeat([0, 1, 2], [40, 30, 10]), np.tile([True, True, True, False], 20)
    flags = np.arange(60) % 3 == 0
    assert catches_by_week(flags, weeks, is_fraud) == (Caught(30, 10), Caught(23, 8))
    assert catches_by_week(flags, None, is_fraud) == (Caught(60, 20),)


def test_a_period_is_known_by_its_first_moment_and_its_end() -> None:
    rows = table(event_time=TIMES)
    start, end = TIMES[0].to_pydatetime(), TIMES[-1].to_pydatetime()
    assert rows_from(rows, (start - timedelta(days=1), start + timedelta(seconds=1))).any()
    assert not rows_from(rows, (start - timedelta(days=1), start)).any()
    assert rows_from(rows, (end, end + timedelta(days=1))).any()
    assert not rows_from(rows, None).any()
    assert not rows_from(table(a=[1.0]), (start, end)).any()
