"""What the requests since a shift say about its target."""

from __future__ import annotations

import pytest

from flows.domain.ab_test import Arm
from flows.domain.policy import Policy
from flows.ports import ArmTelemetry
from flows.watch import judge


def measured(requests: int = 1000, share: float = 0.5, p95_ms: float | None = 60.0, errors: int = 0) -> dict[Arm, ArmTelemetry]:
    total = round(requests / share) if share else 1000
    other = ArmTelemetry(total - requests, 1 - share, 50.0, 0)
    return {Arm.CANDIDATE: ArmTelemetry(requests, share, p95_ms, errors), Arm.BASELINE: other}


def test_a_healthy_shift_is_confirmed() -> None:
    found = judge(measured(), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.0)
    assert (found.breach, found.missing) == ("", "")
    assert found.measured == "50.0 % of 2,000 requests, 0 failed, p95 60 ms"


@pytest.mark.parametrize(
    ("numbers", "share", "words"),
    [
        ({"requests": 199, "share": 1.0}, 100, "199 of at least 200"),
        ({"requests": 0, "share": 0.0}, 50, "0 of at least 200"),
        ({"share": 0.3}, 50, "30.0 % of the requests instead of 50 %"),
        ({"share": 0.97}, 100, "instead of 100 %"),
        ({"p95_ms": None}, 50, "no latency is measured"),
    ],
)
def test_what_has_not_been_seen_confirms_nothing(numbers: dict[str, float], share: int, words: str) -> None:
    found = judge(measured(**numbers), Arm.CANDIDATE, share, Policy(), usual_error_share=0.0)  # type: ignore[arg-type]
    assert words in found.missing
    assert found.breach == ""


def test_latency_that_the_policy_does_not_require_may_be_missing() -> None:
    found = judge(measured(p95_ms=None), Arm.CANDIDATE, 50, Policy(required_telemetry=()), usual_error_share=0.0)
    assert (found.breach, found.missing) == ("", "")


def test_the_latency_limit_is_the_policys_and_its_edge_is_allowed() -> None:
    assert judge(measured(p95_ms=100.0), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.0).breach == ""
    assert "above 100 ms" in judge(measured(p95_ms=101.0), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.0).breach


def test_errors_are_a_breach_only_beyond_what_is_usual_and_beyond_chance() -> None:
    assert judge(measured(errors=10), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.0).breach == ""
    assert "20 of 1000" in judge(measured(errors=20), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.0).breach
    assert judge(measured(errors=20), Arm.CANDIDATE, 50, Policy(), usual_error_share=0.02).breach == ""
