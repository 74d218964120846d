"""The app's probes and metrics, asked over HTTP of a real process and of a real decision log."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from deployments.sandbox.processes import free_port
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.decision import Choice, Person
from flows.domain.errors import SettingsInvalid
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action, Command
from slackbot.metrics import Outcome, PressMetrics
from slackbot.monitoring import PROBE_SECONDS, Health, Monitoring, serving_monitoring
from slackbot.periodic_checks import PeriodicChecks
from tests.slack_world import SlackSite, question, wait_until

ANA = Person("U0ANA", "ana")
POLICY = 'promoters = ["U0ANA"]\n'


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlDecisionLog]:
    log = SqlDecisionLog(f"sqlite:///{tmp_path / 'log.db'}")
    yield log
    log.close()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PROBE_SECONDS + 5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def samples(port: int) -> dict[tuple[str, ...], float]:
    """Of everything that is told: its name and the values of its labels."""
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture
def served(log: SqlDecisionLog) -> Iterator[tuple[int, Health, PressMetrics]]:
    health, metrics, port = Health(), PressMetrics(), free_port()
    with serving_monitoring(Monitoring(health, log, metrics.registry), host="127.0.0.1", port=port):
        yield port, health, metrics


def test_alive_is_whose_threads_all_run(served: tuple[int, Health, PressMetrics]) -> None:
    port, health, _ = served
    thread = PeriodicChecks("reconciler", {}, period_seconds=60)
    health.threads["reconciler"] = thread.is_alive
    assert get(port, "/healthz") == (503, "thread reconciler: no\n")
    thread.start()
    assert get(port, "/healthz") == (200, "thread reconciler: yes\n")
    thread.stop()
    assert get(port, "/healthz")[0] == 503


def test_ready_is_whom_slack_reaches_and_whose_log_answers(
    served: tuple[int, Health, PressMetrics], log: SqlDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, health, _ = served
    assert get(port, "/readyz") == (503, "Slack: no\ndecision log: yes\n")
    health.is_receiving = lambda: True
    assert get(port, "/readyz")[0] == 200
    answering = threading.Event()
    monkeypatch.setattr(log, "now", answering.wait)  # a database that keeps silent
    assert get(port, "/readyz") == (503, "Slack: yes\ndecision log: no\n")
    answering.set()
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/")[0] == 404


def test_what_waits_and_what_is_not_carried_out_is_told(served: tuple[int, Health, PressMetrics], log: SqlDecisionLog) -> None:
    port = served[0]
    asked = [log.open(question(VerdictKind.PROMOTE, name)) for name in ("ab-1", "ab-2")]
    found = samples(port)
    assert found["fraud_ab_pending_decisions",] == 2
    assert found["fraud_ab_pending_decision_age_seconds",] > 0
    assert found["fraud_ab_undelivered_decision_age_seconds",] == 0
    assert found["fraud_ab_up", "decision_log"] == 1
    digest = asked[0].request.verdict.evidence_digest
    log.claim(asked[0].decision_id, evidence_digest=digest, choice=Choice.CONFIRM, actor=ANA, reason="")
    found = samples(port)
    assert found["fraud_ab_pending_decisions",] == 1
    assert found["fraud_ab_undelivered_decision_age_seconds",] > 0


def test_a_press_counts_by_what_first_became_of_it(served: tuple[int, Health, PressMetrics]) -> None:
    port, _, metrics = served
    with metrics.press(Action.CONFIRM):
        pass
    with metrics.press(Command.FRAUD_ROLLBACK) as note:
        note(Outcome.REVERTED)
        note(Outcome.REFUSED)  # the decision behind it was answered before: the traffic has moved all the same
    with pytest.raises(ValueError, match="on purpose"), metrics.press(Action.CONFIRM):
        raise ValueError("on purpose")
    metrics.acknowledged(0.25)
    found = samples(port)
    assert found["fraud_ab_bot_presses_total", "verdict_confirm", "answered"] == 2
    assert found["fraud_ab_bot_presses_total", "/fraud-rollback", "reverted"] == 1
    assert (
        found["fraud_ab_bot_acknowledgement_seconds_bucket", "0.2"],
        found["fraud_ab_bot_acknowledgement_seconds_bucket", "0.3"],
    ) == (0, 1)


def test_an_address_that_is_taken_is_named(log: SqlDecisionLog) -> None:
    port = free_port()
    with (
        serving_monitoring(Monitoring(Health(), log, CollectorRegistry()), host="127.0.0.1", port=port),
        pytest.raises(SettingsInvalid, match="FRAUD_AB_BOT_METRICS_PORT"),
        serving_monitoring(Monitoring(Health(), log, CollectorRegistry()), host="127.0.0.1", port=port),
    ):
        pass


@pytest.mark.parametrize("way_in", ["socket mode", "signed http"])
def test_the_app_answers_probes_and_counts_presses_in_either_mode(way_in: str, tmp_path: Path) -> None:
    with SlackSite(tmp_path, POLICY) as site:
        port = free_port()
        start = site.start_bot if way_in == "socket mode" else site.start_http_bot
        bot = start(FRAUD_AB_BOT_METRICS_PORT=str(port))
        bot.wait_until(f"http://127.0.0.1:{port}/readyz", seconds=60)
        status, signs = get(port, "/healthz")
        assert status == 200
        assert {"thread reconciler: yes", "thread settling: yes"} <= set(signs.splitlines())
        assert len(signs.splitlines()) >= 3  # and those that receive
        decision = site.ask()
        wait_until(lambda: site.posted(decision), "the question")
        assert site.slack.press("U0BEN", Action.CONFIRM).acked
        assert site.slack.press("U0ANA", Action.CONFIRM).acked
        site.slack.wait_for(lambda: site.slack.open_view("U0ANA"))
        assert site.slack.submit("U0ANA").acked
        wait_until(lambda: samples(port).get(("fraud_ab_bot_presses_total", "confirm_verdict", "claimed")), "the claim counted")
        found = samples(port)
        assert found["fraud_ab_bot_presses_total", "verdict_confirm", "refused"] == 1
        assert found["fraud_ab_bot_presses_total", "verdict_confirm", "answered"] == 1
        assert found["fraud_ab_bot_acknowledgement_seconds_count",] == 3
        assert found["fraud_ab_pending_decisions",] == 0
        if way_in == "socket mode":
            site.slack.stop()
            wait_until(lambda: get(port, "/readyz")[0] == 503, "that the app notices")
            assert "Slack: no" in get(port, "/readyz")[1]
            assert get(port, "/healthz")[0] == 200  # a new process would not help
