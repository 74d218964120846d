"""Whom a card reaches by the weights that the VirtualService has, and the executors' metrics of what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from deployments.sandbox.kubernetes.kinds import SELDON_DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.store import ObjectStore
from deployments.sandbox.traffic_split import split_bucket

if TYPE_CHECKING:
    from starlette.requests import Request


class NothingServedError(Exception):
    """No predictor takes live traffic for this deployment yet."""


class Router:
    """The way to one SeldonDeployment; routing follows what the operator has applied, not what the spec asks for."""

    def __init__(self, store: ObjectStore, namespace: str, name: str) -> None:
        self._store = store
        self._namespace = namespace
        self._name = name
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "seldon_api_executor_server_requests_seconds",
            "A histogram of latencies for executor server",
            ("deployment_name", "predictor_name", "predictor_version", "service", "method", "code"),
            registry=self._registry,
        )

    def route(self, entity_id: str) -> str:
        """The predictor that serves this card: the first takes the buckets below its weight, the next those above, and so on.

        Raises:
            NothingServedError: the operator has applied no weights yet.
        """
        service = self._store.find(VIRTUAL_SERVICES, self._namespace, f"{self._name}-http")
        routes = service["spec"]["http"][0]["route"] if service else []
        bucket, below = split_bucket(entity_id), 0
        for route in routes:
            below += route.get("weight", 0) if len(routes) > 1 else 100
            if bucket < below:
                return str(route["destination"]["subset"])
        raise NothingServedError(f"no predictor of {self._namespace}/{self._name} takes live traffic: wait until it is Available")

    def observe(self, predictor: str, seconds: float, code: int = 200) -> None:
        """Count one answered prediction in the executor's histogram."""
        deployment = self._store.find(SELDON_DEPLOYMENTS, self._namespace, self._name)
        predictors = deployment["spec"]["predictors"] if deployment else []
        version = next((one.get("annotations", {}).get("version", "") for one in predictors if one["name"] == predictor), "")
        self._requests.labels(self._name, predictor, version, "predictions", "post", str(code)).observe(seconds)

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/prometheus", self._metrics)])

    def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
