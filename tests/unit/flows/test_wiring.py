"""Which systems the settings choose."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.adapters.telemetry_prometheus import PrometheusTelemetry, PrometheusWindow
from flows.domain.ab_test import ABTest, Model
from flows.settings import Settings, load_settings
from flows.wiring import Systems

TEST = ABTest("t", Model("fraud_v1", "1", "v1"), Model("fraud_v2", "1", "v2"), datetime(2026, 1, 1, tzinfo=UTC), "run")


def test_telemetry_comes_from_prometheus_where_it_is_set_and_else_from_the_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ("FRAUD_AB_DECISION_LOG_URL", "FRAUD_AB_FEEDBACK_URL", "FRAUD_AB_LIFECYCLE_REPOSITORY", "FRAUD_AB_SLACK_CHANNEL")
    for name in (*required, "MLFLOW_TRACKING_URI", "SLACK_BOT_TOKEN"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("FRAUD_AB_PROMETHEUS_URL", raising=False)
    without = Systems(load_settings(Settings))
    assert isinstance(without.window_telemetry(TEST), FeedbackTelemetry)
    assert isinstance(without.telemetry, FeedbackTelemetry)
    monkeypatch.setenv("FRAUD_AB_PROMETHEUS_URL", "http://127.0.0.1:9")
    with_it = Systems(load_settings(Settings))
    assert isinstance(with_it.window_telemetry(TEST), PrometheusWindow)
    assert isinstance(with_it.telemetry, PrometheusTelemetry)
