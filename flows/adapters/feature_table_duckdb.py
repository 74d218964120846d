"""Tables of features by DuckDB, one column at a time: a Parquet file as it lies, a CSV file or a PostgreSQL table by way of one.

A source is a `.parquet` or `.csv` file or `postgresql://user@host/database?table=schema.features`. What is no Parquet yet is
written to one beside DuckDB's spill files first, because reading thirty columns would otherwise read the whole thirty times.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
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
_POSTGRES_TIMES = ("TIMESTAMPTZ", "TIMESTAMP", "DATE")
_CLOCKS_DIFFER = timedelta(days=1)


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
        try:
            found = self.connection.execute(query).fetchnumpy()["found"]
        except duckdb.Error as error:
            raise _unreadable(self.name, error) from error
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


@dataclass(frozen=True, slots=True)
class _Part:
    """What is wanted of a table: these columns, and where it has the column `time`, the rows of a span; None: all."""

    columns: Sequence[str] | None = None
    time: str = "event_time"
    span: tuple[datetime, datetime] | None = None


@contextmanager
def open_features(
    source: str, *, labels: Labels | None = None, window: ExposureWindow | None = None
) -> Generator[DuckDBFeatures]:
    """Open a file or a database table of features and check it against the contract.

    Args:
        labels: where to look up, by `transaction_id`, what the table itself lacks of labels and predictions; what is told
            more than once is fraud or flagged if any row says so.
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
            part = _Part(span=(window.start, window.end) if window else None)
            file = _as_parquet(source, name, part, Path(spill), connection)
            if labels is not None or window is not None:
                file = _judged(file, name, labels, window, Path(spill), connection)
            connection.execute(f"CREATE VIEW features AS FROM read_parquet({_quoted_text(file)})")
            yield _checked(name, connection)
    except psycopg.OperationalError as error:
        raise OutsideSystemError(f"the database {name}", "reading features", retryable=True) from error
    except (duckdb.Error, psycopg.Error) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataInvalid:
    return DataInvalid(f"{name} cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}")


def _as_parquet(source: str, name: str, part: _Part, folder: Path, connection: duckdb.DuckDBPyConnection) -> Path:
    """A file as it lies if it is Parquet, else one that is written here: of a database only the wanted part."""
    if not is_database(source) and Path(source).suffix.lower() in {".parquet", ".pq"}:
        return _file_of(source, name)
    made, rows = folder / "table.parquet", _rows_of(source, FEATURES, name, part, folder / "table.csv")
    connection.execute(f"COPY (FROM {rows}) TO {_quoted_text(made)} (FORMAT parquet)")
    return made


def _file_of(source: str, name: str) -> Path:
    path = Path(source.removeprefix("file://"))
    if path.suffix.lower() not in {".parquet", ".pq", ".csv"}:
        raise DataInvalid(f"{name}: features must be a .parquet or .csv file or a postgresql:// URL.")
    if not path.is_file():
        raise DataInvalid(f"{name}: there is no such file.")
    return path


def _rows_of(source: str, table: str, name: str, part: _Part, copy: Path) -> str:
    """A file as SQL, whole; or the wanted part of a database's table, which is copied to a CSV file first."""
    if is_database(source):
        return f"read_csv({_quoted_text(copy)}, {_copied_from_postgres(*split_table(source, table), part, copy)})"
    path = _file_of(source, name)
    return f"read_{'csv' if path.suffix.lower() == '.csv' else 'parquet'}({_quoted_text(path)})"


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
        query = (
            f"SELECT rows.*, {', '.join(lacking)} FROM read_parquet({_quoted_text(file)}) rows "  # noqa: S608
            f"LEFT JOIN ({_told(labels, lacking, window, folder, connection)}) labels "
            "ON labels.transaction_id = rows.transaction_id::VARCHAR"
        )
    if window is not None and "event_time" in known:
        query += f" WHERE {_is_within('rows.event_time', window.start, window.end)}"
    made = folder / "judged.parquet"
    connection.execute(f"COPY ({query}) TO {_quoted_text(made)} (FORMAT parquet)")
    return made


def _told(
    labels: Labels, lacking: Sequence[str], window: ExposureWindow | None, folder: Path, connection: duckdb.DuckDBPyConnection
) -> str:
    """What the feedback says, as SQL with one row a transaction, however often it is told."""
    called = labels.columns.model_dump()
    number, time = called["transaction_id"], called["event_time"]
    # which rows count, the features' own times decide; the two tables' clocks need not agree
    span = (window.start - _CLOCKS_DIFFER, window.end + _CLOCKS_DIFFER) if window else None
    part = _Part([number, *(called[column] for column in lacking)], time, span)
    rows = _rows_of(labels.source, FEEDBACK, shown_source(labels.source, FEEDBACK), part, folder / "feedback.csv")
    known = {column for column, *_ in connection.execute(f"DESCRIBE FROM {rows}").fetchall()}
    chosen = f" WHERE {_is_within(quoted_name(time), *span)}" if span and time in known else ""
    found = ", ".join(f"max({quoted_name(called[column])}) AS {column}" for column in lacking)
    return f"SELECT {quoted_name(number)}::VARCHAR AS transaction_id, {found} FROM {rows}{chosen} GROUP BY 1"  # noqa: S608


def _is_within(column: str, begin: datetime, end: datetime) -> str:
    first, last = (f"{_quoted_text(moment.isoformat())}::TIMESTAMPTZ" for moment in (begin, end))
    return f"{column}::TIMESTAMPTZ >= {first} AND {column}::TIMESTAMPTZ < {last}"


def _copied_from_postgres(url: str, table: str, part: _Part, file: Path) -> str:
    """Write what is wanted to a CSV file; returns how DuckDB has to read it, with PostgreSQL's own types."""
    whole = sql.Identifier(*table.split("."))
    with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS, options=_SESSION) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(whole))
        found = {column.name: connection.adapters.types.get(column.type_code) for column in cursor.description or ()}
        kinds = {name: _POSTGRES_TYPES.get(kind.name if kind else "", "VARCHAR") for name, kind in found.items()}
        names = list(kinds) if part.columns is None else part.columns
        rows = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(sql.Identifier, names)), whole)
        if part.span and kinds.get(part.time) in _POSTGRES_TIMES:
            within = sql.SQL(" WHERE {0} >= {1} AND {0} < {2}")
            rows += within.format(sql.Identifier(part.time), *map(sql.Literal, part.span))
        copying = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(rows)
        with cursor.copy(copying) as copy, file.open("wb") as lines:
            for block in copy:
                lines.write(block)
    columns = ", ".join(f"{_quoted_text(name)}: '{kinds[name]}'" for name in names)
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
