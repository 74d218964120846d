"""A PostgreSQL that takes connections and does not answer is given up in time, and used again afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.database import Database
from flows.domain.errors import OutsideSystemError
from tests.outage import Gate, Outage

PATIENCE_SECONDS = 2  # the least that the driver knows
SOON = 6 * PATIENCE_SECONDS


@pytest.fixture
def gate(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr("flows.database.CONNECT_SECONDS", PATIENCE_SECONDS)
    with Gate(f"{make_url(postgresql).query['host']}/.s.PGSQL.5432") as gate:
        yield gate


def url(gate: Gate, postgresql: str) -> str:
    return make_url(postgresql).set(query={}, host="127.0.0.1", port=gate.port).render_as_string(hide_password=False)


@pytest.mark.parametrize("outage", Outage)
def test_a_connection_of_before_the_outage_is_given_up_and_a_new_one_works(gate: Gate, postgresql: str, outage: Outage) -> None:
    log = SqlDecisionLog(url(gate, postgresql))
    log.now()
    gate.shut(outage)
    begin = time.monotonic()
    with pytest.raises(OutsideSystemError, match="reading its clock") as caught:
        log.now()
    assert caught.value.retryable
    assert time.monotonic() - begin < SOON
    gate.open()
    log.now()
    log.close()


def test_silence_in_the_midst_of_a_transaction_ends_it(gate: Gate, postgresql: str) -> None:
    database = Database(url(gate, postgresql), MetaData(), "the database", statement_seconds=1)

    def ask() -> None:
        with database.transaction("asking") as connection:
            gate.shut(Outage.SILENT)
            connection.execute(text("SELECT 1"))

    begin = time.monotonic()
    with pytest.raises(OutsideSystemError, match="asking"):
        ask()
    assert time.monotonic() - begin < SOON
    database.close()


def test_many_who_ask_a_silent_database_do_not_wait_for_each_other(gate: Gate, postgresql: str) -> None:
    gate.shut(Outage.SILENT)
    log = SqlDecisionLog(url(gate, postgresql))
    begin = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        failures = [one.exception() for one in [pool.submit(log.now) for _ in range(10)]]
    assert {type(failure) for failure in failures} == {OutsideSystemError}
    assert time.monotonic() - begin < SOON
