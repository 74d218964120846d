"""The feedback table of the simulated test in PostgreSQL."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from flows.domain.errors import SettingsInvalid
from flows.domain.feedback import COLUMNS, ColumnKind

if TYPE_CHECKING:
    import pandas as pd

CONNECT_SECONDS = 10
LIVE_PREFIX = "live-"
MARK = "made by fraud-ab demo"
SQL_TYPES: dict[ColumnKind, LiteralString] = {
    ColumnKind.IDENTIFIER: "text",
    ColumnKind.TEXT: "text",
    ColumnKind.TIME: "timestamptz",
    ColumnKind.NUMBER: "double precision",
    ColumnKind.BOOLEAN: "boolean",
}


class FeedbackDatabase:
    """Loads what the simulated world knows at a moment; live rows that were added since stay."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        columns = SQL(", ").join(SQL("{} {}").format(Identifier(one.name), SQL(SQL_TYPES[one.kind])) for one in COLUMNS)
        with self._connect() as connection:
            found = connection.execute("select obj_description(to_regclass('feedback')), to_regclass('feedback')").fetchone()
            if found and found[1] is not None and found[0] != MARK:
                raise SettingsInvalid(
                    "FRAUD_AB_FEEDBACK_URL", ["its table feedback is not the demo's own: give the demo an empty database"]
                )
            connection.execute(SQL("create table if not exists feedback ({}, primary key (transaction_id))").format(columns))
            connection.execute(SQL("comment on table feedback is {}").format(Literal(MARK)))
            connection.execute("create index if not exists feedback_event_time on feedback (event_time)")
            connection.execute("create index if not exists feedback_label_time on feedback (label_time)")

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url, connect_timeout=CONNECT_SECONDS)

    def load(self, feedback: pd.DataFrame) -> None:
        """Replace the simulated rows by what is known now, in one transaction."""
        with self._lock, self._connect() as connection:
            connection.execute("delete from feedback where transaction_id not like %s", (f"{LIVE_PREFIX}%",))
            _copy(connection, feedback)
        with self._connect() as connection:
            connection.execute("analyze feedback")

    def append(self, live: pd.DataFrame) -> None:
        with self._lock, self._connect() as connection:
            _copy(connection, live)


def _copy(connection: psycopg.Connection, rows: pd.DataFrame) -> None:
    text = io.StringIO()
    names = [column.name for column in COLUMNS]
    rows[names].to_csv(text, index=False, header=False)
    statement = SQL("copy feedback ({}) from stdin with (format csv)").format(SQL(", ").join(map(Identifier, names)))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(text.getvalue())
