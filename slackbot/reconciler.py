"""Brings every answer to the flow run that waits for it, however often something failed on the way.

Level-based: it looks at what is true now (answers that no flow has taken yet, questions whose time is over, runs whose process is
gone) and acts on that; it remembers nothing, so any number of them may run, in the bot and in
`fraud-ab serve`, and any of them may die at any time. An answer is delivered when its flow run has marked it in the decision log,
and not before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.deployment_names import FINALIZE
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import plain
from slackbot.periodic_checks import Check, PeriodicChecks
from slackbot.prefect_gateway import ResumeResult

if TYPE_CHECKING:
    from flows.domain.decision import Decision
    from flows.ports import DecisionLog, Executions
    from slackbot.prefect_gateway import PrefectGateway

logger = logging.getLogger(__name__)

AFTER_OUTAGE_SECONDS = 60.0
"""Longer than it takes a run that renews its lease every ten seconds to notice that the database is back."""


class Reconciler(PeriodicChecks):
    """The checks that bring answers to their runs.

    Args:
        finalize: the deployment that is started for a question whose run is gone.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        decision_log: DecisionLog,
        executions: Executions,
        gateway: PrefectGateway,
        *,
        finalize: str = FINALIZE,
        period_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decision_log = decision_log
        self._executions = executions
        self._gateway = gateway
        self._finalize = finalize
        self._clock = clock
        self._patient_until = 0.0
        checks: dict[str, Check] = {
            "expiry": self._expire_overdue,
            "delivery": self._deliver_all,
            "leases": self._expect_leases,
            "executions": self._revive_abandoned,
        }
        super().__init__("reconciler", checks, period_seconds=period_seconds)

    def _expire_overdue(self) -> None:
        for decision in self._decision_log.claim_overdue():
            logger.info("decision_id=%s expired: the baseline stays", decision.decision_id)

    def _expect_leases(self) -> None:
        """A run whose process died before its first line never had a lease: it gets one that lapses, unless it is renewed."""
        for flow_run_id in self._gateway.runs_at_work(self._finalize):
            if not self._executions.is_leased(flow_run_id):
                self._executions.renew(flow_run_id)

    def _revive_abandoned(self) -> None:
        """After an outage of the database every lease looks lapsed: who holds one gets the time to renew it first."""
        if self._clock() < self._patient_until:
            return
        try:
            lapsed = self._executions.take_lapsed()
        except OutsideSystemError:
            self._patient_until = self._clock() + AFTER_OUTAGE_SECONDS
            raise
        for flow_run_id in lapsed:
            if self._gateway.revive_abandoned(flow_run_id):
                logger.warning("flow_run_id=%s has lost its process and is rescheduled", flow_run_id)
            else:
                self._executions.end(flow_run_id)

    def _deliver_all(self) -> None:
        undelivered = self._decision_log.undelivered()
        for decision in undelivered:
            self.guarded(f"delivery of {decision.decision_id}", lambda decision=decision: self._deliver(decision))

    def _deliver(self, decision: Decision) -> None:
        decision_id, flow_run_id = decision.decision_id, decision.request.flow_run_id
        key_prefix = decision.pause_key_prefix
        result = self._gateway.guarded_resume(flow_run_id, key_prefix=key_prefix, decision_id=decision_id)
        if result is ResumeResult.RESUMED:
            logger.info("decision_id=%s flow_run_id=%s resumed", decision_id, flow_run_id)
        if not self._is_stuck(result, flow_run_id) or not self._decision_log.begin_repair(decision_id):
            return
        match result:
            case ResumeResult.GONE:
                is_repaired = bool(self._start_anew(decision))
            case ResumeResult.STALLED:
                is_repaired = self._gateway.revive_abandoned(flow_run_id)
            case _:
                is_repaired = self._gateway.reschedule_if_dead(flow_run_id, blocked_key_prefix=key_prefix)
        if is_repaired:
            logger.warning("decision_id=%s flow_run_id=%s was %s and goes on", decision_id, flow_run_id, result)

    def _is_stuck(self, result: ResumeResult, flow_run_id: str) -> bool:
        """Whether nobody will carry the answer out unless something is repaired."""
        if result is ResumeResult.STALLED:
            return not self._executions.is_leased(flow_run_id)
        return result in (ResumeResult.DEAD, ResumeResult.BLOCKED, ResumeResult.GONE)

    def _start_anew(self, decision: Decision) -> str:
        """Another run for the same test: it takes the stored questions over with their answers."""
        request = decision.request
        key = f"{decision.decision_id}-instead-of-{request.flow_run_id}"
        return self._gateway.start_run(self._finalize, {"test": plain(request.test)}, idempotency_key=key)
