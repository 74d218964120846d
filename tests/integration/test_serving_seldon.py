"""The serving adapter on the Kubernetes stand-in with its operator and its faults, and on the real API server if it is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from deployments.sandbox.faults import Fault
from deployments.sandbox.kubernetes import SandboxKubernetes
from flows.adapters.serving_seldon import SeldonServing, _not_ready, _SeldonDeployment
from flows.domain.ab_test import ABTest, Model
from flows.domain.errors import Conflict, OutsideSystemError, SettingsInvalid
from flows.domain.serving_state import (
    EPOCH,
    OUTCOME,
    REVERT_TO,
    ServingChange,
    ServingState,
    emergency_revert,
    finish_revert,
    open_operation,
    shift_traffic,
    start_test,
)
from tests import real_api_server

WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
SECONDS = 10.0
STARTED = ABTest("t", Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2"), datetime.now(UTC), "run")


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline, pause = time.monotonic() + SECONDS, threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {SECONDS} s")
        pause.wait(0.02)
    return value


def predictor(name: str, traffic: int | None, **more: Any) -> dict[str, Any]:
    graph = {"name": name, "implementation": "MLFLOW_SERVER", "modelUri": f"s3://models/{name}"}
    return {"name": name, "graph": graph, **({} if traffic is None else {"traffic": traffic}), **more}


def deploy(kubeconfig: Path, *predictors: dict[str, Any]) -> None:
    api = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
    body = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment", "metadata": {"name": "fraud-predictor"}}
    api.create_namespaced_custom_object(*WHERE, {**body, "spec": {"predictors": list(predictors)}})


@pytest.fixture(scope="module")
def stand_in() -> Iterator[SandboxKubernetes]:
    with SandboxKubernetes(delay_seconds=0.1) as sandbox:
        yield sandbox


@pytest.fixture
def cluster(stand_in: SandboxKubernetes, tmp_path: Path) -> Iterator[SandboxKubernetes]:
    """The stand-in without anything deployed and without planned faults."""
    stand_in.faults.reset()
    yield stand_in
    stand_in.faults.reset()
    stand_in.operator.heal_predictor("fraud-v2")
    api = client.CustomObjectsApi(config.new_client_from_config(str(stand_in.write_kubeconfig(tmp_path / "cleaner"))))
    for found in api.list_namespaced_custom_object(*WHERE)["items"]:
        api.delete_namespaced_custom_object(*WHERE, found["metadata"]["name"])


@pytest.fixture
def serving(cluster: SandboxKubernetes, tmp_path: Path) -> SeldonServing:
    """As the promoter, on a settled deployment with all traffic on the baseline."""
    deploy(cluster.write_kubeconfig(tmp_path / "admin"), predictor("fraud-v1", 100), predictor("fraud-v2", 0))
    kubeconfig = cluster.write_kubeconfig(tmp_path / "promoter", user="promoter")
    adapter = SeldonServing(kubeconfig=kubeconfig, namespace="models", name="fraud-predictor")
    wait_for(lambda: adapter.readiness().is_done)
    return adapter


def change(**annotations: str | None) -> ServingChange:
    return ServingChange(why="a test", annotations=annotations)


def patches(cluster: SandboxKubernetes) -> list[str]:
    return [request for request in cluster.faults.requests if request.startswith("PATCH")]


def test_a_test_starts_opens_and_shifts_as_the_domain_says(serving: SeldonServing) -> None:
    state = serving.apply(serving.read(), start_test(serving.read(), STARTED, {"fraud-v1": 80, "fraud-v2": 20}))
    assert (state.epoch, dict(state.traffic)) == (1, {"fraud-v1": 80, "fraud-v2": 20})
    wait_for(lambda: serving.readiness().is_done)
    state = serving.read()
    state = serving.apply(state, open_operation(state, "d1", decided_at_epoch=1))
    state = serving.apply(state, shift_traffic(state, "d1", state.epoch, {"fraud-v2": 100}))
    assert (state.operation, state.epoch, state.serves_alone("fraud-v2")) == ("d1", 2, True)
    assert serving.read() == state


def test_every_change_is_rehearsed_first_and_signed(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    serving.apply(serving.read(), change(a="1"))
    rehearsal, real = patches(cluster)
    assert "dryRun=All" in rehearsal
    assert "dryRun" not in real
    assert all("fieldManager=fraud-ab&fieldValidation=Strict" in request for request in (rehearsal, real))


def test_a_dry_run_shows_the_new_state_and_keeps_nothing(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    before = serving.read()
    wanted = ServingChange(why="a test", annotations={EPOCH: "1"}, traffic={"fraud-v1": 0, "fraud-v2": 100})
    assert serving.apply(before, wanted, dry_run=True).serves_alone("fraud-v2")
    assert serving.read() == before
    assert len(patches(cluster)) == 1


def test_whoever_read_an_older_version_has_to_read_again(serving: SeldonServing) -> None:
    stale = serving.read()
    serving.apply(stale, change(**{EPOCH: "1"}))
    with pytest.raises(Conflict):
        serving.apply(stale, change(**{EPOCH: "7"}))
    # with the version of today but the epoch of yesterday: the epoch's own test stops it
    now = serving.read()
    serving.apply(now, change(**{EPOCH: "2"}))
    now = serving.read()
    old_epoch = ServingState(now.name, now.namespace, now.resource_version, now.generation, now.predictors, {EPOCH: "1"})
    with pytest.raises(Conflict):
        serving.apply(old_epoch, change(**{EPOCH: "7"}))
    assert serving.read().epoch == 2


def test_annotations_are_set_replaced_and_removed(serving: SeldonServing) -> None:
    state = serving.apply(serving.read(), change(**{EPOCH: "1", OUTCOME: None}))
    assert dict(state.annotations) == {EPOCH: "1"}
    state = serving.apply(state, change(**{EPOCH: "2", OUTCOME: "d:accepted@2"}))
    assert dict(state.annotations) == {EPOCH: "2", OUTCOME: "d:accepted@2"}
    state = serving.apply(state, change(**{OUTCOME: None}))
    assert OUTCOME not in state.annotations


def test_what_the_server_refuses_is_told_and_not_tried_again(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    unbalanced = ServingChange(why="a test", annotations={}, traffic={"fraud-v1": 90})
    with pytest.raises(OutsideSystemError, match="Traffic must sum to 100") as caught:
        serving.apply(serving.read(), unbalanced)
    assert not isinstance(caught.value, Conflict)
    assert not caught.value.retryable
    assert len(patches(cluster)) == 1
    with pytest.raises(OutsideSystemError, match="no predictor fraud-v3"):
        serving.apply(serving.read(), ServingChange(why="a test", annotations={}, traffic={"fraud-v3": 100}))


def test_a_forbidden_name_and_a_missing_one_are_clear(cluster: SandboxKubernetes, serving: SeldonServing, tmp_path: Path) -> None:
    promoter, admin = tmp_path / "promoter", tmp_path / "admin"
    with pytest.raises(OutsideSystemError, match=r'403, .*cannot get resource "seldondeployments"') as caught:
        SeldonServing(kubeconfig=promoter, namespace="models", name="another").read()
    assert not caught.value.retryable
    with pytest.raises(OutsideSystemError, match=r'404, .*"another" not found'):
        SeldonServing(kubeconfig=admin, namespace="models", name="another").read()


@pytest.mark.parametrize("fault", list(Fault))
def test_a_passing_fault_is_survived(cluster: SandboxKubernetes, serving: SeldonServing, fault: Fault) -> None:
    before = serving.read()
    cluster.faults.plan(fault, times=2, of="GET")
    began = time.monotonic()
    assert serving.read() == before
    if fault is Fault.TOO_MANY_REQUESTS:
        assert time.monotonic() - began >= 2, "two times Retry-After: 1"
    cluster.faults.plan(fault, times=1, of="PATCH")
    state = serving.apply(before, change(**{EPOCH: "1"}))  # meets the rehearsal, which has no effect to lose
    assert state.epoch == 1


def test_a_change_whose_reply_was_lost_is_a_conflict_and_was_made_once(
    cluster: SandboxKubernetes, serving: SeldonServing
) -> None:
    before = serving.read()
    cluster.faults.plan(Fault.LOST_AFTER, of="PATCH", skip=1)  # the rehearsal goes well
    with pytest.raises(Conflict):
        serving.apply(before, change(**{EPOCH: "1"}))
    assert len(patches(cluster)) == 3
    assert serving.read().epoch == 1


def test_a_server_that_stays_down_is_a_retryable_error(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    cluster.faults.plan(Fault.LOST_BEFORE, times=5)
    with pytest.raises(OutsideSystemError, match="no answer") as caught:
        serving.read()
    assert caught.value.retryable
    cluster.faults.plan(Fault.SERVER_ERROR, times=5)
    with pytest.raises(OutsideSystemError, match="500, Internal error") as caught:
        serving.read()
    assert caught.value.retryable


def test_a_shift_is_done_only_when_the_router_follows(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    shifted = ServingChange(why="a test", annotations={}, traffic={"fraud-v1": 0, "fraud-v2": 100})
    serving.apply(serving.read(), shifted)
    at_once = serving.readiness()
    assert at_once.signs["Seldon says Available"], "the status is stale right after a change"
    assert not at_once.signs["VirtualService has the weights"]
    assert not at_once.is_done
    assert cluster.route("card-1") == "fraud-v1"
    wait_for(lambda: serving.readiness().is_done)
    assert cluster.route("card-1") == "fraud-v2"


def test_a_predictor_that_does_not_start_is_not_done(cluster: SandboxKubernetes, serving: SeldonServing) -> None:
    cluster.operator.fail_predictor("fraud-v2")
    wait_for(lambda: not serving.readiness().signs["Deployments are rolled out"])
    assert not serving.readiness().is_done
    assert "Deployments are rolled out: not yet" in str(serving.readiness())
    cluster.operator.heal_predictor("fraud-v2")
    wait_for(lambda: serving.readiness().is_done)


def test_a_predictor_without_a_deployment_is_not_ready_however_many_the_other_one_has() -> None:
    """A candidate of two parts has two Deployments, while the operator has not made one for the restored baseline yet."""

    def deployment(name: str) -> dict[str, Any]:
        done = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
        return {"metadata": {"name": name, "generation": 1}, "spec": {"replicas": 1}, "status": done}

    found = _SeldonDeployment.model_validate(
        {
            "metadata": {"name": "fraud", "namespace": "models", "resourceVersion": "1", "generation": 1},
            "spec": {"predictors": [{"name": "fraud-v1"}, {"name": "fraud-v2"}]},
        }
    )
    two = [deployment("fraud-fraud-v2-0-model"), deployment("fraud-fraud-v2-1-transformer")]
    assert _not_ready(found, two) == {"fraud-v1"}
    assert _not_ready(found, [*two, deployment("seldon-7a1b2c3d")]) == frozenset()  # a name too long for Seldon
    assert _not_ready(found, [deployment("seldon-7a1b2c3d"), deployment("seldon-8e9f0a1b")]) == frozenset()
    assert _not_ready(found, [deployment("seldon-7a1b2c3d")]) == {"fraud-v1", "fraud-v2"}


def test_a_baseline_that_is_gone_comes_back_idle_and_then_takes_over(cluster: SandboxKubernetes, tmp_path: Path) -> None:
    admin = cluster.write_kubeconfig(tmp_path / "admin")
    deploy(admin, predictor("fraud-v2", None))  # it serves everything without saying so
    serving = SeldonServing(kubeconfig=admin, namespace="models", name="fraud-predictor")
    state = wait_for(lambda: serving.read() if serving.readiness().is_done else None)
    assert state.serves_alone("fraud-v2")
    point = '{"predictor": "fraud-v1", "spec": {"graph": {"name": "fraud-v1", "implementation": "SIMPLE_MODEL"}}}'
    state = serving.apply(state, change(**{REVERT_TO: point}))
    revert = emergency_revert(state, revert_id="r", actor="U1", reason="test", at=datetime.now(UTC))
    state = serving.apply(state, revert)
    assert dict(state.traffic) == {"fraud-v2": 100, "fraud-v1": 0}
    assert not serving.readiness().signs["Deployments are rolled out"], "the restored one has no Deployment yet"
    wait_for(lambda: serving.readiness().is_done)
    state = serving.read()
    finish = finish_revert(state)
    assert finish is not None
    assert serving.apply(state, finish).serves_alone("fraud-v1")
    wait_for(lambda: cluster.route("card-1") == "fraud-v1")


def test_a_shadow_is_no_live_traffic(cluster: SandboxKubernetes, tmp_path: Path) -> None:
    admin = cluster.write_kubeconfig(tmp_path / "admin")
    deploy(admin, predictor("fraud-v1", None), predictor("fraud-v2", 100, shadow=True))
    serving = SeldonServing(kubeconfig=admin, namespace="models", name="fraud-predictor")
    wait_for(lambda: serving.readiness().is_done)
    state = serving.read()
    assert dict(state.traffic) == {"fraud-v1": 100}
    assert [one.shadow for one in state.predictors] == [False, True]
    assert {cluster.route(f"card-{number}") for number in range(200)} == {"fraud-v1"}


def promote_and_revert_a_shadow(serving: SeldonServing) -> None:
    """Each change of a test on a shadow, on a deployment whose baseline leaves its 100 % unsaid."""
    state = serving.apply(serving.read(), start_test(serving.read(), STARTED, {"fraud-v1": 100}))
    assert dict(state.traffic) == {"fraud-v1": 100}
    assert state.is_shadow("fraud-v2")
    state = serving.apply(state, open_operation(state, "d1", decided_at_epoch=1))
    shift = shift_traffic(state, "d1", state.epoch, {"fraud-v1": 75, "fraud-v2": 25})
    assert dict(serving.apply(state, shift, dry_run=True).traffic) == {"fraud-v1": 75, "fraud-v2": 25}
    state = serving.apply(state, shift)
    assert dict(state.traffic) == {"fraud-v1": 75, "fraud-v2": 25}
    assert "shadow" not in (state.predictors[1].spec)
    state = serving.apply(state, emergency_revert(state, revert_id="r", actor="U", reason="", at=datetime.now(UTC)))
    assert state == serving.read()
    assert dict(state.traffic) == {"fraud-v1": 100, "fraud-v2": 0}


def test_a_shadow_is_promoted_and_reverted(cluster: SandboxKubernetes, tmp_path: Path) -> None:
    admin = cluster.write_kubeconfig(tmp_path / "admin")
    deploy(admin, predictor("fraud-v1", None), predictor("fraud-v2", 100, shadow=True))
    serving = SeldonServing(kubeconfig=admin, namespace="models", name="fraud-predictor")
    wait_for(lambda: serving.readiness().is_done)
    promote_and_revert_a_shadow(serving)
    wait_for(lambda: serving.readiness().is_done)
    assert serving.readiness().routes_all_to("fraud-v1")


def test_an_emergency_on_a_shadow_ends_the_copies(cluster: SandboxKubernetes, tmp_path: Path) -> None:
    admin = cluster.write_kubeconfig(tmp_path / "admin")
    deploy(admin, predictor("fraud-v1", None), predictor("fraud-v2", 100, shadow=True))
    serving = SeldonServing(kubeconfig=admin, namespace="models", name="fraud-predictor")
    state = serving.apply(serving.read(), start_test(serving.read(), STARTED, {"fraud-v1": 100}))
    serving.apply(state, emergency_revert(state, revert_id="r", actor="U", reason="", at=datetime.now(UTC)))
    wait_for(lambda: serving.readiness().is_done)
    assert dict(serving.read().traffic) == {"fraud-v1": 100, "fraud-v2": 0}
    assert {cluster.route(f"card-{number}") for number in range(200)} == {"fraud-v1"}


def test_a_kubeconfig_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="set KUBECONFIG"):
        SeldonServing(kubeconfig=tmp_path / "missing", namespace="models", name="fraud-predictor")
    with pytest.raises(SettingsInvalid, match="run inside the cluster"):
        SeldonServing(kubeconfig=None, namespace="models", name="fraud-predictor")


@pytest.fixture
def real_kubeconfig(tmp_path: Path) -> Iterator[Path]:
    if not real_api_server.is_here():
        pytest.skip(real_api_server.MISSING)
    with real_api_server.running(tmp_path) as server:
        yield server.admin


def test_a_shadow_is_promoted_and_reverted_on_a_real_api_server(real_kubeconfig: Path) -> None:
    deploy(real_kubeconfig, predictor("fraud-v1", None), predictor("fraud-v2", 100, shadow=True))
    promote_and_revert_a_shadow(SeldonServing(kubeconfig=real_kubeconfig, namespace="models", name="fraud-predictor"))


def test_the_adapter_works_on_a_real_api_server(real_kubeconfig: Path) -> None:
    deploy(real_kubeconfig, predictor("fraud-v1", 100), predictor("fraud-v2", 0))
    serving = SeldonServing(kubeconfig=real_kubeconfig, namespace="models", name="fraud-predictor")
    before = serving.read()
    state = serving.apply(before, start_test(before, STARTED, {"fraud-v1": 80, "fraud-v2": 20}))
    assert dict(state.traffic) == {"fraud-v1": 80, "fraud-v2": 20}
    with pytest.raises(Conflict):
        serving.apply(before, change(**{EPOCH: "9"}))
    state = serving.apply(state, open_operation(state, "d1", decided_at_epoch=1))
    with pytest.raises(OutsideSystemError, match="Traffic must sum to 100"):
        serving.apply(state, ServingChange(why="a test", annotations={}, traffic={"fraud-v1": 90}))
    signs = serving.readiness().signs
    assert signs["Deployments are rolled out"] is None
    assert signs["VirtualService has the weights"] is None
    assert not serving.readiness().is_done, "nobody has said that it is available"
