"""Tables of features from Parquet, CSV and a real PostgreSQL: the same columns, whichever holds them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from flows.adapters.feature_table_duckdb import Labels, open_features
from flows.domain.drift import Shape, feature_drifts
from flows.domain.errors import DataInvalid, OutsideSystemError
from flows.domain.feedback import ExposureWindow
from flows.domain.policy import FeedbackColumns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flows.ports import FeatureTable

TYPES = {
    "transaction_id": "text", "event_time": "timestamptz", "is_fraud": "boolean", "amount": "numeric(12,2)", "hour": "smallint",
    "risk": "real", "is_night": "boolean", "channel": "text", "opened": "date", 'odd "name"': "double precision",
}  # fmt: skip
ROWS = 1_000


def frame() -> pd.DataFrame:
    number = np.arange(ROWS)
    made = pd.DataFrame(
        {
            "transaction_id": [f"{at:05}" for at in number],
            "event_time": pd.date_range("2026-01-01", periods=ROWS, freq="min", tz="UTC"),
            "is_fraud": pd.array([None if at % 50 == 0 else at % 10 == 0 for at in number], "boolean"),
            "amount": number * 1.25,
            "hour": pd.array([None if at == 3 else at % 24 for at in number], "Int16"),
            "risk": (number / 7).astype(np.float32),
            "is_night": number % 24 < 6,
            "channel": ["007" if at % 2 else None if at % 3 else 'say "web", or\nnot' for at in number],
            "opened": pd.to_datetime("2020-01-01"),
            'odd "name"': np.where(number % 4, number, np.nan),
        }
    )
    return made.assign(opened=made["opened"].dt.date)


def loaded(url: str, rows: pd.DataFrame, table: str) -> str:
    columns = psycopg.sql.SQL(", ").join(
        psycopg.sql.SQL("{} " + TYPES[name]).format(psycopg.sql.Identifier(name))  # type: ignore[arg-type]
        for name in rows.columns
    )
    name = psycopg.sql.Identifier("ab", table)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS ab")
        connection.execute(psycopg.sql.SQL("CREATE TABLE {} ({})").format(name, columns))
        with connection.cursor().copy(psycopg.sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
            for row in rows.astype(object).where(rows.notna(), None).itertuples(index=False):
                copy.write_row(row)
    return f"{url}{'&' if '?' in url else '?'}table=ab.{table}"


@pytest.fixture(params=["parquet", "csv", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pd.DataFrame], str]:
    number = count()

    def put(rows: pd.DataFrame) -> str:
        path = tmp_path / f"{next(number)}.{request.param}"
        if request.param == "parquet":
            rows.to_parquet(path)
        elif request.param == "csv":
            rows.to_csv(path, index=False)
        else:
            return loaded(request.getfixturevalue("postgresql"), rows, f"f{os.getpid()}_{abs(hash(str(path)))}")
        return str(path)

    return put


def same(found: np.ndarray[Any, Any], wanted: list[Any] | np.ndarray[Any, Any]) -> bool:
    one, two = ([None if pd.isna(value) else value for value in column] for column in (found, wanted))
    return one == two


def test_every_kind_of_column_comes_in_order_and_with_its_nulls(store: Callable[[pd.DataFrame], str]) -> None:
    rows = frame()
    with open_features(store(rows)) as table:
        checked: FeatureTable = table
        assert checked.rows == ROWS
        assert list(checked.features) == ["amount", "hour", "risk", "is_night", "channel", 'odd "name"']
        assert list(checked.left_out) == ["opened"]
        assert checked.has("is_fraud")
        assert not checked.has("entity_id")
        for name in ("amount", 'odd "name"', "risk"):
            assert np.allclose(checked.column(name), rows[name], rtol=1e-6, equal_nan=True)
        assert same(checked.column("hour"), rows["hour"].astype(float).to_numpy())
        assert same(checked.column("is_fraud"), rows["is_fraud"].astype(float).to_numpy())
        assert same(checked.column("is_night"), rows["is_night"].astype(float).to_numpy())
        assert same(checked.column("channel"), rows["channel"].to_numpy(object))
        assert list(checked.column("transaction_id"))[:2] in (["00000", "00001"], ["0", "1"])  # a CSV file knows no text
        assert checked.column("event_time")[:3].tolist() == [1767225600, 1767225660, 1767225720]
        assert all(checked.column(name).dtype.kind in "fO" for name in (*checked.features, "is_fraud", "event_time"))


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order(store: Callable[[pd.DataFrame], str]) -> None:
    with open_features(store(frame())) as table:
        one, two, other = (table.sample(100, seed, ["amount", "channel"]) for seed in (1, 1, 2))
        assert one.equals(two)
        assert not one.equals(other)
        assert len(one) == one["amount"].nunique() == 100
        assert one["amount"].is_monotonic_increasing
        whole = table.sample(ROWS + 1, 1)
        assert list(whole["amount"]) == list(frame()["amount"])
        assert set(whole) == set(frame()) - {"opened"}


def test_a_table_does_not_drift_from_itself_and_a_lost_column_shows(store: Callable[[pd.DataFrame], str]) -> None:
    rows = frame()
    lost = rows.assign(risk=np.float32("nan"), channel=None)
    with open_features(store(rows)) as before, open_features(store(lost)) as after:
        drifts = {
            drift.feature: drift
            for drift in feature_drifts((name, before.column(name), after.column(name)) for name in before.features)
        }
    assert drifts["risk"].shapes == drifts["channel"].shapes == (Shape.EMPTY,)
    assert drifts["amount"].distance == drifts["hour"].distance == 0


def test_float32_stays_float32(tmp_path: Path) -> None:
    frame()[["risk", "amount"]].to_parquet(tmp_path / "t.parquet")
    with open_features(str(tmp_path / "t.parquet")) as table:
        assert (table.column("risk").dtype, table.column("amount").dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_any_unit_and_zone_are_the_same_seconds(tmp_path: Path, unit: str, zone: str | None) -> None:
    rows = frame().assign(event_time=pd.date_range("2026-01-01", periods=ROWS, freq="min", tz="UTC").as_unit(unit))
    moments = rows["event_time"].dt.tz_convert(zone) if zone else rows["event_time"].dt.tz_localize(None)
    rows.assign(event_time=moments, opened=[[1, 2]] * ROWS).to_parquet(tmp_path / "t.parquet")
    with open_features(str(tmp_path / "t.parquet")) as table:
        assert table.column("event_time")[:2].tolist() == [1767225600, 1767225660]
        assert list(table.left_out) == ["opened"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:0], "has no rows"),
        (lambda rows: rows[["transaction_id", "is_fraud", "event_time", "opened"]], "has no features"),
        (lambda rows: rows.assign(event_time="soon"), "the column event_time holds VARCHAR but must hold timestamps"),
        (lambda rows: rows.assign(amount="much"), "the column amount holds VARCHAR but must hold numbers"),
        (lambda rows: rows.assign(is_fraud="yes, it is"), "the column is_fraud holds VARCHAR but must hold true, false or null"),
        (lambda rows: rows.assign(is_fraud=2), "the column is_fraud holds other values than true, false or null"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    file = tmp_path / "t.parquet"
    change(frame()).to_parquet(file)
    with pytest.raises(DataInvalid, match=rf"t\.parquet:? .*{said}"), open_features(str(file)):
        pass


def test_files_that_are_no_tables_are_said(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no parquet")
    for source, said in (
        ("absent.parquet", "there is no such file"),
        ("features.xlsx", "must be a .parquet or .csv file or a postgresql:// URL"),
        ("bad.parquet", "cannot be read"),
    ):
        with pytest.raises(DataInvalid, match=said), open_features(str(tmp_path / source)):
            pass


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    with open_features(str(tmp_path / "t.parquet")) as table, pytest.raises(DataInvalid, match="lacks the column score"):
        table.column("score")


def test_a_file_that_goes_while_it_is_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    frame().to_parquet(file)
    with open_features(str(file)) as table:
        file.unlink()
        with pytest.raises(DataInvalid, match=r"t\.parquet cannot be read"):
            table.column("amount")


def test_a_database_that_lacks_the_table_or_is_away_is_said_without_its_password(postgresql: str) -> None:
    with (
        pytest.raises(DataInvalid, match="table nowhere cannot be read"),
        open_features(f"{postgresql}{'&' if '?' in postgresql else '?'}table=nowhere"),
    ):
        pass
    with pytest.raises(OutsideSystemError) as caught, open_features("postgresql://me:secret@127.0.0.1:1/db"):
        pass
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


SEEN = pd.DataFrame(
    {
        "transaction_id": ["a", "b", "c", "d"],
        "event_time": pd.to_datetime(["2026-01-04", "2026-01-05", "2026-01-18", "2026-01-19"], utc=True),
        "amount": [1.0, 2.0, 3.0, 4.0],
    }
)
TOLD = pd.DataFrame({"id": ["d", "c", "b"], "is_fraud": [False, None, True], "candidate_prediction": [True, True, False]})
WINDOW = ExposureWindow(datetime(2026, 1, 5, tzinfo=UTC), 14, datetime(2026, 3, 1, tzinfo=UTC))
CALLED = FeedbackColumns(transaction_id="id")


@pytest.mark.parametrize("where", ["parquet", "csv", "database"])
def test_what_a_table_lacks_of_labels_comes_from_the_feedback_within_the_window(
    tmp_path: Path, postgresql: str, where: str
) -> None:
    told = TOLD.assign(baseline_prediction=[False, False, True])
    SEEN.to_parquet(tmp_path / "seen.parquet")
    told.to_parquet(tmp_path / "told.parquet")
    told.to_csv(tmp_path / "told.csv", index=False)
    if where == "database":
        with psycopg.connect(postgresql, autocommit=True) as connection:
            columns = "id text, is_fraud bool, candidate_prediction bool, baseline_prediction bool"
            connection.execute(f"CREATE TABLE feedback ({columns})")  # type: ignore[arg-type]
            rows = "('d', false, true, false), ('c', null, true, false), ('b', true, false, true)"
            connection.execute(f"INSERT INTO feedback VALUES {rows}")  # type: ignore[arg-type]
    labels = Labels(postgresql if where == "database" else str(tmp_path / f"told.{where}"), CALLED)
    with open_features(str(tmp_path / "seen.parquet"), labels=labels, window=WINDOW) as table:
        ids = list(table.column("transaction_id"))
        assert sorted(ids) == ["b", "c"]
        found = dict(zip(ids, table.column("is_fraud"), strict=True))
        assert found["b"] == 1
        assert np.isnan(found["c"])
        assert dict(zip(ids, table.column("baseline_prediction"), strict=True)) == {"b": 1, "c": 0}
        assert list(table.features) == ["amount"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_transaction_that_is_told_again_is_one_row_with_all_that_was_told(tmp_path: Path, kind: str) -> None:
    again = TOLD.assign(is_fraud=[False, True, None], candidate_prediction=None)
    before = TOLD.assign(is_fraud=True, candidate_prediction=True)
    moments = pd.to_datetime(["2026-01-06"] * 6 + ["2025-01-06"] * 3, utc=True)
    told = pd.concat([TOLD, again, before]).assign(baseline_prediction=False, event_time=moments)
    SEEN.to_parquet(tmp_path / "seen.parquet")
    told.to_parquet(tmp_path / "told.parquet")
    told.to_csv(tmp_path / "told.csv", index=False)
    labels = Labels(str(tmp_path / f"told.{kind}"), CALLED)
    with open_features(str(tmp_path / "seen.parquet"), labels=labels, window=WINDOW) as table:
        columns = (table.column(name) for name in ("transaction_id", "is_fraud", "candidate_prediction"))
        assert sorted(zip(*columns, strict=True)) == [("b", 1, 0), ("c", 1, 1)]


def test_of_a_database_only_the_windows_rows_and_the_wanted_columns_are_read(tmp_path: Path, postgresql: str) -> None:
    """Whatever else would be read divides by zero."""
    SEEN.to_parquet(tmp_path / "seen.parquet")
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE TABLE answers (id text, event_time timestamptz, flag int)")
        connection.execute("INSERT INTO answers VALUES ('b', '2026-01-05', 1), ('c', '2026-01-18', 1), ('d', '2025-01-19', 0)")
        told = "1 / flag = 1 AS is_fraud, true AS baseline_prediction, false AS candidate_prediction, 1 / (flag - flag) AS note"
        connection.execute(f"CREATE VIEW told AS SELECT id, event_time, {told} FROM answers")  # type: ignore[arg-type]
        seen = "id AS transaction_id, event_time, 1.0 / flag AS amount"
        connection.execute(f"CREATE VIEW seen AS SELECT {seen} FROM answers")  # type: ignore[arg-type]
    mark = "&" if "?" in postgresql else "?"
    labels = Labels(f"{postgresql}{mark}table=told", CALLED)
    for source in (str(tmp_path / "seen.parquet"), f"{postgresql}{mark}table=seen"):
        with open_features(source, labels=labels, window=WINDOW) as table:
            assert sorted(table.column("transaction_id")) == ["b", "c"]
            assert table.column("is_fraud").tolist() == [1, 1]


def test_labels_of_its_own_are_kept_and_without_an_id_none_can_be_found(tmp_path: Path) -> None:
    own = SEEN.assign(is_fraud=True, baseline_prediction=True, candidate_prediction=False)
    own.to_parquet(tmp_path / "own.parquet")
    labels = Labels(str(tmp_path / "nowhere.parquet"), CALLED)
    with open_features(str(tmp_path / "own.parquet"), labels=labels) as table:
        assert table.column("is_fraud").tolist() == [1, 1, 1, 1]
    SEEN.drop(columns="transaction_id").to_parquet(tmp_path / "nameless.parquet")
    with (
        pytest.raises(DataInvalid, match="has neither is_fraud nor the transaction_id"),
        open_features(str(tmp_path / "nameless.parquet"), labels=labels),
    ):
        pass
