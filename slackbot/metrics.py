"""What is told to Prometheus of presses and of the decision log; `fraud-ab serve` tells the latter too.

Outside systems are asked when Prometheus scrapes. One that does not answer in time gives no sample but a counted error: missing
is not zero. An age of 0 says that nothing waits.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.domain.errors import FraudABError

if TYPE_CHECKING:
    from flows.domain.decision import Decision
    from flows.ports import DecisionLog

ANSWER_SECONDS = 4.0
"""For each system; Prometheus gives a scrape 10 s."""
DECISION_LOG = "decision_log"
ACKNOWLEDGEMENT_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0)
"""Seconds: we aim at 0.3, and Slack gives up at 3."""

T = TypeVar("T")


class Outcome(StrEnum):
    """What became of a press. `CONFIRMED_FIRST`: a second person has to confirm too; `ANSWERED`: a modal was opened or something
    shown, and no more was wanted."""

    CLAIMED = "claimed"
    CONFIRMED_FIRST = "confirmed first"
    REVERTED = "reverted"
    REFUSED = "refused"
    FAILED = "failed"
    REPEATED = "repeated"
    ANSWERED = "answered"


class PressMetrics:
    """Counts presses and times acknowledgements, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._presses = Counter(
            "fraud_ab_bot_presses",
            "What came from Slack, by button, modal, command or event, and what became of it.",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self._acknowledgements = Histogram(
            "fraud_ab_bot_acknowledgement_seconds",
            "From a request's arrival to its acknowledgement; Slack gives up after 3 s.",
            buckets=ACKNOWLEDGEMENT_BUCKETS,
            registry=self.registry,
        )

    @contextmanager
    def press(self, kind: str) -> Generator[Callable[[Outcome], None]]:
        """Count one press when the block ends, by the first outcome that was noted in it."""
        noted: list[Outcome] = []
        try:
            yield noted.append
        finally:
            self._presses.labels(kind, [*noted, Outcome.ANSWERED][0]).inc()

    def acknowledged(self, seconds: float) -> None:
        self._acknowledgements.observe(seconds)


@dataclass(frozen=True, slots=True)
class LogState:
    """What the decision log says at its own time `now`: answers that no flow has taken; decisions, newest first."""

    now: datetime
    undelivered: Sequence[Decision] = ()
    decisions: Sequence[Decision] = ()


def log_metrics(log: LogState) -> Iterator[Metric]:
    """How long the oldest answer has been waiting for its flow run."""
    since = [one.claim.due_at or one.claim.claimed_at for one in log.undelivered if one.claim]
    yield GaugeMetricFamily(
        "fraud_ab_undelivered_decision_age_seconds",
        "Seconds since the oldest answer that no flow run has carried out was claimed, or since it became due; 0: there is none.",
        age_seconds(min(since, default=None), log.now),
    )


def pending_metrics(log: LogState) -> Iterator[Metric]:
    """What waits for a person."""
    since = [one.created_at for one in log.decisions if one.is_pending]
    yield GaugeMetricFamily("fraud_ab_pending_decisions", "Decisions that wait for an answer.", len(since))
    yield GaugeMetricFamily(
        "fraud_ab_pending_decision_age_seconds",
        "Seconds since the oldest decision that waits for an answer was asked for; 0: there is none.",
        age_seconds(min(since, default=None), log.now),
    )


def age_seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since) / timedelta(seconds=1), 0.0)


class Inquiries:
    """Asks each of these systems for a few seconds only, and never twice at once."""

    def __init__(self, *systems: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._pools = {name: ThreadPoolExecutor(1, thread_name_prefix=f"ask-{name}") for name in systems}
        self._errors = Counted[str]()

    def ask(self, system: str, question: Callable[[], T]) -> T | None:
        """The answer; None when there was none in time."""
        answer = self._pools[system].submit(question)
        try:
            return answer.result(self._answer_seconds)
        except (FraudABError, TimeoutError):
            answer.cancel()  # if an older question still waits for its answer, this one was never asked
            self._errors[system] += 1
            return None

    def metrics(self, answered: Mapping[str, bool]) -> Iterator[Metric]:
        """Which systems answered this time, and how often they did not."""
        up = GaugeMetricFamily("fraud_ab_up", "Whether the system answered at this scrape.", labels=("system",))
        errors = CounterMetricFamily("fraud_ab_scrape_errors", "Scrapes at which it did not.", labels=("system",))
        for system, is_up in answered.items():
            up.add_metric((system,), is_up)
            errors.add_metric((system,), self._errors[system])
        yield up
        yield errors


class LogMetrics(Collector):
    """Asks the decision log at every scrape."""

    def __init__(self, decision_log: DecisionLog, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._decision_log = decision_log
        self._inquiries = Inquiries(DECISION_LOG, answer_seconds=answer_seconds)

    def collect(self) -> Iterator[Metric]:
        log = self._inquiries.ask(DECISION_LOG, self._read)
        if log is not None:
            yield from log_metrics(log)
            yield from pending_metrics(log)
        yield from self._inquiries.metrics({DECISION_LOG: log is not None})

    def _read(self) -> LogState:
        log = self._decision_log
        return LogState(log.now(), log.undelivered(), [one for one in log.decisions(unconsumed_only=True) if one.is_pending])
