"""The bot's threads in an outage of the database: nothing else waits for it, and what was alive before it is believed alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from deployments.sandbox.kubernetes import SandboxKubernetes
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.executions_sql import SqlExecutions
from flows.database import CONNECT_SECONDS
from slackbot.prefect_gateway import PrefectGateway
from slackbot.reconciler import AFTER_OUTAGE_SECONDS, Reconciler
from slackbot.settings import BotSettings
from slackbot.wiring import build_bot
from tests.outage import Gate, Outage

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class RevivingGateway(PrefectGateway):
    """A Prefect that is away, and what it was asked to start again."""

    def __init__(self) -> None:
        super().__init__(call_seconds=0.1)
        self.revived: list[str] = []

    def revive_abandoned(self, flow_run_id: str) -> bool:
        self.revived.append(flow_run_id)
        return True


def test_leases_that_lapsed_in_an_outage_may_be_renewed_before_anything_is_started_again(tmp_path: Path) -> None:
    url, now = f"sqlite:///{tmp_path / 'decisions.db'}", [0.0]
    log, executions, gateway = SqlDecisionLog(url), SqlExecutions(url), RevivingGateway()
    reconciler = Reconciler(log, executions, gateway, clock=lambda: now[0])
    executions.renew("run-1")

    def execute(statement: str) -> None:
        with executions._database.transaction("preparing") as connection:
            connection.execute(text(statement))

    execute("UPDATE executions SET renewed_at = '2026-01-01 00:00:00.000'")
    execute("ALTER TABLE executions RENAME TO elsewhere")
    reconciler.check_once()
    assert "executions" in reconciler.troubles
    execute("ALTER TABLE elsewhere RENAME TO executions")
    now[0] += AFTER_OUTAGE_SECONDS / 2
    reconciler.check_once()
    assert gateway.revived == []
    now[0] += AFTER_OUTAGE_SECONDS
    reconciler.check_once()
    assert gateway.revived == ["run-1"]


def test_what_kubernetes_alone_can_do_does_not_wait_for_a_silent_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gate(("127.0.0.1", 9)) as gate, SandboxKubernetes() as kubernetes:
        gate.shut(Outage.SILENT)
        for name, value in {
            "FRAUD_AB_DECISION_LOG_URL": f"postgresql://nobody@127.0.0.1:{gate.port}/nothing",
            "FRAUD_AB_SLACK_CHANNEL": "C0",
            "KUBECONFIG": str(kubernetes.write_kubeconfig(tmp_path / "kubeconfig")),
            "SLACK_BOT_TOKEN": "xoxb-nobody",
            "SLACK_API_URL": "http://127.0.0.1:9/api/",
        }.items():
            monkeypatch.setenv(name, value)
        _, (reconciler, _, settling) = build_bot(BotSettings())  # pyright: ignore[reportCallIssue] - from the environment
        reconciler.start()
        settling.check_once()
        assert "settle" in settling.troubles  # it was made: nothing is deployed there
        assert reconciler.troubles == {}, "the database was waited for"
    reconciler.stop(CONNECT_SECONDS)
