"""The ingress: sends each card's requests to a predictor by the weights that the VirtualService has, and counts them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.sandbox.kubernetes.kinds import SELDON_DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.store import ObjectStore
from deployments.sandbox.traffic_split import split_bucket

if TYPE_CHECKING:
    from starlette.requests import Request


class NothingServedError(Exception):
    """No predictor takes live traffic for this deployment yet."""


class Router:
    """Routing follows what the operator has applied, not what the spec asks for."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._models: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "seldon_api_executor_server_requests_seconds",
            "A histogram of latencies for executor server",
            ("deployment_name", "predictor_name", "predictor_version", "service", "method", "code"),
            registry=self._registry,
        )

    def load_model(self, predictor: str, model: Callable[[Mapping[str, Any]], Any]) -> None:
        """Let a predictor answer with `model(payload)`; without a model it answers with its name alone."""
        self._models[predictor] = model

    def route(self, entity_id: str, namespace: str, name: str) -> str:
        """The predictor that serves this card: the first takes the buckets below its weight, the next those above, and so on.

        Raises:
            NothingServedError: the operator has applied no weights yet.
        """
        service = self._store.find(VIRTUAL_SERVICES, namespace, f"{name}-http")
        routes = service["spec"]["http"][0]["route"] if service else []
        bucket, below = split_bucket(entity_id), 0
        for route in routes:
            below += route.get("weight", 0) if len(routes) > 1 else 100
            if bucket < below:
                return str(route["destination"]["subset"])
        raise NothingServedError(f"no predictor of {namespace}/{name} takes live traffic yet: wait until it is Available")

    def observe(self, namespace: str, name: str, predictor: str, seconds: float, code: int) -> None:
        """Count one answered request in the executor's histogram."""
        deployment = self._store.find(SELDON_DEPLOYMENTS, namespace, name)
        predictors = deployment["spec"]["predictors"] if deployment else []
        version = next((one.get("annotations", {}).get("version", "") for one in predictors if one["name"] == predictor), "")
        self._requests.labels(name, predictor, version, "predictions", "post", str(code)).observe(seconds)

    def predict(self, namespace: str, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Route, score and count one request."""
        predictor = self.route(str(payload["entity_id"]), namespace, name)
        model, began, code = self._models.get(predictor), time.perf_counter(), 500
        try:
            scored = {"jsonData": model(payload)} if model else {}
            code = 200
            return {"meta": {"requestPath": {predictor: predictor}}, **scored}
        finally:
            self.observe(namespace, name, predictor, time.perf_counter() - began, code)

    def application(self) -> Starlette:
        path = "/seldon/{namespace}/{name}/api/v1.0/predictions"
        return Starlette(routes=[Route(path, self._predictions, methods=["POST"]), Route("/prometheus", self._metrics)])

    async def _predictions(self, request: Request) -> Response:
        try:
            payload = json.loads(await request.body())
            where = request.path_params
            return JSONResponse(await run_in_threadpool(self.predict, where["namespace"], where["name"], payload))
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"status": "FAILURE", "info": "send a JSON object with entity_id, the card"}, 400)
        except NothingServedError as error:
            return JSONResponse({"status": "FAILURE", "info": str(error)}, 503)

    def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
