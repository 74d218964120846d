"""The feedback as one Ibis table with the contract's own names and types, whichever engine holds it.

A Parquet or CSV file is read by DuckDB; `postgresql://user@host/database?table=schema.feedback` by PostgreSQL (without `table`:
`feedback`). Both the feedback's source and its telemetry read through here. A table is open only within its `with` block, so
that no connection goes stale between two looks weeks apart.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import ibis
import psycopg
from ibis.common.exceptions import IbisError, TableNotFound

from flows.adapters.table_source import FEEDBACK, is_database, quoted_name, shown_source, split_table
from flows.domain.errors import FeedbackInvalid, OutsideSystemError
from flows.domain.feedback import COLUMNS, Column, ColumnKind

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    from ibis.backends import BaseBackend
    from ibis.backends.duckdb import Backend as DuckDBBackend

    from flows.domain.policy import Policy

Expression = Any  # Ibis's annotations call every column a Column, which has no operations
_CONNECT_SECONDS = 10
_EVERY_ROW = 2**62
_STATEMENT_SECONDS = 900
_SESSION = f"-c statement_timeout={_STATEMENT_SECONDS}s -c default_transaction_read_only=on -c timezone=UTC"
_MEMORY_LIMIT = "800MB"  # beyond it DuckDB spills to disk
_READERS = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv"}
_IS_KIND: Mapping[ColumnKind, Callable[[dt.DataType], bool]] = {
    ColumnKind.IDENTIFIER: lambda found: found.is_string() or found.is_integer() or found.is_uuid(),
    ColumnKind.TEXT: lambda found: found.is_string() or found.is_null(),
    ColumnKind.TIME: lambda found: found.is_timestamp(),
    ColumnKind.NUMBER: lambda found: found.is_numeric(),
    ColumnKind.BOOLEAN: lambda found: found.is_boolean() or found.is_null(),
}


@dataclass(frozen=True, slots=True)
class FeedbackTable:
    """`rows` has the contract's columns that exist, and `event_s` and `label_s`, whole seconds since 1970 (UTC)."""

    name: str
    rows: Expression
    absent: tuple[str, ...]
    backend: BaseBackend

    def has(self, column: str) -> bool:
        return column not in self.absent

    def fetch(self, expression: Expression) -> list[dict[str, Any]]:
        """Run in the engine; only what has been aggregated may come back."""
        return self.backend.to_pyarrow(expression).to_pylist()

    def once(self, rows: Expression) -> Expression:
        """The same rows with each column computed once: PostgreSQL would repeat its expression wherever it is used."""
        return rows.limit(_EVERY_ROW) if self.backend.name == "postgres" else rows

    def count(self, rows: Expression, mark: Expression) -> Expression:
        """How many rows are marked, as the engine counts fastest: DuckDB adds truth values up twice as fast as it filters."""
        return rows.count(where=mark) if self.backend.name == "postgres" else mark.sum()

    def refuse_any(self, bad: Expression, what: str) -> None:
        """Refuse the feedback if there are such rows, naming the first."""
        found = self.fetch(bad.aggregate(rows=bad.count(), first=bad.transaction_id.min()))[0]
        if found["rows"]:
            others = f" (and {found['rows'] - 1:,} more)" if found["rows"] > 1 else ""
            raise FeedbackInvalid(f"{self.name}: transaction {found['first']} {what}{others}.")

    def refuse_nan(self) -> None:
        """Refuse NaN and infinity, which compare as small in one engine and as large in another."""
        for name in ("latency_ms", "amount"):
            if self.has(name):
                column = self.rows[name]
                self.refuse_any(self.rows.filter(column - column != 0), f"holds NaN in {name}; unknown must be null")

    def moment(self, seconds: int) -> Expression:
        """A time to compare event_time with: an engine skips what lies outside only when the column itself is compared."""
        zone = UTC if self.rows.event_time.type().timezone else None
        return ibis.literal(datetime.fromtimestamp(seconds, UTC).replace(tzinfo=zone))


@contextmanager
def open_feedback(source: str, policy: Policy) -> Generator[FeedbackTable]:
    """Open a file or a database table and check it against the contract.

    Raises:
        FeedbackInvalid: it is not there, cannot be read, or a column is missing or of a wrong type.
        OutsideSystemError: the database cannot be reached or broke off.
    """
    name = shown_source(source, FEEDBACK)
    try:
        with _connected(source, name) as (backend, table):
            yield _checked(name, table, backend, policy)
    except TableNotFound as error:
        raise FeedbackInvalid(f"{name}: there is no such table; name it as ?table=schema.table at the URL's end.") from error
    except psycopg.OperationalError as error:
        raise OutsideSystemError(f"the feedback database {name}", "reading the feedback", retryable=True) from error
    except (duckdb.Error, psycopg.Error, IbisError) as error:
        raise FeedbackInvalid(f"{name} cannot be read: {_first_line(error)}") from error


@contextmanager
def _connected(source: str, name: str) -> Generator[tuple[BaseBackend, Expression]]:
    if is_database(source):
        url, table = split_table(source, FEEDBACK)
        with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS, options=_SESSION, autocommit=True) as connection:
            backend = ibis.postgres.from_connection(connection)
            schema, _, bare = table.rpartition(".")
            yield backend, backend.table(bare, database=schema or None)
        return
    path = Path(source.removeprefix("file://"))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FeedbackInvalid(f"{name}: feedback must be a .parquet or .csv file or a postgresql:// URL.")
    if not path.is_file():
        raise FeedbackInvalid(f"{name}: there is no such file.")
    with TemporaryDirectory(prefix="fraud-ab-") as spill:
        engine = ibis.duckdb.connect(":memory:", temp_directory=spill, memory_limit=_MEMORY_LIMIT, preserve_insertion_order=False)
        try:
            engine.raw_sql("SET TimeZone = 'UTC'")
            yield engine, _read_file(engine, reader, path)
        finally:
            engine.disconnect()


def _read_file(engine: DuckDBBackend, reader: str, path: Path) -> Expression:
    """A file as a table. pandas writes nanoseconds, a type that DuckDB has and Ibis has not; microseconds are plenty."""
    quoted = str(path).replace("'", "''")
    file = f"{reader}('{quoted}')"
    described = engine.raw_sql(f"DESCRIBE SELECT * FROM {file}").fetchall()  # noqa: S608 - quoted above; DDL takes no parameters
    nanoseconds = [quoted_name(name) for name, kind, *_ in described if kind.startswith("TIMESTAMP") and "NS" in kind]
    casts = ", ".join(f"{name}::TIMESTAMPTZ AS {name}" for name in nanoseconds)
    replaced = f" REPLACE ({casts})" if casts else ""
    engine.raw_sql(f"CREATE VIEW feedback AS SELECT *{replaced} FROM {file}")  # noqa: S608 - as above
    return engine.table("feedback")


def _checked(name: str, table: Expression, backend: BaseBackend, policy: Policy) -> FeedbackTable:
    names: dict[str, str] = policy.columns.model_dump()
    schema = table.schema()
    found = [column for column in COLUMNS if names[column.name] in schema]
    missing = [names[column.name] for column in COLUMNS if column.is_required and column not in found]
    if missing:
        raise FeedbackInvalid(f"{name} lacks the column {', '.join(missing)}; add it, or map its name in the policy's [columns].")
    for column in found:
        _check_kind(name, names[column.name], column, schema[names[column.name]])
    rows = table.select(**{column.name: _nullable(table[names[column.name]]) for column in found})
    rows = rows.mutate(event_s=_seconds(rows.event_time))
    absent = tuple(column.name for column in COLUMNS if column not in found)
    if "label_time" not in absent:
        rows = rows.mutate(label_s=_seconds(rows.label_time))
    return FeedbackTable(name, rows, absent, backend)


def _nullable(column: Expression) -> Expression:
    """Forget a NOT NULL of the table: an aggregate over no rows is null all the same, and Ibis would refuse it."""
    return column if column.type().nullable else column.cast(column.type().copy(nullable=True))


def _check_kind(source: str, name: str, column: Column, found: dt.DataType) -> None:
    if not _IS_KIND[column.kind](found):
        hint = " (NaN is a number and not null)" if column.kind is ColumnKind.BOOLEAN and found.is_floating() else ""
        raise FeedbackInvalid(f"{source}: the column {name} holds {found} but must hold {column.kind.value}{hint}.")


def _seconds(moment: Expression) -> Expression:
    return moment.epoch_seconds().cast("float64").floor().cast("int64")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
