"""Which messages are in Slack already, in a table: no message is posted twice, by however many processes and crashes.

One row per message. Who holds the row's lock may post or redraw it; the others wait and then see where it is. An attempt is
counted and committed *before* the lock of the block is taken: a process that dies after Slack has the message and before its
place is stored leaves a count without a place, and the next one looks in Slack before it posts. What Slack did not take is
kept in its row with all that it takes to say it later.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, select, update
from sqlalchemy.engine import make_url

from flows.database import Database, UtcTime, database_now
from flows.ports import KeptMessage, PostedMessage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import Select
    from sqlalchemy.engine import Connection, Row

WAIT_SECONDS = 90  # one post may be tried again several times while Slack limits the rate

_metadata = MetaData()
_outbox = Table(
    "outbox",
    _metadata,
    Column("key", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("ts", Text),
    Column("content_digest", Text),
    Column("kept", Text),
    Column("kept_at", UtcTime),
    Column("kept_times", Integer, nullable=False, default=0),
    Column("changed_at", UtcTime, nullable=False, default=database_now()),
)


class SqlOutboxSlot:
    """One message's row, locked by the transaction that `connection` is in."""

    def __init__(self, connection: Connection, row: Row[Any]) -> None:
        self._connection = connection
        self._key: str = row.key
        self._channel: str = row.channel
        self._attempts: int = row.attempts
        self._posted = _message(row)

    @property
    def posted(self) -> PostedMessage | None:
        return self._posted

    @property
    def attempted(self) -> bool:
        return self._posted is None and self._attempts > 1  # the first attempt is this one

    def record(self, ts: str, content_digest: str) -> PostedMessage:
        self._connection.execute(
            update(_outbox)
            .where(_outbox.c.key == self._key)
            .values(ts=ts, content_digest=content_digest, changed_at=database_now())
        )
        self._posted = PostedMessage(self._key, self._channel, ts, content_digest)
        return self._posted


class SqlOutbox:
    """The outbox at a SQLAlchemy URL.

    In SQLite it is a file of its own beside the decision log: a slot is held while Slack answers, and SQLite locks whole files.
    """

    def __init__(self, url: str) -> None:
        place = make_url(url)
        if place.get_backend_name() == "sqlite" and place.database:
            place = place.set(database=f"{place.database}.outbox")
        self._database = Database(place, _metadata, "the outbox", statement_seconds=WAIT_SECONDS)

    @contextmanager
    def slot(self, key: str, channel: str) -> Generator[SqlOutboxSlot]:
        with self._database.transaction(f"noting the attempt to post {key}") as connection:
            self._note_attempt(connection, key, channel)
        with self._database.transaction(f"holding the message {key}") as connection:
            yield SqlOutboxSlot(connection, connection.execute(_row(key).with_for_update()).one())

    def find(self, key: str) -> PostedMessage | None:
        with self._database.transaction(f"looking for the message {key}", read_only=True) as connection:
            row = connection.execute(_row(key)).one_or_none()
        return _message(row) if row else None

    def keep(self, key: str, channel: str, content: str) -> None:
        with self._database.transaction(f"keeping the message {key}") as connection:
            self._database.insert_if_new(connection, _outbox, key=key, channel=channel)
            first = {
                "kept": func.coalesce(_outbox.c.kept, content),
                "kept_at": func.coalesce(_outbox.c.kept_at, database_now()),
                "kept_times": _outbox.c.kept_times + 1,
            }
            connection.execute(update(_outbox).where(_outbox.c.key == key).values(**first))

    def kept(self) -> Sequence[KeptMessage]:
        query = select(_outbox).where(_outbox.c.kept.is_not(None)).order_by(_outbox.c.kept_at, _outbox.c.key)
        with self._database.transaction("looking for messages that are kept", read_only=True) as connection:
            return [KeptMessage(row.key, row.kept, row.kept_at, row.kept_times) for row in connection.execute(query)]

    def drop(self, message: KeptMessage) -> None:
        with self._database.transaction(f"dropping the kept message {message.key}") as connection:
            same = (_outbox.c.key == message.key, _outbox.c.kept_times == message.times)
            connection.execute(update(_outbox).where(*same).values(kept=None, kept_at=None))

    def close(self) -> None:
        self._database.close()

    def _note_attempt(self, connection: Connection, key: str, channel: str) -> None:
        self._database.insert_if_new(connection, _outbox, key=key, channel=channel)
        connection.execute(
            update(_outbox).where(_outbox.c.key == key, _outbox.c.ts.is_(None)).values(attempts=_outbox.c.attempts + 1)
        )


def _row(key: str) -> Select[Any]:
    return select(_outbox).where(_outbox.c.key == key)


def _message(row: Row[Any]) -> PostedMessage | None:
    return PostedMessage(row.key, row.channel, row.ts, row.content_digest) if row.ts else None
