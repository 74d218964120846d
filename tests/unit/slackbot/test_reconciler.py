"""The reconciler's thread outlives whatever its checks do."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.executions_sql import SqlExecutions
from flows.adapters.outbox_sql import SqlOutbox
from flows.database import CONNECT_SECONDS
from flows.domain.errors import OutsideSystemError
from flows.domain.policy import Policy
from slackbot.prefect_gateway import PrefectGateway
from slackbot.publisher import Publisher, slack_client
from slackbot.reconciler import Reconciler
from tests.outage import Gate, Outage

if TYPE_CHECKING:
    from pathlib import Path


class Flaky:
    """A check that fails until it is repaired, and says when it was made."""

    def __init__(self) -> None:
        self.is_broken = True
        self.made = threading.Semaphore(0)

    def __call__(self) -> None:
        self.made.release()
        if self.is_broken:
            raise OutsideSystemError("Kubernetes", "reading", retryable=True)

    def wait(self) -> None:
        assert self.made.acquire(timeout=10), "the check was not made"


@pytest.fixture
def log(tmp_path: Path) -> SqlDecisionLog:
    return SqlDecisionLog(f"sqlite:///{tmp_path / 'decisions.db'}")


def reconciler_of(log: SqlDecisionLog, **more: Any) -> Reconciler:
    """With a database and a Slack that are there or not, as the test says."""
    url = log._database._engine.url.render_as_string(hide_password=False)
    publisher = Publisher(slack_client("xoxb-nobody", "http://127.0.0.1:9/api/"), SqlOutbox(url), log, Policy(), channel="C0")
    return Reconciler(log, SqlExecutions(url), publisher, PrefectGateway(), **more)


def test_an_outage_is_told_once_and_so_is_its_end(log: SqlDecisionLog, caplog: pytest.LogCaptureFixture) -> None:
    check = Flaky()
    reconciler = reconciler_of(log, further_checks={"registry": check})
    with caplog.at_level(logging.INFO, logger="slackbot.periodic_checks"):
        reconciler.check_once()
        reconciler.check_once()
        check.is_broken = False
        reconciler.check_once()
        reconciler.check_once()
    told = [text for record in caplog.records if "check=registry" in (text := record.getMessage())]
    assert len(told) == 2
    assert "Kubernetes failed while reading" in told[0]
    assert told[1].endswith("works again")


def test_one_broken_check_does_not_keep_the_others_from_being_made() -> None:
    check = Flaky()
    away = SqlDecisionLog("postgresql://nobody@127.0.0.1:9/nothing")
    reconciler_of(away, further_checks={"broken": check, "after": check}).check_once()
    check.wait()
    check.wait()


def test_what_kubernetes_alone_can_do_does_not_wait_for_a_silent_database() -> None:
    check = Flaky()
    with Gate(("127.0.0.1", 9)) as gate:
        gate.shut(Outage.SILENT)
        silent = SqlDecisionLog(f"postgresql://nobody@127.0.0.1:{gate.port}/nothing")
        reconciler = reconciler_of(silent, further_checks={"settle": check})
        reconciler.start()
        assert check.made.acquire(timeout=CONNECT_SECONDS / 2), "the check waits for the database"
    reconciler.stop()


def test_the_thread_goes_on_after_failures_hears_nudges_and_stops(log: SqlDecisionLog) -> None:
    check = Flaky()
    reconciler = reconciler_of(log, period_seconds=3600, further_checks={"flaky": check})
    reconciler.start()
    check.wait()
    reconciler.nudge()
    check.wait()
    reconciler.stop()
    assert not any(thread.name == "reconciler" for thread in threading.enumerate())
