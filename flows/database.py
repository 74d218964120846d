"""One engine per database for this project's own tables: the database's clock, short transactions, and our errors.

PostgreSQL is for teams. SQLite is for one machine: there every writing transaction begins with BEGIN IMMEDIATE, so that writers
come one after the other as the row locks of PostgreSQL make them.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import DateTime, MetaData, Table, create_engine, event, inspect, text
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from flows.domain.errors import OutsideSystemError, SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg.abc import PQGen
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.sql.compiler import SQLCompiler

CONNECT_SECONDS = 5
POOL_SECONDS = 15
_TABLES_LOCK = 0x_F4AD_AB01  # any number that nobody else in this PostgreSQL database locks


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps it as text whose order is the order of time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801 - reads like the SQL function that it is
    """The database's clock when the statement begins, the same for all processes that use it."""

    type = UtcTime()
    inherit_cache = True


@compiles(database_now, "postgresql")
def _now_in_postgresql(element: database_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    # Not now(): that is when the transaction began, and it may have waited for a lock since.
    return "statement_timestamp()"


@compiles(database_now, "sqlite")
def _now_in_sqlite(element: database_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


class Database:
    """The tables of `metadata` at a URL, made when they are first needed; fit for threads and for many processes.

    Args:
        url: SQLAlchemy URL of a PostgreSQL or a SQLite file.
        system: what it is called in errors.
        statement_seconds: how long one statement may take, waiting for locks included.
    """

    def __init__(self, url: str | URL, metadata: MetaData, system: str, *, statement_seconds: float = 15) -> None:
        self._metadata = metadata
        self._system = system
        self._engine = _engine(make_url(url), statement_seconds)
        self._reading = self._engine.execution_options(sqlite_begin="BEGIN")
        self._has_tables = False

    @property
    def dialect_name(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def transaction(self, doing: str, *, read_only: bool = False) -> Generator[Connection]:
        """A transaction that commits when the block ends and rolls back on an error.

        Raises:
            OutsideSystemError: the database failed while `doing`.
        """
        try:
            self._make_tables()
            with (self._reading if read_only else self._engine).begin() as connection:
                yield connection
        except (sql_errors.DBAPIError, sql_errors.TimeoutError) as error:
            raise OutsideSystemError(self._system, doing, retryable=_is_retryable(error)) from error

    def lock_until_commit(self, connection: Connection, number: int) -> None:
        """Let the transactions that lock this number come one after the other."""
        if self.dialect_name == "postgresql":  # in SQLite, BEGIN IMMEDIATE has done it
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})

    def insert_if_new(self, connection: Connection, table: Table, **values: object) -> None:
        """Insert a row unless a unique one is there already."""
        insert = postgresql.insert if self.dialect_name == "postgresql" else sqlite.insert
        connection.execute(insert(table).values(**values).on_conflict_do_nothing())

    def close(self) -> None:
        self._engine.dispose()

    def _make_tables(self) -> None:
        """Without a lock of this process: on a database that does not answer, its threads would wait for each other in turn."""
        if not self._has_tables and not self._tables_exist():
            with self._engine.begin() as connection:
                # IF NOT EXISTS alone fails when two start at once
                self.lock_until_commit(connection, _TABLES_LOCK)
                self._metadata.create_all(connection)
        self._has_tables = True

    def _tables_exist(self) -> bool:
        with self._reading.begin() as connection:
            return set(self._metadata.tables) <= set(inspect(connection).get_table_names())


def _is_retryable(error: sql_errors.DBAPIError | sql_errors.TimeoutError) -> bool:
    """A lost connection, a lock or a full pool may pass; a wrong statement or a missing right will not."""
    if isinstance(error, sql_errors.TimeoutError):
        return True
    return error.connection_invalidated or isinstance(error, (sql_errors.OperationalError, sql_errors.InterfaceError))


def _engine(url: URL, statement_seconds: float) -> Engine:
    if url.get_backend_name() == "postgresql":
        return _postgresql(url, statement_seconds)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return _sqlite(url, statement_seconds)
    shown = url.render_as_string(hide_password=True)
    raise SettingsInvalid("FRAUD_AB_DECISION_LOG_URL", [f"{shown} is neither postgresql://… nor sqlite:///a-file"])


def _postgresql(url: URL, statement_seconds: float) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    options = f"-c statement_timeout={int(statement_seconds * 1000)} -c timezone=UTC"
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_timeout=POOL_SECONDS,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": options,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(statement_seconds * 1000) + 5000,
        },
    )

    @event.listens_for(engine, "do_connect")
    def _(_dialect: Dialect, _record: object, arguments: list[Any], named: dict[str, Any]) -> psycopg.Connection[Any]:  # pyright: ignore[reportUnusedFunction]
        connection = _PatientConnection.connect(*arguments, **named)
        connection.silent_seconds = statement_seconds + CONNECT_SECONDS
        return connection

    return engine


class _PatientConnection(psycopg.Connection[Any]):
    """Hangs up on a server that keeps silent: no timeout of the server's own helps when it does not answer at all."""

    silent_seconds: float = CONNECT_SECONDS

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        # outside of a transaction there is only the pool's question whether anybody is there
        patience = CONNECT_SECONDS if self.autocommit else self.silent_seconds
        try:
            return super().wait(gen, interval, timeout or patience)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # not the server's answer
                self.pgconn.finish()
            raise


def _sqlite(url: URL, statement_seconds: float) -> Engine:
    engine = create_engine(url, pool_timeout=POOL_SECONDS, connect_args={"timeout": statement_seconds})

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # the driver must not begin transactions by itself
        _let_readers_never_wait(connection, statement_seconds)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


def _let_readers_never_wait(connection: sqlite3.Connection, seconds: float) -> None:
    """Switch the file to write-ahead logging; of several processes that do it at once, SQLite refuses some without waiting."""
    locked = retry_if_exception_type(sqlite3.OperationalError)
    Retrying(retry=locked, stop=stop_after_delay(seconds), wait=wait_random(0.01, 0.1), reraise=True)(
        connection.execute, "PRAGMA journal_mode = WAL"
    )
