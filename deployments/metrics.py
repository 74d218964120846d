"""What `fraud-ab serve` tells Prometheus: which model is in charge, and how long anything has been left unfinished.

Everything is asked for when Prometheus scrapes. A system that does not answer in time gives no sample but a counted error:
missing is not zero. An age of 0 says that nothing is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.domain.ab_test import Arm
from flows.domain.errors import SettingsInvalid
from flows.domain.lifecycle import arm_in_charge
from slackbot.metrics import ANSWER_SECONDS, DECISION_LOG, Inquiries, LogState, age_seconds, log_metrics

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from flows.domain.serving_state import ServingState
    from flows.ports import DecisionLog, Serving
    from flows.wiring import Systems

KUBERNETES = "kubernetes"
AT_PRODUCTION = {
    "precision": ("precision_at_production", "Share of alerts that were fraud"),
    "recall": ("recall_at_production", "Share of the frauds that it scored which it caught"),
    "fraud_detection_rate": ("fraud_detection_rate", "Share of all frauds of its arm which were caught as served"),
}
"""By the field of the verdict, the metric's name and what it is."""
MODEL_LABELS = ("deployment_name", "predictor_name", "model_name", "model_version", "arm")


@dataclass(frozen=True, slots=True)
class OpenSince:
    """Since when (UTC) something on the deployment waits for its end; None: nothing does."""

    operation: datetime | None = None
    intent: datetime | None = None
    unrecorded: datetime | None = None


class FirstSeen:
    """Remembers when this process first saw what carries no time of its own."""

    def __init__(self) -> None:
        self._moments: dict[str, tuple[str, datetime]] = {}

    def since(self, what: str, value: str, now: datetime) -> datetime:
        """The moment since when `what` has had this value."""
        if self._moments.get(what, ("", now))[0] != value:
            self._moments[what] = (value, now)
        return self._moments[what][1]


def find_open(state: ServingState, log: LogState | None, first_seen: FirstSeen, now: datetime) -> OpenSince:
    """When what is open now began, as well as it can be told.

    An operation begins no earlier than its decision was claimed, a revert's second patch with the revert: both times survive a
    restart. Where neither is known, the age counts from the first scrape that saw it.
    """
    claims = {one.decision_id: one.claim.claimed_at for one in (log.decisions if log else ()) if one.claim}
    reverts = [datetime.fromisoformat(entry["at"]) for entry in state.unrecorded]
    operation = intent = None
    if state.operation:
        operation = claims.get(state.operation) or first_seen.since("operation", state.operation, now)
    if state.intent:
        intent = max(reverts, default=None) or first_seen.since("intent", f"{state.intent}@{state.epoch}", now)
    return OpenSince(operation, intent, min(reverts, default=None))


def serving_metrics(state: ServingState, since: OpenSince, now: datetime) -> Iterator[Metric]:
    """Everything that the deployment says of itself."""
    yield _model_in_charge(state)
    share = GaugeMetricFamily(
        "fraud_ab_wanted_traffic_share",
        "Share of live traffic (0..1) that the SeldonDeployment asks for; a shadow has none.",
        labels=("deployment_name", "predictor_name"),
    )
    for predictor, per_cent in state.traffic.items():
        share.add_metric((state.name, predictor), per_cent / 100)
    yield share
    yield _of(state, "fraud_ab_epoch", "Raised by every change of the SeldonDeployment that fraud-ab makes.", state.epoch)
    for name, text, moment in (
        (
            "operation",
            "Seconds since the decision that is changing the deployment was claimed (if its claim is unknown: since first seen)",
            since.operation,
        ),
        (
            "intent",
            "Seconds since the revert whose baseline is being started again (if it left no time: since first seen)",
            since.intent,
        ),
        ("unrecorded", "Seconds since the oldest emergency revert that no decision record tells of yet", since.unrecorded),
    ):
        yield _of(state, f"fraud_ab_{name}_age_seconds", f"{text}; 0: none is open.", age_seconds(moment, now))


def verdict_metrics(state: ServingState, log: LogState) -> Iterator[Metric]:
    """What people were last shown of the deployment's test; between two looks nothing new is told."""
    families = {
        field: GaugeMetricFamily(name, f"{text} (0..1) of each model in the test's latest verdict.", labels=MODEL_LABELS)
        for field, (name, text) in AT_PRODUCTION.items()
    }
    at = GaugeMetricFamily("fraud_ab_verdict_time_seconds", "When that verdict was made.", labels=("deployment_name",))
    for decision in log.decisions[:1]:
        at.add_metric((state.name,), decision.created_at.timestamp())
        metrics = decision.request.verdict.metrics
        for arm, of_arm in zip(Arm, (metrics.baseline, metrics.candidate), strict=True):
            model = decision.request.test.model(arm)
            for field, family in families.items():
                value: float | None = getattr(of_arm, field)
                if value is not None:
                    family.add_metric((state.name, model.predictor, model.name, model.version, arm), value)
    yield from families.values()
    yield at


def _model_in_charge(state: ServingState) -> Metric:
    family = GaugeMetricFamily(
        "fraud_ab_model_in_charge",
        "1 for the model in charge of what is served; none while it is being changed, or without a test that says which models.",
        labels=MODEL_LABELS,
    )
    test = state.test
    arm = arm_in_charge(state, test) if test else None
    if test and arm:
        model = test.model(arm)
        family.add_metric((state.name, model.predictor, model.name, model.version, arm), 1)
    return family


def _of(state: ServingState, name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("deployment_name",))
    family.add_metric((state.name,), value)
    return family


class ServiceMetrics(Collector):
    """Asks Kubernetes and the decision log at every scrape, each for a few seconds only and never twice at once."""

    def __init__(self, serving: Serving, decision_log: DecisionLog, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._serving = serving
        self._decision_log = decision_log
        self._inquiries = Inquiries(KUBERNETES, DECISION_LOG, answer_seconds=answer_seconds)
        self._first_seen = FirstSeen()

    def collect(self) -> Iterator[Metric]:
        state = self._inquiries.ask(KUBERNETES, self._serving.read)
        log = self._inquiries.ask(DECISION_LOG, lambda: self._read_log(state))
        if state is not None:
            now = datetime.now(UTC)
            yield from serving_metrics(state, find_open(state, log, self._first_seen, now), now)
        if log is not None:
            yield from log_metrics(log)
        if state is not None and log is not None:
            yield from verdict_metrics(state, log)
        yield from self._inquiries.metrics({KUBERNETES: state is not None, DECISION_LOG: log is not None})

    def _read_log(self, state: ServingState | None) -> LogState:
        log, test = self._decision_log, state.test if state else None
        decisions = (log.decisions(test.test_id) or log.decisions()) if test else ()  # before its first look: the test before
        return LogState(log.now(), log.undelivered(), decisions)


def start_metrics(systems: Systems) -> WSGIServer | None:
    """Answer Prometheus at `/metrics` from a thread, where FRAUD_AB_METRICS_PORT says so.

    Raises:
        SettingsInvalid: the address cannot be listened on.
    """
    host, port = systems.settings.metrics_host, systems.settings.metrics_port
    if port is None:
        return None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceMetrics(systems.serving, systems.decision_log))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsInvalid("FRAUD_AB_METRICS_PORT", [f"{host}:{port} cannot be listened on: {error.strerror}"]) from error
    return server
