"""What tests and measurements of the Slack app share: a question, a running test to ask it about, and the app's own processes."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from kubernetes import client, config

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.processes import Child, free_port, stop_all
from deployments.sandbox.slack import SandboxSlack, SandboxUser
from deployments.sandbox.slack.people import DEFAULT_USERS
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan, Change
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Decision, DecisionRequest, Links
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.serving_state import REVERT_TO
from flows.domain.verdict import VerdictKind, decide_verdict
from slackbot.publisher import message_key
from slackbot.signed_http import REQUEST_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.sandbox.slack import Outcome
    from flows.domain.decision import Person

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "k8s" / "base" / "seldon-deployment.yaml"
CHANNEL = "C0FRAUD"
WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
START_SECONDS = 120.0
POLL_SECONDS = 0.05


def question(kind: VerdictKind, test_id: str, **more: Any) -> DecisionRequest:
    """Round 1 of a test whose candidate is the better one."""
    one, two = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
    counts = Outcomes(Design.SPLIT, ModelCounts(4000, 3200, 3516, 3200), ModelCounts(1000, 880, 967, 880))
    changes = (Change("traffic", "fraud-v1 80 %, fraud-v2 20 %", "fraud-v1 0 %, fraud-v2 100 %"),)
    plan = ActionPlan(Arm.CANDIDATE, (100,), changes)
    soon = datetime.now(UTC) + timedelta(days=7)
    request = DecisionRequest(
        test=ABTest(test_id, one, two, datetime(2026, 1, 5, tzinfo=UTC), "run-1"),
        round=1,
        flow_run_id="0197b1f2-0000-7000-8000-000000000000",
        verdict=replace(decide_verdict(Evidence(counted=counts), Policy()), verdict=kind),
        plan=plan,
        rollback_plan=plan,
        epoch=1,
        links=Links(prefect_run="http://127.0.0.1:4200/runs/1"),
        decide_within_hours=72,
        next_look_at=soon,
        horizon_at=soon,
    )
    return replace(request, **more)


def deploy(api: client.CustomObjectsApi) -> None:
    """The split of a running test, with its rollback point."""
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    one, two = manifest["spec"]["predictors"]
    one["traffic"], two["traffic"] = 80, 20
    revert_to = json.dumps({"predictor": "fraud-v1", "spec": one})
    manifest["metadata"]["annotations"] = {REVERT_TO: revert_to, "fraud-ab/epoch": "1"}
    api.create_namespaced_custom_object(*WHERE, manifest)


def wait_until(is_so: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Look again and again; TimeoutError when it is still not so."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        pause.wait(POLL_SECONDS)


def all_at_once(act: Callable[[str], Outcome], users: Sequence[str]) -> list[Outcome]:
    """What each gets for doing it, all at the same moment; a user named twice does it twice."""
    barrier = threading.Barrier(len(users))

    def together(user: str) -> Outcome:
        barrier.wait()
        return act(user)

    with ThreadPoolExecutor(len(users)) as pool:
        return list(pool.map(together, users))


def is_told_who_decided(slack: SandboxSlack, user: str, actor: Person) -> bool:
    """Whether this person reads that somebody else was first, in the channel or in place of their modal."""
    shown = [text_of(one) for one in slack.ephemerals(user)] + [json.dumps(slack.open_view(user) or {})]
    return any("decided before" in text and f"<@{actor.id}>" in text for text in shown)


class SlackSite:
    """Slack, Kubernetes and the decision log of a running test, with as many `fraud-ab bot` as are started; Prefect is down.

    Args:
        folder: of the log, the policy and the processes' output.
        policy: as TOML; it names who may decide.
    """

    def __init__(self, folder: Path, policy: str, users: Sequence[SandboxUser] = DEFAULT_USERS) -> None:
        self._folder = folder
        self._policy = policy
        self._ends = ExitStack()
        self.slack = SandboxSlack(users=users)
        self.kubernetes = SandboxKubernetes(delay_seconds=0.02)
        self.bots: list[Child] = []

    def __enter__(self) -> Self:
        self._ends.enter_context(self.slack)
        self._ends.enter_context(self.kubernetes)
        self._ends.callback(lambda: stop_all(self.bots))
        (self._folder / "policy.toml").write_text(self._policy, encoding="utf-8")
        kubeconfig = self.kubernetes.write_kubeconfig(self._folder / "kubeconfig")
        self._api: Any = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
        deploy(self._api)
        log_url = f"sqlite:///{self._folder / 'log.db'}"
        self.log = SqlDecisionLog(log_url)
        self._ends.callback(self.log.close)
        given = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "FRAUD_AB_", "SLACK_"))}
        self._environment = given | {
            "KUBECONFIG": str(kubeconfig),
            "PREFECT_HOME": str(self._folder / "prefect"),
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "PREFECT_CLIENT_MAX_RETRIES": "0",
            "FRAUD_AB_POLICY_FILE": str(self._folder / "policy.toml"),
            "FRAUD_AB_DECISION_LOG_URL": log_url,
            "FRAUD_AB_SLACK_CHANNEL": CHANNEL,
            "SLACK_API_URL": self.slack.api_url,
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_APP_TOKEN": self.slack.app_token,
            "SLACK_SIGNING_SECRET": self.slack.signing_secret,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start_bot(self, *arguments: str, **environment: str) -> Child:
        """One more app in a process of its own, not waited for; it posts what nobody has posted."""
        command = [sys.executable, "-m", "deployments.cli", "bot", *arguments]
        name = f"bot-{len(self.bots) + 1}"
        bot = Child(name, command, environment=self._environment | environment, log=self._folder / f"{name}.log", folder=ROOT)
        self.bots.append(bot)
        return bot

    def start_http_bot(self, **environment: str) -> Child:
        """An app for signed HTTP, once it listens; Slack delivers to it from then on."""
        port = free_port()
        bot = self.start_bot("--http", str(port), **environment)
        self.slack.request_url = f"http://127.0.0.1:{port}{REQUEST_PATH}"
        wait_until(lambda: bot.require_alive() or _listens(port), f"port {port}")
        return bot

    def ask(self) -> Decision:
        """A new question, in the log only: whichever app is there posts it."""
        return self.log.open(question(VerdictKind.PROMOTE, f"ab-{uuid.uuid4().hex[:8]}"))

    def posted(self, decision: Decision) -> list[Any]:
        """Every message of the channel that is the decision's own."""
        return [one for one in self.slack.messages(CHANNEL) if key_of(one) == message_key(decision.decision_id)]

    def told_who_decided(self, user: str, decision: Decision) -> bool:
        """Whether this person reads who was first."""
        claim = self.log.read(decision.decision_id).claim
        return claim is not None and is_told_who_decided(self.slack, user, claim.actor)

    def let_everybody_open(self, users: Sequence[str], action: str) -> None:
        """Wait for the modal of everybody who has just pressed. Slack's right to open one ends after three seconds: whom the app
        kept waiting is told that it did not work, and presses again."""
        wait_until(lambda: all(self.slack.open_view(user) or self.slack.ephemerals(user) for user in users), "modals or words")
        too_late = [user for user in users if not self.slack.open_view(user)]
        for user in too_late:
            self.slack.press(user, action)
            wait_until(lambda user=user: self.slack.open_view(user), f"the modal of {user}")

    def change(self, *patch: dict[str, Any]) -> None:
        """Change the SeldonDeployment by hand, with a json-patch."""
        self._api.patch_namespaced_custom_object(
            *WHERE, "fraud-predictor", list(patch), _content_type="application/json-patch+json"
        )

    def traffic(self) -> dict[str, int]:
        return {predictor["name"]: predictor["traffic"] for predictor in self.deployment()["spec"]["predictors"]}

    def deployment(self) -> Any:
        """The SeldonDeployment as it is now."""
        return self._api.get_namespaced_custom_object(*WHERE, "fraud-predictor")


def key_of(message: Any) -> str:
    """By which the publisher finds a message again; empty for one that is not the publisher's."""
    metadata = message.get("metadata") or {}
    return str(metadata.get("event_payload", {}).get("key", ""))


def text_of(message: Any) -> str:
    return f"{message['text']} {json.dumps(message.get('blocks') or [], ensure_ascii=False)}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
