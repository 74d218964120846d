"""Counts by DuckDB and by a real PostgreSQL, against the same counts made by pandas."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.adapters.feedback_ibis import IbisFeedback
from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.counts import VECTOR, Design
from flows.domain.errors import FeedbackInvalid, OutsideSystemError
from flows.domain.feedback import ExposureWindow, window_due
from flows.domain.policy import Policy, load_policy
from flows.domain.verdict import VerdictKind
from flows.evaluate_ab_test import evaluate
from tests.feedback_tables import START, feedback_frame, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLICY = Policy()
BEGAN = START.to_pydatetime()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
TEST = ABTest("t", Model("fraud_v1", "1", "baseline"), Model("fraud_v2", "1", "candidate"), BEGAN, "run")
COLUMNS = {
    "transaction_id": "text", "event_time": "timestamptz", "entity_id": "bigint", "amount": "numeric(12,2)", "arm": "text",
    "baseline_prediction": "boolean", "candidate_prediction": "boolean", "is_fraud": "boolean", "label_time": "timestamptz",
    "label_source": "text", "latency_ms": "double precision", "error": "boolean",
}  # fmt: skip


def loaded(url: str, frame: pd.DataFrame, table: str) -> str:
    """The frame as a PostgreSQL table; returns the feedback URL."""
    columns = ", ".join(f"{name} {COLUMNS[name]}" for name in frame.columns)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS ab")
        connection.execute(f"CREATE TABLE ab.{table} ({columns})")  # type: ignore[arg-type]
        with connection.cursor().copy(f"COPY ab.{table} FROM STDIN") as copy:  # type: ignore[arg-type]
            for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False):
                copy.write_row(row)
    return f"{url}{'&' if '?' in url else '?'}table=ab.{table}"


@pytest.fixture(params=["duckdb", "csv", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pd.DataFrame], str]:
    number = count()

    def put(frame: pd.DataFrame) -> str:
        if request.param == "duckdb":
            return written(frame, tmp_path)
        if request.param == "csv":
            frame.to_csv(tmp_path / "feedback.csv", index=False)
            return str(tmp_path / "feedback.csv")
        return loaded(
            request.getfixturevalue("postgresql"), frame, f"f{abs(hash((request.node.name, os.getpid(), next(number))))}"
        )

    return put


def window(days: int = 21) -> ExposureWindow:
    return ExposureWindow(BEGAN, days, BEGAN + timedelta(days=58))


@pytest.mark.parametrize("has_cards", [True, False])
def test_each_engine_counts_the_flags_of_a_stretch_of_time_and_of_its_cards(
    store: Callable[[pd.DataFrame], str],
    has_cards: bool,  # noqa: FBT001
) -> None:
    frame = feedback_frame(is_paired=False)
    frame = frame.assign(entity_id=frame.entity_id.astype("Int64").mask(frame.index % 50 == 0))
    frame = frame if has_cards else frame.drop(columns="entity_id")
    since, until = START + pd.Timedelta(days=3), START + pd.Timedelta(days=9)
    found = IbisFeedback(store(frame), POLICY).flags(since.to_pydatetime(), until.to_pydatetime())
    seen = frame[(frame.event_time >= since) & (frame.event_time < until) & frame.candidate_prediction.notna()]
    flag = seen.candidate_prediction.astype(int)
    assert (found.requests, found.flagged) == (len(seen), flag.sum())
    if not has_cards:
        assert found.products is None
        return
    unit = seen.entity_id.astype(object).where(seen.entity_id.notna(), seen.transaction_id)
    n, x = flag.groupby(unit).size(), flag.groupby(unit).sum()
    assert n.max() > 1
    assert found.products == ((n * n).sum(), (n * x).sum(), (x * x).sum())


def test_a_stretch_without_predictions_has_none(tmp_path: Path) -> None:
    found = IbisFeedback(written(feedback_frame(), tmp_path), POLICY).flags(BEGAN - timedelta(days=2), BEGAN)
    assert (found.requests, found.flagged, found.share) == (0, 0, None)


@pytest.mark.parametrize("is_paired", [True, False])
def test_each_engine_counts_what_pandas_counts(store: Callable[[pd.DataFrame], str], is_paired: bool) -> None:  # noqa: FBT001
    frame = feedback_frame(is_paired=is_paired)
    frame.loc[:200, "is_fraud"] = pd.NA
    counts = IbisFeedback(store(frame), POLICY).count(window(), POLICY)
    seen = frame[(frame.event_time < START + pd.Timedelta(days=21))]
    known = seen[seen.is_fraud.notna()]
    fraud = known.is_fraud.astype(bool)
    assert counts.outcomes.design is (Design.PAIRED if is_paired else Design.SPLIT)
    for arm in ("baseline", "candidate"):
        scored = known if is_paired else known[known.arm == arm]
        flag = scored[f"{arm}_prediction"].astype(bool)
        right = scored.is_fraud.astype(bool)
        model = getattr(counts.outcomes, arm)
        assert (model.frauds, model.caught) == (right.sum(), (right & flag).sum())
        assert (model.alerts, model.true_alerts) == (flag.sum(), (right & flag).sum())
        served = known[known.arm == arm]
        caught = served.is_fraud.astype(bool) & served[f"{arm}_prediction"].astype(bool)
        found = getattr(counts, arm)
        assert (found.rows, found.matured, found.labelled) == ((seen.arm == arm).sum(), (seen.arm == arm).sum(), len(served))
        assert (found.frauds, found.caught) == (served.is_fraud.sum(), caught.sum())
    assert counts.cards is not None
    assert counts.cards.baseline == seen[seen.arm == "baseline"].entity_id.nunique()
    assert counts.cards.candidate == seen[seen.arm == "candidate"].entity_id.nunique()
    assert counts.cards.crossover == 0
    assert counts.amounts is not None
    assert counts.amounts.total == (known[fraud].amount * 100).round().sum()
    assert counts.labels.timed_frauds == fraud.sum()
    assert counts.labels.late_frauds == 0
    assert counts.not_checked == ()
    assert counts.outcomes.left_out == 0


@pytest.mark.parametrize("without_card", [0, 40])
def test_card_products_are_those_of_each_cards_vector(store: Callable[[pd.DataFrame], str], without_card: int) -> None:
    frame = feedback_frame()
    frame["entity_id"] = frame.entity_id.astype("Int64")
    frame.loc[frame.index[:without_card], "entity_id"] = pd.NA
    frame.loc[frame.index[: without_card // 2], ["is_fraud", "candidate_prediction"]] = [True, True]
    counts = IbisFeedback(store(frame), POLICY).count(window(28), POLICY)
    products, cards = counts.outcomes.cards, counts.cards
    fraud = frame.is_fraud.astype(int)
    vector = {}
    for arm in ("baseline", "candidate"):
        flag = frame[f"{arm}_prediction"].astype(int)
        vector |= {f"{arm}_frauds": fraud, f"{arm}_caught": fraud * flag, f"{arm}_alerts": flag}
    unit = frame.entity_id.astype("string").fillna(frame.transaction_id)
    sums = pd.DataFrame(vector)[list(VECTOR)].groupby(unit).sum().to_numpy()
    matrix = sums.T @ sums
    assert products is not None
    assert cards is not None
    assert products.cards == cards.baseline + cards.candidate + cards.crossover == frame.entity_id.nunique()
    assert products.products == tuple(matrix[i, j] for i in range(6) for j in range(i, 6))


def test_engines_agree_on_the_digest_of_the_evidence(tmp_path: Path, postgresql: str) -> None:
    frame = feedback_frame(seed=5)
    digests = set()
    for url in (written(frame, tmp_path), loaded(postgresql, frame, "agree")):
        found = evaluate(IbisFeedback(url, POLICY), FeedbackTelemetry(url, POLICY), POLICY, BEGAN, NOW)
        digests.add(found.verdict.evidence_digest)
        assert found.verdict.kind in {VerdictKind.INCONCLUSIVE, VerdictKind.PROMOTE}
    assert len(digests) == 1


def test_the_watermark_is_the_feedbacks_own_clock(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(500)
    source = IbisFeedback(store(frame), POLICY)
    assert source.watermark(NOW) == max(frame.event_time.max(), frame.label_time.max()).floor("s")
    assert source.first_event() == frame.event_time.min().floor("s")


def test_a_pipeline_that_stopped_does_not_make_unlabelled_rows_look_matured(tmp_path: Path) -> None:
    frame = feedback_frame(500)
    frame["label_time"] = pd.NaT
    frame["is_fraud"] = pd.array([None] * 500, dtype="boolean")
    source = IbisFeedback(written(frame, tmp_path), POLICY)
    assert window_due(BEGAN, source.watermark(NOW), POLICY).exposure_days == 0
    verdict = evaluate(source, None, POLICY, BEGAN, NOW).verdict
    assert verdict.kind is VerdictKind.NOT_EVALUABLE
    assert "no transaction is 30 days old" in verdict.reasons[1]


def test_absent_columns_are_listed_and_leave_their_checks_open(tmp_path: Path) -> None:
    frame = feedback_frame(900).drop(columns=["entity_id", "amount", "label_time", "label_source", "latency_ms", "error"])
    url = written(frame, tmp_path)
    counts = IbisFeedback(url, POLICY).count(window(), POLICY)
    assert set(counts.not_checked) == {"entity_id", "amount", "label_time", "label_source", "latency_ms", "error"}
    assert (counts.cards, counts.amounts, counts.labels.timed_frauds, counts.quality.early_labels) == (None, None, None, None)
    assert FeedbackTelemetry(url, POLICY).summarise(window(), POLICY) is None


def test_half_of_the_telemetry_is_half_of_the_telemetry(tmp_path: Path) -> None:
    for column in ("latency_ms", "error"):
        url = written(feedback_frame(900).drop(columns=[column]), tmp_path)
        summary = FeedbackTelemetry(url, POLICY).summarise(window(), POLICY)
        assert summary is not None
        assert (summary.candidate.timed == 0) is (column == "latency_ms")
        assert (summary.candidate.answered == 0) is (column == "error")


def test_a_mixture_is_evaluated_on_its_pairs_and_says_what_it_left_out(tmp_path: Path) -> None:
    frame = feedback_frame(2_000)
    frame.loc[:499, "candidate_prediction"] = pd.NA
    counts = IbisFeedback(written(frame, tmp_path), POLICY).count(window(28), POLICY)
    assert counts.outcomes.design is Design.PAIRED
    assert counts.outcomes.left_out == 500
    split = load_policy('design = "split"', "p")
    assert IbisFeedback(written(frame, tmp_path), split).count(window(28), split).outcomes.design is Design.SPLIT


def test_mcnemar_is_refused_on_unpaired_rows(tmp_path: Path) -> None:
    policy = load_policy('design = "paired"', "p")
    source = IbisFeedback(written(feedback_frame(500, is_paired=False), tmp_path), policy)
    with pytest.raises(FeedbackInvalid, match="McNemar"):
        source.count(window(), policy)


def test_doubtful_rows_are_counted(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(1_000)
    extra = frame.iloc[:7].copy()
    extra["is_fraud"] = ~extra["is_fraud"]
    frame.loc[10:14, "label_time"] = frame.loc[10:14, "event_time"] - pd.Timedelta(hours=1)
    frame.loc[20, "arm"] = "shadow"
    quality = IbisFeedback(store(pd.concat([frame, extra])), POLICY).count(window(28), POLICY).quality
    assert (quality.rows, quality.duplicates, quality.conflicting, quality.early_labels, quality.unusable) == (1_007, 7, 7, 5, 1)


def test_cards_that_met_both_arms_are_crossover(tmp_path: Path) -> None:
    frame = feedback_frame(1_000)
    frame["arm"] = np.where(np.arange(1_000) % 2, "candidate", "baseline")
    cards = IbisFeedback(written(frame, tmp_path), POLICY).count(window(28), POLICY).cards
    by_card = frame.groupby("entity_id").arm.nunique()
    assert cards is not None
    assert cards.crossover == (by_card == 2).sum()


def test_names_are_mapped_by_the_policy(tmp_path: Path) -> None:
    policy = load_policy('[columns]\ntransaction_id = "id"\nevent_time = "at"', "p")
    frame = feedback_frame(500).rename(columns={"transaction_id": "id", "event_time": "at"})
    assert IbisFeedback(written(frame, tmp_path), policy).count(window(), policy).quality.rows > 0


def test_a_slow_stretch_is_found_as_sustained(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(30_000)
    late = (frame.arm == "candidate") & (frame.event_time >= START + pd.Timedelta(days=20))
    frame.loc[late, "latency_ms"] = 250.0
    summary = FeedbackTelemetry(store(frame), POLICY).summarise(window(14), POLICY)
    assert summary is not None
    assert summary.bucket_seconds == 86_400
    assert summary.latency_breach >= 3
    assert summary.error_breach == 0
    assert summary.candidate_p95_ms == 250
    quick = frame.loc[frame.arm == "baseline", "latency_ms"]
    assert summary.baseline.within_limit == (quick <= 100).sum()
    assert summary.baseline_p95_ms == np.ceil(np.quantile(quick, 0.95, method="inverted_cdf"))


def test_measuring_since_a_moment_gives_shares_and_never_a_healthy_default(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(1_000)
    telemetry = FeedbackTelemetry(store(frame), POLICY)
    measured = telemetry.measure(TEST, BEGAN)
    assert measured[Arm.BASELINE].requests == (frame.arm == "baseline").sum()
    assert sum(arm.share for arm in measured.values()) == pytest.approx(1)
    assert telemetry.now() == frame.event_time.max().floor("s")
    nothing = telemetry.measure(TEST, datetime(2030, 1, 1, tzinfo=UTC))[Arm.CANDIDATE]
    assert (nothing.requests, nothing.share, nothing.p95_ms, nothing.errors) == (0, 0.0, None, 0)


def test_looks_are_handed_on_and_the_same_look_counts_once(tmp_path: Path) -> None:
    url = written(feedback_frame(), tmp_path)
    source, telemetry = IbisFeedback(url, POLICY), FeedbackTelemetry(url, POLICY)
    first = evaluate(source, telemetry, POLICY, BEGAN, NOW)
    assert [look.exposure_days for look in first.evidence.looks] == [21]
    assert evaluate(source, telemetry, POLICY, BEGAN, NOW, first.evidence.looks).evidence == first.evidence
    later = evaluate(source, telemetry, load_policy("label_maturity_days = 20", "p"), BEGAN, NOW, first.evidence.looks)
    assert [look.exposure_days for look in later.evidence.looks] == [21, 28]


def test_feedback_before_the_test_is_refused(tmp_path: Path) -> None:
    url = written(feedback_frame(100), tmp_path)
    with pytest.raises(FeedbackInvalid, match="before the test began"):
        evaluate(IbisFeedback(url, POLICY), None, POLICY, BEGAN + timedelta(days=400), NOW)


def test_a_missing_table_and_an_unreachable_database_are_told_apart(postgresql: str) -> None:
    with pytest.raises(FeedbackInvalid, match="no such table"):
        IbisFeedback(f"{postgresql}&table=nowhere" if "?" in postgresql else f"{postgresql}?table=nowhere", POLICY).watermark(NOW)
    with pytest.raises(OutsideSystemError) as caught:
        IbisFeedback("postgresql://me:secret@127.0.0.1:1/db", POLICY).watermark(NOW)
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


def test_nan_is_refused_wherever_it_would_be_read(tmp_path: Path) -> None:
    frame = feedback_frame(500)
    latencies = frame.pop("latency_ms").to_numpy(copy=True)
    latencies[3] = np.nan  # pandas would write null
    table = pa.Table.from_pandas(frame, preserve_index=False).append_column("latency_ms", pa.array(latencies))
    url = str(tmp_path / "nan.parquet")
    pq.write_table(table, url)
    with pytest.raises(FeedbackInvalid, match="t3 holds NaN in latency_ms"):
        FeedbackTelemetry(url, POLICY).summarise(window(), POLICY)


def test_one_label_from_the_future_matures_nothing_and_is_counted(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(3_000)
    frame = frame[frame.event_time < START + pd.Timedelta(days=15)]
    frame["label_time"] = pd.Series(frame.label_time).clip(upper=START + pd.Timedelta(days=16))
    frame.loc[0, "label_time"] = pd.Timestamp("2099-01-01", tz="UTC")
    source = IbisFeedback(store(frame), POLICY)
    assert source.watermark(NOW) < BEGAN + timedelta(days=17)
    found = evaluate(
        source, None, load_policy("label_maturity_days = 1\nwindow_days = {min = 14, max = 14}\nlooks = [14]", "p"), BEGAN, NOW
    )
    assert found.evidence.window is not None
    assert found.evidence.window.exposure_days == 14
    assert found.evidence.feedback is not None
    assert found.evidence.feedback.quality.future == 1
    assert found.evidence.feedback.quality.unusable == 0


def test_rows_that_arrive_after_the_watermark_was_read_are_not_of_the_future(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(1_000)
    before = IbisFeedback(store(frame), POLICY).count(window(28), POLICY)
    arriving = frame.tail(50).copy()
    arriving["transaction_id"] = [f"new-{number}" for number in range(50)]
    arriving["event_time"] = pd.Timestamp(window(28).as_of) + pd.Timedelta(minutes=30)
    arriving["is_fraud"] = pd.array([pd.NA] * 50, dtype="boolean")
    arriving["label_time"] = pd.Series(pd.NaT, index=arriving.index, dtype=frame.label_time.dtype)
    source = IbisFeedback(store(pd.concat([frame, arriving])), POLICY)
    for now in (window(28).as_of, window(28).as_of + timedelta(hours=2)):
        assert source.count(window(28), POLICY, now) == before


def test_events_of_the_future_are_counted_and_are_in_no_window(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(1_000)
    frame.loc[990:, "event_time"] = pd.Timestamp("2099-01-01", tz="UTC")
    counts = IbisFeedback(store(frame), POLICY).count(window(28), POLICY)
    assert (counts.quality.future, counts.quality.unusable) == (10, 0)
    assert counts.baseline.rows + counts.candidate.rows == 990


def test_a_fraud_labelled_late_is_only_counted_as_late(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(3_000)
    before = IbisFeedback(store(frame), POLICY).count(window(28), POLICY)
    late = frame.index[frame.is_fraud.astype(bool)][:40]
    frame.loc[late, "label_time"] = frame.loc[late, "event_time"] + pd.Timedelta(days=30, seconds=2)
    unlabelled = frame.copy()
    unlabelled.loc[late, "is_fraud"] = pd.NA
    after, without = (IbisFeedback(store(one), POLICY).count(window(28), POLICY) for one in (frame, unlabelled))
    assert (before.labels.late_frauds, after.labels.late_frauds) == (0, 40)
    assert after.labels.timed_frauds == before.labels.timed_frauds
    assert (after.outcomes, after.baseline, after.candidate, after.days) == (
        without.outcomes,
        without.baseline,
        without.candidate,
        without.days,
    )


def test_days_add_up_to_the_whole_and_days_without_rows_are_missing(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(3_000)
    day = (frame.event_time - START).dt.days
    frame = frame[~day.isin([3, 9])].reset_index(drop=True)
    counts = IbisFeedback(store(frame), POLICY).count(window(28), POLICY)
    assert [one.day for one in counts.days] == [one for one in range(28) if one not in {3, 9}]
    assert sum(one.baseline.frauds for one in counts.days) == counts.outcomes.baseline.frauds
    assert sum(one.candidate.alerts for one in counts.days) == counts.outcomes.candidate.alerts
    assert counts.outcomes.frauds is not None
    assert sum(one.frauds.candidate_only for one in counts.days if one.frauds) == counts.outcomes.frauds.candidate_only
    fifth = frame[(frame.event_time - START).dt.days == 5]
    assert next(one for one in counts.days if one.day == 5).baseline.frauds == fifth.is_fraud.sum()


def test_one_pair_among_thousands_of_unpaired_rows_makes_no_paired_test(tmp_path: Path) -> None:
    frame = feedback_frame(4_448, is_paired=False)
    frame.loc[7, ["baseline_prediction", "candidate_prediction"]] = [True, True]
    counts = IbisFeedback(written(frame, tmp_path), POLICY).count(window(28), POLICY)
    assert counts.outcomes.design is Design.SPLIT
    assert counts.outcomes.baseline.frauds > 300
    assert counts.selection is None


def test_few_frauds_are_evaluated_in_the_design_that_holds_more(tmp_path: Path) -> None:
    frame = feedback_frame(150)
    assert 0 < frame.is_fraud.sum() < 30
    assert IbisFeedback(written(frame, tmp_path), POLICY).count(window(28), POLICY).outcomes.design is Design.PAIRED
    frame.loc[3:, "candidate_prediction"] = pd.NA
    frame.loc[3:, "arm"] = np.where(np.arange(147) % 2, "candidate", "baseline")
    frame.loc[frame.arm == "candidate", "candidate_prediction"] = True
    frame.loc[frame.arm == "candidate", "baseline_prediction"] = pd.NA
    assert IbisFeedback(written(frame, tmp_path), POLICY).count(window(28), POLICY).outcomes.design is Design.SPLIT


def test_pairs_chosen_by_what_the_baseline_said_are_noticed(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame()
    flagged = frame.baseline_prediction.astype(bool)
    frame.loc[~flagged & (np.arange(len(frame)) % 2 == 0), "candidate_prediction"] = pd.NA
    chosen = IbisFeedback(store(frame), POLICY).count(window(28), POLICY).selection
    assert chosen is not None
    assert (chosen.flagged, chosen.flagged_pairs, chosen.unflagged) == (flagged.sum(), flagged.sum(), (~flagged).sum())
    assert chosen.unflagged_pairs == frame.candidate_prediction[~flagged].notna().sum()


def test_an_unplanned_look_is_no_look_and_unknown_ones_count_as_taken(tmp_path: Path) -> None:
    frame = feedback_frame()
    young = frame.assign(label_time=pd.Series(frame.label_time).clip(upper=START + pd.Timedelta(days=40)))
    young = young[young.event_time < START + pd.Timedelta(days=40)]
    source = IbisFeedback(written(young, tmp_path), POLICY)
    found = evaluate(source, None, load_policy("required_telemetry = []", "p"), BEGAN, NOW)
    assert found.evidence.looks == ()
    assert found.verdict.kind is VerdictKind.INCONCLUSIVE
    assert "next look is due on 2026-02-14" in found.verdict.reasons[1]
    source = IbisFeedback(written(frame, tmp_path), POLICY)
    assumed = evaluate(source, None, POLICY, BEGAN, NOW, previous_looks=None)
    assert [look.exposure_days for look in assumed.evidence.looks] == [14, 21]
    assert 0 < assumed.evidence.looks[0].frauds < assumed.evidence.looks[1].frauds
    assert any("day 14 are taken" in one for one in assumed.verdict.not_checked)


@pytest.mark.parametrize("is_paired", [True, False])
@pytest.mark.parametrize("has_cards", [True, False])
def test_savings_rest_on_the_products_of_each_unit(
    store: Callable[[pd.DataFrame], str],
    is_paired: bool,  # noqa: FBT001
    has_cards: bool,  # noqa: FBT001
) -> None:
    frame = feedback_frame(2_000, is_paired=is_paired)
    frame.loc[5, "amount"] = 9e9  # its square in hundredths is beyond 64 bits
    frame.loc[5, "is_fraud"] = True
    if is_paired:
        frame.loc[5, ["baseline_prediction", "candidate_prediction"]] = [False, True]
    read = frame if has_cards else frame.drop(columns="entity_id")
    amounts = IbisFeedback(store(read), POLICY).count(window(28), POLICY).amounts
    fraud = frame.is_fraud.astype(bool)
    hundredths = (frame.amount * 100).round().astype("int64").astype(object) * fraud
    flags = {arm: frame[f"{arm}_prediction"].fillna(value=False).astype(bool) for arm in ("baseline", "candidate")}
    if is_paired:
        gain = flags["candidate"].astype(int) - flags["baseline"].astype(int)
        vectors = [pd.DataFrame({"gain": hundredths * gain, "false": gain * ~fraud})]
    else:
        vectors = [
            pd.DataFrame(
                {"amount": hundredths * here, "caught": hundredths * here * flag, "false": here & flag & ~fraud, "rows": here * 1}
            )
            for arm, flag in flags.items()
            for here in [frame.arm == arm]
        ]
    sums = [v.astype(object).groupby(frame.entity_id).sum() if has_cards else v.astype(object) for v in vectors]
    expected = tuple(
        tuple(
            sum(int(a) * int(b) for a, b in zip(v.iloc[:, i], v.iloc[:, j], strict=True)) for i in range(n) for j in range(i, n)
        )
        for v in sums
        for n in [v.shape[1]]
    )
    assert amounts is not None
    assert amounts.by_card is has_cards
    assert amounts.products == expected
    if not is_paired:
        assert (amounts.baseline_rows, amounts.candidate_rows) == (
            (frame.arm == "baseline").sum(),
            (frame.arm == "candidate").sum(),
        )


def test_the_largest_frauds_are_those_that_one_model_alone_caught(store: Callable[[pd.DataFrame], str]) -> None:
    frame = feedback_frame(2_000)
    frame.loc[::3, ["baseline_prediction", "candidate_prediction"]] = frame.loc[
        ::3, ["candidate_prediction", "baseline_prediction"]
    ].to_numpy()
    largest = IbisFeedback(store(frame), POLICY).largest(window(28), POLICY, 2)
    fraud, b, c = (frame[name].astype(bool) for name in ("is_fraud", "baseline_prediction", "candidate_prediction"))
    expected = [*frame[fraud & b & ~c].amount.nlargest(2), *frame[fraud & c & ~b].amount.nlargest(2)]
    assert [one.amount for one in largest] == pytest.approx(expected)
    assert [one.what for one in largest] == ["the baseline alone caught"] * 2 + ["the candidate alone caught"] * 2
    assert all(one.transaction.startswith("…") and len(one.transaction) < 5 for one in largest)


def test_of_a_split_the_largest_frauds_are_those_that_each_model_missed(tmp_path: Path) -> None:
    frame = feedback_frame(2_000, is_paired=False)
    largest = IbisFeedback(written(frame, tmp_path), POLICY).largest(window(28), POLICY, 1)
    assert [one.what for one in largest] == ["the baseline missed", "the candidate missed"]
    missed = frame[
        frame.is_fraud.astype(bool) & (frame.arm == "baseline") & ~frame.baseline_prediction.fillna(value=True).astype(bool)
    ]
    assert largest[0].amount == missed.amount.max()
