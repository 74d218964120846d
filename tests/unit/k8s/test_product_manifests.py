"""Worker and Slack app on a cluster: their settings exist, their parts find each other, and nothing runs as root."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.settings import Settings, read_policy, variable_of
from slackbot.settings import BotSettings

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "k8s" / "fraud-ab"
KNOWN = {variable_of(name, model) for model in (Settings, BotSettings) for name in model.model_fields}


def documents() -> list[Any]:
    return [
        one
        for path in sorted(FOLDER.glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
        if one["kind"] != "Kustomization"
    ]


def of_kind(kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in documents() if one["kind"] == kind}


def environment(deployment: Any) -> dict[str, str]:
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"]}


def given() -> set[str]:
    lines = (FOLDER / "settings.env").read_text().splitlines()
    return {line.partition("=")[0] for line in lines}


def secret() -> set[str]:
    """What the installation's page tells to put into the Secret."""
    return set(re.findall(r"--from-literal=(\w+)=", (ROOT / "docs" / "install_kubernetes.md").read_text()))


def test_every_setting_of_ours_exists_and_every_required_one_is_given() -> None:
    for deployment, model in (("fraud-ab-worker", Settings), ("fraud-ab-bot", BotSettings)):
        found = given() | secret() | environment(of_kind("Deployment")[deployment]).keys()
        assert {name for name in found if name.startswith("FRAUD_AB_")} <= KNOWN
        required = {variable_of(name, model) for name, one in model.model_fields.items() if one.is_required()}
        assert required <= found
        assert "KUBECONFIG" not in found, "the pod's account is used"
    assert not {name for name in given() if re.search("TOKEN|SECRET|PASSWORD|ACCESS_KEY", name)}


def test_the_shipped_policy_lets_nobody_promote_until_somebody_is_named() -> None:
    policy = read_policy(FOLDER / "policy.toml")
    assert (policy.promoters, policy.rollbackers) == ((), ())


def test_accounts_role_and_monitor_find_each_other() -> None:
    accounts = set(of_kind("ServiceAccount"))
    assert accounts == {one["spec"]["template"]["spec"]["serviceAccountName"] for one in of_kind("Deployment").values()}
    [binding] = of_kind("RoleBinding").values()
    assert {one["name"] for one in binding["subjects"]} == accounts
    assert binding["roleRef"]["name"] == yaml.safe_load((ROOT / "k8s/base/promoter-role.yaml").read_text())["metadata"]["name"]
    monitors = list(yaml.safe_load_all((ROOT / "k8s/monitoring/scraping.yaml").read_text()))
    monitor = next(one for one in monitors if one["kind"] == "ServiceMonitor")
    deployments = of_kind("Deployment")
    for service, name, setting in (
        ("fraud-ab", "fraud-ab-worker", "FRAUD_AB_METRICS_PORT"),
        ("fraud-ab-bot", "fraud-ab-bot", "FRAUD_AB_BOT_METRICS_PORT"),
    ):
        found, deployment = of_kind("Service")[service], deployments[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= found["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] == found["spec"]["ports"][0]["name"]
        assert found["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        [port] = container["ports"]
        assert (port["name"], str(port["containerPort"])) == ("metrics", environment(deployment)[setting])
        assert {container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")} == {"metrics"}


@pytest.mark.parametrize("name", ["fraud-ab-worker", "fraud-ab-bot"])
def test_nothing_runs_as_root_or_writes_outside_its_volumes(name: str) -> None:
    deployment = of_kind("Deployment")[name]["spec"]
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_kustomize_gives_the_image_its_address_and_the_settings_their_names() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl to build the kustomization")
    text = subprocess.run(["kubectl", "kustomize", FOLDER], check=True, capture_output=True, text=True, timeout=30).stdout
    built = list(yaml.safe_load_all(text))
    maps = {one["metadata"]["name"] for one in built if one["kind"] == "ConfigMap"}
    for deployment in (one for one in built if one["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"].startswith("registry.example/fraud-ab:")
        assert {one["configMapRef"]["name"] for one in pod["containers"][0]["envFrom"] if "configMapRef" in one} <= maps
        assert {one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one} <= maps
