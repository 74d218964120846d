"""The whole diagnosis on small tables with a model of one rule: each hypothesis from the material to the ranked finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.frame_table import FrameTable
from flows.diagnosis import diagnose
from flows.domain.counts import Coverage, RequestBucket, TelemetrySummary
from flows.domain.criteria import Criterion, CriterionName, CriterionStatus
from flows.domain.drift import feature_drifts
from flows.domain.errors import OutsideSystemError
from flows.domain.findings import Finding, FindingStatus, Hypothesis
from flows.domain.model_findings import ModelFacts
from flows.domain.policy import LabelBasis, Policy
from flows.material import Material

EDGE, RISKY = 30.0, 0.5


def flags(rows: pd.DataFrame) -> np.ndarray:
    return ((rows["amount"] > EDGE) & (rows["risk"] > RISKY)).to_numpy()


def scores(rows: pd.DataFrame) -> np.ndarray:
    return np.where(flags(rows), 0.9, 0.02)


def fails(_: pd.DataFrame) -> np.ndarray:
    raise OutsideSystemError("the baseline", "predicting", retryable=False)


def rows(seed: int, size: int = 6000) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    is_fraud = random.random(size) < 0.1
    return pd.DataFrame(
        {
            "transaction_id": [f"tx-{seed}-{number}" for number in range(size)],
            "event_time": pd.date_range("2025-06-02", periods=size, freq="7min", tz="UTC"),
            "is_fraud": is_fraud,
            "amount": np.where(is_fraud, random.lognormal(4.0, 0.5, size), random.lognormal(2.5, 0.5, size)),
            "risk": np.where(is_fraud, random.uniform(0.4, 1.0, size), random.uniform(0.0, 0.6, size)),
            "hour": random.uniform(0, 24, size),
        }
    )


def served(right: pd.DataFrame, **changed: pd.Series | np.ndarray) -> pd.DataFrame:
    """Production's rows with some features changed, and both models' answers."""
    table = right.assign(**changed)
    return table.assign(baseline_prediction=(right["amount"] > 48).to_numpy(), candidate_prediction=flags(table))


RIGHT = rows(3)
FACTS = ModelFacts("fraud_v2", ("amount", "risk"), {"leaves": 15}, {}, validation_loss=((0, 0.4), (1, 0.3), (2, 0.29)))
HEALTHY = Material(
    training=FrameTable(rows(1)),
    holdout=FrameTable(rows(2)),
    production=FrameTable(served(RIGHT)),
    baseline=replace(FACTS, name="fraud_v1"),
    candidate=FACTS,
    flags=flags,
    scores=scores,
    manifest={"model": "aa"},
    artifact={"model": "aa"},
    registered_version="2",
    served_version="2",
)
REFERENCE = FrameTable(RIGHT)


def supported(material: Material) -> dict[Hypothesis, Finding]:
    return {finding.hypothesis: finding for finding in diagnose(material) if finding.is_supported}


def said(material: Material, hypothesis: Hypothesis) -> Finding:
    return next(finding for finding in diagnose(material) if finding.hypothesis is hypothesis)


def test_every_hypothesis_is_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "causes.md").read_text(encoding="utf-8")
    assert [hypothesis for hypothesis in Hypothesis if f"`{hypothesis}`" not in text] == []


def test_every_hypothesis_gets_one_finding_and_of_a_healthy_test_none_is_supported() -> None:
    for material in (HEALTHY, replace(HEALTHY, reference=REFERENCE)):
        found = diagnose(material)
        assert sorted(finding.hypothesis for finding in found) == sorted(Hypothesis)
        assert not [finding for finding in found if finding.is_supported]
        assert not [finding for finding in found if finding.status is FindingStatus.NOT_SUPPORTED and finding.effect is None]


def test_drift_is_told_with_the_recall_that_it_costs() -> None:
    drifted = replace(HEALTHY, production=FrameTable(served(RIGHT, amount=RIGHT["amount"] / 2)))
    first = diagnose(drifted)[0]
    assert first.hypothesis is Hypothesis.FEATURE_DRIFT
    assert (first.explained_recall or 0) > 0.2
    blind = said(replace(drifted, flags=None, missing={"flags": "MLflow did not answer."}), Hypothesis.FEATURE_DRIFT)
    assert blind.is_supported
    assert blind.said.endswith("What it costs cannot be told: MLflow did not answer.")


def test_drifts_that_are_known_already_are_not_computed_again() -> None:
    drifted = FrameTable(served(RIGHT, amount=RIGHT["amount"] / 2))
    known = feature_drifts([("amount", rows(1)["amount"].to_numpy(), drifted.column("amount"))])
    assert diagnose(replace(HEALTHY, production=drifted, drifts=known))[0].hypothesis is Hypothesis.FEATURE_DRIFT
    assert said(replace(HEALTHY, production=drifted, drifts=()), Hypothesis.FEATURE_DRIFT).status is FindingStatus.NOT_TESTABLE


def test_drift_of_a_feature_that_the_model_does_not_use_is_no_cause() -> None:
    early = replace(HEALTHY, production=FrameTable(served(RIGHT, hour=RIGHT["hour"] / 2)))
    assert not supported(early)
    assert not supported(replace(early, flags=None)), "nor where nobody can run the model"
    assert said(early, Hypothesis.FEATURE_DRIFT).said.startswith("None of the 2 features of the candidate drifted")
    unknown = said(replace(early, candidate=replace(FACTS, features=()), flags=None), Hypothesis.FEATURE_DRIFT)
    assert unknown.feature == "hour", "it may use the hour"
    alien = replace(HEALTHY, candidate=replace(FACTS, features=("age",)))
    assert said(alien, Hypothesis.FEATURE_DRIFT).status is FindingStatus.NOT_TESTABLE


def test_the_feature_that_drifted_most_is_not_named_where_the_candidate_does_not_use_it() -> None:
    both = FrameTable(served(RIGHT, amount=RIGHT["amount"] / 2, hour=RIGHT["hour"] + 20))
    found = supported(replace(HEALTHY, production=both))[Hypothesis.FEATURE_DRIFT]
    assert found.feature == "amount"
    assert "hour" not in found.said


def test_without_labels_drift_counts_by_its_size() -> None:
    unlabelled = served(RIGHT, amount=RIGHT["amount"] / 2).drop(columns="is_fraud")
    found = said(replace(HEALTHY, production=FrameTable(unlabelled)), Hypothesis.FEATURE_DRIFT)
    assert found.is_supported
    assert "production has no labels" in found.said


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_a_zeroed_feature_is_skew_in_serving(reference: FrameTable | None) -> None:
    zeroed = served(RIGHT, risk=RIGHT["risk"].mask(np.arange(len(RIGHT)) % 4 > 0, 0.0))
    first = diagnose(replace(HEALTHY, production=FrameTable(zeroed), reference=reference))[0]
    assert first.hypothesis is Hypothesis.SERVING_SKEW
    assert first.explained_recall == pytest.approx(0.55, abs=0.06)


def test_a_feature_changed_in_few_rows_is_found_beside_the_reference() -> None:
    random = np.random.default_rng(4)
    moved = served(
        RIGHT, risk=RIGHT["risk"].mask(random.random(len(RIGHT)) < 0.1, RIGHT["risk"].sample(frac=1, random_state=1).to_numpy())
    )
    shuffled = FrameTable(RIGHT.sample(frac=0.9, random_state=2))
    first = diagnose(replace(HEALTHY, production=FrameTable(moved), reference=shuffled))[0]
    assert first.hypothesis is Hypothesis.SERVING_SKEW
    assert "is not what the offline pipeline computes in" in first.said


def test_a_reference_of_other_rows_is_none() -> None:
    others = FrameTable(rows(9).drop(columns="transaction_id").head(100))
    assert "No feature came empty" in said(replace(HEALTHY, reference=others), Hypothesis.SERVING_SKEW).said
    strangers = replace(HEALTHY, production=FrameTable(served(RIGHT, risk=RIGHT["risk"] * 0)), reference=FrameTable(rows(9)))
    assert "Without the same damage on the holdout's frauds" in said(strangers, Hypothesis.SERVING_SKEW).said


def test_a_reference_without_labelled_production_tells_skew_and_not_its_cost() -> None:
    zeroed = FrameTable(served(RIGHT, risk=RIGHT["risk"] * 0).drop(columns="is_fraud"))
    found = said(replace(HEALTHY, production=zeroed, reference=REFERENCE), Hypothesis.SERVING_SKEW)
    assert found.effect == ("share of changed rows of risk", 1.0)
    assert "Without the same damage on the holdout's frauds" in found.said


def test_text_that_drifts_has_no_scale_and_a_holdout_that_is_easier_for_the_baseline_is_found() -> None:
    kinds = np.array(["a", "b"], dtype=object)

    def with_kind(table: pd.DataFrame, kind: int) -> FrameTable:
        return FrameTable(table.assign(kind=kinds[[kind] * len(table)]))

    easy = rows(2)
    easy = easy.loc[~easy["is_fraud"] | (easy["amount"] > 40)]
    found = diagnose(
        replace(
            HEALTHY,
            training=with_kind(rows(1), 0),
            holdout=with_kind(easy, 0),
            production=with_kind(served(RIGHT), 1),
            candidate=replace(FACTS, features=(*FACTS.features, "kind")),
            baseline_flags=lambda table: (table["amount"] > 48).to_numpy(),
        )
    )
    by_name = {finding.hypothesis: finding for finding in found}
    assert by_name[Hypothesis.FEATURE_DRIFT].said.startswith("kind drifted")
    assert by_name[Hypothesis.HOLDOUT].is_supported
    assert "The baseline too catches" in by_name[Hypothesis.HOLDOUT].said


def test_another_unit_that_costs_recall_is_scaling() -> None:
    found = supported(replace(HEALTHY, production=FrameTable(served(RIGHT, risk=RIGHT["risk"] * 0.01))))
    assert next(iter(found)) is Hypothesis.SCALING
    assert (found[Hypothesis.SCALING].explained_recall or 0) > 0.7


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_another_unit_that_makes_false_alerts_is_scaling_too(reference: FrameTable | None) -> None:
    large = FrameTable(served(RIGHT, risk=RIGHT["risk"] * 100))
    found = supported(replace(HEALTHY, production=large, reference=reference))
    assert Hypothesis.FEATURE_DRIFT not in found
    assert found[Hypothesis.SCALING].explained_recall == 0
    assert "and its precision by +" in found[Hypothesis.SCALING].said
    assert Hypothesis.PRECISION in found


def test_drifted_categories_are_brought_back_as_well() -> None:
    names = np.array(["card", "cash"], dtype=object)

    def with_kind(table: pd.DataFrame, cash: float) -> pd.DataFrame:
        kinds = names[(np.random.default_rng(6).random(len(table)) < cash).astype(int)]
        return table.assign(kind=kinds)

    def flags_of_cards(table: pd.DataFrame) -> np.ndarray:
        return flags(table) & (table["kind"] == "card").to_numpy()

    production = with_kind(RIGHT, 0.6)
    production = production.assign(baseline_prediction=flags(production), candidate_prediction=flags_of_cards(production))
    material = replace(
        HEALTHY,
        training=FrameTable(with_kind(rows(1), 0.1)),
        holdout=FrameTable(with_kind(rows(2), 0.1)),
        production=FrameTable(production),
        candidate=replace(FACTS, features=(*FACTS.features, "kind")),
        flags=flags_of_cards,
        scores=None,
    )
    found = supported(material)[Hypothesis.FEATURE_DRIFT]
    assert found.said.startswith("kind drifted")
    assert (found.explained_recall or 0) > 0.3


def test_where_only_some_transactions_get_labels_no_recall_in_production_is_told() -> None:
    drifted = FrameTable(served(RIGHT, amount=RIGHT["amount"] / 2))
    flagged = replace(HEALTHY, policy=Policy(labels=LabelBasis.FLAGGED), production=drifted)
    found = {finding.hypothesis: finding for finding in diagnose(flagged)}
    assert "nobody knows which frauds production missed" in found[Hypothesis.FEATURE_DRIFT].said
    blind = (Hypothesis.HOLDOUT, Hypothesis.WEAKER_MODEL, Hypothesis.LABEL_DRIFT, Hypothesis.CALIBRATION, Hypothesis.SEGMENTS)
    for hypothesis in blind:
        assert found[hypothesis].status is FindingStatus.NOT_TESTABLE
        assert "Not all transactions get a label" in found[hypothesis].said
    assert found[Hypothesis.OVERFITTING].status is FindingStatus.NOT_SUPPORTED


def test_a_model_that_fails_on_the_rows_costs_only_what_needs_it() -> None:
    def fail(_: pd.DataFrame) -> np.ndarray:
        raise OutsideSystemError("the candidate", "predicting", retryable=False)

    few = RIGHT["risk"].mask(np.arange(len(RIGHT)) % 10 > 0, 0.0)
    broken = FrameTable(served(RIGHT, risk=few))
    found = {one.hypothesis: one for one in diagnose(replace(HEALTHY, production=broken, flags=fail, scores=fail))}
    assert found[Hypothesis.SERVING_SKEW].is_supported
    assert "What it costs cannot be told" in found[Hypothesis.SERVING_SKEW].said
    for hypothesis in (Hypothesis.OVERFITTING, Hypothesis.CALIBRATION):
        assert found[hypothesis].status is FindingStatus.NOT_TESTABLE
        assert "predicting" in found[hypothesis].said
    assert found[Hypothesis.PRECISION].status is not FindingStatus.NOT_TESTABLE


def test_tables_without_rows_stop_nothing() -> None:
    found = said(replace(HEALTHY, training=FrameTable(rows(1).head(0))), Hypothesis.FEATURE_DRIFT)
    assert found.status is FindingStatus.NOT_TESTABLE
    assert "has no rows in training" in found.said


def test_in_a_split_both_models_are_replayed_for_the_segments() -> None:
    half = np.arange(len(RIGHT)) % 2 == 0
    split = served(RIGHT).assign(hour=RIGHT["hour"])
    split["baseline_prediction"] = split["baseline_prediction"].where(half)
    split["candidate_prediction"] = split["candidate_prediction"].where(~half)
    by_day = lambda table: flags(table) & (table["hour"] < 12).to_numpy()  # noqa: E731
    material = replace(HEALTHY, production=FrameTable(split), flags=by_day, baseline_flags=flags)
    material = replace(material, candidate=replace(FACTS, features=(*FACTS.features, "hour")))
    found = said(material, Hypothesis.SEGMENTS)
    assert found.is_supported
    assert found.said.startswith("With hour from ")
    assert said(replace(material, baseline_flags=None), Hypothesis.SEGMENTS).status is FindingStatus.NOT_TESTABLE


@pytest.mark.parametrize("pairs", [1, 200])
def test_where_few_frauds_of_a_split_have_both_answers_all_are_replayed_if_that_can_be(pairs: int) -> None:
    half = np.arange(len(RIGHT)) % 2 == 0
    few = RIGHT["is_fraud"] & (RIGHT["is_fraud"].cumsum() <= pairs)
    split = served(RIGHT).assign(candidate_prediction=False)
    split["baseline_prediction"] = split["baseline_prediction"].where(half | few)
    split["candidate_prediction"] = split["candidate_prediction"].where(~half | few)
    replayed = replace(HEALTHY, production=FrameTable(split), baseline_flags=lambda table: (table["amount"] > 48).to_numpy())
    none_served = replace(replayed, production=FrameTable(split.drop(columns=["baseline_prediction", "candidate_prediction"])))
    assert said(replayed, Hypothesis.SEGMENTS) == said(none_served, Hypothesis.SEGMENTS)

    as_served = [said(replace(replayed, baseline_flags=one), Hypothesis.SEGMENTS) for one in (None, fails)]
    assert as_served[0] == as_served[1] != said(replayed, Hypothesis.SEGMENTS)
    assert "predicting" in said(replace(none_served, baseline_flags=fails), Hypothesis.SEGMENTS).said


def test_a_baseline_that_was_trained_on_the_holdouts_days_tells_nothing_of_it() -> None:
    easy = rows(2)
    easy = FrameTable(easy.loc[~easy["is_fraud"] | (easy["amount"] > 40)])
    easier = replace(HEALTHY, holdout=easy, baseline_flags=lambda table: (table["amount"] > 48).to_numpy())
    assert "The baseline too" in said(easier, Hypothesis.HOLDOUT).said
    seen = (datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC))
    assert "The baseline too" not in said(replace(easier, baseline=replace(FACTS, trained_on=seen)), Hypothesis.HOLDOUT).said


def test_broken_values_without_a_shape_and_without_labels_beside_the_reference_are_not_ruled_out() -> None:
    other = served(RIGHT, risk=RIGHT["risk"].sample(frac=1, random_state=1).to_numpy()).drop(columns="is_fraud")
    found = said(replace(HEALTHY, production=FrameTable(other), reference=REFERENCE), Hypothesis.SERVING_SKEW)
    assert found.is_supported
    assert found.explained_recall is None
    assert found.said.endswith("cannot be told: production has no labels or lacks a feature of the candidate.")
    frauds_not_there = FrameTable(RIGHT.loc[~RIGHT["is_fraud"] | (np.arange(len(RIGHT)) < 100)])
    shuffled = FrameTable(served(RIGHT, risk=other["risk"].to_numpy()))
    found = said(replace(HEALTHY, production=shuffled, reference=frauds_not_there), Hypothesis.SERVING_SKEW)
    assert found.is_supported
    assert found.said.endswith("cannot be told: hardly any labelled fraud is among the rows of the reference.")


@pytest.mark.parametrize("reference", [RIGHT.drop(columns="risk"), RIGHT.head(500), RIGHT.drop(columns=["amount", "risk"])])
def test_a_reference_that_lacks_a_feature_or_most_rows_does_not_rule_out_that_serving_broke_it(reference: pd.DataFrame) -> None:
    late = np.where(np.arange(len(RIGHT)) < 500, RIGHT["risk"], np.where(np.arange(len(RIGHT)) % 4 > 0, 0.0, RIGHT["risk"]))
    found = supported(replace(HEALTHY, production=FrameTable(served(RIGHT, risk=late)), reference=FrameTable(reference)))
    assert Hypothesis.FEATURE_DRIFT not in found
    assert "Without the same damage on the holdout's frauds" in found[Hypothesis.SERVING_SKEW].said
    cents = replace(HEALTHY, production=FrameTable(served(RIGHT, risk=RIGHT["risk"] / 100)), reference=FrameTable(reference))
    assert "on the holdout's frauds" in supported(cents)[Hypothesis.SCALING].said


def test_a_reference_from_before_the_damage_clears_nobody() -> None:
    early = np.arange(len(RIGHT)) < 4000
    late = np.where(early, RIGHT["risk"], np.where(np.arange(len(RIGHT)) % 4 > 0, 0.0, RIGHT["risk"]))
    damaged = replace(HEALTHY, production=FrameTable(served(RIGHT, risk=late)))
    found = supported(replace(damaged, reference=FrameTable(RIGHT.loc[early])))
    assert Hypothesis.FEATURE_DRIFT not in found, "offline values are like the served ones in the first days only"
    assert "Without the same damage on the holdout's frauds" in found[Hypothesis.SERVING_SKEW].said
    cleared = said(replace(HEALTHY, reference=FrameTable(RIGHT.loc[early])), Hypothesis.SERVING_SKEW).said
    assert "not all of its time" in cleared
    assert "as served" not in cleared
    after = said(replace(damaged, reference=FrameTable(RIGHT.loc[~early])), Hypothesis.SERVING_SKEW)
    assert after.effect == ("share of changed rows of risk", pytest.approx(0.75, abs=0.02)), "what it does show still counts"
    assert "With the offline pipeline's values" in after.said


def test_another_unit_that_the_offline_pipeline_has_too_is_still_another_unit() -> None:
    cents = served(RIGHT, amount=RIGHT["amount"] / 100)
    found = supported(replace(HEALTHY, production=FrameTable(cents), reference=FrameTable(cents)))
    assert "Without the same damage on the holdout's frauds" in found[Hypothesis.SCALING].said


def test_ruling_out_skew_names_what_the_reference_lacks() -> None:
    lacking = replace(HEALTHY, reference=FrameTable(RIGHT.drop(columns="risk")))
    assert "It does not tell of risk; nothing there came empty" in said(lacking, Hypothesis.SERVING_SKEW).said
    few = replace(HEALTHY, reference=FrameTable(RIGHT.head(500)))
    assert "The reference has too few of production's rows" in said(few, Hypothesis.SERVING_SKEW).said


@pytest.mark.parametrize("values", ["noon", None])
def test_text_or_nothing_where_training_has_numbers_is_drift_of_unknown_cost_where_the_reference_has_it_too(
    values: str | None,
) -> None:
    changed = {"hour": np.array([values] * len(RIGHT), dtype=object)}
    using = replace(HEALTHY, candidate=replace(FACTS, features=(*FACTS.features, "hour")))
    text = replace(using, production=FrameTable(served(RIGHT, **changed)), reference=FrameTable(RIGHT.assign(**changed)))
    found = {finding.hypothesis: finding for finding in diagnose(text)}
    assert found[Hypothesis.SERVING_SKEW].status is FindingStatus.NOT_SUPPORTED
    assert found[Hypothesis.FEATURE_DRIFT].is_supported
    assert "cannot be told: hour came empty or as another type than in training" in found[Hypothesis.FEATURE_DRIFT].said


def test_the_training_rows_stand_in_for_a_missing_holdout() -> None:
    cents = FrameTable(served(RIGHT, amount=RIGHT["amount"] / 100))
    found = said(replace(HEALTHY, production=cents, holdout=None), Hypothesis.SCALING)
    assert "on the training's frauds" in found.said
    unlabelled = FrameTable(HEALTHY.training.frame.drop(columns="is_fraud")) if isinstance(HEALTHY.training, FrameTable) else None
    blind = said(replace(HEALTHY, production=cents, holdout=None, training=unlabelled), Hypothesis.SCALING)
    assert blind.is_supported
    assert "no table has labels" in blind.said


def test_a_corrupted_artifact_comes_before_everything_that_it_causes() -> None:
    silent = served(RIGHT).assign(candidate_prediction=flags(RIGHT) & (np.arange(len(RIGHT)) % 2 == 0))
    broken = replace(HEALTHY, production=FrameTable(silent), artifact={"model": "bb"})
    first = diagnose(broken)[0]
    assert first.hypothesis is Hypothesis.ARTIFACT
    assert first.explained_recall == pytest.approx(0.38, abs=0.05)
    assert Hypothesis.WEAKER_MODEL not in supported(broken), "what was served was not the candidate"
    assert diagnose(replace(broken, manifest=None))[0].hypothesis is Hypothesis.SERVED_VERSION


EASY_ROWS = rows(1).loc[lambda table: ~table["is_fraud"] | (table["amount"] > 40)]
EASY_TRAINING = replace(
    HEALTHY,
    training=FrameTable(EASY_ROWS),
    baseline=replace(FACTS, trained_on=(datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 5, 31, tzinfo=UTC))),
    baseline_flags=lambda table: (table["amount"] > 48).to_numpy(),
)


def test_training_days_that_are_easier_for_the_baseline_too_are_not_called_overfitting() -> None:
    found = said(EASY_TRAINING, Hypothesis.OVERFITTING)
    assert "the baseline too catches" in found.said
    assert found.status is FindingStatus.NOT_SUPPORTED


@pytest.mark.parametrize(
    "blind",
    [
        replace(EASY_TRAINING, baseline_flags=None),
        replace(EASY_TRAINING, baseline_flags=fails),
        replace(EASY_TRAINING, baseline=FACTS),  # trained nobody knows when
        replace(
            EASY_TRAINING,
            baseline=replace(FACTS, trained_on=(datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 31, tzinfo=UTC))),
        ),  # it has seen all of it
        replace(
            EASY_TRAINING,
            baseline=replace(FACTS, trained_on=(datetime(2025, 6, 4, tzinfo=UTC), datetime(2025, 7, 31, tzinfo=UTC))),
        ),  # the two days left have too few frauds
        replace(EASY_TRAINING, training=FrameTable(EASY_ROWS.drop(columns="event_time"))),
        replace(
            EASY_TRAINING,
            training=FrameTable(EASY_ROWS.assign(event_time=pd.Series(pd.NaT, EASY_ROWS.index, "datetime64[ns, UTC]"))),
        ),
    ],
)
def test_without_a_baseline_that_never_saw_them_nobody_tells_whether_training_days_are_easier(blind: Material) -> None:
    found = said(blind, Hypothesis.OVERFITTING)
    assert "the baseline too" not in found.said
    assert found.is_supported


def test_a_candidate_that_keeps_a_poor_promise_is_weaker() -> None:
    weaker = served(RIGHT).assign(baseline_prediction=(RIGHT["amount"] > 20).to_numpy())
    found = supported(replace(HEALTHY, production=FrameTable(weaker)))
    assert next(iter(found)) is Hypothesis.WEAKER_MODEL
    assert Hypothesis.SEGMENTS in found


def test_a_candidate_that_was_behind_on_an_easier_holdout_already_is_weaker_too() -> None:
    weaker = FrameTable(served(RIGHT).assign(baseline_prediction=(RIGHT["amount"] > 20).to_numpy()))
    easy = rows(2)
    easy = FrameTable(easy.loc[~easy["is_fraud"] | (easy["amount"] > 35)])
    easier = replace(HEALTHY, production=weaker, holdout=easy, baseline_flags=lambda table: (table["amount"] > 20).to_numpy())
    found = supported(easier)[Hypothesis.WEAKER_MODEL]
    assert "points behind the baseline already" in found.said
    seen = (datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC))
    assert Hypothesis.WEAKER_MODEL not in supported(replace(easier, baseline=replace(FACTS, trained_on=seen)))


def test_a_holdout_of_larger_frauds_flattered() -> None:
    easy = rows(2)
    easy = easy.loc[~easy["is_fraud"] | ((easy["amount"] > 55) & (easy["risk"] > 0.6))]
    first = diagnose(replace(HEALTHY, holdout=FrameTable(easy)))[0]
    assert first.hypothesis is Hypothesis.HOLDOUT
    assert "among frauds" in first.said


def test_the_logged_recalls_stand_in_for_a_model_that_cannot_be_run() -> None:
    logged = replace(FACTS, offline={"train_recall": 0.99, "holdout_recall": 0.76})
    found = said(replace(HEALTHY, candidate=logged, flags=None), Hypothesis.OVERFITTING)
    assert found.is_supported
    assert found.said.startswith("Training recall 99.0 %, holdout 76.0 %, production ")


def test_a_logged_promise_and_its_number_of_frauds_stand_in_for_the_holdouts_rows() -> None:
    weaker = FrameTable(served(RIGHT).assign(baseline_prediction=(RIGHT["amount"] > 20).to_numpy()))
    promise = {"holdout_recall": 0.75}
    unknown, known = (replace(FACTS, offline=logged) for logged in (promise, promise | {"holdout_frauds": 600.0}))
    told = [
        said(replace(HEALTHY, production=weaker, holdout=None, candidate=one), Hypothesis.WEAKER_MODEL)
        for one in (unknown, known)
    ]
    assert [finding.status for finding in told] == [FindingStatus.NOT_TESTABLE, FindingStatus.SUPPORTED]


@pytest.mark.parametrize("logged", [85.0, float("nan"), float("inf")])
def test_logged_metrics_that_are_no_shares_or_counts_are_not_logged(logged: float) -> None:
    odd = replace(FACTS, offline={f"{part}_{what}": logged for part in ("train", "holdout") for what in ("recall", "frauds")})
    assert diagnose(replace(HEALTHY, candidate=odd)) == diagnose(HEALTHY), "the tables tell"
    blind = replace(HEALTHY, training=None, holdout=None, candidate=odd)
    assert said(blind, Hypothesis.OVERFITTING).status is FindingStatus.NOT_TESTABLE
    assert said(blind, Hypothesis.WEAKER_MODEL).status is FindingStatus.NOT_TESTABLE


def test_a_verdict_on_latency_and_errors_is_not_contradicted() -> None:
    slow, full = RequestBucket(1000, 900, 1000, 0), Coverage("candidate", None, 2000, 2000)
    telemetry = TelemetrySummary(Fraction(100), slow, slow, 120, 120, 3600, 0, 0, 0, full, full)
    recomputed = replace(HEALTHY, telemetry=telemetry)
    assert said(recomputed, Hypothesis.LATENCY).is_supported
    undecided = Criterion(CriterionName.LATENCY, CriterionStatus.UNDECIDED, 120.0, 100.0, "ms", "too early to tell")
    for status in (CriterionStatus.UNDECIDED, CriterionStatus.NOT_CHECKED):
        judged = replace(recomputed, criteria=(replace(undecided, status=status),))
        assert said(judged, Hypothesis.LATENCY).status is FindingStatus.NOT_TESTABLE
        assert "too early to tell" in said(judged, Hypothesis.LATENCY).said
        assert said(judged, Hypothesis.ERRORS) == said(recomputed, Hypothesis.ERRORS)
    passed = replace(undecided, status=CriterionStatus.PASSED, reason="it is fast")
    assert said(replace(recomputed, criteria=(passed,)), Hypothesis.LATENCY).said == "it is fast"
    failing = replace(undecided, name=CriterionName.ERROR_RATE, status=CriterionStatus.FAILED, reason="it fails")
    assert said(replace(recomputed, criteria=(failing,)), Hypothesis.ERRORS).is_supported


def test_what_is_missing_is_said_in_the_words_of_who_looked_for_it() -> None:
    found = diagnose(Material(missing={"training": "S3 did not answer.", "manifest": "There is no archive."}))
    assert {finding.status for finding in found} == {FindingStatus.NOT_TESTABLE}
    by_name = {finding.hypothesis: finding.said for finding in found}
    assert by_name[Hypothesis.FEATURE_DRIFT].startswith("S3 did not answer. ")
    assert by_name[Hypothesis.ARTIFACT].startswith("There is no archive. ")


def test_a_feature_that_comes_as_text_is_broken_where_the_candidate_needs_it() -> None:
    text = replace(HEALTHY, production=FrameTable(served(RIGHT).assign(hour=np.array(["noon"] * len(RIGHT), dtype=object))))
    assert not supported(text), "it does not use the hour"
    using = replace(text, candidate=replace(FACTS, features=(*FACTS.features, "hour")))
    assert list(supported(using)) == [Hypothesis.SERVING_SKEW]
    assert "hour comes as text" in supported(using)[Hypothesis.SERVING_SKEW].said
    assert "there is no reference that has enough of production's rows" in supported(using)[Hypothesis.SERVING_SKEW].said


def test_a_table_without_the_models_features_cannot_be_replayed_or_scored() -> None:
    lacking = FrameTable(served(RIGHT).drop(columns="risk"))
    found = {finding.hypothesis: finding for finding in diagnose(replace(HEALTHY, production=lacking, outcomes=None))}
    assert found[Hypothesis.CALIBRATION].status is FindingStatus.NOT_TESTABLE
    assert found[Hypothesis.WEAKER_MODEL].status is FindingStatus.NOT_SUPPORTED, "the served answers are known"


def test_a_split_has_no_pairs_to_look_for_segments_in() -> None:
    arm = np.arange(len(RIGHT)) % 5 == 0
    split = served(RIGHT).astype({"baseline_prediction": float, "candidate_prediction": float})
    split = split.assign(
        baseline_prediction=split["baseline_prediction"].mask(arm), candidate_prediction=split["candidate_prediction"].where(arm)
    )
    found = {finding.hypothesis: finding for finding in diagnose(replace(HEALTHY, production=FrameTable(split)))}
    assert found[Hypothesis.SEGMENTS].status is FindingStatus.NOT_TESTABLE
    assert found[Hypothesis.SERVED_VERSION].status is FindingStatus.NOT_SUPPORTED
