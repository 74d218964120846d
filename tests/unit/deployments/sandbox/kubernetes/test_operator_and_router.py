"""The operator stand-in brings specs about late and in order; the router follows it and counts."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.kubernetes.kinds import DEPLOYMENTS, SELDON_DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.router import NothingServedError
from deployments.sandbox.traffic_split import split_bucket

WHERE = ("models", "fraud-predictor")
CARDS = [f"card-{number}" for number in range(2000)]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        pause.wait(0.01)
    return value


def predictor(name: str, traffic: int, **more: Any) -> dict[str, Any]:
    graph = {"name": name, "implementation": "SIMPLE_MODEL"}
    return {"name": name, "traffic": traffic, "graph": graph, "annotations": {"version": name[-2:]}, **more}


def set_predictors(cluster: SandboxKubernetes, *predictors: dict[str, Any]) -> None:
    spec = {"predictors": list(predictors)}
    cluster.store.change(SELDON_DEPLOYMENTS, *WHERE, lambda found: {**found, "spec": spec})


def status(cluster: SandboxKubernetes) -> dict[str, Any]:
    return cluster.store.read(SELDON_DEPLOYMENTS, *WHERE).get("status", {})


def children(cluster: SandboxKubernetes) -> list[str]:
    return [child["metadata"]["name"] for child in cluster.store.list(DEPLOYMENTS)[0]]


@pytest.fixture
def cluster() -> Iterator[SandboxKubernetes]:
    """A settled 80/20 split."""
    with SandboxKubernetes(delay_seconds=0.2) as sandbox:
        new = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "metadata": {"name": "fraud-predictor"}}
        spec = {"predictors": [predictor("fraud-v1", 80), predictor("fraud-v2", 20)]}
        sandbox.store.create(SELDON_DEPLOYMENTS, "models", {**new, "spec": spec})
        with pytest.raises(NothingServedError):
            sandbox.route("card-1")
        wait_for(lambda: status(sandbox).get("state") == "Creating")
        wait_for(lambda: status(sandbox).get("state") == "Available")
        yield sandbox


def test_cards_stick_to_their_arm_by_their_bucket(cluster: SandboxKubernetes) -> None:
    for card in CARDS:
        assert cluster.route(card) == ("fraud-v1" if split_bucket(card) < 80 else "fraud-v2")


def test_traffic_follows_the_operator_and_not_the_spec(cluster: SandboxKubernetes) -> None:
    set_predictors(cluster, predictor("fraud-v1", 0), predictor("fraud-v2", 100))
    assert status(cluster)["state"] == "Available", "stale, as the real operator's"
    assert {cluster.route(card) for card in CARDS} == {"fraud-v1", "fraud-v2"}
    wait_for(lambda: {cluster.route(card) for card in CARDS} == {"fraud-v2"})


def test_children_of_a_removed_predictor_and_of_a_deleted_deployment_go_away(cluster: SandboxKubernetes) -> None:
    assert children(cluster) == ["fraud-predictor-fraud-v1-0-fraud-v1", "fraud-predictor-fraud-v2-0-fraud-v2"]
    set_predictors(cluster, predictor("fraud-v2", 100))
    wait_for(lambda: children(cluster) == ["fraud-predictor-fraud-v2-0-fraud-v2"])
    assert wait_for(lambda: cluster.route("card-1") == "fraud-v2")
    cluster.store.delete(SELDON_DEPLOYMENTS, *WHERE)
    wait_for(lambda: not children(cluster) and not cluster.store.list(VIRTUAL_SERVICES)[0])


def test_one_predictor_that_does_not_start_holds_every_weight_back(cluster: SandboxKubernetes) -> None:
    cluster.operator.fail_predictor("fraud-v2")
    wait_for(lambda: status(cluster)["state"] == "Creating")
    ready = next(one for one in status(cluster)["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "False"
    generation = cluster.store.read(SELDON_DEPLOYMENTS, *WHERE)["metadata"]["generation"]
    set_predictors(cluster, predictor("fraud-v1", 100), predictor("fraud-v2", 0))
    key = (cluster.store.read(SELDON_DEPLOYMENTS, *WHERE)["metadata"]["uid"], generation + 1)
    wait_for(lambda: key in cluster.operator._first_seen)
    threading.Event().wait(0.3)  # more than the operator's delay: nothing is to happen in it
    assert {cluster.route(card) for card in CARDS} == {"fraud-v1", "fraud-v2"}
    cluster.operator.heal_predictor("fraud-v2")
    wait_for(lambda: {cluster.route(card) for card in CARDS} == {"fraud-v1"})


def test_a_changed_model_is_observed_first_and_available_later(cluster: SandboxKubernetes) -> None:
    name = "fraud-predictor-fraud-v2-0-fraud-v2"
    newer = {"name": "fraud-v2", "implementation": "SIMPLE_MODEL", "modelUri": "s3://newer"}
    set_predictors(cluster, predictor("fraud-v1", 80), predictor("fraud-v2", 20, graph=newer))

    def deployment() -> dict[str, Any]:
        return cluster.store.read(DEPLOYMENTS, "models", name)

    found = wait_for(lambda: one if (one := deployment())["metadata"]["generation"] == 2 else None)
    assert found["status"]["observedGeneration"] == 1
    found = wait_for(lambda: one if (one := deployment())["status"]["observedGeneration"] == 2 else None)
    assert found["status"]["unavailableReplicas"] == 1
    wait_for(lambda: deployment()["status"].get("availableReplicas") == 1)


def test_weights_restart_no_pods_and_the_shadow_flag_restarts_its_own(cluster: SandboxKubernetes) -> None:
    def generations() -> list[int]:
        return [child["metadata"]["generation"] for child in cluster.store.list(DEPLOYMENTS)[0]]

    set_predictors(cluster, predictor("fraud-v1", 100), predictor("fraud-v2", 0))
    wait_for(lambda: {cluster.route(card) for card in CARDS} == {"fraud-v1"})
    assert generations() == [1, 1]
    set_predictors(cluster, predictor("fraud-v1", 100), predictor("fraud-v2", 100, shadow=True))
    wait_for(lambda: generations() == [1, 2])


def test_answers_are_counted_with_seldons_labels(cluster: SandboxKubernetes) -> None:
    cluster.observe("fraud-v1", 0.02)
    cluster.observe("fraud-v2", 0.2, code=500)
    with urllib.request.urlopen(f"{cluster.metrics_url}/prometheus", timeout=5) as answer:
        text = answer.read().decode()
    labels = 'deployment_name="fraud-predictor",method="post",predictor_name="fraud-v{0}",predictor_version="v{0}"'
    labels += ',service="predictions"'
    count = "seldon_api_executor_server_requests_seconds_count"
    assert f'{count}{{code="200",{labels.format(1)}}} 1.0' in text
    assert f'{count}{{code="500",{labels.format(2)}}} 1.0' in text
