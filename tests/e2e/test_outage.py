"""An emergency while Prefect, MLflow, S3, PostgreSQL and Prometheus are all down, and what happens when they are back.

The product's processes, `fraud-ab bot` and `fraud-ab serve`, reach these systems through gates that refuse connections, or take
them and never answer. Kubernetes and Slack are up: the one is all that an emergency needs, the other is where it comes from.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from kubernetes import client, config
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from deployments.sandbox.processes import ROOT, Child, free_port, stop_all
from deployments.sandbox.slack import SandboxSlack
from deployments.sandbox.stack import EmbeddedStack
from flows.domain.ab_test import ABTest, Model
from flows.domain.decision_record import RecordKind
from flows.domain.serving_state import ServingChange
from flows.domain.verdict import VerdictKind
from flows.settings import Settings, load_settings
from flows.start_ab_test import start_ab_test
from flows.watch import poll
from flows.wiring import Systems
from slackbot.identifiers import Action
from tests.integration.production_world import WHERE, manifest
from tests.outage import Gate, Outage
from tests.slack_world import question, text_of

T = TypeVar("T")
ANA, CHIARA = "U0ANA", "U0CHI"
AT_ONCE_SECONDS = 5.0
TOLD_SECONDS = 30.0
RETURN_SECONDS = 240.0
IMPATIENT_PRESSES = 40
TO_THE_CANDIDATE = ServingChange("a test", annotations={}, traffic={"fraud-v1": 0, "fraud-v2": 100})
PROMOTED = ["Archived (previous)", "Production (champion)"]
NEEDED_BY_NOBODY_IN_AN_EMERGENCY = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")


@dataclass
class Site:
    """The running product; `systems` reaches everything past the gates."""

    stack: EmbeddedStack
    slack: SandboxSlack
    systems: Systems
    gates: list[Gate]
    environment: dict[str, str]
    test: ABTest
    children: dict[str, Child] = field(default_factory=dict)

    def keep_running(self) -> None:
        """As Kubernetes does with a pod whose process has ended."""
        for name in ("bot", "serve"):
            if name not in self.children or self.children[name].process.poll() is not None:
                command = [sys.executable, "-m", "deployments.cli", name]
                log = self.stack.folder / f"{name}-{time.monotonic_ns()}.log"
                self.children[name] = Child(name, command, environment=self.environment, log=log, folder=ROOT)

    def until(self, ask: Callable[[], T | None], seconds: float) -> T:
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < deadline:
            if answer := ask():
                return answer
            self.keep_running()
            pause.wait(0.05)
        raise TimeoutError(f"not so after {seconds:g} s")

    def is_on_baseline(self) -> bool:
        return self.systems.serving.read().serves_alone("fraud-v1")

    def promote(self) -> None:
        """The candidate is in charge, of the traffic and, since the product's processes see to that as well, of the registry."""
        self.until(self.has_no_run, RETURN_SECONDS)
        self.systems.serving.apply(self.systems.serving.read(), TO_THE_CANDIDATE)
        registry = self.systems.registry

        def is_in_charge() -> bool:
            registry.set_in_charge(self.test.candidate)
            registry.set_archived(self.test.baseline, previous=True)
            return self.registry() == PROMOTED

        assert poll(is_in_charge, TOLD_SECONDS)

    def has_no_run(self) -> bool:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
        return httpx.post(f"{self.stack.prefect_url}/api/flow_runs/count", json=wanted, timeout=20).json() == 0

    def registry(self) -> list[str]:
        return [str(self.systems.registry.entry(model)).partition(" v1: ")[2] for model in self.test.models]

    def told(self, *parts: str) -> str:
        shown = [text_of(message) for message in self.slack.ephemerals(CHIARA)]
        return next((text for text in shown if all(part in text for part in parts)), "")

    def forget_what_chiara_was_told(self) -> None:
        with self.slack.workspace.lock:
            messages = self.slack.workspace.messages
            for key in [key for key, message in messages.items() if message.visible_to == CHIARA]:
                del messages[key]

    def page(self) -> dict[str, Any]:
        text = (self.stack.folder / "repository" / "docs" / "model_lifecycle.md").read_text(encoding="utf-8")
        return yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["model_lifecycle"]

    def reverts(self) -> list[str]:
        records = self.systems.decision_log.records()
        return [str(record.payload["actor"]) for record in records if record.kind is RecordKind.EMERGENCY_REVERT]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as ends, pytest.MonkeyPatch.context() as patch:
        stack = EmbeddedStack()
        ends.callback(stack.stop)
        stack.start()
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        assert stack.slack is not None
        systems = Systems(load_settings(Settings))
        gates, environment = behind_gates(stack.environment, ends)
        site = Site(stack, stack.slack, systems, gates, environment, deploy(systems))
        ends.callback(lambda: stop_all(list(site.children.values())))
        site.until(lambda: stack.slack and stack.slack.sockets.count, 60)
        yield site


def behind_gates(environment: dict[str, str], ends: ExitStack) -> tuple[list[Gate], dict[str, str]]:
    """A gate before each system, and the environment of a process that knows only these."""
    changed = dict(environment)
    gates: list[Gate] = []

    def gate(server: tuple[str, int] | str) -> int:
        gates.append(ends.enter_context(Gate(server)))
        return gates[-1].port

    for name in NEEDED_BY_NOBODY_IN_AN_EMERGENCY:
        place = urlsplit(environment[name])
        changed[name] = place._replace(netloc=f"127.0.0.1:{gate(('127.0.0.1', place.port or 80))}").geturl()
    database = make_url(environment["FRAUD_AB_DECISION_LOG_URL"])
    port = gate(f"{database.query['host']}/.s.PGSQL.5432")
    behind = database.set(query={}, host="127.0.0.1", port=port).render_as_string(hide_password=False)
    changed["FRAUD_AB_DECISION_LOG_URL"] = behind
    changed["FRAUD_AB_FEEDBACK_URL"] = behind.replace("+psycopg", "")
    changed["FRAUD_AB_PROMETHEUS_URL"] = f"http://127.0.0.1:{gate(('127.0.0.1', free_port()))}"
    return gates, changed


def deploy(systems: Systems) -> ABTest:
    """Two registered models and a running test."""
    models = [Model(f"fraud_{side}", "1", f"fraud-{side}") for side in ("v1", "v2")]
    registry = MlflowClient(systems.settings.mlflow_tracking_uri)
    for model in models:
        registry.create_registered_model(model.name)
        registry.create_model_version(model.name, "s3://models/x")
    api = client.CustomObjectsApi(config.new_client_from_config(str(systems.settings.kubeconfig)))
    api.create_namespaced_custom_object(*WHERE, manifest(models))
    test = ABTest("outage", models[0], models[1], datetime.now(UTC), registry.create_run("0").info.run_id)
    start_ab_test(systems.serving, test, systems.policy)
    return test


def press_impatiently(site: Site) -> None:
    """Many people press Confirm, and each press waits for the database."""
    with ThreadPoolExecutor(IMPATIENT_PRESSES) as pool:
        pressing = [pool.submit(site.slack.press, ANA, Action.CONFIRM) for _ in range(IMPATIENT_PRESSES)]
        assert all(pressed.result().acked for pressed in pressing)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("outage", Outage)
def test_an_emergency_waits_for_no_system_that_is_down_and_is_recorded_when_they_are_back(site: Site, outage: Outage) -> None:
    site.promote()
    asked = site.systems.decision_log.open(question(VerdictKind.PROMOTE, "", test=site.test, round=[*Outage].index(outage) + 1))
    site.systems.publisher.publish_decision(asked.decision_id)
    before = site.reverts()
    site.forget_what_chiara_was_told()
    for gate in site.gates:
        gate.shut(outage)
    press_impatiently(site)

    begin = time.monotonic()
    assert site.slack.slash(CHIARA, f"/fraud-rollback now all is {outage}").acked
    site.until(site.is_on_baseline, AT_ONCE_SECONDS)
    site.until(lambda: site.told("Rolled back: fraud-v1 gets all traffic"), AT_ONCE_SECONDS)
    assert time.monotonic() - begin < AT_ONCE_SECONDS
    said = site.until(lambda: site.told("Still to be done when this works again"), TOLD_SECONDS)
    assert "Prefect failed" in said
    assert "the outbox failed" in said

    site.systems.serving.apply(site.systems.serving.read(), TO_THE_CANDIDATE)
    begin = time.monotonic()
    command = [sys.executable, "-m", "deployments.cli", "rollback", "--reason", "from a shell"]
    with subprocess.Popen(command, env={**os.environ, **site.environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True) as shell:
        site.until(site.is_on_baseline, 2 * AT_ONCE_SECONDS)  # a Python starts first
        said, _ = shell.communicate(timeout=60)
    assert shell.returncode == 0
    assert "The router sends all traffic to fraud-v1." in said
    assert site.registry() == PROMOTED, "nothing could follow yet"
    assert site.reverts() == before

    for gate in site.gates:
        gate.open()
    site.until(lambda: not site.systems.serving.read().unrecorded, RETURN_SECONDS)
    assert site.registry() == ["Production (champion)", "Archived"]
    assert [actor.partition(":")[0] for actor in site.reverts()[len(before) :]] == ["chiara (U0CHI)", "cli"]
    assert site.page()["fraud_v1"]["status"].endswith("(Production)")
    site.until(lambda: any("emergency revert by" in one["text"] for one in site.slack.messages("C0FRAUD")), 10)
