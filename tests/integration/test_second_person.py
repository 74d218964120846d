"""What a reminder and `fraud-ab status` say of a promotion that one of two people has confirmed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.sandbox.slack import SandboxSlack
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.decision import Person
from flows.domain.policy import Policy
from flows.remind_pending_decision import remind
from flows.wiring import systems
from tests.contract.test_decision_log_sql import answer, request


@pytest.fixture
def slack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxSlack]:
    (tmp_path / "policy.toml").write_text('promoters = ["U0ANA", "U0BEN"]\nescalation = ["S0ONCALL"]\n', encoding="utf-8")
    with SandboxSlack() as server:
        for name, value in {
            "SLACK_BOT_TOKEN": server.bot_token,
            "SLACK_API_URL": server.api_url,
            "MLFLOW_TRACKING_URI": "unused",
            "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
            "FRAUD_AB_POLICY_FILE": str(tmp_path / "policy.toml"),
            "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{tmp_path / 'log.db'}",
            "FRAUD_AB_FEEDBACK_URL": "unused",
            "FRAUD_AB_LIFECYCLE_REPOSITORY": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        systems.cache_clear()
        yield server
        systems.cache_clear()


def test_status_names_who_has_confirmed(slack: SandboxSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
    log = SqlDecisionLog(systems().settings.decision_log_url)
    asked = log.open(request(policy=Policy(two_person=True)))
    assert "has confirmed" not in CliRunner().invoke(app, ["status"]).stdout
    answer(log, asked, actor=Person("U0ANA", "ana"))
    assert "ana has confirmed, a second person has to" in " ".join(CliRunner().invoke(app, ["status"]).stdout.split())
    [pending] = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["decisions"]["pending"]
    assert pending["first confirmation"] == "ana"
    log.close()


def test_a_reminder_says_who_has_confirmed_and_that_a_second_person_has_to(slack: SandboxSlack) -> None:
    log = SqlDecisionLog(systems().settings.decision_log_url)
    asked = log.open(request(policy=Policy(two_person=True)))
    assert remind.fn(asked.decision_id, 0.5) == "reminded"
    answer(log, asked, actor=Person("U0ANA", "ana"))
    assert remind.fn(asked.decision_id, 0.8) == "reminded"
    [message] = slack.messages("C0FRAUD")
    early, late = (line["text"] for line in slack.thread(message["ts"]))
    assert early.startswith("<@U0ANA> <@U0BEN> this decision is still open. Two people have to confirm a promotion.")
    assert late.startswith("<!subteam^S0ONCALL> this decision is still open. *<@U0ANA> has confirmed*")
    assert "A second person has to; until then nothing changes." in late
    assert "Without an answer by" in late
    answer(log, asked, actor=Person("U0BEN", "ben"))
    assert remind.fn(asked.decision_id, 0.9) == "already decided"
    log.close()
