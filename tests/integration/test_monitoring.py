"""A real Prometheus scrapes `fraud-ab serve` and Seldon's executors: rules and dashboards follow a promotion by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from deployments.metrics import start_metrics
from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.processes import free_port
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import DecisionRequest, Links
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.serving_state import ServingState, close_operation, open_operation, shift_traffic
from flows.domain.verdict import decide_verdict
from flows.emergency_revert import revert_traffic
from flows.settings import Settings, load_settings
from flows.start_ab_test import start_ab_test
from flows.watch import poll
from flows.wiring import Systems
from slackbot.metrics import PressMetrics
from tests.prometheus_server import query, running, scrape_troubles

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s" / "monitoring"
WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
AUTUMN = ABTest("autumn", Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "7", "fraud-v2"), datetime.now(UTC), "run")
SECONDS = 150.0
CONFIGURATION = """
global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
- {{job_name: seldon, metrics_path: /prometheus, static_configs: [{{targets: ["{seldon}"]}}]}}
- {{job_name: fraud-ab, static_configs: [{{targets: ["{worker}"]}}]}}
"""


@dataclass
class Watched:
    """The cluster, the systems that change it, and the Prometheus that sees both."""

    cluster: SandboxKubernetes
    systems: Systems
    prometheus: str

    def serve_requests(self) -> None:
        """One request of each of 200 cards, as the router sends them now; the candidate is the slower one."""
        for number in range(200):
            predictor = self.cluster.route(f"card-{number}")
            self.cluster.observe(predictor, 0.02 if predictor == "fraud-v1" else 0.04, code=500 if number % 50 == 0 else 200)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        def served_and_seen() -> bool:
            self.serve_requests()
            return condition()

        assert poll(served_and_seen, SECONDS), f"not so after {SECONDS:g} s; scraping: {scrape_troubles(self.prometheus)}"

    def models(self, expression: str) -> set[tuple[str, str]]:
        return {(labels["model_name"], labels["model_version"]) for labels, _ in query(self.prometheus, expression)}

    def change(self, decide: Callable[[ServingState], Any]) -> ServingState:
        assert poll(lambda: self.systems.serving.readiness().is_done, 20)
        state = self.systems.serving.read()
        return self.systems.serving.apply(state, decide(state))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("monitoring")
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{**group, "interval": "1s"} for group in groups]}))
    with pytest.MonkeyPatch.context() as patch, SandboxKubernetes(delay_seconds=0.02) as cluster:
        api: Any = client.CustomObjectsApi(config.new_client_from_config(str(cluster.write_kubeconfig(folder / "admin"))))
        api.create_namespaced_custom_object(*WHERE, yaml.safe_load((ROOT / "k8s" / "fraud-v1-deployment.yaml").read_text()))
        for name in ("FRAUD_AB_FEEDBACK_URL", "FRAUD_AB_LIFECYCLE_REPOSITORY", "FRAUD_AB_SLACK_CHANNEL", "MLFLOW_TRACKING_URI"):
            patch.setenv(name, "x")
        patch.setenv("SLACK_BOT_TOKEN", "x")
        patch.setenv("KUBECONFIG", str(cluster.write_kubeconfig(folder / "promoter", user="promoter")))
        patch.setenv("FRAUD_AB_DECISION_LOG_URL", f"sqlite:///{folder / 'log.db'}")
        patch.setenv("FRAUD_AB_METRICS_PORT", str(free_port()))
        systems = Systems(load_settings(Settings))
        server = start_metrics(systems)
        assert server is not None
        targets = {"seldon": cluster.metrics_url.removeprefix("http://"), "worker": f"127.0.0.1:{server.server_port}"}
        with running(folder, CONFIGURATION.format(**targets)) as url:
            yield Watched(cluster, systems, url)
        server.shutdown()
        server.server_close()


def ask(systems: Systems) -> None:
    """A question with its verdict in the decision log."""
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 880, 968, 880)))
    request = DecisionRequest(
        test=AUTUMN,
        round=1,
        flow_run_id="run",
        verdict=decide_verdict(evidence, Policy()),
        plan=ActionPlan(Arm.CANDIDATE, (100,), ()),
        rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
        epoch=1,
        links=Links(),
        decide_within_hours=1,
        next_look_at=None,
        evidence=evidence,
    )
    systems.decision_log.open(request)


def expressions(name: str) -> list[str]:
    found = json.loads((MONITORING / "dashboards" / f"{name}.json").read_text())
    return [target["expr"].replace("$deployment", "fraud-predictor") for panel in found["panels"] for target in panel["targets"]]


JOINED = [text for text in expressions("fraud-model-in-charge") if "group_left" in text]
V1, V2 = {("fraud_v1", "3")}, {("fraud_v2", "7")}


def test_every_query_shows_the_model_in_charge_before_and_after_a_promotion_and_after_a_revert(watched: Watched) -> None:
    assert poll(lambda: watched.systems.serving.readiness().is_done, 20)
    start_ab_test(watched.systems.serving, AUTUMN, Policy())
    ask(watched.systems)
    assert len(JOINED) == 4
    watched.wait_for(lambda: all(watched.models(text) == V1 for text in JOINED))
    both = {"fraud-v1", "fraud-v2"}
    watched.wait_for(
        lambda: {labels["predictor_name"] for labels, _ in query(watched.prometheus, "seldon:predictor:p95_seconds")} == both
    )

    opened = watched.change(lambda state: open_operation(state, "autumn-1", state.epoch))
    watched.wait_for(lambda: watched.models("fraud_ab:model_in_charge") == set())
    watched.wait_for(lambda: query(watched.prometheus, "fraud_ab_operation_age_seconds > 0") != [])
    watched.change(lambda state: shift_traffic(state, "autumn-1", opened.epoch, {"fraud-v2": 100}))
    watched.change(lambda state: close_operation(state, "autumn-1", opened.epoch))
    watched.wait_for(lambda: all(watched.models(text) == V2 for text in JOINED))

    revert_traffic(watched.systems.serving, revert_id="r", actor="U1", reason="a test", at=datetime.now(UTC))
    watched.wait_for(lambda: all(watched.models(text) == V1 for text in JOINED))


@pytest.mark.parametrize("name", ["fraud-ab-test", "fraud-model-in-charge"])
def test_every_query_of_a_dashboard_has_an_answer(watched: Watched, name: str) -> None:
    watched.wait_for(lambda: all(query(watched.prometheus, text) for text in expressions(name)))


def _told_by_the_app() -> set[str]:
    metrics = PressMetrics()
    metrics.acknowledged(0.1)
    with metrics.press("any"):
        pass
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def test_every_metric_that_rules_and_dashboards_name_is_exported_or_recorded(watched: Watched) -> None:
    texts = [path.read_text() for path in (MONITORING / "rules.yaml", *(MONITORING / "dashboards").glob("*.json"))]
    recorded = set(re.findall(r"record: (\S+)", texts[0]))
    named = {
        name
        for text in texts
        for name in re.findall(r"\b(?:fraud_ab[_:]\w+|seldon:\w+:\w+|\w+_at_production|fraud_detection_rate)", text)
    }
    assert {"recall_at_production", "precision_at_production", "fraud_detection_rate"} <= named
    of_the_app = {name for name in named if name.startswith("fraud_ab_bot_")}
    assert of_the_app <= _told_by_the_app()
    watched.wait_for(lambda: all(query(watched.prometheus, f"count({name})") for name in named - of_the_app))
    assert recorded <= named
