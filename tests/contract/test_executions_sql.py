"""The leases on flow runs: PostgreSQL and SQLite behave alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from flows.adapters import executions_sql
from flows.adapters.executions_sql import LAPSED_AFTER, SqlExecutions


@pytest.fixture
def executions(database_url: str) -> SqlExecutions:
    return SqlExecutions(database_url)


def let_lapse(executions: SqlExecutions, flow_run_id: str) -> None:
    table = executions_sql._executions
    with executions._database.transaction("moving a lease into the past") as connection:
        held = table.c.flow_run_id == flow_run_id
        renewed_at = connection.execute(table.select().where(held)).one().renewed_at
        connection.execute(update(table).where(held).values(renewed_at=renewed_at - 2 * LAPSED_AFTER))


def test_a_renewed_lease_is_nobody_elses(executions: SqlExecutions) -> None:
    assert not executions.is_leased("run-1")
    for _ in range(2):
        executions.renew("run-1")
    assert executions.is_leased("run-1")
    assert executions.take_lapsed() == []


def test_a_lease_that_is_given_back_never_lapses(executions: SqlExecutions) -> None:
    executions.renew("run-1")
    executions.end("run-1")
    executions.end("run-1")
    assert not executions.is_leased("run-1")
    assert executions.take_lapsed() == []


def test_a_lapsed_lease_is_taken_by_one_and_lapses_again_if_that_one_dies_too(executions: SqlExecutions) -> None:
    executions.renew("lapsed")
    executions.renew("renewed")
    for _ in range(2):
        let_lapse(executions, "lapsed")
        with ThreadPoolExecutor(4) as pool:
            taken = [run for found in pool.map(lambda _: executions.take_lapsed(), range(4)) for run in found]
        assert taken == ["lapsed"]
