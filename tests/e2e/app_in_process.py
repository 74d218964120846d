"""The real app between the stand-ins of Slack and Kubernetes, once for each way in; for the modules that name it as a plugin."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from prefect.context import refresh_global_settings_context

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.slack import SandboxSlack, SandboxUser
from deployments.sandbox.slack.people import DEFAULT_USERS
from flows.domain.bake import Breach, BreachKind
from flows.domain.decision import Choice, Decision, Person
from flows.domain.policy import Policy
from flows.domain.verdict import VerdictKind
from slackbot.app import build_app
from slackbot.bot import Bot
from slackbot.identifiers import Action
from slackbot.messages.breach_message import breach_message
from slackbot.settings import load_bot_settings
from slackbot.signed_http import REQUEST_PATH, serving_http
from slackbot.socket_mode import serving_socket_mode
from slackbot.wiring import build_bot
from tests.slack_world import CHANNEL, WHERE, deploy, question, text_of, wait_until

ANA, BEN, CHI = "U0ANA", "U0BEN", "U0CHI"
TEAM = [SandboxUser(f"U0TEAM{number}", f"team{number}", f"Team {number}") for number in range(10)]
PROMOTERS = [ANA, "S0PROMOTERS", *(user.id for user in TEAM)]
POSTPONEMENTS = [*Policy().postponements, "250 frauds", "6000 frauds"]
POLICY = f'promoters = {json.dumps(PROMOTERS)}\nrollbackers = ["U0CHI"]\npostponements = {json.dumps(POSTPONEMENTS)}\n'
ANSWER_SECONDS = 20.0
ONCE = pytest.mark.parametrize("running", ["socket mode"], indirect=True)
"""What does not depend on the way in."""


@dataclass
class World:
    """The app and what is around it; `nudges` counts how often the reconciler was asked to deliver."""

    slack: SandboxSlack
    kubernetes: SandboxKubernetes
    api: client.CustomObjectsApi
    bot: Bot
    database: Path
    nudges: list[float]
    http_port: int | None

    def ask(self, kind: VerdictKind = VerdictKind.PROMOTE, **more: Any) -> Decision:
        """A new question in the log, posted."""
        decision = self.bot.decision_log.open(question(kind, f"ab-{uuid.uuid4().hex[:8]}", **more))
        self.bot.publisher.publish_decision(decision.decision_id)
        return decision

    def message(self) -> dict[str, Any]:
        """The newest verdict message."""
        found = [
            one for one in self.slack.messages(CHANNEL) if str(one["metadata"]["event_payload"]["key"]).startswith("decision:")
        ]
        return found[-1]

    def wait(self, look: Callable[[], Any]) -> Any:
        return self.slack.wait_for(look, seconds=ANSWER_SECONDS)

    def told(self, user: str, *parts: str) -> str:
        """What this person was told, once it contains all parts."""

        def look() -> str:
            shown = [text_of(message) for message in self.slack.ephemerals(user)]
            return next((text for text in shown if all(part in text for part in parts)), "")

        return self.wait(look)

    def answered(self, decision: Decision) -> Decision:
        """The decision, once it is answered and its message has no buttons."""
        self.wait(lambda: "actions" not in str(self.message()["blocks"]))
        return self.bot.decision_log.read(decision.decision_id)

    def traffic(self) -> dict[str, int]:
        found: Any = self.api.get_namespaced_custom_object(*WHERE, "fraud-predictor")
        return {predictor["name"]: predictor["traffic"] for predictor in found["spec"]["predictors"]}


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SandboxKubernetes, Path]]:
    with SandboxKubernetes(delay_seconds=0.05) as sandbox:
        yield sandbox, sandbox.write_kubeconfig(tmp_path_factory.mktemp("kube") / "config")


@pytest.fixture(scope="module", params=["socket mode", "signed http"])
def running(
    request: pytest.FixtureRequest, kubernetes: tuple[SandboxKubernetes, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The app, once for each way in."""
    with serving_app(kubernetes, tmp_path_factory.mktemp("bot"), is_http=request.param == "signed http") as found:
        yield found


@contextmanager
def serving_app(
    kubernetes: tuple[SandboxKubernetes, Path],
    folder: Path,
    *,
    is_http: bool,
    policy: str = POLICY,
    lacking: tuple[str, ...] = (),
) -> Iterator[World]:
    """The app, built from its environment as the command builds it; `lacking`: beginnings of methods unknown to Slack."""
    sandbox, kubeconfig = kubernetes
    (folder / "policy.toml").write_text(policy, encoding="utf-8")
    with ExitStack() as stack:
        slack = stack.enter_context(SandboxSlack(users=(*DEFAULT_USERS, *TEAM)))
        slack.web_api.lacking = lacking
        environment = {
            "FRAUD_AB_POLICY_FILE": str(folder / "policy.toml"),
            "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{folder / 'log.db'}",
            "FRAUD_AB_SLACK_CHANNEL": CHANNEL,
            "KUBECONFIG": str(kubeconfig),
            "SLACK_API_URL": slack.api_url,
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_SIGNING_SECRET": slack.signing_secret,
            "PREFECT_API_URL": "http://127.0.0.1:9/api",  # nobody is there: an emergency must not need it
            "PREFECT_CLIENT_MAX_RETRIES": "0",
        }
        stack.callback(refresh_global_settings_context)  # called after the environment is put back
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)
        refresh_global_settings_context()  # Prefect reads the environment once per process, and another test may have come first
        bot, _ = build_bot(load_bot_settings(is_http=is_http))
        nudges: list[float] = []
        bot = replace(bot, nudge=lambda: nudges.append(time.monotonic()))
        stack.enter_context(bot.follow_ups)
        app = build_app(bot, signing_secret=slack.signing_secret)
        port = None
        if not is_http:
            stack.enter_context(serving_socket_mode(app, slack.app_token))
            wait_until(lambda: slack.sockets.count, "the app's connection", ANSWER_SECONDS)
        else:
            port = stack.enter_context(serving_http(app, slack.signing_secret, host="127.0.0.1", port=0)).port
            slack.request_url = f"http://127.0.0.1:{port}{REQUEST_PATH}"
        api = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
        yield World(slack, sandbox, api, bot, folder / "log.db", nudges, port)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """An empty workspace and a running test; each test asks its own question."""
    with running.slack.workspace.lock:
        running.slack.workspace.messages.clear()
        running.slack.workspace.modals.clear()
    running.nudges.clear()
    running.kubernetes.faults.reset()
    deploy(running.api)
    yield running
    running.kubernetes.faults.reset()
    running.slack.faults.reset()
    running.api.delete_namespaced_custom_object(*WHERE, "fraud-predictor")


def claim_directly(world: World, decision: Decision, choice: Choice, until: datetime | None = None) -> None:
    """Somebody else decided, and the message has not been redrawn yet."""
    digest = decision.request.verdict.evidence_digest
    ben = Person(BEN, "ben")
    world.bot.decision_log.claim(
        decision.decision_id, evidence_digest=digest, choice=choice, actor=ben, reason="", postponed_until=until
    )


def confirm(world: World, user: str, **entered: str) -> Any:
    assert world.slack.press(user, Action.CONFIRM).acked
    world.wait(lambda: world.slack.open_view(user))
    return world.slack.submit(user, entered)


def alarm(world: World, decision: Decision) -> None:
    """The message of a breach after the promotion by this decision."""
    breach = Breach(BreachKind.LATENCY, "p95 140 ms is above 100 ms")
    message = breach_message(decision.request.test, decision.decision_id, breach, is_reverted=False)
    world.bot.publisher.thread_line(
        decision.decision_id, "breach-latency", message.text, blocks=message.blocks, also_to_channel=True
    )
