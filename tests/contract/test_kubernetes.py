"""What the product relies on in a Kubernetes API server: the same on the stand-in and on a real one.

Runs on the stand-in; on a real API server where the shared folder is there (beside the project, or FRAUD_AB_SHARED); and on
any cluster that FRAUD_AB_CONTRACT_KUBECONFIG reaches (its namespace FRAUD_AB_CONTRACT_NAMESPACE, default "models").
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, watch

from deployments.sandbox.kubernetes import SandboxKubernetes
from tests import real_api_server

ROOT = Path(__file__).parents[2]
EXTERNAL = os.environ.get("FRAUD_AB_CONTRACT_KUBECONFIG", "")
GROUP, VERSION, PLURAL = "machinelearning.seldon.io", "v1", "seldondeployments"
JSON_PATCH = {"_content_type": "application/json-patch+json"}
SECONDS = 20.0
JSON = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """One server under test; `promoter` is the kubeconfig of the restricted user where there is one."""

    kind: str
    admin: Path
    promoter: Path | None
    namespace: str
    name: str

    def api(self, *, user: Path | None = None) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(config.new_client_from_config(str(user or self.admin)))

    def where(self, name: str = "") -> tuple[str, ...]:
        return (GROUP, VERSION, self.namespace, PLURAL, *([name] if name else []))


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline, pause = time.monotonic() + SECONDS, threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {SECONDS} s")
        pause.wait(0.02)
    return value


def start_stand_in(folder: Path) -> Iterator[Cluster]:
    with SandboxKubernetes(delay_seconds=0.05) as sandbox:
        promoter = sandbox.write_kubeconfig(folder / "promoter", user="promoter")
        yield Cluster("stand-in", sandbox.write_kubeconfig(folder / "admin"), promoter, "models", "fraud-predictor")


def start_real(folder: Path) -> Iterator[Cluster]:
    if not real_api_server.is_here():
        pytest.skip(real_api_server.MISSING)
    with real_api_server.running(folder) as server:
        yield Cluster("real-api-server", server.admin, server.promoter, "models", "fraud-predictor")


def given_cluster(_folder: Path) -> Iterator[Cluster]:
    namespace = os.environ.get("FRAUD_AB_CONTRACT_NAMESPACE", "models")
    yield Cluster("given-cluster", Path(EXTERNAL), None, namespace, f"fraud-ab-contract-{secrets.token_hex(3)}")


SERVERS = {"stand-in": start_stand_in, "real-api-server": start_real} | ({"given-cluster": given_cluster} if EXTERNAL else {})


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plugins = request.config.pluginmanager
    reporter, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")
    for started in SERVERS[request.param](tmp_path_factory.mktemp("kubernetes")):
        if reporter is not None:  # a parallel worker has none
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"Kubernetes contract: running on {started.kind}")
        yield started


@pytest.fixture
def api(cluster: Cluster) -> client.CustomObjectsApi:
    return cluster.api()


def predictor(name: str, traffic: int, **more: Any) -> JSON:
    graph = {"name": name, "type": "MODEL", "implementation": "TENSORFLOW_SERVER", "modelUri": "s3://models/x"}
    return {"name": name, "replicas": 1, "traffic": traffic, "graph": graph, **more}


def manifest(name: str, predictors: list[JSON] | None = None, **spec: Any) -> JSON:
    predictors = [predictor("fraud-v1", 80), predictor("fraud-v2", 20)] if predictors is None else predictors
    spec = {"protocol": "tensorflow", "transport": "rest", "predictors": predictors, **spec}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "SeldonDeployment", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def deployed(cluster: Cluster, api: client.CustomObjectsApi) -> Iterator[JSON]:
    """A SeldonDeployment at 80/20 that nobody changes behind the test's back any more."""
    api.create_namespaced_custom_object(*cluster.where(), manifest(cluster.name), field_validation="Strict")

    def settled() -> JSON | None:
        found: Any = read(cluster, api)
        has_operator = cluster.kind != "real-api-server"
        return found if not has_operator or found.get("status", {}).get("state") == "Available" else None

    try:
        yield wait_for(settled)
    finally:
        api.delete_namespaced_custom_object(*cluster.where(cluster.name))


def read(cluster: Cluster, api: client.CustomObjectsApi) -> Any:
    return api.get_namespaced_custom_object(*cluster.where(cluster.name))


def patch(cluster: Cluster, api: client.CustomObjectsApi, body: Any, **options: Any) -> Any:
    return api.patch_namespaced_custom_object(*cluster.where(cluster.name), body, **{**JSON_PATCH, **options})


def op(name: str, path: str, value: Any = None) -> JSON:
    return {"op": name, "path": path, **({} if name == "remove" else {"value": value})}


def version(found: JSON) -> int:
    return int(found["metadata"]["resourceVersion"])


def traffic(found: JSON) -> list[int]:
    return [one["traffic"] for one in found["spec"]["predictors"]]


def weights(first: int, second: int) -> list[JSON]:
    return [op("replace", f"/spec/predictors/{place}/traffic", value) for place, value in enumerate((first, second))]


def refusal(call: Callable[[], Any]) -> JSON:
    """The Status object of a call that must be refused, checked for its shape."""
    with pytest.raises(client.ApiException) as caught:
        call()
    status = json.loads(caught.value.body or "")
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", caught.value.status)
    return status


def test_a_new_object_gets_a_version_a_uid_and_generation_one(cluster: Cluster, api: Any) -> None:
    created = api.create_namespaced_custom_object(*cluster.where(), {**manifest(cluster.name), "status": {"state": "Available"}})
    try:
        assert created["metadata"]["generation"] == 1
        assert created["metadata"]["uid"]
        assert version(created) > 0
        assert "status" not in created
        again = refusal(lambda: api.create_namespaced_custom_object(*cluster.where(), manifest(cluster.name)))
        assert (again["code"], again["reason"]) == (409, "AlreadyExists")
    finally:
        api.delete_namespaced_custom_object(*cluster.where(cluster.name))
    gone = refusal(lambda: read(cluster, api))
    assert (gone["code"], gone["reason"], gone["details"]["name"]) == (404, "NotFound", cluster.name)


def test_a_patch_that_tests_and_carries_the_version_shifts_traffic(cluster: Cluster, api: Any, deployed: JSON) -> None:
    body = [
        op("replace", "/metadata/resourceVersion", deployed["metadata"]["resourceVersion"]),
        op("test", "/spec/predictors/0/name", "fraud-v1"),
        op("test", "/spec/predictors/1/name", "fraud-v2"),
        *weights(0, 100),
    ]
    changed = patch(cluster, api, body, field_manager="fraud-ab", field_validation="Strict")
    assert traffic(changed) == [0, 100]
    assert version(changed) > version(deployed)
    assert changed["metadata"]["generation"] == deployed["metadata"]["generation"] + 1


def test_a_stale_version_is_a_conflict_and_changes_nothing(cluster: Cluster, api: Any, deployed: JSON) -> None:
    patch(cluster, api, weights(70, 30))
    stale = [op("replace", "/metadata/resourceVersion", deployed["metadata"]["resourceVersion"]), *weights(0, 100)]
    for options in ({}, {"dry_run": "All"}):
        status = refusal(lambda options=options: patch(cluster, api, stale, **options))
        assert (status["code"], status["reason"]) == (409, "Conflict")
    assert traffic(read(cluster, api)) == [70, 30]


@pytest.mark.parametrize(
    "body",
    [
        [op("test", "/spec/predictors/0/name", "another"), *weights(0, 100)],
        [op("test", "/spec/predictors/7/name", "fraud-v1")],
        [op("test", "/metadata/annotations/epoch", "3")],
        [op("remove", "/metadata/labels/missing")],
        # a failed test is found before the version is compared, so both errors mean "it is not what you read"
        [op("replace", "/metadata/resourceVersion", "1"), op("test", "/spec/predictors/0/name", "another")],
    ],
    ids=["other-name", "no-such-predictor", "no-annotation", "nothing-to-remove", "stale-too"],
)
def test_a_failed_test_is_invalid_without_causes(cluster: Cluster, api: Any, deployed: JSON, body: list[JSON]) -> None:
    status = refusal(lambda: patch(cluster, api, body))
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert not status["details"].get("causes")
    assert status["message"] == "the server rejected our request due to an error in our request"
    assert traffic(read(cluster, api)) == [80, 20]


def test_a_list_sent_as_merge_patch_is_a_bad_request(cluster: Cluster, api: Any, deployed: JSON) -> None:
    body = weights(0, 100)
    assert refusal(lambda: patch(cluster, api, body, _content_type="application/merge-patch+json"))["code"] == 400
    assert refusal(lambda: api.patch_namespaced_custom_object(*cluster.where(cluster.name), body))["code"] == 400
    assert refusal(lambda: patch(cluster, api, {}, _content_type="application/strategic-merge-patch+json"))["code"] == 415


def test_a_dry_run_answers_as_if_and_keeps_nothing(cluster: Cluster, api: Any, deployed: JSON) -> None:
    rehearsed = patch(cluster, api, weights(0, 100), dry_run="All")
    assert traffic(rehearsed) == [0, 100]
    assert rehearsed["metadata"]["generation"] == deployed["metadata"]["generation"] + 1
    assert version(rehearsed) == version(deployed)
    other = manifest(f"{cluster.name}-other")
    assert "resourceVersion" not in api.create_namespaced_custom_object(*cluster.where(), other, dry_run="All")["metadata"]
    api.delete_namespaced_custom_object(*cluster.where(cluster.name), dry_run="All")
    assert read(cluster, api) == deployed
    assert refusal(lambda: patch(cluster, api, weights(0, 90), dry_run="All"))["code"] == 422
    assert refusal(lambda: patch(cluster, api, weights(0, 100), dry_run="Some"))["code"] == 422
    assert read(cluster, api) == deployed


def test_strict_validation_names_unknown_and_duplicate_fields(cluster: Cluster, api: Any, deployed: JSON) -> None:
    strict = {"field_validation": "Strict"}
    body = [op("add", "/spec/predictors/0/bogus", 1)]
    status = refusal(lambda: patch(cluster, api, body, **strict))
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert 'unknown field "spec.predictors[0].bogus"' in status["message"]
    assert status["details"]["causes"]
    new = manifest(f"{cluster.name}-other", colour="blue")
    status = refusal(lambda: api.create_namespaced_custom_object(*cluster.where(), new, **strict))
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.colour"' in status["message"]
    twice = json.dumps(manifest(f"{cluster.name}-other")).replace('"traffic": 80', '"traffic": 80, "traffic": 80')
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{cluster.namespace}/{PLURAL}?fieldValidation=Strict"
    status = refusal(lambda: send(api, "POST", path, twice))
    assert status["code"] == 400
    assert "duplicate field" in status["message"]
    twice = '{"metadata": {"annotations": {"a": "1", "a": "2"}}}'
    status = refusal(lambda: send(api, "PATCH", path.replace("?", f"/{cluster.name}?"), twice))
    assert status["code"] == 422
    assert "duplicate field" in status["message"]


def send(api: Any, method: str, path: str, body: str) -> None:
    """A body that the official client would not build."""
    http = api.api_client.rest_client.pool_manager
    kind = "application/json" if method == "POST" else "application/merge-patch+json"
    settings = api.api_client.configuration
    token = settings.get_api_key_with_prefix("authorization") or settings.api_key.get("BearerToken", "")
    answer = http.request(method, settings.host + path, body=body, headers={"Content-Type": kind, "Authorization": token})
    if answer.status >= 400:
        raise client.ApiException(status=answer.status, body=answer.data.decode())


PHASE_DOCUMENT = {
    "name": "fraud-predictor",
    "componentSpecs": [{"spec": {"containers": [{"name": "v", "image": "i"}]}}],
    "traffic": 100,
}
V1, V2 = predictor("fraud-v1", 100), predictor("fraud-v2", 100)


def without(key: str) -> JSON:
    changed = copy.deepcopy(V1)
    del changed["graph"][key]
    return changed


@pytest.mark.parametrize(
    ("predictors", "spec", "message"),
    [
        ([V1, predictor("fraud-v2", 20)], {}, "spec: Invalid value: Traffic must sum to 100 for multiple predictors"),
        ([predictor("fraud-v1", 50)], {}, "spec: Invalid value: Traffic must sum be 100 for a single predictor when set"),
        (
            [V1, {**V2, "shadow": True}, {**V2, "name": "c", "shadow": True}],
            {},
            "spec: Invalid value: Multiple shadows are not allowed",
        ),
        ([{**V1, "shadow": True}], {}, "spec: Invalid value: Shadow can not exist as only predictor"),
        ([V1, predictor("fraud-v1", 0)], {}, "spec: Invalid value: Duplicate predictor name"),
        ([], {}, "spec: Invalid value: Graph contains no predictors"),
        ([PHASE_DOCUMENT], {}, "spec.predictors[0].graph: Required value"),
        ([{**V1, "traffic": "100"}], {}, 'spec.predictors[0].traffic in body must be of type integer: "string"'),
        ([{**V1, "name": "x" * 64}], {}, "spec.predictors[0].name: Too long: may not be more than 63 bytes"),
        ([{**V1, "annotations": {"a": 1}}], {}, 'spec.predictors[0].annotations.a in body must be of type string: "integer"'),
        ([without("name")], {}, "spec.predictors[0].graph.name: Required value"),
        ([without("implementation")], {}, "spec.predictors[0]: Invalid value: Can't find container for Predictive Unit"),
        ([without("modelUri")], {}, "Predictive unit modelUri required when using standalone servers"),
        ([V1, {**V2, "shadow": True, "traffic": 101}], {}, "spec.predictors[1]: Invalid value: shadow traffic is illegal"),
        ([V1], {"protocol": "smoke"}, "spec: Invalid value: Invalid protocol"),
        ([V1], {"transport": "pigeon"}, "spec: Invalid value: Invalid transport"),
        (
            [{**V1, "graph": {**V1["graph"], "implementation": "MLFLOW_SERVER"}}],
            {},
            "spec: Invalid value: Prepackaged server does not handle tensorflow protocol",
        ),
    ],
)
def test_an_invalid_deployment_is_refused(cluster: Cluster, api: Any, predictors: list[JSON], spec: JSON, message: str) -> None:
    new = manifest(cluster.name, predictors, **spec)
    status = refusal(lambda: api.create_namespaced_custom_object(*cluster.where(), new, dry_run="All"))
    assert status["details"]["causes"]
    if cluster.kind != "given-cluster":  # Seldon's own webhook says it in its own words
        assert (status["code"], status["reason"]) == (422, "Invalid")
        assert message in status["message"]


@pytest.mark.parametrize(
    "predictors",
    [[V1], [{k: v for k, v in V1.items() if k != "traffic"}], [predictor("a", 0), V2], [V1, {**V2, "shadow": True}]],
    ids=["single", "single-without-traffic", "idle", "shadow"],
)
def test_a_valid_deployment_is_taken(cluster: Cluster, api: Any, predictors: list[JSON]) -> None:
    api.create_namespaced_custom_object(
        *cluster.where(), manifest(cluster.name, predictors), dry_run="All", field_validation="Strict"
    )


def test_only_a_change_of_the_spec_raises_the_generation(cluster: Cluster, api: Any, deployed: JSON) -> None:
    generation = deployed["metadata"]["generation"]
    annotated = patch(cluster, api, [op("add", "/metadata/annotations", {"a": "1"})])
    assert annotated["metadata"]["generation"] == generation
    body = [op("add", "/status", {"state": "Creating"}), op("add", "/metadata/annotations/b", "2"), *weights(0, 100)]
    api.patch_namespaced_custom_object_status(*cluster.where(cluster.name), body, **JSON_PATCH)
    found = read(cluster, api)
    assert found["metadata"]["generation"] == generation
    assert found["metadata"]["annotations"] == {"a": "1"}
    assert traffic(found) == [80, 20]
    stays = patch(cluster, api, [op("add", "/status", {"state": "Failed"})])
    assert stays.get("status", {}).get("state") != "Failed"
    assert patch(cluster, api, weights(70, 30))["metadata"]["generation"] == generation + 1


def test_annotations_need_their_map_and_escaped_keys(cluster: Cluster, api: Any, deployed: JSON) -> None:
    add = op("add", "/metadata/annotations/fraud-ab~1epoch", "1")
    assert refusal(lambda: patch(cluster, api, [add]))["code"] == 422
    found = patch(cluster, api, [op("add", "/metadata/annotations", {}), add])
    assert found["metadata"]["annotations"] == {"fraud-ab/epoch": "1"}
    key = "/metadata/annotations/fraud-ab~1epoch"
    assert refusal(lambda: patch(cluster, api, [op("add", key, 2)]))["code"] == 422
    found = patch(cluster, api, [op("test", key, "1"), op("add", key, "2")])
    assert found["metadata"]["annotations"] == {"fraud-ab/epoch": "2"}
    assert refusal(lambda: patch(cluster, api, [op("test", key, "1"), op("add", key, "3")]))["code"] == 422
    assert "annotations" not in patch(cluster, api, [op("remove", key)])["metadata"]


def test_a_patch_that_changes_nothing_keeps_the_version(cluster: Cluster, api: Any, deployed: JSON) -> None:
    assert version(patch(cluster, api, weights(80, 20))) == version(deployed)
    assert version(patch(cluster, api, [op("test", "/spec/predictors/0/name", "fraud-v1")])) == version(deployed)


def test_a_merge_patch_merges_maps_and_removes_nulls(cluster: Cluster, api: Any, deployed: JSON) -> None:
    merge = {"_content_type": "application/merge-patch+json"}
    patch(cluster, api, {"metadata": {"annotations": {"a": "1", "b": "2"}}}, **merge)
    found = patch(cluster, api, {"metadata": {"annotations": {"a": None, "c": "3"}}}, **merge)
    assert found["metadata"]["annotations"] == {"b": "2", "c": "3"}
    # the predictors are one atomic list: a merge-patch replaces it as a whole
    found = patch(cluster, api, {"spec": {"predictors": [V1]}}, **merge)
    assert traffic(found) == [100]


def test_a_replacement_needs_the_version(cluster: Cluster, api: Any, deployed: JSON) -> None:
    new = manifest(cluster.name, [predictor("fraud-v1", 60), predictor("fraud-v2", 40)])
    assert refusal(lambda: api.replace_namespaced_custom_object(*cluster.where(cluster.name), new))["code"] == 422
    new["metadata"]["resourceVersion"] = deployed["metadata"]["resourceVersion"]
    assert traffic(api.replace_namespaced_custom_object(*cluster.where(cluster.name), new)) == [60, 40]
    assert refusal(lambda: api.replace_namespaced_custom_object(*cluster.where(cluster.name), new))["code"] == 409


def test_the_promoter_may_read_and_patch_its_deployment_and_nothing_else(cluster: Cluster, deployed: JSON) -> None:
    if cluster.promoter is None:
        pytest.skip("the given cluster has no restricted user")
    api: Any = cluster.api(user=cluster.promoter)
    mine = cluster.where(cluster.name)
    assert traffic(api.get_namespaced_custom_object(*mine)) == [80, 20]
    assert traffic(patch(cluster, api, weights(70, 30))) == [70, 30]
    forbidden = {
        "create": lambda: api.create_namespaced_custom_object(*cluster.where(), manifest("new")),
        "delete": lambda: api.delete_namespaced_custom_object(*mine),
        "update": lambda: api.replace_namespaced_custom_object(*mine, deployed),
        "patch": lambda: api.patch_namespaced_custom_object(*cluster.where("another"), [], **JSON_PATCH),
        "get": lambda: api.get_namespaced_custom_object(*cluster.where("another")),
        "list": lambda: api.list_cluster_custom_object(GROUP, VERSION, PLURAL),
    }
    for verb, call in forbidden.items():
        status = refusal(call)
        assert (status["code"], status["reason"]) == (403, "Forbidden")
        assert f'User "promoter" cannot {verb} resource "{PLURAL}" in API group "{GROUP}"' in status["message"]
    status = refusal(lambda: api.patch_namespaced_custom_object_status(*mine, [], **JSON_PATCH))
    assert f'cannot patch resource "{PLURAL}/status"' in status["message"]


def test_an_unknown_token_is_unauthorized(cluster: Cluster) -> None:
    settings = yaml.safe_load(cluster.admin.read_text())
    settings["users"][0]["user"] = {"token": "wrong"}
    api = client.CustomObjectsApi(config.new_client_from_config_dict(settings))
    assert refusal(lambda: read(cluster, api))["code"] == 401


def test_everybody_may_ask_what_they_may(cluster: Cluster) -> None:
    if cluster.kind == "real-api-server":
        pytest.skip(real_api_server.CUSTOM_RESOURCES_ONLY)
    attributes = {"group": GROUP, "resource": PLURAL, "namespace": cluster.namespace, "name": cluster.name}

    def is_allowed(user: Path, verb: str) -> bool:
        reviews = client.AuthorizationV1Api(config.new_client_from_config(str(user)))
        review: Any = {"spec": {"resourceAttributes": {**attributes, "verb": verb}}}
        return reviews.create_self_subject_access_review(review).status.allowed

    assert is_allowed(cluster.admin, "delete")
    if cluster.promoter is not None:
        assert [is_allowed(cluster.promoter, verb) for verb in ("get", "patch", "delete")] == [True, True, False]


def test_a_list_is_selected_and_a_watch_tells_what_happens_after_it(cluster: Cluster, api: Any, deployed: JSON) -> None:
    def names(**selector: str) -> list[str]:
        listed = api.list_namespaced_custom_object(*cluster.where(), **selector)
        assert listed["kind"] == "SeldonDeploymentList"
        return [item["metadata"]["name"] for item in listed["items"]]

    assert cluster.name in names()
    assert names(field_selector=f"metadata.name={cluster.name}") == [cluster.name]
    assert names(field_selector="metadata.name=another") == names(label_selector="team=none") == []
    since = api.list_namespaced_custom_object(*cluster.where())["metadata"]["resourceVersion"]
    for number in ("1", "2"):
        patch(cluster, api, [op("add", "/metadata/annotations", {"n": number})])
    found: list[tuple[str, str]] = []
    for event in watch.Watch().stream(
        api.list_namespaced_custom_object,
        *cluster.where(),
        resource_version=since,
        timeout_seconds=10,
        field_selector=f"metadata.name={cluster.name}",
    ):
        found.append((event["type"], event["object"]["metadata"]["annotations"]["n"]))
        if len(found) == 2:
            break
    assert found == [("MODIFIED", "1"), ("MODIFIED", "2")]


def test_a_watch_from_a_forgotten_version_is_gone(cluster: Cluster, api: Any) -> None:
    if cluster.kind == "given-cluster":
        pytest.skip("a given cluster may still know its first version")
    with pytest.raises(client.ApiException) as caught:
        list(watch.Watch().stream(api.list_namespaced_custom_object, *cluster.where(), resource_version="1", timeout_seconds=5))
    assert caught.value.status == 410


def test_a_deletion_ends_a_watch_with_the_last_state(cluster: Cluster, api: Any) -> None:
    since = api.list_namespaced_custom_object(*cluster.where())["metadata"]["resourceVersion"]
    api.create_namespaced_custom_object(*cluster.where(), manifest(cluster.name))
    gone = api.delete_namespaced_custom_object(*cluster.where(cluster.name))
    assert (gone["kind"], gone["status"]) == ("Status", "Success")
    events = watch.Watch().stream(api.list_namespaced_custom_object, *cluster.where(), resource_version=since, timeout_seconds=10)
    types = []
    for event in events:
        types.append(event["type"])
        if types[-1] == "DELETED":
            break
    assert (types[0], types[-1]) == ("ADDED", "DELETED")


OUR_MANIFESTS = [*sorted((ROOT / "k8s").glob("fraud-*-deployment.yaml")), *sorted((ROOT / "k8s" / "overlays").iterdir())]


@pytest.mark.parametrize("path", OUR_MANIFESTS, ids=lambda path: path.name)
def test_our_manifests_are_valid(cluster: Cluster, api: Any, path: Path) -> None:
    if path.is_dir() and not shutil.which("kubectl"):
        pytest.skip("needs kubectl to build overlays")
    build = ["kubectl", "kustomize", path] if path.is_dir() else ["cat", path]
    text = subprocess.run(build, check=True, capture_output=True, text=True, timeout=30).stdout
    new = next(document for document in yaml.safe_load_all(text) if document["kind"] == "SeldonDeployment")
    new["metadata"] |= {"name": cluster.name, "namespace": cluster.namespace}
    api.create_namespaced_custom_object(*cluster.where(), new, dry_run="All", field_validation="Strict")
    live = [one["traffic"] for one in new["spec"]["predictors"] if not one.get("shadow")]
    assert sum(live) == 100
