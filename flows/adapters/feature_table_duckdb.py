"""Tables of features by DuckDB, one column at a time: a Parquet file as it lies, a CSV file or a PostgreSQL table by way of one.

A source is a `.parquet` or `.csv` file or `postgresql://user@host/database?table=schema.features`. What is no Parquet yet is
written to one beside DuckDB's spill files first, because reading thirty columns would otherwise read the whole thirty times.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import psycopg
from psycopg import sql

from flows.adapters.table_source import FEATURES, FEEDBACK, is_database, quoted_name, shown_source, split_table
from flows.domain.errors import DataInvalid, OutsideSystemError
from flows.domain.feedback import COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import FeedbackColumns

NO_FEATURES = frozenset(column.name for column in COLUMNS) - {"amount"} | {"candidate_score"}
"""What the contract names is no feature of a model, the amount excepted."""
_NARROW, _WIDE, _TEXT, _TIME = "FLOAT", "DOUBLE", "VARCHAR", "TIMESTAMPTZ"
_READ_AS = {
    **dict.fromkeys(("BOOLEAN", "FLOAT", "TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", '"NULL"'), _NARROW),
    **dict.fromkeys(("INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "DECIMAL"), _WIDE),
    **dict.fromkeys(("VARCHAR", "ENUM", "UUID"), _TEXT),
    "DATE": _TIME,
}
"""As what each type of DuckDB is read, so that float32 stays float32 and whole numbers stay whole."""
_NUMBERS = (_NARROW, _WIDE)
_IDENTIFIERS = ("transaction_id", "entity_id")
_TRUTHS = ("is_fraud", "baseline_prediction", "candidate_prediction")
_MEMORY_LIMIT = "500MB"  # beyond it DuckDB spills to disk
_CONNECT_SECONDS, _STATEMENT_SECONDS = 10, 900
_SESSION = f"-c statement_timeout={_STATEMENT_SECONDS}s -c default_transaction_read_only=on -c timezone=UTC"
_POSTGRES_TYPES = {
    "bool": "BOOLEAN", "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "float4": "FLOAT", "float8": "DOUBLE",
    "numeric": "DOUBLE", "timestamptz": "TIMESTAMPTZ", "timestamp": "TIMESTAMP", "date": "DATE",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DuckDBFeatures:
    """A table while it is open; the port is `FeatureTable`. `read_as`: the columns that can be read, each with its SQL type."""

    name: str
    rows: int
    read_as: Mapping[str, str]
    left_out: Sequence[str]
    connection: duckdb.DuckDBPyConnection

    @property
    def features(self) -> Sequence[str]:
        return [name for name in self.read_as if name not in NO_FEATURES]

    def has(self, column: str) -> bool:
        return column in self.read_as

    def column(self, name: str) -> NDArray[Any]:
        if not self.has(name):
            raise DataInvalid(f"{self.name} lacks the column {name}.")
        query = f"SELECT {self._read(name)} AS found FROM features"  # noqa: S608 - quoted; an identifier is no parameter
        found = self.connection.execute(query).fetchnumpy()["found"]
        if not isinstance(found, np.ma.MaskedArray):
            return np.asarray(found)
        return np.where(found.mask, np.array(None, object), found.data)

    def sample(self, rows: int, seed: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        import pandas as pd

        places = np.arange(self.rows)
        if rows < self.rows:
            places = np.sort(np.random.default_rng(seed).choice(self.rows, rows, replace=False))
        return pd.DataFrame({name: self.column(name)[places] for name in columns or self.read_as})

    def _read(self, name: str) -> str:
        """A column as SQL: numbers without nulls, because NaN says it; text as it is."""
        kind, quoted = self.read_as[name], quoted_name(name)
        if kind == _TIME:
            return f"coalesce(epoch({quoted}::TIMESTAMPTZ), 'NaN'::DOUBLE)"
        return f"{quoted}::VARCHAR" if kind == _TEXT else f"coalesce({quoted}::{kind}, 'NaN'::{kind})"


@dataclass(frozen=True, slots=True)
class Labels:
    """Where labels and predictions are that a table of features lacks: the feedback, and what its columns are called there."""

    source: str
    columns: FeedbackColumns


@contextmanager
def open_features(
    source: str, *, labels: Labels | None = None, window: ExposureWindow | None = None
) -> Generator[DuckDBFeatures]:
    """Open a file or a database table of features and check it against the contract.

    Args:
        labels: where to look up, by `transaction_id`, what the table itself lacks of labels and predictions.
        window: only rows whose `event_time` is within it; None: all.

    Raises:
        DataInvalid: it is not there, cannot be read, is empty, has no features, or a column of the contract has a wrong type.
        OutsideSystemError: the database cannot be reached or broke off.
    """
    name = shown_source(source, FEATURES)
    try:
        with (
            TemporaryDirectory(prefix="fraud-ab-") as spill,
            duckdb.connect() as connection,
        ):
            for setting in (
                "TimeZone = 'UTC'",
                f"memory_limit = '{_MEMORY_LIMIT}'",
                f"temp_directory = '{spill}'",
                "enable_progress_bar = false",
            ):
                connection.execute(f"SET {setting}")
            file = _as_parquet(source, name, Path(spill), connection)
            if labels is not None or window is not None:
                file = _judged(file, name, labels, window, Path(spill), connection)
            connection.execute(f"CREATE VIEW features AS FROM read_parquet({_quoted_text(file)})")
            yield _checked(name, connection)
    except psycopg.OperationalError as error:
        raise OutsideSystemError(f"the database {name}", "reading features", retryable=True) from error
    except (duckdb.Error, psycopg.Error) as error:
        raise DataInvalid(f"{name} cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error


def _as_parquet(source: str, name: str, folder: Path, connection: duckdb.DuckDBPyConnection, *, table: str = FEATURES) -> Path:
    if is_database(source):
        folder.mkdir(exist_ok=True)
        options = _copied_from_postgres(*split_table(source, table), folder / "table.csv")
        return _parquet_of(folder / "table.csv", f", {options}", folder, connection)
    path = Path(source.removeprefix("file://"))
    if path.suffix.lower() not in {".parquet", ".pq", ".csv"}:
        raise DataInvalid(f"{name}: features must be a .parquet or .csv file or a postgresql:// URL.")
    if not path.is_file():
        raise DataInvalid(f"{name}: there is no such file.")
    return _parquet_of(path, "", folder, connection) if path.suffix.lower() == ".csv" else path


def _judged(
    file: Path,
    name: str,
    labels: Labels | None,
    window: ExposureWindow | None,
    folder: Path,
    connection: duckdb.DuckDBPyConnection,
) -> Path:
    """The rows of the window with their labels, written once: a join at every column would read the feedback thirty times."""
    known = {column for column, *_ in connection.execute(f"DESCRIBE FROM read_parquet({_quoted_text(file)})").fetchall()}
    lacking = [column for column in _TRUTHS if column not in known] if labels else []
    query = f"SELECT rows.* FROM read_parquet({_quoted_text(file)}) rows"  # noqa: S608 - names are quoted
    if labels is not None and lacking:
        if "transaction_id" not in known:
            raise DataInvalid(f"{name} has neither {lacking[0]} nor the transaction_id by which the feedback could tell it.")
        called_so = shown_source(labels.source, FEEDBACK)
        feedback = _as_parquet(labels.source, called_so, folder / "labels", connection, table=FEEDBACK)
        called = labels.columns.model_dump()
        found = ", ".join(f"{quoted_name(called[column])} AS {column}" for column in ("transaction_id", *lacking))
        query = (
            f"SELECT rows.*, {', '.join(lacking)} FROM read_parquet({_quoted_text(file)}) rows LEFT JOIN "  # noqa: S608
            f"(SELECT {found} FROM read_parquet({_quoted_text(feedback)})) labels "
            "ON labels.transaction_id::VARCHAR = rows.transaction_id::VARCHAR"
        )
    if window is not None and "event_time" in known:
        begin, end = (_quoted_text(moment.isoformat()) for moment in (window.start, window.end))
        query += (
            f" WHERE rows.event_time::TIMESTAMPTZ >= {begin}::TIMESTAMPTZ AND rows.event_time::TIMESTAMPTZ < {end}::TIMESTAMPTZ"
        )
    made = folder / "judged.parquet"
    connection.execute(f"COPY ({query}) TO {_quoted_text(made)} (FORMAT parquet)")
    return made


def _parquet_of(file: Path, options: str, folder: Path, connection: duckdb.DuckDBPyConnection) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / "table.parquet"
    connection.execute(f"COPY (FROM read_csv({_quoted_text(file)}{options})) TO {_quoted_text(made)} (FORMAT parquet)")
    return made


def _copied_from_postgres(url: str, table: str, file: Path) -> str:
    """Write the table to a CSV file; returns how DuckDB has to read it, with PostgreSQL's own types."""
    rows = sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table.split(".")))
    with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS, options=_SESSION) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("{} LIMIT 0").format(rows))
        found = {column.name: connection.adapters.types.get(column.type_code) for column in cursor.description or ()}
        copying = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(rows)
        with cursor.copy(copying) as copy, file.open("wb") as lines:
            for block in copy:
                lines.write(block)
    kinds = {name: _POSTGRES_TYPES.get(kind.name if kind else "", "VARCHAR") for name, kind in found.items()}
    columns = ", ".join(f"{_quoted_text(name)}: '{kind}'" for name, kind in kinds.items())
    return f"header = true, auto_detect = false, quote = '\"', escape = '\"', allow_quoted_nulls = false, columns = {{{columns}}}"


def _checked(name: str, connection: duckdb.DuckDBPyConnection) -> DuckDBFeatures:
    described = {column: kind for column, kind, *_ in connection.execute("DESCRIBE features").fetchall()}
    read_as = {column: _read_as(column, kind) for column, kind in described.items()}
    usable = {column: kind for column, kind in read_as.items() if kind and (column in NO_FEATURES or kind != _TIME)}
    left_out = [column for column in described if column not in usable]
    table = DuckDBFeatures(name, _one(connection, "count(*)"), usable, left_out, connection)
    if not table.rows:
        raise DataInvalid(f"{name} has no rows.")
    if not table.features:
        raise DataInvalid(f"{name} has no features: no numbers, booleans or text besides the columns that the contract names.")
    _refuse_wrong_kinds(table, described)
    return table


def _read_as(column: str, kind: str) -> str | None:
    if kind.startswith("TIMESTAMP") and not kind.endswith("]"):  # with or without a zone, in seconds or nanoseconds
        return _TIME
    return _TEXT if column in _IDENTIFIERS else _READ_AS.get(kind if kind.endswith("]") else kind.partition("(")[0])


def _refuse_wrong_kinds(table: DuckDBFeatures, described: Mapping[str, str]) -> None:
    wanted = {
        "event_time": ((_TIME,), "timestamps (UTC)"),
        **dict.fromkeys(("amount", "candidate_score"), (_NUMBERS, "numbers")),
        **dict.fromkeys(_TRUTHS, (_NUMBERS, "true, false or null")),
    }
    for column, (allowed, words) in wanted.items():
        kind = described.get(column)
        if kind is not None and table.read_as.get(column) not in allowed and kind != '"NULL"':
            raise DataInvalid(f"{table.name}: the column {column} holds {kind} but must hold {words}.")
        if column in _TRUTHS and table.has(column) and _one(table.connection, f"count(*) FILTER (WHERE {column} NOT IN (0, 1))"):
            raise DataInvalid(f"{table.name}: the column {column} holds other values than true, false or null (or 1 and 0).")


def _one(connection: duckdb.DuckDBPyConnection, expression: str) -> int:
    found = connection.execute(f"SELECT {expression} FROM features").fetchone()  # noqa: S608 - from constants only
    return int(found[0]) if found else 0


def _quoted_text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
