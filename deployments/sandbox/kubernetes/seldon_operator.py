"""The operator stand-in: makes what each SeldonDeployment asks for happen, as late and as partially as Seldon's own operator.

Two habits of the real one matter to whoever waits for a change, so they are kept: the status stays as it was until the
operator gets round to a change ("Available" may be stale), and traffic weights and clean-up are applied only once *every*
predictor's Deployment is ready, so one broken predictor holds up even a change that leads away from it.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import UTC, datetime

from deployments.sandbox.kubernetes.kinds import DEPLOYMENTS, SELDON_DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.responses import JSON, ApiError
from deployments.sandbox.kubernetes.store import Kind, ObjectStore

OWNER_LABEL = "seldon-deployment-id"
ENGINE_PORT = 8000
STOP_SECONDS = 5.0


class SeldonOperator:
    """A thread that reconciles all SeldonDeployments of a store; it sleeps until a change or until the next step is due."""

    def __init__(self, store: ObjectStore, *, delay_seconds: float) -> None:
        self._store = store
        self._delay = delay_seconds
        self._wake = threading.Event()
        self._is_stopping = False
        self._failing: frozenset[str] = frozenset()
        self._first_seen: dict[tuple[str, int], float] = {}
        self._thread = threading.Thread(target=self._run, name="seldon-operator", daemon=True)
        self._stop_listening = store.listen(self._wake.set)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._stop_listening()
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def fail_predictor(self, name: str) -> None:
        """From now on this predictor's pods are not ready, until `heal_predictor`."""
        self._failing |= {name}
        self._wake.set()

    def heal_predictor(self, name: str) -> None:
        self._failing -= {name}
        self._wake.set()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            due = self._reconcile_all()
            self._wake.wait(max(0.0, min(due) - time.monotonic()) if due else None)

    def _reconcile_all(self) -> list[float]:
        """One step for every SeldonDeployment; returns when (monotonic seconds) the next steps are due."""
        owners, _ = self._store.list(SELDON_DEPLOYMENTS)
        alive = {owner["metadata"]["uid"] for owner in owners}
        for kind in (DEPLOYMENTS, VIRTUAL_SERVICES):
            for child in self._store.list(kind)[0]:
                if child["metadata"]["ownerReferences"][0]["uid"] not in alive:
                    self._delete(kind, child)
        due: list[float] = []
        for owner in owners:
            try:
                due += self._reconcile(owner)
            except ApiError:  # the object went away under our hands; its removal has already woken us
                continue
        return due

    def _due_after(self, thing: JSON, seconds: float) -> list[float]:
        """Empty when this generation of an object was first seen so long ago, else the moment when that will be so."""
        now = time.monotonic()
        key = (thing["metadata"]["uid"], thing["metadata"]["generation"])
        due = self._first_seen.setdefault(key, now) + seconds
        return [due] if now < due else []

    def _reconcile(self, owner: JSON) -> list[float]:
        if due := self._due_after(owner, self._delay / 2):
            return due
        namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"]
        wanted = [_deployment(owner, predictor) for predictor in owner["spec"]["predictors"]]
        failing = [predictor["name"] in self._failing for predictor in owner["spec"]["predictors"]]
        due = [at for one, fails in zip(wanted, failing, strict=True) for at in self._reconcile_deployment(one, fails=fails)]
        children = [one for one in self._store.list(DEPLOYMENTS, namespace)[0] if one["metadata"]["labels"][OWNER_LABEL] == name]
        unwanted = [child for child in children if child["metadata"]["name"] not in {one["metadata"]["name"] for one in wanted}]
        # as in the real operator, no replicas at all is not ready either
        is_ready = all(child["status"].get("availableReplicas") for child in children if child not in unwanted)
        if is_ready:
            self._put(VIRTUAL_SERVICES, _virtual_service(owner))
            for child in unwanted:
                self._delete(DEPLOYMENTS, child)
        self._put_status(SELDON_DEPLOYMENTS, owner, _status(owner, children, is_ready=is_ready))
        return due

    def _reconcile_deployment(self, wanted: JSON, *, fails: bool) -> list[float]:
        """What the Deployment controller and the kubelet do: new pods are observed first, and available later."""
        deployment = self._put(DEPLOYMENTS, wanted)
        metadata, replicas = deployment["metadata"], deployment["spec"]["replicas"]
        if fails:
            self._first_seen.pop((metadata["uid"], metadata["generation"]), None)
        if due := self._due_after(deployment, self._delay / 2):
            is_known = "status" in deployment and not fails
            self._put_status(DEPLOYMENTS, deployment, deployment["status"] if is_known else {"replicas": replicas})
            return [] if fails else due
        status = {"observedGeneration": metadata["generation"], "replicas": replicas, "updatedReplicas": replicas}
        due = self._due_after(deployment, self._delay)
        ready = {"unavailableReplicas": replicas} if due else {"readyReplicas": replicas, "availableReplicas": replicas}
        self._put_status(DEPLOYMENTS, deployment, status | ready)
        return due

    def _put(self, kind: Kind, wanted: JSON) -> JSON:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        if self._store.find(kind, namespace, name) is None:
            return self._store.create(kind, namespace, wanted)
        return self._store.change(kind, namespace, name, lambda found: {**found, "spec": wanted["spec"]})

    def _put_status(self, kind: Kind, thing: JSON, status: JSON) -> None:
        namespace, name = thing["metadata"]["namespace"], thing["metadata"]["name"]
        self._store.change(kind, namespace, name, lambda found: {**found, "status": status}, part="status")

    def _delete(self, kind: Kind, thing: JSON) -> None:
        self._store.delete(kind, thing["metadata"]["namespace"], thing["metadata"]["name"])


def _child(owner: JSON, kind: Kind, name: str, spec: JSON) -> JSON:
    parent = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]} | {k: owner["metadata"][k] for k in ("name", "uid")}
    metadata = {"name": name, "namespace": owner["metadata"]["namespace"], "labels": {OWNER_LABEL: owner["metadata"]["name"]}}
    metadata["ownerReferences"] = [parent | {"controller": True}]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


def _deployment(owner: JSON, predictor: JSON) -> JSON:
    component, graph = (predictor.get("componentSpecs") or [{}])[0], predictor["graph"]
    model = {"name": graph["name"], "image": graph.get("implementation", ""), "args": [graph.get("modelUri", "")]}
    # the executor is told its predictor, but not the traffic: a change of weights restarts nothing, one of the shadow flag does
    told = {key: value for key, value in predictor.items() if key not in ("traffic", "replicas")}
    executor = {"name": "seldon-container-engine", "env": [{"name": "ENGINE_PREDICTOR", "value": _base64(told)}]}
    containers = [*(component.get("spec", {}).get("containers") or [model]), executor]
    replicas = component.get("replicas", predictor.get("replicas", owner["spec"].get("replicas", 1)))
    name = f"{owner['metadata']['name']}-{predictor['name']}-0-{graph['name']}"
    return _child(owner, DEPLOYMENTS, name, {"replicas": replicas, "template": {"spec": {"containers": containers}}})


def _base64(thing: JSON) -> str:
    return base64.b64encode(json.dumps(thing, sort_keys=True).encode()).decode()


def _virtual_service(owner: JSON) -> JSON:
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    live: list[JSON] = []
    http: JSON = {"match": [{"uri": {"prefix": f"/seldon/{namespace}/{name}/"}}], "rewrite": {"uri": "/"}, "route": live}
    for predictor in owner["spec"]["predictors"]:
        subset = predictor["name"]
        destination = {"host": f"{name}-{subset}", "subset": subset, "port": {"number": ENGINE_PORT}}
        if predictor.get("shadow"):
            http["mirror"] = destination
        else:  # a weight of 0 is left out of the JSON, as Istio's own encoding does
            weight = {"weight": predictor["traffic"]} if predictor.get("traffic") else {}
            live.append({"destination": destination} | weight)
    return _child(owner, VIRTUAL_SERVICES, f"{name}-http", {"hosts": ["*"], "gateways": ["seldon-gateway"], "http": [http]})


def _status(owner: JSON, children: list[JSON], *, is_ready: bool) -> JSON:
    """The status in Seldon's form; like the real operator's it has no observedGeneration."""
    word = "True" if is_ready else "False"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    since = {old["type"]: old for old in owner.get("status", {}).get("conditions", []) if old["status"] == word}
    new = {kind: {"type": kind, "status": word, "lastTransitionTime": now} for kind in ("DeploymentsReady", "Ready")}
    name, namespace, first = owner["metadata"]["name"], owner["metadata"]["namespace"], owner["spec"]["predictors"][0]["name"]
    counts = ("replicas", "availableReplicas")
    return {
        "state": "Available" if is_ready else "Creating",
        "address": {"url": f"http://{name}-{first}.{namespace}.svc.cluster.local:{ENGINE_PORT}/api/v1.0/predictions"},
        "conditions": list((new | since).values()),
        "deploymentStatus": {
            child["metadata"]["name"]: {key: child["status"][key] for key in counts if key in child["status"]}
            for child in children
        },
    }
