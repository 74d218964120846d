"""Did a traffic shift arrive, and does the model behave under it? Judged from measurements, watched until a deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from math import sqrt
from typing import TYPE_CHECKING

from tenacity import RetryError, Retrying, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed

from flows.domain.ab_test import Arm
from flows.domain.errors import OutsideSystemError
from flows.domain.policy import TelemetryKind
from flows.emergency_revert import finish_restore, let_revert_arrive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flows.domain.ab_test import ABTest
    from flows.domain.policy import Policy
    from flows.domain.serving_state import ServingState
    from flows.ports import ArmTelemetry, Serving, Telemetry

MIN_REQUESTS = 200
SHARE_TOLERANCE = 0.02
SIGMAS = 4
READY_SECONDS = 300.0
CONFIRM_SECONDS = 120.0
SUSTAINED_SECONDS = 15.0
POLL_SECONDS = 1.0
REFERENCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`breach`: what is wrong with the model; `missing`: what has not been seen yet; both empty when all is well."""

    measured: str
    breach: str = ""
    missing: str = ""


def judge(
    measured: Mapping[Arm, ArmTelemetry], target: Arm, share_percent: int, policy: Policy, *, usual_error_share: float
) -> Judgement:
    """What the requests since a shift say about its target.

    Args:
        share_percent: what the target should serve, 1..100.
        usual_error_share: the baseline's share of failed requests before the shift, 0..1.
    """
    arm = measured[target]
    total = sum(one.requests for one in measured.values())
    seen = f"{100 * arm.share:.1f} % of {total:,} requests, {arm.errors} failed, p95 {_ms(arm.p95_ms)}"
    if arm.requests < MIN_REQUESTS:
        return Judgement(seen, missing=f"{arm.requests} of at least {MIN_REQUESTS} requests seen")
    wanted = share_percent / 100
    if abs(arm.share - wanted) > max(SHARE_TOLERANCE, SIGMAS * sqrt(wanted * (1 - wanted) / total)):
        return Judgement(seen, missing=f"{100 * arm.share:.1f} % of the requests instead of {share_percent} %")
    breach = latency_breach(arm, policy) or error_breach(arm, policy, usual_error_share)
    return Judgement(seen, breach=breach, missing=unmeasured(arm, policy))


def latency_breach(arm: ArmTelemetry, policy: Policy) -> str:
    """In words; empty when the limit is kept or nothing was measured."""
    limit = float(policy.latency.p95_ms)
    is_over = arm.p95_ms is not None and arm.p95_ms > limit
    return f"p95 {arm.p95_ms:.0f} ms is above {limit:g} ms" if is_over else ""


def error_breach(arm: ArmTelemetry, policy: Policy, usual_error_share: float) -> str:
    """In words; empty when no more requests failed than usual, the policy's excess and chance allow."""
    expected = arm.requests * (usual_error_share + float(policy.error_rate.excess))
    if arm.errors > expected + SIGMAS * sqrt(expected):
        return f"{arm.errors} of {arm.requests} requests failed, usual would be {expected:.0f}"
    return ""


def unmeasured(arm: ArmTelemetry, policy: Policy) -> str:
    """What the policy requires and nobody measured, in words."""
    is_blind = arm.p95_ms is None and TelemetryKind.LATENCY in policy.required_telemetry
    return "no latency is measured, and the policy requires it" if is_blind else ""


def _ms(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0f} ms"


@dataclass(frozen=True, slots=True)
class Watch:
    """One watch over `target` at `share_percent`; `check_fence` raises `Superseded` when somebody else has taken over."""

    test: ABTest
    target: Arm
    share_percent: int
    serving: Serving
    telemetry: Telemetry
    policy: Policy
    check_fence: Callable[[], None]

    def until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until what the spec says is what runs.

        Raises:
            Superseded: see `check_fence`.
            OutsideSystemError: it did not become ready in time; the message lists the signs.
        """
        signs: list[str] = []

        def is_ready() -> bool:
            self.check_fence()
            readiness = self.serving.readiness()
            signs.append(str(readiness))
            return readiness.is_done

        if not poll(is_ready, seconds):
            raise OutsideSystemError("Seldon", f"waiting for {self._model}: {signs[-1:]} after {seconds:g} s", retryable=False)

    def until_confirmed(self, minutes: float) -> str:
        """Watch for at least `minutes`, then until the measurements confirm the shift; returns them in words.

        Raises:
            Superseded: see `check_fence`.
            OutsideSystemError: a sustained breach, or no confirmation in time; not retryable, the shift has failed.
        """
        since = self.telemetry.now()
        usual = self._usual_error_share()
        begin = time.monotonic()
        last, breached_at = Judgement("nothing measured yet"), None

        def is_confirmed() -> bool:
            nonlocal last, breached_at
            self.check_fence()
            measured = self.telemetry.measure(self.test, since)
            last = judge(measured, self.target, self.share_percent, self.policy, usual_error_share=usual)
            breached_at = (breached_at or time.monotonic()) if last.breach else None
            if breached_at is not None and time.monotonic() - breached_at >= SUSTAINED_SECONDS:
                raise self._failed(last.breach)
            return not last.breach and not last.missing and time.monotonic() - begin >= minutes * 60

        if not poll(is_confirmed, minutes * 60 + CONFIRM_SECONDS):
            raise self._failed(last.breach or last.missing or last.measured)
        return last.measured

    def until_routed(self, seconds: float = READY_SECONDS) -> None:
        """For the way back to safety: wait until the router sends everything to the target, whatever the other predictor does.

        Raises:
            Superseded: see `check_fence`.
            OutsideSystemError: retryable, the router does not follow.
        """
        predictor = self.test.model(self.target).predictor
        signs: list[str] = []

        def is_routed() -> bool:
            self.check_fence()
            let_revert_arrive(self.serving)
            readiness = self.serving.readiness()
            signs.append(str(readiness))
            return readiness.is_up(predictor) and readiness.routes_all_to(predictor)

        if not poll(is_routed, seconds):
            raise OutsideSystemError("Seldon", f"waiting for {self._model}: {signs[-1:]} after {seconds:g} s", retryable=True)

    def until_share_is_seen(self) -> tuple[str, str]:
        """For the way back to safety: nothing but requests that reach the other model holds it up.

        Returns:
            what was measured in words, and what is wrong with the target's latency or errors (empty when nothing is).

        Raises:
            Superseded: see `check_fence`.
            OutsideSystemError: retryable, requests still reach the other model.
        """
        since, usual = self.telemetry.now(), self._usual_error_share()
        last, share = Judgement("no request was measured yet"), None

        def is_seen() -> bool:
            nonlocal last, share
            self.check_fence()
            measured = self.telemetry.measure(self.test, since)
            if measured[self.target].requests:
                last = judge(measured, self.target, self.share_percent, self.policy, usual_error_share=usual)
                share = measured[self.target].share
            return share is not None and not last.missing

        if (
            not poll(is_seen, CONFIRM_SECONDS)
            and share is not None
            and abs(100 * share - self.share_percent) > 100 * SHARE_TOLERANCE
        ):
            raise OutsideSystemError("Verification", f"watching {self._model}: only {last.measured}", retryable=True)
        return last.measured, last.breach

    @property
    def _model(self) -> str:
        return f"{self.test.model(self.target)} at {self.share_percent} %"

    def _failed(self, why: str) -> OutsideSystemError:
        return OutsideSystemError("Verification", f"watching {self._model}: {why}", retryable=False)

    def _usual_error_share(self) -> float:
        before = self.telemetry.measure(self.test, self.telemetry.now() - REFERENCE)[Arm.BASELINE]
        return before.errors / before.requests if before.requests else 0.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of a revert: whether the router sends all traffic to `baseline` (empty: a newer change came first, so there is
    nothing to wait for), and which of the test's predictors are gone, mostly because their broken pods held the router up."""

    baseline: str
    is_there: bool
    removed: tuple[str, ...]


def await_arrival(serving: Serving, seconds: float = READY_SECONDS) -> Arrival:
    """Wait until the router has followed a revert, finishing and clearing whatever stands in its way."""
    removed, baseline = tuple[str, ...](), ""

    def has_arrived() -> bool:
        nonlocal baseline, removed
        finish_restore(serving)
        let_revert_arrive(serving)
        state = serving.read()
        baseline = str((state.revert_to or {}).get("predictor", ""))
        if state.intent:
            return False
        if state.operation or not state.serves_alone(baseline):
            baseline = ""
            return True
        removed = removed_predictors(state)
        return serving.readiness().routes_all_to(baseline)

    is_there = poll(has_arrived, seconds)  # which finds out the rest
    return Arrival(baseline, is_there, removed)


def removed_predictors(state: ServingState) -> tuple[str, ...]:
    """Those of the deployment's test that are gone, whichever process removed them."""
    return tuple(one.predictor for one in state.test.models if state.predictor(one.predictor) is None) if state.test else ()


def removed_in_words(predictor: str) -> str:
    return (
        f"the predictor {predictor} is gone from the SeldonDeployment: one whose pods are not ready is removed, because until "
        "they are Seldon moves no traffic. Deploy it anew for another test"
    )


def poll(is_so: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is so or the time is over; passing faults of what is asked count as "not yet"."""
    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(POLL_SECONDS),
        retry=retry_if_result(lambda answer: not answer)
        | retry_if_exception(lambda error: isinstance(error, OutsideSystemError) and error.retryable),
    )
    try:
        return retrying(is_so)
    except RetryError:
        return False
