"""The resources that the sandbox's cluster knows, and the discovery documents that clients find them by."""

from __future__ import annotations

from deployments.sandbox.kubernetes import seldon_schema
from deployments.sandbox.kubernetes.responses import JSON
from deployments.sandbox.kubernetes.store import Kind

_READ = ("get", "list", "watch")
SELDON_DEPLOYMENTS = Kind(
    group="machinelearning.seldon.io",
    version="v1",
    plural="seldondeployments",
    kind="SeldonDeployment",
    verbs=("create", "delete", *_READ, "patch", "update"),
    short_names=("sdep",),
    find_problems=seldon_schema.find_problems,
    unknown_fields=seldon_schema.unknown_fields,
)
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment", _READ, ("deploy",))
VIRTUAL_SERVICES = Kind("networking.istio.io", "v1beta1", "virtualservices", "VirtualService", _READ, ("vs",))
REVIEWS = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", ("create",))
SERVED = (SELDON_DEPLOYMENTS, DEPLOYMENTS, VIRTUAL_SERVICES)


def _openapi(kind: Kind) -> JSON:
    """No schema, only what kubectl looks for before it writes: that the server itself validates fields."""
    patch = {
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "x-kubernetes-action": "patch",
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {"200": {"description": "OK"}},
    }
    path = f"/apis/{kind.api_version}/namespaces/{{namespace}}/{kind.plural}/{{name}}"
    return {"openapi": "3.0.0", "info": {"title": "sandbox", "version": kind.version}, "paths": {path: {"patch": patch}}}


def discovery_documents() -> dict[str, JSON]:
    """What is answered to GET on each discovery path."""
    groups: list[JSON] = []
    schemas: JSON = {}
    documents: dict[str, JSON] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0-sandbox", "platform": "sandbox"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v3": {"paths": schemas},
    }
    for kind in (*SERVED, REVIEWS):
        version = {"groupVersion": kind.api_version, "version": kind.version}
        groups.append({"name": kind.group, "versions": [version], "preferredVersion": version})
        names = {"name": kind.plural, "singularName": kind.kind.lower(), "kind": kind.kind, "shortNames": kind.short_names}
        resource = names | {"namespaced": kind is not REVIEWS, "verbs": kind.verbs}
        resources = {"kind": "APIResourceList", "groupVersion": kind.api_version, "resources": [resource]}
        schemas[f"apis/{kind.api_version}"] = {"serverRelativeURL": f"/openapi/v3/apis/{kind.api_version}"}
        documents[f"/apis/{kind.api_version}"] = resources
        documents[f"/openapi/v3/apis/{kind.api_version}"] = _openapi(kind)
    return documents
