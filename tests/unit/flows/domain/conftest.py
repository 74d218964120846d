"""A healthy test's evidence, from which each test breaks one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import settings

from flows.domain.counts import (
    AmountCounts,
    ArmCounts,
    CardCounts,
    Coverage,
    DayCounts,
    Design,
    FeedbackCounts,
    LabelCounts,
    ModelCounts,
    Outcomes,
    Overlap,
    QualityCounts,
    RequestBucket,
    TelemetrySummary,
)
from flows.domain.evidence import Evidence
from flows.domain.feedback import ExposureWindow
from flows.domain.sequential import Look

settings.register_profile("unhurried", deadline=None)  # the machine is shared: a slow example is no failure
settings.register_profile("mutation", deadline=None, max_examples=10, derandomize=True, database=None)
if settings.get_current_profile_name() != "mutation":
    settings.load_profile("unhurried")

WON, FALSE_ALERTS = Overlap(7800, 200, 600, 1400), Overlap(700, 91, 131)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Builder:
    """Evidence of a test that is won at its first look, with anything replaced."""

    def outcomes(self, *, frauds: Overlap = WON, false: Overlap = FALSE_ALERTS) -> Outcomes:
        total = frauds.total
        caught = frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only
        wrong = false.both + false.baseline_only, false.both + false.candidate_only
        models = [ModelCounts(total, right, right + bad, right) for right, bad in zip(caught, wrong, strict=True)]
        return Outcomes(Design.PAIRED, models[0], models[1], frauds=frauds, false_alerts=false)

    def day(self, day: int, frauds: Overlap = Overlap(278, 7, 21, 50)) -> DayCounts:  # noqa: B008 - frozen
        total = frauds.total
        caught = frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only
        return DayCounts(day, *(ModelCounts(total, right, right + 28, right) for right in caught), frauds)

    def feedback(self, **changes: Any) -> FeedbackCounts:
        healthy = FeedbackCounts(
            outcomes=self.outcomes(),
            baseline=ArmCounts(80_000, 80_000, 79_000, 800, 640),
            candidate=ArmCounts(20_000, 20_000, 19_800, 200, 168),
            labels=LabelCounts(90_000, 89_000, 1_000, 10),
            quality=QualityCounts(100_000, 0, 0, 0, 0),
            cards=CardCounts(8_000, 2_000, 3),
            amounts=AmountCounts(
                *(1_000_000, 1_000_000, 800_000, 1_000_000, 850_000, 98_800, 98_800),
                ((2_000_000_000, -10_000, 222),),
                by_card=True,
            ),
            days=tuple(self.day(day) for day in range(28)),
        )
        return replace(healthy, **changes)

    def telemetry(self, **changes: Any) -> TelemetrySummary:
        healthy = TelemetrySummary(
            latency_limit_ms=Fraction(100),
            baseline=RequestBucket(80_000, 79_000, 80_000, 80),
            candidate=RequestBucket(20_000, 19_700, 20_000, 20),
            baseline_p95_ms=81,
            candidate_p95_ms=83,
            bucket_seconds=300,
            latency_breach=0,
            shared_latency_breach=0,
            error_breach=0,
            latency_coverage=Coverage("candidate", None, 20_000, 20_000),
            error_coverage=Coverage("candidate", None, 20_000, 20_000),
        )
        return replace(healthy, **changes)

    def window(self, days: int = 14) -> ExposureWindow:
        return ExposureWindow(START, days, START + timedelta(days=days + 30))

    def evidence(self, days: int = 14, **changes: Any) -> Evidence:
        look = Look(days, 10_000, days / 28)
        healthy = Evidence(self.feedback(), None, self.window(days), self.telemetry(), (look,), 28)
        return replace(healthy, **changes)


@pytest.fixture
def build() -> Builder:
    return Builder()
