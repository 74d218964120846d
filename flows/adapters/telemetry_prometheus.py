"""Telemetry from Prometheus: the metrics of Seldon's executor, per predictor."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx

from flows.domain.ab_test import ABTest, Arm
from flows.domain.counts import RequestBucket, TelemetrySummary
from flows.domain.errors import OutsideSystemError
from flows.domain.feedback import ExposureWindow
from flows.domain.policy import Policy
from flows.domain.requests import ArmRequests, summarise_requests
from flows.ports import ArmTelemetry

if TYPE_CHECKING:
    from collections.abc import Iterable

Served = Callable[[ExposureWindow, Policy], Mapping[Arm, Mapping[int, int]]]
REQUEST_SECONDS = 10.0
SHORTEST_RANGE_SECONDS = 5
POINTS_AT_ONCE = 2_016  # a week of five minutes; Prometheus refuses more than 11,000
LEAD_SECONDS = 3_600
_DAY_SECONDS = 86_400
_INFINITE = "+Inf"
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

    def measure(self, test: ABTest, since: datetime, until: datetime | None = None) -> Mapping[Arm, ArmTelemetry]:
        """Both arms between two moments of Prometheus' clock."""
        until = until or self.now()
        seconds = max(math.ceil((until - since).total_seconds()), SHORTEST_RANGE_SECONDS)
        errors = f'{self._selector},code!~"{HEALTHY_CODES}"'
        requests = self._by_predictor(
            f"sum by (predictor_name) (increase({METRIC}_count{{{self._selector}}}[{seconds}s]))", until
        )
        failed = self._by_predictor(f"sum by (predictor_name) (increase({METRIC}_count{{{errors}}}[{seconds}s]))", until)
        buckets = f"sum by (predictor_name, le) (increase({METRIC}_bucket{{{self._selector}}}[{seconds}s]))"
        p95 = self._by_predictor(f"1000 * histogram_quantile(0.95, {buckets})", until)
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

    def bounds(self, since: int, until: int) -> list[str]:
        """The histogram's boundaries in seconds as Prometheus writes them, without +Inf, in rising order."""
        match = f"{METRIC}_bucket{{{self._selector}}}"
        found = self._get("/api/v1/label/le/values", {"match[]": match, "start": since, "end": until})
        return sorted((bound for bound in found if bound != _INFINITE), key=Fraction)

    def increases(
        self, metric: str, matchers: str, seconds: int, first: int, end: int
    ) -> Iterable[tuple[Mapping[str, str], int, int]]:
        """What each counter grew by in each bucket of `seconds` from number `first` on, before `end`: labels, bucket, increase.

        PromQL's increase() extrapolates; whole requests are counted here. A value below the one before it tells of a restart,
        and a series that was not there before began at 0, so that its first value is its increase.
        """
        before: dict[frozenset[tuple[str, str]], int] = {}
        query = f"{METRIC}_{metric}{{{self._selector},{matchers}}}"
        for begin in range(first - LEAD_SECONDS // seconds, end + 1, POINTS_AT_ONCE):
            last = min(begin + POINTS_AT_ONCE - 1, end)
            asked = {"query": query, "start": begin * seconds, "end": last * seconds, "step": seconds}
            for series in self._get("/api/v1/query_range", asked)["result"]:
                key = frozenset(series["metric"].items())
                for moment, text in series["values"]:
                    value, earlier = round(float(text)), before.get(key, 0)
                    before[key], number = value, round(moment / seconds) - 1
                    if number >= first:
                        yield series["metric"], number, value - earlier if value >= earlier else value

    def p95_ms(self, matchers: str, since: int, until: int) -> int | None:
        """The 95th percentile as the histogram lets one guess it, day by day so that no query reads weeks of samples at once."""
        query = f"sum by (le) (increase({METRIC}_bucket{{{self._selector},{matchers}}}[{_DAY_SECONDS}s]))"
        asked = {"query": query, "start": since + _DAY_SECONDS, "end": until + _DAY_SECONDS - 1, "step": _DAY_SECONDS}
        histogram: defaultdict[float, float] = defaultdict(float)
        for series in self._get("/api/v1/query_range", asked)["result"]:
            histogram[float(series["metric"]["le"])] += sum(float(text) for _, text in series["values"])
        return _interpolated_ms(sorted(histogram.items()), 0.95)

    def _by_predictor(self, query: str, at: datetime) -> dict[str, float]:
        found = self._get("/api/v1/query", {"query": query, "time": str(at.timestamp())})["result"]
        values = {item["metric"].get("predictor_name", ""): float(item["value"][1]) for item in found}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _scalar(self, query: str) -> float:
        _, value = self._get("/api/v1/query", {"query": query})["result"]
        return float(value)

    def _get(self, path: str, asked: Mapping[str, str | int]) -> Any:
        doing = f"answering {asked.get('query') or path}"
        try:
            answer = self._client.get(path, params=dict(asked))
            answer.raise_for_status()
            return answer.json()["data"]
        except httpx.HTTPStatusError as error:
            retryable = error.response.status_code >= 500 or error.response.status_code == 429
            raise OutsideSystemError("Prometheus", doing, retryable=retryable) from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise OutsideSystemError("Prometheus", doing, retryable=True) from error


class PrometheusWindow:
    """One test's latency and errors over a window.

    Prometheus knows nothing of requests that it did not see; `served` tells how many there were, by arm and bucket.
    """

    def __init__(self, prometheus: PrometheusTelemetry, test: ABTest, served: Served) -> None:
        self._prometheus = prometheus
        self._test = test
        self._served = served

    def summarise(self, window: ExposureWindow, policy: Policy) -> TelemetrySummary | None:
        """Latency and errors of the whole test so far; the first whole bucket of the test is the first that counts."""
        seconds, served = policy.latency.bucket_seconds, self._served(window, policy)
        until = min(window.start + timedelta(days=policy.window_days.max), window.as_of)
        first, end = (math.ceil(moment.timestamp() / seconds) for moment in (window.start, until))
        bounds = self._prometheus.bounds(first * seconds, end * seconds)
        low, high = _around(bounds, policy.latency.p95_ms / 1000)
        arms: list[ArmRequests] = []
        for arm in (Arm.BASELINE, Arm.CANDIDATE):
            matchers = f'predictor_name="{self._test.model(arm).predictor}"'
            buckets = self._buckets(matchers, (low, high), seconds, first, end)
            p95 = self._prometheus.p95_ms(matchers, first * seconds, end * seconds)
            arms.append(ArmRequests(buckets, served[arm], p95))
        near = () if low == high else tuple(1000 * Fraction(bound) for bound in (low, high) if bound != _INFINITE)
        return summarise_requests(arms[0], arms[1], window.start, policy, near)

    def _buckets(self, matchers: str, around: tuple[str, str], seconds: int, first: int, end: int) -> dict[int, RequestBucket]:
        answered, errors = Counter[int](), Counter[int]()
        for labels, number, requests in self._prometheus.increases("count", matchers, seconds, first, end):
            answered[number] += requests
            errors[number] += requests if not re.fullmatch(HEALTHY_CODES, labels.get("code", "")) else 0
        up_to: dict[str, Counter[int]] = {bound: Counter() for bound in (*around, _INFINITE)}
        wanted = "|".join(bound.replace("+", "[+]") for bound in up_to)
        for labels, number, requests in self._prometheus.increases("bucket", f'{matchers},le=~"{wanted}"', seconds, first, end):
            up_to[labels["le"]][number] += requests
        low, high, timed = up_to[around[0]], up_to[around[1]], up_to[_INFINITE]
        return {
            number: RequestBucket(timed[number], low[number], answered[number], errors[number], high[number] - low[number])
            for number in answered.keys() | timed.keys()
        }


def _around(bounds: list[str], limit_seconds: Fraction) -> tuple[str, str]:
    """The boundaries next to the limit, twice the same where one lies at it; below the first there is 0."""
    low = max((bound for bound in bounds if Fraction(bound) <= limit_seconds), key=Fraction, default="0")
    high = min((bound for bound in bounds if Fraction(bound) >= limit_seconds), key=Fraction, default=_INFINITE)
    return low, high


def _interpolated_ms(histogram: list[tuple[float, float]], share: float) -> int | None:
    """A quantile in whole milliseconds, rounded up, evenly spread between two boundaries; beyond the last one: that one."""
    if not histogram or not histogram[-1][1]:
        return None
    wanted = share * histogram[-1][1]
    for (low, below), (high, up_to) in pairwise([(0.0, 0.0), *histogram]):
        if up_to >= wanted:
            inside = 0.0 if math.isinf(high) else (high - low) * (wanted - below) / (up_to - below)
            return math.ceil(1000 * (low + inside))
    return None
