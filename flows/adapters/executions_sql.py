"""Which flow runs are being executed, as leases in a table beside the decision log.

Prefect shows a run as Running for ever when the process that executed it and the one that watched over that have both died. A
lease that is no longer renewed tells: the clock is the database's, so no two machines' clocks are compared.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, Table, Text, delete, select, update

from flows.database import Database, UtcTime, database_now

if TYPE_CHECKING:
    from collections.abc import Sequence

LAPSED_AFTER = timedelta(seconds=90)

_metadata = MetaData()
_executions = Table(
    "executions",
    _metadata,
    Column("flow_run_id", Text, primary_key=True),
    Column("renewed_at", UtcTime, nullable=False, default=database_now()),
)


class SqlExecutions:
    """The leases at a SQLAlchemy URL (PostgreSQL or a SQLite file)."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, _metadata, "the table of executions")

    def renew(self, flow_run_id: str) -> None:
        with self._database.transaction(f"renewing the lease of {flow_run_id}") as connection:
            self._database.insert_if_new(connection, _executions, flow_run_id=flow_run_id, renewed_at=database_now())
            connection.execute(
                update(_executions).where(_executions.c.flow_run_id == flow_run_id).values(renewed_at=database_now())
            )

    def end(self, flow_run_id: str) -> None:
        with self._database.transaction(f"ending the lease of {flow_run_id}") as connection:
            connection.execute(delete(_executions).where(_executions.c.flow_run_id == flow_run_id))

    def is_leased(self, flow_run_id: str) -> bool:
        with self._database.transaction(f"looking for the lease of {flow_run_id}", read_only=True) as connection:
            found = connection.execute(select(_executions).where(_executions.c.flow_run_id == flow_run_id))
            return found.one_or_none() is not None

    def take_lapsed(self) -> Sequence[str]:
        with self._database.transaction("looking for lapsed leases") as connection:
            lapsed = _executions.c.renewed_at < connection.execute(select(database_now())).scalar_one() - LAPSED_AFTER
            taken = update(_executions).where(lapsed).values(renewed_at=database_now()).returning(_executions.c.flow_run_id)
            return list(connection.execute(taken).scalars())
