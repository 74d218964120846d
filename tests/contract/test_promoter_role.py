"""The shipped Role on a real API server and on the stand-in: what fraud-ab calls is allowed, everything else is refused.

The real server of the shared folder serves no RBAC objects; it is given the Role's file and applies its rules itself.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from deployments.sandbox.kubernetes import SandboxKubernetes
from flows.adapters.serving_seldon import SeldonServing
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.policy import Policy
from flows.emergency_revert import revert_traffic, settle
from flows.start_ab_test import start_ab_test
from tests import real_api_server

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "k8s" / "base" / "promoter-role.yaml"
SELDON, APPS, ISTIO, RBAC = (
    "machinelearning.seldon.io/v1",
    "apps/v1",
    "networking.istio.io/v1beta1",
    "rbac.authorization.k8s.io/v1",
)
WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
TEST = ABTest("t", Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2"), datetime.now(UTC), "run")

METHODS = {"get": "GET", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
ON_ALL = {"list": "GET", "watch": "GET", "create": "POST", "deletecollection": "DELETE"}


@dataclass(frozen=True)
class Server:
    """An API server with an administrator and the user that the Role restricts."""

    admin: Path
    promoter: Path

    def status(self, verb: str, path: str) -> int:
        """What the restricted user is answered; an empty object as body, so that nothing allowed has an effect."""
        settings = yaml.safe_load(self.promoter.read_text())
        token, url = settings["users"][0]["user"]["token"], settings["clusters"][0]["cluster"]["server"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json-patch+json"}
        method = METHODS.get(verb) or ON_ALL[verb]
        query = "?watch=true&timeoutSeconds=1" if verb == "watch" else "?dryRun=All" if method != "GET" else ""
        body = None if method == "GET" else b"[]" if method == "PATCH" else b"{}"
        request = urllib.request.Request(url + path + query, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


def start_stand_in(folder: Path) -> Iterator[Server]:
    with SandboxKubernetes(delay_seconds=0.02) as sandbox:
        yield Server(sandbox.write_kubeconfig(folder / "admin"), sandbox.write_kubeconfig(folder / "promoter", user="promoter"))


def start_real(folder: Path) -> Iterator[Server]:
    if not real_api_server.is_here():
        pytest.skip(real_api_server.MISSING)
    with real_api_server.running(folder) as server:
        yield Server(server.admin, server.promoter)


@pytest.fixture(scope="module", params=[start_stand_in, start_real], ids=["stand-in", "real-api-server"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for started in request.param(tmp_path_factory.mktemp("kubernetes")):
        api: Any = client.CustomObjectsApi(config.new_client_from_config(str(started.admin)))
        body = yaml.safe_load((ROOT / "k8s" / "fraud-v1-deployment.yaml").read_text())
        api.create_namespaced_custom_object(*WHERE, body)
        yield started


def path(group_version: str, plural: str, name: str = "", *, namespace: str = "models") -> str:
    root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")


DEPLOYMENT = path(SELDON, "seldondeployments", "fraud-predictor")
ALLOWED = {
    ("get", DEPLOYMENT),
    ("patch", DEPLOYMENT),
    ("list", path(APPS, "deployments")),
    ("get", path(ISTIO, "virtualservices", "fraud-predictor-http")),
}
NAMED = [
    DEPLOYMENT,
    f"{DEPLOYMENT}/status",
    path(SELDON, "seldondeployments", "another"),
    path(SELDON, "seldondeployments", "fraud-predictor", namespace="other"),
    path(APPS, "deployments", "fraud-predictor-fraud-v1-0"),
    path(APPS, "deployments", "fraud-predictor-fraud-v1-0/scale"),
    path(ISTIO, "virtualservices", "fraud-predictor-http"),
    path(ISTIO, "virtualservices", "fraud-predictor-grpc"),
    path(RBAC, "roles", "fraud-ab-promoter"),
    path(RBAC, "rolebindings", "fraud-ab-worker"),
    path("v1", "secrets", "seldon-rclone-secret"),
    path("v1", "configmaps", "x"),
    path("v1", "pods", "x"),
    path("v1", "pods", "x/exec"),
    path("v1", "namespaces", "models", namespace=""),
]
COLLECTIONS = [
    path(SELDON, "seldondeployments"),
    path(SELDON, "seldondeployments", namespace=""),
    path(APPS, "deployments"),
    path(APPS, "deployments", namespace="other"),
    path(APPS, "deployments", namespace=""),
    path(ISTIO, "virtualservices"),
    path(RBAC, "roles"),
    path(RBAC, "rolebindings"),
    path("v1", "secrets"),
    path("v1", "pods"),
    path("v1", "serviceaccounts"),
    path("v1", "namespaces", namespace=""),
]
TABLE = [*product(METHODS, NAMED), *product(ON_ALL, COLLECTIONS)]


def test_of_every_verb_and_resource_only_four_are_allowed(server: Server) -> None:
    assert set(TABLE) > ALLOWED
    found = {(verb, where) for verb, where in TABLE if server.status(verb, where) != 403}
    assert found == ALLOWED


def test_everything_that_fraud_ab_does_with_the_deployment_is_allowed(server: Server) -> None:
    serving = SeldonServing(kubeconfig=server.promoter, namespace="models", name="fraud-predictor")
    state = start_ab_test(serving, TEST, Policy())
    assert state.traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert serving.readiness().signs
    outcome = revert_traffic(serving, revert_id="r", actor="U1", reason="a test", at=datetime.now(UTC))
    settle(serving)
    assert outcome.after.serves_alone(TEST.model(Arm.BASELINE).predictor)
