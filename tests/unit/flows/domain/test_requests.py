from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from flows.domain.counts import Coverage, RequestBucket, TelemetrySummary
from flows.domain.policy import Latency, Policy, load_policy
from flows.domain.requests import (
    ArmRequests,
    choose_bucket_seconds,
    has_more_errors,
    is_over_latency_limit,
    is_shared_breach,
    longest_error_breach,
    longest_latency_breaches,
    more_errors_p,
    slower_p,
    summarise_requests,
    widen,
)
from tests.strategies import request_buckets

LATENCY, POLICY = Latency(), Policy()
EXCESS = Fraction(1, 200)


def healthy(requests: int = 300) -> RequestBucket:
    return RequestBucket(requests, requests, requests, 0)


def slow(requests: int = 300, share: float = 0.8) -> RequestBucket:
    return RequestBucket(requests, int(requests * share), requests, 0)


def failing(requests: int = 300, share: float = 0.1) -> RequestBucket:
    return RequestBucket(requests, requests, requests, int(requests * share))


def alone(*candidate: RequestBucket) -> int:
    return longest_latency_breaches({}, dict(enumerate(candidate)), LATENCY)[0]


def test_one_noisy_bucket_is_no_breach_but_three_in_a_row_are_found() -> None:
    assert alone(healthy(), slow(), healthy(), slow(), slow(), slow(), healthy()) == 3
    assert alone(*[slow(199)] * 9) == 0
    assert alone(*[slow(200)] * 9) == 9


def test_slow_buckets_far_apart_or_with_small_ones_between_are_no_run() -> None:
    apart = {0: slow(), 1: slow(5), 1000: slow(), 1500: slow(199), 2000: slow()}
    assert longest_latency_breaches({}, apart, LATENCY) == (1, 0)
    assert (
        longest_error_breach(dict.fromkeys(apart, healthy(1200)), {0: failing(), 1000: failing(), 2000: failing()}, POLICY) == 1
    )


def test_slow_within_chance_is_no_breach() -> None:
    assert not is_over_latency_limit(RequestBucket(200, 189, 0, 0), LATENCY)
    assert not is_over_latency_limit(RequestBucket(200, 190, 0, 0), LATENCY, 1.0)
    assert is_over_latency_limit(RequestBucket(200, 180, 0, 0), LATENCY)
    assert is_over_latency_limit(RequestBucket(200, 189, 0, 0), Latency(share=Fraction(99, 100)))
    assert not is_over_latency_limit(RequestBucket(200, 180, 0, 0, near_limit=9), LATENCY)


def test_slow_together_is_shared_unless_the_candidate_is_slower_beyond_chance() -> None:
    candidate = dict.fromkeys(range(4), slow(share=0.85))
    assert longest_latency_breaches(dict.fromkeys(range(4), healthy(1200)), candidate, LATENCY) == (4, 0)
    assert longest_latency_breaches(dict.fromkeys(range(4), slow(1200, 0.86)), candidate, LATENCY) == (0, 4)
    assert longest_latency_breaches(dict.fromkeys(range(4), slow(1200, 0.92)), candidate, LATENCY) == (4, 0)
    mixed = {0: healthy(1200), 1: slow(1200, 0.86), 2: healthy(1200), 3: healthy(1200)}
    assert longest_latency_breaches(mixed, candidate, LATENCY) == (2, 4)
    assert longest_latency_breaches(dict.fromkeys(range(4), slow(1200)), dict.fromkeys(range(4), healthy()), LATENCY) == (0, 0)


def test_an_outage_of_both_arms_is_not_the_candidates_fault() -> None:
    candidate, good = dict.fromkeys(range(4), failing()), dict.fromkeys(range(4), healthy(1200))
    assert longest_error_breach(good, candidate, POLICY) == 4
    assert longest_error_breach({**good, 2: failing(1200)}, candidate, POLICY) == 2
    assert longest_error_breach({}, candidate, POLICY) == 0


def test_an_outage_of_the_baseline_excuses_nothing_at_other_times() -> None:
    baseline = dict.fromkeys(range(28), healthy(8_000)) | {9: failing(8_000, 0.9)}
    assert longest_error_breach(baseline, dict.fromkeys(range(28), failing(2_000, 0.04)), POLICY) == 18


def test_errors_must_exceed_both_the_allowance_and_chance() -> None:
    assert not has_more_errors(RequestBucket(0, 0, 400, 0), RequestBucket(0, 0, 100, 1), EXCESS, 0.025)
    assert not has_more_errors(RequestBucket(0, 0, 200_000, 200), RequestBucket(0, 0, 200_000, 1_190), EXCESS, 0.025)
    assert has_more_errors(RequestBucket(0, 0, 200_000, 200), RequestBucket(0, 0, 200_000, 1_201), EXCESS, 0.025)
    assert not has_more_errors(RequestBucket(0, 0, 0, 0), RequestBucket(0, 0, 200, 100), EXCESS, 0.025)


@given(request_buckets(), request_buckets())
def test_the_p_values_are_fishers(one: RequestBucket, two: RequestBucket) -> None:
    errors = [[two.errors, two.answered - two.errors], [one.errors, one.answered - one.errors]]
    assert more_errors_p(one, two) == pytest.approx(fisher_exact(errors, alternative="greater").pvalue, rel=1e-9)
    within = [[two.within_limit, two.timed - two.within_limit], [one.within_limit, one.timed - one.within_limit]]
    assert slower_p(one, two) == pytest.approx(fisher_exact(within, alternative="less").pvalue, rel=1e-9)


def test_buckets_widen_until_they_hold_enough() -> None:
    assert choose_bucket_seconds(dict.fromkeys(range(10), healthy()), LATENCY) == 300
    sparse = dict.fromkeys(range(288 * 2), healthy(2))
    assert choose_bucket_seconds(sparse, LATENCY) == 86_400
    assert choose_bucket_seconds(sparse, Latency(bucket_requests=20)) == 3_600
    assert choose_bucket_seconds(dict.fromkeys(range(288), healthy(4)), LATENCY) == 21_600
    assert choose_bucket_seconds({0: healthy(3)}, LATENCY) is None
    assert choose_bucket_seconds({}, LATENCY) is None
    assert widen(sparse, 300, 86_400) == {0: healthy(576), 1: healthy(576)}


START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = int(START.timestamp()) // 300
DAY = range(FIRST, FIRST + 288)


@given(st.lists(request_buckets(), max_size=5))
def test_widening_loses_no_request(buckets: list[RequestBucket]) -> None:
    narrow = {17 * number: bucket for number, bucket in enumerate(buckets)}
    nothing = RequestBucket(0, 0, 0, 0)
    assert sum(widen(narrow, 300, 3_600).values(), nothing) == sum(buckets, nothing)


def test_coverage_is_told_where_it_is_least() -> None:
    rows = dict.fromkeys(range(FIRST, FIRST + 3 * 288), 300)
    whole = ArmRequests(dict.fromkeys(rows, healthy()), rows, 80)
    one_day_dark = ArmRequests({n: healthy() for n in rows if n not in range(FIRST + 288, FIRST + 2 * 288)}, rows, 80)
    no_latency = ArmRequests(dict.fromkeys(rows, RequestBucket(0, 0, 300, 1)), rows, None)
    found = summarise_requests(whole, one_day_dark, START, POLICY)
    assert found.latency_coverage == found.error_coverage == Coverage("candidate", 2, 0, 86_400)
    found = summarise_requests(no_latency, whole, START, POLICY)
    assert found.latency_coverage == Coverage("baseline", None, 0, 3 * 86_400)
    assert found.error_coverage == Coverage("baseline", None, 3 * 86_400, 3 * 86_400)
    late = summarise_requests(whole, one_day_dark, START - timedelta(hours=12), POLICY)
    assert late.latency_coverage == Coverage("candidate", 2, 43_200, 86_400)
    assert summarise_requests(ArmRequests({}, {}, None), whole, START, POLICY).latency_coverage.share == 0


def test_a_summary_finds_what_was_bad_and_whose_fault_it_was() -> None:
    rows = dict.fromkeys(DAY, 300)
    baseline = ArmRequests(dict.fromkeys(DAY, slow()), rows, 200)
    candidate = ArmRequests(dict.fromkeys(DAY, slow()), rows, 200)
    both = summarise_requests(baseline, candidate, START, POLICY)
    assert (both.bucket_seconds, both.latency_breach, both.shared_latency_breach, both.error_breach) == (300, 0, 288, 0)
    assert is_shared_breach(both, LATENCY)
    quick = ArmRequests(dict.fromkeys(DAY, healthy()), rows, 60)
    only = summarise_requests(quick, candidate, START, POLICY)
    assert (only.latency_breach, only.shared_latency_breach) == (288, 0)
    assert not is_shared_breach(only, LATENCY)
    assert only.candidate == RequestBucket(86_400, 69_120, 86_400, 0)


def test_a_summary_carries_everything_that_was_measured() -> None:
    rows = dict.fromkeys(DAY, 300)
    baseline, candidate = (ArmRequests(dict.fromkeys(DAY, healthy()), rows, p95) for p95 in (61, 72))
    edges = (Fraction(50), Fraction(250))
    strict = load_policy('latency = {p95_ms = "80"}', "policy.toml")
    whole = RequestBucket(86_400, 86_400, 86_400, 0)
    for near_ms in ((), edges):
        found = summarise_requests(baseline, candidate, START, strict, *([near_ms] if near_ms else []))
        coverage = Coverage("baseline", None, 86_400, 86_400)
        assert found == TelemetrySummary(Fraction(80), whole, whole, 61, 72, 300, 0, 0, 0, coverage, coverage, near_ms)


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [  # 200 in a bucket are enough, and half of all requests must be in such buckets
        ([200, 199], 300),
        ([200, 200], 300),
        ([200, 100, 100], 300),
        ([200, 100, 101], 3_600),
        ([199], None),
    ],
)
def test_the_narrowest_width_that_holds_half_of_the_requests_is_chosen(sizes: list[int], seconds: int | None) -> None:
    assert choose_bucket_seconds({number: healthy(size) for number, size in enumerate(sizes)}, LATENCY) == seconds


def test_a_summary_finds_a_run_of_errors() -> None:
    rows = dict.fromkeys(DAY, 300)
    quick = dict.fromkeys(DAY, healthy())
    failing = {number: RequestBucket(300, 300, 300, 30) if place < 4 else healthy() for place, number in enumerate(DAY)}
    found = summarise_requests(ArmRequests(quick, rows, 60), ArmRequests(failing, rows, 60), START, POLICY)
    assert (found.latency_breach, found.error_breach) == (0, 4)


def test_what_may_be_within_the_limit_counts_as_within_in_both_arms() -> None:
    one, two = RequestBucket(400, 380, 0, 0, near_limit=10), RequestBucket(100, 92, 0, 0, near_limit=3)
    assert slower_p(one, two) == pytest.approx(fisher_exact([[95, 5], [390, 10]], alternative="less").pvalue)


def test_where_no_width_holds_enough_requests_no_breach_is_looked_for() -> None:
    """Three slow days in a row among days that are a request short."""
    first = int(START.timestamp()) // 300
    slow, fine = RequestBucket(200, 100, 200, 100), RequestBucket(199, 199, 199, 0)
    candidate = {first + 288 * day: slow if day < 3 else fine for day in range(8)}
    baseline = dict.fromkeys(candidate, RequestBucket(800, 800, 800, 0))
    found = summarise_requests(ArmRequests(baseline, {}, 50), ArmRequests(candidate, {}, 99), START, Policy())
    assert found.bucket_seconds is None
    assert (found.latency_breach, found.shared_latency_breach, found.error_breach) == (0, 0, 0)


def test_a_p_value_exactly_at_the_level_is_within_chance() -> None:
    """Of 1,000 and 200 requests both arms are over the limit; the candidate is slower with Fisher's p of the level itself."""
    baseline, candidate = RequestBucket(1_000, 880, 1_000, 0), RequestBucket(200, 163, 200, 0)
    p_value = Fraction(slower_p(baseline, candidate))
    theirs = fisher_exact([[163, 37], [880, 120]], alternative="less").pvalue
    assert float(p_value) == pytest.approx(theirs)
    found = [
        longest_latency_breaches({0: baseline}, {0: candidate}, Latency(bucket_p_value=level))
        for level in (p_value, p_value + Fraction(1, 10**9))
    ]
    assert found == [(0, 1), (1, 0)]


@pytest.mark.parametrize(("requests", "run"), [(199, 0), (200, 4)])
def test_a_bucket_of_errors_counts_from_the_policys_number_of_requests(requests: int, run: int) -> None:
    baseline = dict.fromkeys(range(4), healthy(1_200))
    assert longest_error_breach(baseline, dict.fromkeys(range(4), failing(requests)), POLICY) == run


def test_requests_that_the_feedback_does_not_know_are_no_rows() -> None:
    """The first half of the day has no row at all; measured is more than there are rows, and on day 2 less."""
    rows = dict.fromkeys(DAY[144:], 300) | {FIRST + 288: 100}
    arm = ArmRequests(dict.fromkeys(DAY, healthy()) | {FIRST + 288: healthy(90)}, rows, 80)
    found = summarise_requests(arm, arm, START, POLICY)
    assert found.latency_coverage == found.error_coverage == Coverage("baseline", 2, 90, 100)
    alone = ArmRequests(dict.fromkeys(DAY, healthy()), {FIRST: 300}, 80)
    assert summarise_requests(alone, alone, START, POLICY).latency_coverage == Coverage("baseline", None, 86_400, 300)
