"""Latency and errors: which stretches of requests were bad beyond chance, whose fault that was, and how much was measured."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING

import scipy

from flows.domain.counts import Coverage, RequestBucket, TelemetrySummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from flows.domain.policy import Latency, Policy

_WIDER_SECONDS = (3_600, 21_600, 86_400)
_DAY_SECONDS = 86_400
_NOTHING = RequestBucket(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ArmRequests:
    """One arm as it was measured.

    `buckets` and `rows` (how many requests the feedback knows of) are by the number of the policy's bucket since 1970.
    """

    buckets: Mapping[int, RequestBucket]
    rows: Mapping[int, int]
    p95_ms: int | None


def summarise_requests(
    baseline: ArmRequests, candidate: ArmRequests, start: datetime, policy: Policy, near_ms: tuple[Fraction, ...] = ()
) -> TelemetrySummary:
    """What a verdict needs of both arms' requests, from wherever they were measured.

    Args:
        baseline, candidate: each arm's requests in buckets of the policy's width.
        start: when exposure began (UTC); days are counted from it.
        policy: gives the limits of latency and errors.
        near_ms: the boundaries below and above the latency limit, where a histogram has none at it.
    """
    seconds = choose_bucket_seconds(candidate.buckets, policy.latency)
    before, after = (widen(arm.buckets, policy.latency.bucket_seconds, seconds or _DAY_SECONDS) for arm in (baseline, candidate))
    alone, shared = longest_latency_breaches(before, after, policy.latency) if seconds else (0, 0)
    arms = {"baseline": baseline, "candidate": candidate}
    return TelemetrySummary(
        latency_limit_ms=policy.latency.p95_ms,
        baseline=sum(before.values(), _NOTHING),
        candidate=sum(after.values(), _NOTHING),
        baseline_p95_ms=baseline.p95_ms,
        candidate_p95_ms=candidate.p95_ms,
        bucket_seconds=seconds,
        latency_breach=alone,
        shared_latency_breach=shared,
        error_breach=longest_error_breach(before, after, policy) if seconds else 0,
        latency_coverage=_least_coverage(arms, start, policy, lambda bucket: bucket.timed),
        error_coverage=_least_coverage(arms, start, policy, lambda bucket: bucket.answered),
        near_ms=near_ms,
    )


def is_over_latency_limit(bucket: RequestBucket, latency: Latency, alpha: float | None = None) -> bool:
    """Whether fewer than the required share of the requests were within the limit, beyond chance.

    Args:
        bucket: at least `latency.bucket_requests` requests with a known latency, else nothing is ever over.
        latency: the policy's limit and required share.
        alpha: level of the one-sided exact binomial test, 0..1; by default that of a bucket.

    Example:
        >>> from flows.domain.policy import Latency
        >>> [is_over_latency_limit(RequestBucket(200, within, 0, 0), Latency()) for within in (180, 189)]
        [True, False]
    """
    within = bucket.within_limit + bucket.near_limit
    if bucket.timed < latency.bucket_requests or within >= bucket.timed * latency.share:
        return False
    return float(scipy.stats.binom.cdf(within, bucket.timed, float(latency.share))) < (
        latency.bucket_p_value if alpha is None else alpha
    )


def slower_p(baseline: RequestBucket, candidate: RequestBucket) -> float:
    """One-sided exact p-value (Fisher) of "a smaller share of the candidate's requests is within the limit".

    Example:
        >>> round(slower_p(RequestBucket(400, 390, 0, 0), RequestBucket(100, 95, 0, 0)), 3)
        0.161
    """
    total = baseline + candidate
    one, two = baseline.within_limit + baseline.near_limit, candidate.within_limit + candidate.near_limit
    return float(scipy.stats.hypergeom.cdf(two, total.timed, one + two, candidate.timed)) if total.timed else 1.0


def more_errors_p(baseline: RequestBucket, candidate: RequestBucket) -> float:
    """One-sided exact p-value (Fisher) of "a larger share of the candidate's requests fails".

    Example:
        >>> more_errors_p(RequestBucket(0, 0, 400, 0), RequestBucket(0, 0, 100, 1))
        0.2
    """
    total = baseline + candidate
    if not total.answered:
        return 1.0
    return float(scipy.stats.hypergeom.sf(candidate.errors - 1, total.answered, total.errors, candidate.answered))


def error_share(bucket: RequestBucket) -> Fraction | None:
    """Failed over answered requests, exactly; None without any whose outcome is known."""
    return Fraction(bucket.errors, bucket.answered) if bucket.answered else None


def has_more_errors(baseline: RequestBucket, candidate: RequestBucket, excess: Fraction, alpha: float) -> bool:
    """Whether the candidate fails more often than the baseline by more than `excess` (share), and beyond chance."""
    before, after = error_share(baseline), error_share(candidate)
    if before is None or after is None or after - before <= excess:
        return False
    return more_errors_p(baseline, candidate) < alpha


def is_shared_breach(telemetry: TelemetrySummary, latency: Latency) -> bool:
    """Whether both arms were over the latency limit together, for long enough or over the whole window: no one's fault alone."""
    is_long = telemetry.shared_latency_breach >= latency.sustained_buckets
    return is_long or all(is_over_latency_limit(arm, latency) for arm in (telemetry.baseline, telemetry.candidate))


def choose_bucket_seconds(candidate: Mapping[int, RequestBucket], latency: Latency) -> int | None:
    """The smallest width in which at least half of the candidate's requests fall into buckets that hold enough of them.

    Args:
        candidate: the candidate's buckets of the policy's width by their number since 1970.
        latency: the policy's width and how many requests are enough.

    Returns:
        the width in seconds; None when even days hold too few requests to tell a breach from noise.
    """
    total, narrow = sum(map(_size, candidate.values())), latency.bucket_seconds
    for seconds in (narrow, *(wider for wider in _WIDER_SECONDS if wider > narrow)):
        sizes = map(_size, widen(candidate, narrow, seconds).values())
        large = sum(size for size in sizes if size >= latency.bucket_requests)
        if large and 2 * large >= total:
            return seconds
    return None


def widen(buckets: Mapping[int, RequestBucket], narrow: int, seconds: int) -> dict[int, RequestBucket]:
    """Add buckets of `narrow` seconds up to wider ones, in the order of time."""
    wide: dict[int, RequestBucket] = {}
    for number in sorted(buckets):
        key = number * narrow // seconds
        wide[key] = wide.get(key, _NOTHING) + buckets[number]
    return wide


def longest_latency_breaches(
    baseline: Mapping[int, RequestBucket], candidate: Mapping[int, RequestBucket], latency: Latency
) -> tuple[int, int]:
    """The longest runs of adjacent buckets in which the candidate is over the limit: alone, and (partly) with the baseline.

    One noisy bucket must not lose a test: at p95 just at the limit noise alone breaches one bucket in a hundred. With the
    baseline over as well, the candidate counts as alone only if it is slower beyond chance.
    """
    over = [number for number, bucket in candidate.items() if is_over_latency_limit(bucket, latency)]
    alone = {number for number in over if _is_alone(baseline.get(number, _NOTHING), candidate[number], latency)}
    shared = [len(run) for run in _runs(over) if not alone.issuperset(run)]
    return max(map(len, _runs(alone)), default=0), max(shared, default=0)


def _is_alone(baseline: RequestBucket, candidate: RequestBucket, latency: Latency) -> bool:
    return not is_over_latency_limit(baseline, latency) or slower_p(baseline, candidate) < latency.bucket_p_value


def longest_error_breach(baseline: Mapping[int, RequestBucket], candidate: Mapping[int, RequestBucket], policy: Policy) -> int:
    """The longest run of adjacent buckets in which the candidate failed more often than the baseline at the same time."""
    level = float(policy.latency.bucket_p_value)
    bad = [
        number
        for number, bucket in candidate.items()
        if bucket.answered >= policy.latency.bucket_requests
        and has_more_errors(baseline.get(number, _NOTHING), bucket, policy.error_rate.excess, level)
    ]
    return max(map(len, _runs(bad)), default=0)


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """The numbers in runs without a gap."""
    grouped = groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    return [[number for _, number in run] for _, run in grouped]


def _least_coverage(
    arms: Mapping[str, ArmRequests], start: datetime, policy: Policy, known: Callable[[RequestBucket], int]
) -> Coverage:
    """Where the smallest share of the rows was measured: an arm, over the whole window or on one day."""
    found: list[Coverage] = []
    for name, arm in arms.items():
        rows, measured = dict[int | None, int]({None: 0}), dict[int | None, int]({None: 0})
        for number in arm.rows.keys() | arm.buckets.keys():
            day = max(0, number * policy.latency.bucket_seconds - int(start.timestamp())) // _DAY_SECONDS + 1
            for part in (None, day):
                rows[part] = rows.get(part, 0) + arm.rows.get(number, 0)
                measured[part] = measured.get(part, 0) + known(arm.buckets.get(number, _NOTHING))
        found += [Coverage(name, day, measured[day], rows[day]) for day in rows if rows[day] or day is None]
    return min(found, key=lambda one: (one.share, one.day or 0))


def _size(bucket: RequestBucket) -> int:
    return max(bucket.timed, bucket.answered)
