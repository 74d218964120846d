"""The fixed dates of the simulated A/B test, in days before and after its start: the same seed must give the same evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

DAY_SECONDS = 86_400
TEST_START = datetime(2025, 6, 2, tzinfo=UTC)  # a Monday
LABEL_MATURITY_DAYS = 30


class Days(NamedTuple):
    """A half-open range of days, counted from the start of the test."""

    first: int
    end: int


WORLD = Days(-133, 60)
BASELINE_TRAINING = Days(-119, -98)
NEW_FRAUD_PATTERN_DAY = -98  # the first terminal is compromised when the baseline's training window is over
CANDIDATE_TRAINING = Days(-79, -55)
HOLDOUT = Days(-55, -LABEL_MATURITY_DAYS)  # every label of it has arrived before the test starts
PRODUCTION = Days(0, WORLD.end)
