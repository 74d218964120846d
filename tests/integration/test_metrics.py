"""`fraud-ab serve`'s metrics over HTTP, of the Kubernetes stand-in and a real decision log."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import client, config
from prometheus_client.parser import text_string_to_metric_families

from deployments.metrics import ServiceMetrics, start_metrics
from deployments.sandbox.faults import Fault
from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.processes import free_port
from flows.adapters.serving_seldon import SeldonServing
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import DecisionRequest, Links
from flows.domain.errors import SettingsInvalid
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.emergency_revert import revert_traffic
from flows.settings import Settings, load_settings
from flows.start_ab_test import start_ab_test
from flows.watch import poll
from flows.wiring import Systems

ROOT = Path(__file__).resolve().parents[2]
WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
AUTUMN = ABTest("autumn", Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "7", "fraud-v2"), datetime.now(UTC), "run")
Scraped = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def cluster() -> Iterator[SandboxKubernetes]:
    with SandboxKubernetes(delay_seconds=0.02) as kubernetes:
        yield kubernetes


@pytest.fixture
def systems(cluster: SandboxKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systems:
    admin = cluster.write_kubeconfig(tmp_path / "admin")
    api: Any = client.CustomObjectsApi(config.new_client_from_config(str(admin)))
    api.create_namespaced_custom_object(*WHERE, yaml.safe_load((ROOT / "k8s" / "fraud-v1-deployment.yaml").read_text()))
    for name in ("FRAUD_AB_FEEDBACK_URL", "FRAUD_AB_LIFECYCLE_REPOSITORY", "FRAUD_AB_SLACK_CHANNEL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "x")
    monkeypatch.setenv("KUBECONFIG", str(cluster.write_kubeconfig(tmp_path / "promoter", user="promoter")))
    monkeypatch.setenv("FRAUD_AB_DECISION_LOG_URL", f"sqlite:///{tmp_path / 'log.db'}")
    monkeypatch.setenv("FRAUD_AB_METRICS_PORT", str(free_port()))
    found = Systems(load_settings(Settings))
    assert poll(lambda: found.serving.readiness().is_done, 20), "the operator still changes it"
    return found


@pytest.fixture
def url(systems: Systems) -> Iterator[str]:
    server = start_metrics(systems)
    assert server is not None
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def scrape(url: str) -> Scraped:
    answer = httpx.get(url, timeout=10).raise_for_status()
    found: Scraped = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_what_serves_is_scraped_over_http(systems: Systems, url: str) -> None:
    assert "fraud_ab_model_in_charge" not in scrape(url), "no test says yet which models there are"
    start_ab_test(systems.serving, AUTUMN, systems.policy)
    found = scrape(url)
    model = {"predictor_name": "fraud-v1", "model_name": "fraud_v1", "model_version": "3", "arm": "baseline"}
    assert found["fraud_ab_model_in_charge"] == [({"deployment_name": "fraud-predictor", **model}, 1)]
    assert found["fraud_ab_epoch"][0][1] == 1
    assert found["fraud_ab_undelivered_decision_age_seconds"] == [({}, 0)]
    assert {(labels["system"], value) for labels, value in found["fraud_ab_up"]} == {("kubernetes", 1), ("decision_log", 1)}
    revert_traffic(systems.serving, revert_id="r", actor="U1", reason="", at=datetime.now(UTC))
    assert 0 < scrape(url)["fraud_ab_unrecorded_age_seconds"][0][1] < 60


def test_before_the_first_look_of_a_test_the_model_in_charge_has_the_numbers_of_the_one_before(
    systems: Systems, url: str
) -> None:
    start_ab_test(systems.serving, AUTUMN, systems.policy)
    assert "recall_at_production" not in scrape(url)
    summer = replace(AUTUMN, test_id="summer", baseline=Model("fraud_v0", "1", "fraud-v0"), candidate=AUTUMN.baseline)
    systems.decision_log.open(ask(summer))
    measured = {(labels["model_name"], value) for labels, value in scrape(url)["recall_at_production"]}
    assert measured == {("fraud_v0", 0.8), ("fraud_v1", 0.88)}
    systems.decision_log.open(ask(AUTUMN))
    measured = {(labels["model_name"], value) for labels, value in scrape(url)["recall_at_production"]}
    assert measured == {("fraud_v1", 0.8), ("fraud_v2", 0.88)}


def ask(test: ABTest) -> DecisionRequest:
    """A question with its verdict."""
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 880, 968, 880)))
    return DecisionRequest(
        test=test,
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


def test_kubernetes_that_does_not_answer_is_counted_and_gives_no_sample(
    cluster: SandboxKubernetes, systems: Systems, url: str
) -> None:
    start_ab_test(systems.serving, AUTUMN, systems.policy)
    cluster.faults.plan(Fault.SERVER_ERROR, times=100, of="GET")
    found = scrape(url)
    assert not {name for name in found if name.startswith("fraud_ab_") and "deployment_name" in found[name][0][0]}
    assert found["fraud_ab_undelivered_decision_age_seconds"] == [({}, 0)]
    assert ({"system": "kubernetes"}, 0) in found["fraud_ab_up"]
    assert ({"system": "kubernetes"}, 1) in found["fraud_ab_scrape_errors_total"]
    cluster.faults.reset()
    found = scrape(url)
    assert ({"system": "kubernetes"}, 1) in found["fraud_ab_up"]
    assert ({"system": "kubernetes"}, 1) in found["fraud_ab_scrape_errors_total"], "what was counted stays counted"


def test_a_decision_log_that_is_broken_leaves_what_kubernetes_says(systems: Systems, url: str, tmp_path: Path) -> None:
    start_ab_test(systems.serving, AUTUMN, systems.policy)
    scrape(url)
    for file in tmp_path.glob("log.db*"):
        file.write_bytes(b"no database")
    found = scrape(url)
    assert ({"system": "decision_log"}, 0) in found["fraud_ab_up"]
    assert "fraud_ab_undelivered_decision_age_seconds" not in found
    assert len(found["fraud_ab_model_in_charge"]) == 1


def test_without_a_port_nothing_listens_and_a_taken_one_is_one_clear_sentence(
    systems: Systems, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be listened on"):
        start_metrics(systems)
    monkeypatch.delenv("FRAUD_AB_METRICS_PORT")
    assert start_metrics(Systems(load_settings(Settings))) is None


def test_a_silent_kubernetes_holds_no_scrape_up(systems: Systems, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        settings = yaml.safe_load((tmp_path / "admin").read_text())
        settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "silent").write_text(yaml.safe_dump(settings))
        systems.decision_log.now()  # its tables are made
        serving = SeldonServing(kubeconfig=tmp_path / "silent", namespace="models", name="fraud-predictor")
        metrics, began = ServiceMetrics(serving, systems.decision_log, answer_seconds=1.0), time.monotonic()
        for errors in (1, 2):
            found = {(sample.name, *sample.labels.values()): sample.value for one in metrics.collect() for sample in one.samples}
            assert found["fraud_ab_up", "kubernetes"] == 0
            assert found["fraud_ab_scrape_errors_total", "kubernetes"] == errors
            assert found["fraud_ab_up", "decision_log"] == 1
            assert "fraud_ab_undelivered_decision_age_seconds" in {name for name, *_ in found}
        assert time.monotonic() - began < 8, "the adapter alone would have tried for longer, each time"
