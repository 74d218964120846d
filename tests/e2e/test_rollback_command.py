"""`fraud-ab rollback` and its rehearsal on a cluster, from a shell: Kubernetes and nothing else is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from deployments.sandbox.faults import Fault
from deployments.sandbox.kubernetes import SandboxKubernetes
from flows.adapters.serving_seldon import SeldonServing
from flows.domain.serving_state import EPOCH, INTENT, OPERATION, REVERT_TO, ServingState
from flows.watch import poll

WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
MANIFEST = Path(__file__).parents[2] / "k8s" / "base" / "seldon-deployment.yaml"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[SandboxKubernetes]:
    with SandboxKubernetes(delay_seconds=0.02) as sandbox:
        yield sandbox


class Shell:
    """The command on a SeldonDeployment of its own, whose traffic is split with the baseline as its rollback point."""

    def __init__(self, kubernetes: SandboxKubernetes, folder: Path) -> None:
        self.kubernetes = kubernetes
        self.folder = folder
        self.admin = kubernetes.write_kubeconfig(folder / "admin")
        self.promoter = kubernetes.write_kubeconfig(folder / "promoter", user="promoter")
        self.api = client.CustomObjectsApi(config.new_client_from_config(str(self.admin)))
        self.serving = SeldonServing(kubeconfig=self.promoter, namespace="models", name="fraud-predictor")

    def deploy(self, *, without: str = "", **annotations: str) -> None:
        manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
        one, two = manifest["spec"]["predictors"]
        one["traffic"], two["traffic"] = 80, 20
        manifest["metadata"]["annotations"] = {REVERT_TO: json.dumps({"predictor": "fraud-v1", "spec": one}), EPOCH: "1"}
        manifest["metadata"]["annotations"] |= {f"fraud-ab/{key}": value for key, value in annotations.items()}
        if without:
            manifest["spec"]["predictors"] = [{**two, "traffic": 100}]
        self.api.create_namespaced_custom_object(*WHERE, manifest)
        assert poll(lambda: self.serving.readiness().is_done, 10)

    @property
    def state(self) -> ServingState:
        return self.serving.read()

    def run(self, *words: str, entry: tuple[str, ...] = ("-m", "deployments.cli")) -> tuple[int, str]:
        command = [sys.executable, *entry, "rollback", *words]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "KUBECONFIG": str(self.promoter),
        }
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def shell(kubernetes: SandboxKubernetes, tmp_path: Path) -> Iterator[Shell]:
    kubernetes.faults.reset()
    found = Shell(kubernetes, tmp_path)
    yield found
    kubernetes.faults.reset()
    kubernetes.operator.heal_predictor("fraud-v1")
    found.api.delete_namespaced_custom_object(*WHERE, "fraud-predictor")


def test_a_rollback_moves_the_traffic_and_says_when_the_router_has_followed(shell: Shell) -> None:
    shell.deploy()
    code, said = shell.run("--reason", "wrong alerts")
    assert code == 0, said
    assert "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 100 %, fraud-v2 0 %" in said
    assert "The router sends all traffic to fraud-v1." in said
    assert shell.state.serves_alone("fraud-v1")
    assert [entry["reason"] for entry in shell.state.unrecorded] == ["wrong alerts"]


def test_a_user_without_a_name_as_pods_have_it_can_roll_back(shell: Shell) -> None:
    shell.deploy()
    nameless = "import os; os.getuid = lambda: 3_999_999_999; from deployments.cli import main; main()"
    code, said = shell.run("--reason", "wrong alerts", entry=("-c", nameless))
    assert code == 0, said
    assert shell.state.serves_alone("fraud-v1")
    assert [entry["actor"] for entry in shell.state.unrecorded] == ["cli:uid-3999999999"]


def test_a_rollback_needs_a_reason_and_without_one_changes_nothing(shell: Shell) -> None:
    shell.deploy()
    before = shell.state
    code, said = shell.run()
    assert code == 2
    assert "say why" in said
    assert shell.state == before


def test_a_drill_is_timed_and_changes_nothing(shell: Shell) -> None:
    shell.deploy()
    before = shell.state
    code, said = shell.run("--drill")
    assert code == 0, said
    assert said.startswith("ready, ")
    assert said.endswith(" s\n")
    assert shell.state == before


def test_a_drill_without_a_rollback_point_says_so(shell: Shell) -> None:
    shell.deploy()
    shell.api.patch_namespaced_custom_object(*WHERE, "fraud-predictor", {"metadata": {"annotations": {REVERT_TO: None}}})
    code, said = shell.run("--drill")
    assert code == 1
    assert "not ready: fraud-predictor carries no rollback point" in said


def test_a_drill_finds_a_missing_permission(shell: Shell) -> None:
    shell.deploy()
    code, said = shell.run("--drill", "--name", "another-predictor")  # the role is for one name
    assert code == 1
    assert "403" in said
    assert "forbidden" in said


def test_a_drill_finds_that_kubernetes_cannot_be_reached(shell: Shell) -> None:
    shell.deploy()
    shell.kubernetes.faults.plan(Fault.LOST_BEFORE, times=10_000)
    code, said = shell.run("--drill")
    shell.kubernetes.faults.reset()
    assert code == 1
    assert "Kubernetes failed" in said


def test_a_drill_finds_a_baseline_that_is_not_ready(shell: Shell) -> None:
    shell.deploy()
    shell.kubernetes.operator.fail_predictor("fraud-v1")
    assert poll(lambda: not shell.serving.readiness().is_up("fraud-v1"), 10)
    code, said = shell.run("--drill")
    assert code == 1
    assert "the predictor fraud-v1 is not ready" in said


def test_a_drill_says_what_is_open_and_what_would_have_to_be_restored(shell: Shell) -> None:
    shell.deploy(without="fraud-v1", operation="ab-1", intent="revert:fraud-v1")
    code, said = shell.run("--drill")
    assert code == 1
    assert "the predictor fraud-v1 is gone: it would have to be restored first" in said
    assert "ab-1 is being carried out: a revert would stop it" in said
    assert "fraud-v1 is being started again" in said
    assert (shell.state.annotations[OPERATION], shell.state.annotations[INTENT]) == ("ab-1", "revert:fraud-v1")


def test_a_drill_finds_a_controller_that_may_undo_a_rollback(shell: Shell) -> None:
    shell.deploy()
    owner = {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "fraud:x"}}}
    shell.api.patch_namespaced_custom_object(*WHERE, "fraud-predictor", owner)
    code, said = shell.run("--drill")
    assert code == 1
    assert "Argo CD applies fraud-predictor and may undo a revert" in said


def test_a_drill_without_any_way_to_a_cluster_is_one_sentence(shell: Shell) -> None:
    shell.deploy()
    code, said = shell.run("--drill", "--kubeconfig", str(shell.folder / "absent"))
    assert code == 2
    assert said.count("\n") == 1
    assert "set KUBECONFIG" in said
