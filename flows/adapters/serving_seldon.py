"""The SeldonDeployment through the Kubernetes API: read it, change exactly the version that was read, see whether it arrived.

A change is one json-patch that carries the version it was decided on, the predictors' names and the epoch. Whoever was
faster makes it fail as a whole, and the caller reads and decides again; nothing here replays a change on a newer version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.config import ConfigException
from pydantic import BaseModel, Field, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential
from urllib3.exceptions import HTTPError

from flows.domain.errors import Conflict, OutsideSystemError, SettingsInvalid
from flows.domain.serving_state import EPOCH, Predictor, ServingChange, ServingState
from flows.ports import Readiness

SYSTEM = "Kubernetes"
FIELD_MANAGER = "fraud-ab"
TIMEOUT_SECONDS = (3, 5)
"""To connect, and to wait for an answer."""
MAX_ATTEMPTS = 5
MAX_RETRYING_SECONDS = 8.0
MAX_PAUSE_SECONDS = 2.0
OWNER_LABEL = "seldon-deployment-id"
SELDON_DEPLOYMENTS = ("machinelearning.seldon.io", "v1", "seldondeployments")
DEPLOYMENTS = ("apps", "v1", "deployments")
VIRTUAL_SERVICES = ("networking.istio.io", "v1beta1", "virtualservices")
GITOPS_MARKS = {"Argo CD": r"argocd[.-]", "Flux": r"(kustomize|helm)\.toolkit\.fluxcd\.io/|(kustomize|helm)-controller$"}
"""What a label, an annotation or a field manager of these controllers begins with."""
FORBIDDEN, NOT_FOUND, CONFLICT, INVALID, TOO_MANY_REQUESTS, SERVER_ERROR = 403, 404, 409, 422, 429, 500

JSON = dict[str, Any]


class _Metadata(BaseModel):
    name: str
    namespace: str
    resource_version: str = Field(default="", alias="resourceVersion")
    generation: int = 1
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    managed_fields: list[JSON] = Field(default=[], alias="managedFields")


class _Spec(BaseModel):
    predictors: list[JSON]


class _Condition(BaseModel):
    type: str
    status: str


class _Status(BaseModel):
    state: str = ""
    conditions: list[_Condition] = []


class _SeldonDeployment(BaseModel):
    metadata: _Metadata
    spec: _Spec
    status: _Status = _Status()


class _Details(BaseModel):
    causes: list[JSON] = []


class _Refusal(BaseModel):
    """The Status object that explains a refusal; a proxy in between may answer something else."""

    message: str = ""
    details: _Details = _Details()


class SeldonServing:
    """One SeldonDeployment; `kubeconfig` None means the account of the pod that this runs in.

    Raises:
        SettingsInvalid: there is no usable way to reach a cluster.
    """

    def __init__(self, *, kubeconfig: Path | None, namespace: str, name: str) -> None:
        connection = _connect(kubeconfig)
        self._api = client.CustomObjectsApi(connection)
        self._reviews = client.AuthorizationV1Api(connection)
        self._namespace = namespace
        self._name = name

    def read(self) -> ServingState:
        return _as_state(self._read())

    def apply(self, state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        """Rehearse the change on the server, then make it, to exactly this version.

        Raises:
            Conflict: the deployment changed since `state` was read, or the reply to our own change was lost.
        """
        operations = _operations(state, change)
        rehearsed = self._patch(operations, f"rehearsing: {change.why}", dry_run="All")
        return _as_state(rehearsed if dry_run else self._patch(operations, change.why))

    def readiness(self) -> Readiness:
        """The signs that the spec is what runs; Seldon's own status may be stale, so it is only two of them."""
        found, deployments, routes = self._read(), self._deployments(), self._routes()
        ready = next((condition.status == "True" for condition in found.status.conditions if condition.type == "Ready"), False)
        not_ready = None if deployments is None else _not_ready(found, deployments)
        rolled_out = None if deployments is None else not not_ready and all(map(_is_rolled_out, deployments))
        wanted = _as_state(found).traffic
        return Readiness(
            signs={
                "Seldon says Available": found.status.state == "Available",
                "Seldon says Ready": ready,
                "Deployments are rolled out": rolled_out,
                "VirtualService has the weights": None if routes is None else all(weights == wanted for weights in routes),
            },
            routed=None if routes is None else {name: max(one.get(name, 0) for one in routes) for one in routes for name in one},
            not_ready=not_ready,
        )

    def missing_permissions(self) -> tuple[str, ...]:
        """By asking the API server itself (SelfSubjectAccessReview), which every account may on a usual cluster."""
        own, router = self._name, f"{self._name}-http"
        needed = [(SELDON_DEPLOYMENTS, "get", own), (SELDON_DEPLOYMENTS, "patch", own)]
        needed += [(DEPLOYMENTS, "list", ""), (VIRTUAL_SERVICES, "get", router)]
        return tuple(
            f"{verb} {kind[2]}.{kind[0]} {name}".strip() for kind, verb, name in needed if not self._is_allowed(kind, verb, name)
        )

    def _is_allowed(self, kind: tuple[str, str, str], verb: str, name: str) -> bool:
        group, version, plural = kind
        asked = client.V1ResourceAttributes(
            group=group, version=version, resource=plural, verb=verb, name=name, namespace=self._namespace
        )
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        answer = self._call_unless(
            (FORBIDDEN, NOT_FOUND),
            "reviewing what this account may do",
            lambda: self._reviews.create_self_subject_access_review(review, _request_timeout=TIMEOUT_SECONDS),
        )
        # where the cluster does not tell, the rehearsal before each change finds it out
        return answer is None or bool(answer.status.allowed)

    def _read(self) -> _SeldonDeployment:
        group, version, plural = SELDON_DEPLOYMENTS
        found = self._call(
            "reading the SeldonDeployment",
            lambda: self._api.get_namespaced_custom_object(
                group, version, self._namespace, plural, self._name, _request_timeout=TIMEOUT_SECONDS
            ),
        )
        return self._parse(found)

    def _patch(self, operations: list[JSON], doing: str, dry_run: str | None = None) -> _SeldonDeployment:
        group, version, plural = SELDON_DEPLOYMENTS
        changed = self._call(
            doing,
            lambda: self._api.patch_namespaced_custom_object(
                group,
                version,
                self._namespace,
                plural,
                self._name,
                operations,
                dry_run=dry_run,
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
                _content_type="application/json-patch+json",
                _request_timeout=TIMEOUT_SECONDS,
            ),
        )
        return self._parse(changed)

    def _deployments(self) -> list[JSON] | None:
        group, version, plural = DEPLOYMENTS
        answer = self._call_unless_missing(
            "listing the predictors' Deployments",
            lambda: self._api.list_namespaced_custom_object(
                group,
                version,
                self._namespace,
                plural,
                label_selector=f"{OWNER_LABEL}={self._name}",
                _request_timeout=TIMEOUT_SECONDS,
            ),
        )
        return None if answer is None else answer["items"]

    def _routes(self) -> list[dict[str, int]] | None:
        """What the router sends where, for each of its routes (REST and gRPC)."""
        group, version, plural = VIRTUAL_SERVICES
        answer = self._call_unless_missing(
            "reading the VirtualService",
            lambda: self._api.get_namespaced_custom_object(
                group, version, self._namespace, plural, f"{self._name}-http", _request_timeout=TIMEOUT_SECONDS
            ),
        )
        return None if answer is None else [_weights(http) for http in answer["spec"]["http"]]

    def _call_unless_missing(self, doing: str, request: Callable[[], object]) -> JSON | None:
        """None where the cluster does not have such a thing (no Istio, say), so that nothing can be checked."""
        return self._call_unless((NOT_FOUND,), doing, request)

    def _call_unless(self, refused: tuple[int, ...], doing: str, request: Callable[[], object]) -> Any:
        """None where the answer is one of these statuses."""
        try:
            return self._call(doing, request)
        except OutsideSystemError as error:
            if isinstance(error.__cause__, client.ApiException) and error.__cause__.status in refused:
                return None
            raise

    def _call(self, doing: str, request: Callable[[], object]) -> Any:
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=_pause_seconds,
            stop=stop_after_attempt(MAX_ATTEMPTS) | stop_after_delay(MAX_RETRYING_SECONDS),
            reraise=True,
        )
        doing = f"{doing} ({self._namespace}/{self._name})"
        try:
            return retrying(request)
        except client.ApiException as error:
            raise _as_our_error(error, doing) from error
        except HTTPError as error:
            raise OutsideSystemError(SYSTEM, f"{doing}: no answer, {error}", retryable=True) from error

    def _parse(self, answer: object) -> _SeldonDeployment:
        try:
            return _SeldonDeployment.model_validate(answer)
        except ValidationError as error:
            doing = f"reading the SeldonDeployment {self._namespace}/{self._name}: the answer is none, {error}"
            raise OutsideSystemError(SYSTEM, doing, retryable=False) from error


def _connect(kubeconfig: Path | None) -> client.ApiClient:
    settings = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
    except (ConfigException, OSError) as error:
        how = f"set KUBECONFIG to a kubeconfig file (none is taken by itself), or run inside the cluster ({error})"
        raise SettingsInvalid(str(kubeconfig or "KUBECONFIG"), [how]) from error
    settings.retries = False  # urllib3's own retries would repeat a patch behind our back
    return client.ApiClient(settings)


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, client.ApiException):
        status = error.status or 0
        return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR
    return isinstance(error, HTTPError)


def _pause_seconds(state: RetryCallState) -> float:
    """Full jitter, but never earlier than the server asked for."""
    error = state.outcome.exception() if state.outcome else None
    headers = error.headers if isinstance(error, client.ApiException) and error.headers else {}
    asked = headers.get("Retry-After", "0")
    least = min(float(asked), MAX_RETRYING_SECONDS) if asked.isdigit() else 0.0
    return least + wait_random_exponential(multiplier=0.1, max=MAX_PAUSE_SECONDS)(state)


def _as_our_error(error: client.ApiException, doing: str) -> OutsideSystemError:
    try:
        refusal = _Refusal.model_validate_json(error.body or "{}")
    except ValidationError:
        refusal = _Refusal(message=str(error.reason))
    # a failed test of a json-patch is a 422 that names no field: the object is not the one that was read
    is_failed_test = error.status == INVALID and not refusal.details.causes
    if error.status == CONFLICT or is_failed_test:
        return Conflict(SYSTEM, f"{doing}: somebody else changed it since it was read")
    return OutsideSystemError(SYSTEM, f"{doing}: {error.status}, {refusal.message}", retryable=_is_passing(error))


def _as_state(found: _SeldonDeployment) -> ServingState:
    metadata, specs = found.metadata, found.spec.predictors
    live = [spec for spec in specs if not spec.get("shadow")]
    return ServingState(
        name=metadata.name,
        namespace=metadata.namespace,
        resource_version=metadata.resource_version,
        generation=metadata.generation,
        predictors=tuple(
            Predictor(
                name=spec["name"],
                # a single live predictor serves everything, whether it says so or not
                traffic=100 if [spec] == live else int(spec.get("traffic") or 0),
                shadow=bool(spec.get("shadow")),
                spec=spec,
            )
            for spec in specs
        ),
        annotations=metadata.annotations,
        owners=_owners(metadata),
    )


def _owners(metadata: _Metadata) -> tuple[str, ...]:
    """The GitOps controllers that apply this object, by the marks that they leave on it."""
    marks = [*metadata.labels, *metadata.annotations, *(str(field.get("manager", "")) for field in metadata.managed_fields)]
    return tuple(name for name, pattern in GITOPS_MARKS.items() if any(re.match(pattern, mark) for mark in marks))


def _annotation(key: str) -> str:
    return f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}"


def _operations(state: ServingState, change: ServingChange) -> list[JSON]:
    """The json-patch: first what must still be true, then what changes."""
    return [*_fence(state), *_annotation_operations(state, change), *_predictor_operations(state, change)]


def _fence(state: ServingState) -> Iterator[JSON]:
    yield {"op": "replace", "path": "/metadata/resourceVersion", "value": state.resource_version}
    for place, predictor in enumerate(state.predictors):
        yield {"op": "test", "path": f"/spec/predictors/{place}/name", "value": predictor.name}
    if EPOCH in state.annotations:
        yield {"op": "test", "path": _annotation(EPOCH), "value": state.annotations[EPOCH]}


def _annotation_operations(state: ServingState, change: ServingChange) -> Iterator[JSON]:
    if not state.annotations:
        yield {"op": "add", "path": "/metadata/annotations", "value": {}}
    for key, value in change.annotations.items():
        if value is not None:
            yield {"op": "add", "path": _annotation(key), "value": value}
        elif key in state.annotations:
            yield {"op": "remove", "path": _annotation(key)}


def _predictor_operations(state: ServingState, change: ServingChange) -> Iterator[JSON]:
    traffic = change.traffic or {}
    if unknown := traffic.keys() - {predictor.name for predictor in state.predictors}:
        doing = f"{change.why}: {state.name} has no predictor {', '.join(sorted(unknown))}"
        raise OutsideSystemError(SYSTEM, doing, retryable=False)
    for place, predictor in enumerate(state.predictors):
        wanted = traffic.get(predictor.name, predictor.traffic)
        # a single predictor may leave its 100 % unsaid; beside a restored one they must be said
        is_concerned = predictor.name in traffic or (change.restore and not predictor.shadow)
        if is_concerned and predictor.spec.get("traffic") != wanted:
            yield {"op": "add", "path": f"/spec/predictors/{place}/traffic", "value": wanted}
        if predictor.shadow and predictor.name in traffic:
            yield {"op": "remove", "path": f"/spec/predictors/{place}/shadow"}
    for place, predictor in reversed(list(enumerate(state.predictors))):
        if predictor.name in change.remove:
            yield {"op": "remove", "path": f"/spec/predictors/{place}"}
    for spec in change.restore:
        yield {"op": "add", "path": "/spec/predictors/-", "value": dict(spec)}


def _not_ready(found: _SeldonDeployment, deployments: list[JSON]) -> frozenset[str]:
    """Predictors with a Deployment that is not rolled out, or with none yet.

    Seldon names a Deployment after its predictor, or where that gets too long by a digest: then nobody can tell whose it is, and
    the predictors without one of their name count as ready unless there are fewer such Deployments than such predictors.
    """
    named: dict[str, list[JSON]] = {}
    for spec in found.spec.predictors:
        start = re.escape(f"{found.metadata.name}-{spec['name']}-")
        named[spec["name"]] = [one for one in deployments if re.fullmatch(rf"{start}\d+-.*", one["metadata"]["name"])]
    unnamed = len(deployments) - sum(map(len, named.values()))
    is_complete = unnamed >= sum(not own for own in named.values())
    return frozenset(name for name, own in named.items() if not all(map(_is_rolled_out, own)) or not (own or is_complete))


def _is_rolled_out(deployment: JSON) -> bool:
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    is_observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return is_observed and all(status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "availableReplicas"))


def _weights(http: JSON) -> dict[str, int]:
    """Per cent by predictor; Istio leaves a weight of 0 out, and a single route takes everything."""
    routes: list[JSON] = http["route"]
    names = [str(route["destination"]["subset"]) for route in routes]
    return {name: 100 if len(routes) == 1 else route.get("weight", 0) for name, route in zip(names, routes, strict=True)}
