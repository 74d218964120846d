"""Telemetry from Prometheus: the metrics of Seldon's executor, per predictor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from flows.domain.ab_test import ABTest, Arm
from flows.domain.errors import OutsideSystemError
from flows.ports import ArmTelemetry

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_SECONDS = 10.0
SHORTEST_RANGE_SECONDS = 5
METRIC = "seldon_api_executor_server_requests_seconds"
PREDICTIONS = 'service=~"predictions|.*/(Predict|ModelInfer)"'
# HTTP 2xx–4xx and the gRPC codes that blame the caller are no errors of the model
HEALTHY_CODES = (
    "[234]..|OK|InvalidArgument|NotFound|AlreadyExists|FailedPrecondition|OutOfRange|Unauthenticated|PermissionDenied|Canceled"
)


class PrometheusTelemetry:
    """Reads `url`'s HTTP API for one SeldonDeployment; arms are found by the predictors' names."""

    def __init__(self, url: str, *, deployment: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=REQUEST_SECONDS)
        self._selector = f'deployment_name="{deployment}",{PREDICTIONS}'

    def now(self) -> datetime:
        """Prometheus' own clock (UTC)."""
        return datetime.fromtimestamp(self._scalar("time()"), UTC)

    def measure(self, test: ABTest, since: datetime) -> Mapping[Arm, ArmTelemetry]:
        """Both arms since a moment of Prometheus' clock."""
        seconds = max(math.ceil((self.now() - since).total_seconds()), SHORTEST_RANGE_SECONDS)
        errors = f'{self._selector},code!~"{HEALTHY_CODES}"'
        requests = self._by_predictor(f"sum by (predictor_name) (increase({METRIC}_count{{{self._selector}}}[{seconds}s]))")
        failed = self._by_predictor(f"sum by (predictor_name) (increase({METRIC}_count{{{errors}}}[{seconds}s]))")
        buckets = f"sum by (predictor_name, le) (increase({METRIC}_bucket{{{self._selector}}}[{seconds}s]))"
        p95 = self._by_predictor(f"1000 * histogram_quantile(0.95, {buckets})")
        total = sum(requests.get(model.predictor, 0.0) for model in test.models)
        return {
            arm: ArmTelemetry(
                requests=round(requests.get(test.model(arm).predictor, 0.0)),
                share=requests.get(test.model(arm).predictor, 0.0) / total if total else 0.0,
                p95_ms=p95.get(test.model(arm).predictor),
                errors=round(failed.get(test.model(arm).predictor, 0.0)),
            )
            for arm in Arm
        }

    def _by_predictor(self, query: str) -> dict[str, float]:
        values = {item["metric"].get("predictor_name", ""): float(item["value"][1]) for item in self._query(query)}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _scalar(self, query: str) -> float:
        _, value = self._ask(query)["result"]
        return float(value)

    def _query(self, query: str) -> Iterable[Any]:
        return self._ask(query)["result"]

    def _ask(self, query: str) -> Any:
        try:
            answer = self._client.get("/api/v1/query", params={"query": query})
            answer.raise_for_status()
            return answer.json()["data"]
        except httpx.HTTPStatusError as error:
            retryable = error.response.status_code >= 500 or error.response.status_code == 429
            raise OutsideSystemError("Prometheus", f"answering {query}", retryable=retryable) from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise OutsideSystemError("Prometheus", f"answering {query}", retryable=True) from error
