"""Shared hypothesis strategies: counts as they can really occur."""

from __future__ import annotations

from hypothesis import strategies as st

from flows.domain.counts import Design, ModelCounts, Outcomes, Overlap, RequestBucket

counts = st.integers(0, 400)
overlaps = st.builds(Overlap, counts, counts, counts, counts)


@st.composite
def paired_outcomes(draw: st.DrawFn) -> Outcomes:
    frauds, false = draw(overlaps), draw(st.builds(Overlap, counts, counts, counts))
    total = frauds.total
    caught = frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only
    wrong = false.both + false.baseline_only, false.both + false.candidate_only
    models = [ModelCounts(total, right, right + bad, right) for right, bad in zip(caught, wrong, strict=True)]
    return Outcomes(Design.PAIRED, models[0], models[1], frauds=frauds, false_alerts=false)


@st.composite
def model_counts(draw: st.DrawFn, *, least: int = 0) -> ModelCounts:
    caught, missed, false = draw(counts), draw(st.integers(least, 400)), draw(counts)
    return ModelCounts(caught + missed, caught, caught + false, caught)


split_outcomes = st.builds(lambda one, two: Outcomes(Design.SPLIT, one, two), model_counts(), model_counts())
outcomes = st.one_of(paired_outcomes(), split_outcomes)


@st.composite
def request_buckets(draw: st.DrawFn) -> RequestBucket:
    timed, answered = draw(counts), draw(counts)
    return RequestBucket(timed, draw(st.integers(0, timed)), answered, draw(st.integers(0, answered)))
