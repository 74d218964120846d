"""The feedback's telemetry: what it says of requests nobody measured, and of slow ones far apart."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.counts import Coverage, RequestBucket
from flows.domain.feedback import ExposureWindow
from flows.domain.policy import Policy, load_policy
from tests.feedback_tables import START, feedback_frame, written

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = START.to_pydatetime()
TEST = ABTest("t", Model("fraud_v1", "1", "baseline"), Model("fraud_v2", "1", "candidate"), BEGAN, "run")
WINDOW = ExposureWindow(BEGAN, 14, BEGAN + timedelta(days=44))


def test_a_stretch_of_time_is_measured_by_itself(tmp_path: Path) -> None:
    frame = feedback_frame(6_000)
    since, until = START + pd.Timedelta(days=3), START + pd.Timedelta(days=4)
    seen = frame[(frame.event_time >= since) & (frame.event_time < until)]
    measured = FeedbackTelemetry(written(frame, tmp_path), Policy()).measure(TEST, since.to_pydatetime(), until.to_pydatetime())
    for arm in Arm:
        own = seen[seen.arm == arm]
        found = measured[arm]
        assert (found.requests, found.errors, found.share) == (len(own), own.error.sum(), len(own) / len(seen))
        assert found.p95_ms == np.ceil(own.latency_ms).sort_values().iloc[int(np.ceil(0.95 * len(own))) - 1]


@pytest.mark.parametrize("column", ["latency_ms", "error"])
def test_a_day_without_measurements_is_the_least_covered(column: str, tmp_path: Path) -> None:
    frame = feedback_frame(6_000).astype({"error": "boolean"})
    dark = (frame.event_time - START).dt.days == 4
    frame.loc[dark & (frame.arm == "baseline"), column] = pd.NA
    summary = FeedbackTelemetry(written(frame, tmp_path), Policy()).summarise(WINDOW, Policy())
    assert summary is not None
    found = {"latency_ms": summary.latency_coverage, "error": summary.error_coverage}
    assert found.pop(column) == Coverage("baseline", 5, 0, int((dark & (frame.arm == "baseline")).sum()))
    assert next(iter(found.values())).share == 1


def test_slow_stretches_far_apart_are_no_sustained_breach(tmp_path: Path) -> None:
    """300 slow requests of the candidate at three moments of one day, and few others in between."""
    moments = np.concatenate([np.repeat([0, 1_000 * 30, 2_000 * 30], 300), np.arange(30, 80_000, 1_000)])
    frame = feedback_frame(len(moments)).assign(
        event_time=(START + pd.to_timedelta(moments, unit="s")).astype("datetime64[us, UTC]"),
        arm="candidate",
        latency_ms=np.where(np.arange(len(moments)) < 900, 250.0, 20.0),
    )
    source = written(frame, tmp_path)
    summary = FeedbackTelemetry(source, Policy()).summarise(WINDOW, Policy())
    assert summary is not None
    assert (summary.bucket_seconds, summary.latency_breach) == (300, 1)
    hourly = load_policy("[latency]\nbucket_minutes = 60", "p")
    wide = FeedbackTelemetry(source, hourly).summarise(WINDOW, hourly)
    assert wide is not None
    assert wide.bucket_seconds == 3_600
    assert wide.candidate == RequestBucket(980, 80, 980, summary.candidate.errors)
