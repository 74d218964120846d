"""The simulated A/B test as the demo uses it: one world, its real models, and every scenario's cause in the feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployments.sandbox.simulator import SCENARIOS, TEST_START, SimulatedTest, simulate_test, simulated_test
from deployments.sandbox.simulator.registration import preprocessing_of
from deployments.sandbox.simulator.timeline import DAY_SECONDS, HOLDOUT, Days
from deployments.sandbox.simulator.training import Booster, Recipe, choose_threshold, rows_of, train_model
from deployments.sandbox.traffic_split import split_bucket

SEED = 7
LOOK = TEST_START + timedelta(days=21)
NOW = LOOK + timedelta(days=30)
COLUMNS = {
    "transaction_id": "str",
    "event_time": "datetime64[us, UTC]",
    "entity_id": "str",
    "amount": "float64",
    "arm": "str",
    "baseline_prediction": "boolean",
    "candidate_prediction": "boolean",
    "is_fraud": "boolean",
    "label_time": "datetime64[us, UTC]",
    "label_source": "str",
    "latency_ms": "float64",
    "error": "bool",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def simulate(models: Path) -> Iterator[Callable[[str], SimulatedTest]]:
    """Each scenario once, all in one world that is drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_test, "_world", cache(simulated_test._world))
        yield cache(lambda scenario: simulate_test(scenario, SEED, cache=models))


@pytest.fixture(scope="module")
def win(simulate: Callable[[str], SimulatedTest]) -> SimulatedTest:
    return simulate("win")


def looked_at(test: SimulatedTest) -> pd.DataFrame:
    """The matured transactions of the look at exposure day 21."""
    known = test.feedback(NOW)
    return known[known["event_time"] < LOOK]


def recalls(test: SimulatedTest) -> tuple[float, float]:
    frauds = looked_at(test).query("is_fraud")
    return frauds["baseline_prediction"].mean(), frauds["candidate_prediction"].mean()


def precisions(test: SimulatedTest) -> tuple[float, float]:
    rows = looked_at(test)
    return rows.query("baseline_prediction")["is_fraud"].mean(), rows.query("candidate_prediction")["is_fraud"].mean()


def crossed_over(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby("entity_id")["arm"].nunique() > 1


def test_the_feedback_has_exactly_the_columns_of_the_contract(win: SimulatedTest) -> None:
    assert {name: str(kind) for name, kind in win.feedback(NOW).dtypes.items()} == COLUMNS


def test_the_world_goes_on_after_the_look_so_that_the_demo_can_advance_it(win: SimulatedTest) -> None:
    assert win.everything["event_time"].min() >= TEST_START
    assert win.everything["event_time"].max() > TEST_START + timedelta(days=59)
    assert win.everything["transaction_id"].is_unique


@pytest.mark.parametrize("day", [1, 30, 51])
def test_nothing_is_known_before_its_time(win: SimulatedTest, day: int) -> None:
    moment = TEST_START + timedelta(days=day)
    known = win.feedback(moment)
    assert known["event_time"].max() < moment
    assert known["label_time"].max() <= moment
    assert (known["is_fraud"].isna() == known["label_time"].isna()).all()
    assert (known["is_fraud"].isna() == known["label_source"].isna()).all()
    assert known["is_fraud"].isna().any()


def test_every_label_arrives_after_its_transaction_and_within_thirty_days(win: SimulatedTest) -> None:
    delay = win.everything["label_time"] - win.everything["event_time"]
    assert delay.min() > timedelta(0)
    assert delay.max() <= timedelta(days=30)
    assert looked_at(win)["is_fraud"].notna().all()


def test_labels_come_mostly_from_chargebacks_then_reviews_and_audits(win: SimulatedTest) -> None:
    shares = win.everything["label_source"].value_counts(normalize=True)
    assert set(shares.index) == {"chargeback", "review", "audit"}
    assert shares["chargeback"] > 0.9
    reviewed = win.everything[win.everything["label_source"] == "review"]
    served = np.where(reviewed["arm"] == "baseline", reviewed["baseline_prediction"], reviewed["candidate_prediction"])
    assert served.all()


def test_a_card_stays_on_the_arm_of_its_hash(win: SimulatedTest) -> None:
    cards = win.everything.drop_duplicates("entity_id")
    assert not crossed_over(win.everything).any()
    assert (cards["arm"] == np.where(cards["entity_id"].map(split_bucket) < 80, "baseline", "candidate")).all()


def test_the_thresholds_come_from_a_holdout_that_had_matured_before_the_test(win: SimulatedTest) -> None:
    history, _ = simulated_test._world(SEED)
    holdout = rows_of(history, HOLDOUT)
    assert history["second"].max() < HOLDOUT.end * 86_400 == -30 * 86_400
    assert holdout.loc[holdout["is_fraud"], "chargeback_second"].max() <= 0
    for model in (win.baseline, win.candidate):
        scores = model.pipeline.estimator_.predict_proba(holdout[list(model.features)])[:, 1]
        assert choose_threshold(scores, holdout["is_fraud"].to_numpy()) == model.threshold
        assert model.offline_metrics["holdout_precision"] == pytest.approx(0.91, abs=0.002)
        assert model.training_window[1] <= TEST_START + timedelta(days=HOLDOUT.first)


def test_a_model_whose_surest_alerts_are_wrong_gets_the_threshold_of_the_best_f1() -> None:
    scores, is_fraud = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([False, True, True, False, False])
    assert choose_threshold(scores, is_fraud) == 0.7


@pytest.mark.parametrize("features", [("amount", "hours_since_last"), ("card_payments_1d", "is_weekend")])
def test_a_model_of_skewed_features_alone_or_of_none_tells_how_it_scales_them(features: tuple[str, str]) -> None:
    random = np.random.default_rng(1)
    history = pd.DataFrame({name: random.uniform(0, 9, 600) for name in features}).assign(
        second=np.arange(600) * DAY_SECONDS // 200, is_fraud=random.random(600) < 0.2
    )
    model = train_model(Recipe("fraud_v2", features, Days(0, 2), Booster(max_iter=5), holdout=Days(2, 3)), SEED, history)
    assert preprocessing_of(model)["scaling"].keys() == set(features)


def test_the_predictions_are_the_models_own(win: SimulatedTest) -> None:
    rows = win.production.iloc[:20_000]
    for model in (win.baseline, win.candidate):
        column = "baseline_prediction" if model is win.baseline else "candidate_prediction"
        assert (model.predict(rows) == win.everything[column].iloc[:20_000]).all()


def test_loss_curves_have_one_value_an_iteration_and_fall(win: SimulatedTest) -> None:
    for model in (win.baseline, win.candidate):
        assert len(model.training_loss) == len(model.validation_loss) == model.parameters["max_iter"] + 1
        assert model.training_loss[-1] < model.training_loss[0]


def test_a_second_run_from_the_cache_gives_the_same_test(win: SimulatedTest, models: Path) -> None:
    assert len(list(models.iterdir())) >= 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_test, "train_model", None)  # whoever trains now fails
        again = simulate_test("win", SEED, cache=models)
    pd.testing.assert_frame_equal(again.feedback(NOW), win.feedback(NOW))


def test_without_shadow_scoring_only_the_serving_arm_has_a_prediction(
    simulate: Callable[[str], SimulatedTest], win: SimulatedTest, models: Path
) -> None:
    rows = simulate_test("win", SEED, shadow=False, cache=models).feedback(NOW)
    for arm, other in (("baseline", "candidate"), ("candidate", "baseline")):
        served = rows["arm"] == arm
        assert rows.loc[served, f"{other}_prediction"].isna().all()
        pd.testing.assert_series_equal(rows.loc[served, f"{arm}_prediction"], win.feedback(NOW).loc[served, f"{arm}_prediction"])


def test_win_catches_the_new_fraud_at_the_same_precision(win: SimulatedTest) -> None:
    baseline, candidate = recalls(win)
    assert candidate > 1.06 * baseline
    before, after = precisions(win)
    assert abs(after - before) < 0.01
    risky = win.production["terminal_risk_28d"].to_numpy() > 0.15
    frauds = win.everything[risky & win.everything["is_fraud"].to_numpy(bool)]
    assert frauds["candidate_prediction"].mean() > frauds["baseline_prediction"].mean() + 0.2


def rise(curve: tuple[float, ...]) -> float:
    """How far the curve has risen from its lowest point, relative to it."""
    return curve[-1] / min(curve) - 1


def test_lose_overfitted_its_training_data(simulate: Callable[[str], SimulatedTest], win: SimulatedTest) -> None:
    test = simulate("lose")
    baseline, candidate = recalls(test)
    assert candidate < 1.03 * baseline
    assert test.candidate.offline_metrics["train_recall"] > candidate + 0.15
    assert rise(test.candidate.validation_loss) > 0.03 > 0.01 > rise(win.candidate.validation_loss)
    assert test.candidate.training_loss[-1] < 0.1 * test.candidate.validation_loss[-1]


def test_inconclusive_has_few_cards(simulate: Callable[[str], SimulatedTest], win: SimulatedTest) -> None:
    test = simulate("inconclusive")
    assert test.everything["entity_id"].nunique() < 0.1 * win.everything["entity_id"].nunique()
    assert 100 < looked_at(test)["is_fraud"].sum() < 800


def test_split_bug_moves_cards_to_the_candidate(simulate: Callable[[str], SimulatedTest]) -> None:
    rows = looked_at(simulate("split-bug"))
    crossed = crossed_over(rows)
    assert crossed.mean() > 0.05
    steady = rows[~rows["entity_id"].isin(crossed[crossed].index)].drop_duplicates("entity_id")
    assert (steady["arm"] == "baseline").mean() < 0.77
    assert (rows.drop_duplicates("entity_id")["arm"] == "baseline").mean() < 0.77


def test_slow_candidate_is_slow_for_hours_every_day_and_only_in_its_arm(simulate: Callable[[str], SimulatedTest]) -> None:
    rows = looked_at(simulate("slow-candidate"))
    busy = rows[rows["event_time"].dt.hour.between(9, 20)]
    slow = busy["latency_ms"] > 100
    by_day = slow.groupby([busy["arm"], busy["event_time"].dt.floor("D")]).mean()
    assert by_day["candidate"].min() > 0.2
    assert by_day["baseline"].max() < 0.02


def test_drifted_loses_recall_by_amounts_in_another_scale(simulate: Callable[[str], SimulatedTest], win: SimulatedTest) -> None:
    test = simulate("drifted")
    baseline, candidate = recalls(test)
    assert candidate < 0.9 * baseline
    shifted = test.production["amount_to_card_mean"] / win.production["amount_to_card_mean"]
    assert 0.35 < (shifted < 0.011).mean() < 0.45


def test_every_scenario_says_its_cause_and_no_other_exists(simulate: Callable[[str], SimulatedTest]) -> None:
    assert list(SCENARIOS) == ["win", "lose", "inconclusive", "split-bug", "slow-candidate", "drifted"]
    assert all(scenario.cause.endswith(".") for scenario in SCENARIOS.values())
    with pytest.raises(ValueError, match="choose one of win, lose"):
        simulate_test("victory", SEED, cache=None)
