"""Latency, errors and the measured traffic share from the feedback table, where no Prometheus is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING

import ibis

from flows.adapters.feedback_table import Expression, FeedbackTable, open_feedback
from flows.domain.ab_test import ABTest, Arm
from flows.domain.counts import RequestBucket, TelemetrySummary
from flows.domain.errors import FeedbackInvalid
from flows.domain.requests import ArmRequests, summarise_requests
from flows.ports import ArmTelemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

_LONGEST_MS = 600_000


class FeedbackTelemetry:
    """What the served requests of the feedback tell."""

    def __init__(self, source: str, policy: Policy) -> None:
        self._source = source
        self._policy = policy

    def now(self) -> datetime:
        """The last event's time (UTC): this telemetry's own clock."""
        with open_feedback(self._source, self._policy) as table:
            found = table.fetch(table.rows.aggregate(seconds=table.rows.event_s.max()))[0]["seconds"]
            if found is None:
                raise FeedbackInvalid(f"{table.name} holds no rows with an event_time, so there is no telemetry.")
            return datetime.fromtimestamp(int(found), UTC)

    def measure(
        self,
        test: ABTest,  # noqa: ARG002 - the feedback is of one test
        since: datetime,
        until: datetime | None = None,
    ) -> Mapping[Arm, ArmTelemetry]:
        """Both arms from `since` on (inclusive) and before `until`; an arm without requests has 0 of them."""
        with open_feedback(self._source, self._policy) as table:
            table.refuse_nan()
            rows = table.rows.filter(table.rows.event_s >= ceil(since.timestamp()))
            if until is not None:
                rows = rows.filter(rows.event_s < ceil(until.timestamp()))
            errors = rows.error.sum() if table.has("error") else ibis.literal(0)
            found = {row["arm"]: row for row in table.fetch(rows.group_by("arm").aggregate(requests=rows.count(), errors=errors))}
            p95 = _p95(table, rows)
        total = sum(row["requests"] for arm, row in found.items() if arm in set(Arm))
        measured: dict[Arm, ArmTelemetry] = {}
        for arm in Arm:
            row = found.get(arm.value, {"requests": 0, "errors": 0})
            share = row["requests"] / total if total else 0.0
            measured[arm] = ArmTelemetry(int(row["requests"]), share, p95.get(arm.value), int(row["errors"] or 0))
        return measured

    def summarise(self, window: ExposureWindow, policy: Policy) -> TelemetrySummary | None:
        """Latency and errors of the whole test so far: exposure does not wait for labels, so neither do breaches.

        Returns:
            None when the feedback has neither latency_ms nor error.
        """
        with open_feedback(self._source, policy) as table:
            if not table.has("latency_ms") and not table.has("error"):
                return None
            table.refuse_nan()
            rows = _exposed(table, window, policy)
            buckets, served, p95 = _buckets(table, rows, policy), _served(table, rows, policy), _p95(table, rows)
        baseline, candidate = (ArmRequests(buckets[arm], served[arm], p95.get(arm)) for arm in Arm)
        return summarise_requests(baseline, candidate, window.start, policy)

    def served(self, window: ExposureWindow, policy: Policy) -> Mapping[Arm, Mapping[int, int]]:
        """Rows of each arm by the number (since 1970) of the policy's bucket: what another telemetry should have measured."""
        with open_feedback(self._source, policy) as table:
            return _served(table, _exposed(table, window, policy), policy)


def _exposed(table: FeedbackTable, window: ExposureWindow, policy: Policy) -> Expression:
    """The rows of the whole test so far."""
    start, end = window.start, window.start + timedelta(days=policy.window_days.max)
    return table.rows.filter((table.rows.event_s >= int(start.timestamp())) & (table.rows.event_s < int(end.timestamp())))


def _buckets(table: FeedbackTable, rows: Expression, policy: Policy) -> dict[Arm, dict[int, RequestBucket]]:
    """Requests of each arm in the policy's stretches of time: at most some small rows an hour and arm leave the engine."""
    none = ibis.literal(0)
    timed = rows.latency_ms.count() if table.has("latency_ms") else none
    within = (rows.latency_ms <= float(policy.latency.p95_ms)).sum() if table.has("latency_ms") else none
    answered, errors = (rows.error.count(), rows.error.sum()) if table.has("error") else (none, none)
    grouped = _by_bucket(rows, policy).aggregate(timed=timed, within=within, answered=answered, errors=errors)
    found: dict[Arm, dict[int, RequestBucket]] = {arm: {} for arm in Arm}
    for row in table.fetch(grouped.filter(grouped.arm.isin(list(Arm)))):
        counts = (row["timed"], row["within"], row["answered"], row["errors"])
        found[Arm(row["arm"])][row["number"]] = RequestBucket(*(int(count or 0) for count in counts))
    return found


def _served(table: FeedbackTable, rows: Expression, policy: Policy) -> dict[Arm, dict[int, int]]:
    """Rows by the arm that served them; a shadow serves nobody, so its requests are the rows that it scored."""
    found = _counted(table, rows, policy)
    if policy.is_shadow:
        scored = rows.filter(rows.candidate_prediction.notnull()).mutate(arm=ibis.literal(Arm.CANDIDATE.value))
        found |= {Arm.CANDIDATE: _counted(table, scored, policy)[Arm.CANDIDATE]}
    return found


def _counted(table: FeedbackTable, rows: Expression, policy: Policy) -> dict[Arm, dict[int, int]]:
    grouped = _by_bucket(rows, policy).aggregate(requests=rows.count())
    found: dict[Arm, dict[int, int]] = {arm: {} for arm in Arm}
    for row in table.fetch(grouped.filter(grouped.arm.isin(list(Arm)))):
        found[Arm(row["arm"])][row["number"]] = row["requests"]
    return found


def _by_bucket(rows: Expression, policy: Policy) -> Expression:
    return rows.group_by(arm=rows.arm, number=(rows.event_s / policy.latency.bucket_seconds).floor().cast("int64"))


def _p95(table: FeedbackTable, rows: Expression) -> dict[str, int]:
    """Each arm's 95th percentile in whole milliseconds, rounded up, from a histogram: exact, and in constant memory."""
    if not table.has("latency_ms"):
        return {}
    rows = rows.filter(rows.latency_ms.notnull() & rows.arm.notnull())
    whole_ms = rows.latency_ms.clip(upper=_LONGEST_MS).ceil().cast("int64")
    histogram = rows.group_by(arm=rows.arm, ms=whole_ms).aggregate(requests=rows.count()).order_by("arm", "ms")
    by_arm: dict[str, list[tuple[int, int]]] = {}
    for row in table.fetch(histogram):
        by_arm.setdefault(row["arm"], []).append((row["ms"], row["requests"]))
    return {arm: _reached(counts, 95) for arm, counts in by_arm.items()}


def _reached(counts: list[tuple[int, int]], per_cent: int) -> int:
    """The smallest value up to which at least `per_cent` of the requests lie."""
    wanted, seen = per_cent * sum(requests for _, requests in counts), 0
    for value, requests in counts:
        seen += 100 * requests
        if seen >= wanted:
            return value
    raise AssertionError("a histogram ends at 100 per cent")
