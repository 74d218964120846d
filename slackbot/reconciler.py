"""Brings every answer to the flow run that waits for it, however often something failed on the way.

Level-based: it looks at what is true now (answers that no flow has taken yet, questions whose time is over) and acts on that; it
remembers nothing, so any number of them may run, in the bot and in `fraud-ab serve`, and any of them may die at any time. An
answer is delivered when its flow run has marked it in the decision log, and not before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from slackbot.prefect_gateway import ResumeResult

if TYPE_CHECKING:
    from flows.domain.decision import Decision
    from flows.ports import DecisionLog
    from slackbot.prefect_gateway import PrefectGateway

logger = logging.getLogger(__name__)

Check = Callable[[], object]


class Reconciler:
    """A thread that looks every `period_seconds`, and at once after a `nudge`.

    Args:
        further_checks: by name, what else to bring in order on every look.
    """

    def __init__(
        self,
        decision_log: DecisionLog,
        gateway: PrefectGateway,
        *,
        period_seconds: float = 5.0,
        further_checks: Mapping[str, Check] | None = None,
    ) -> None:
        self._decision_log = decision_log
        self._gateway = gateway
        self._period_seconds = period_seconds
        self._checks: dict[str, Check] = {
            "expiry": self._expire_overdue,
            "delivery": self._deliver_all,
            **(further_checks or {}),
        }
        self._troubles: dict[str, str] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = False
        self._thread = threading.Thread(target=self._look_for_ever, name="reconciler", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """End the thread after the look that it is at."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def nudge(self) -> None:
        """Look now: something was just answered."""
        self._wake.set()

    def reconcile_once(self) -> None:
        """Make every check once; a check that fails is logged and made again next time."""
        with self._looking:
            for name, check in self._checks.items():
                self._guarded(name, check)

    def _look_for_ever(self) -> None:
        while not self._stopping:
            self.reconcile_once()
            self._wake.wait(self._period_seconds)
            self._wake.clear()

    def _guarded(self, name: str, check: Check) -> None:
        try:
            check()
        except Exception as error:  # noqa: BLE001 - this thread has to outlive every outage, whatever it looks like
            self._tell(name, f"{type(error).__name__}: {error}")
        else:
            self._tell(name, None)

    def _tell(self, name: str, trouble: str | None) -> None:
        """Log a trouble when it begins or changes, and its end; not at every look."""
        if trouble == self._troubles.get(name):
            return
        if trouble is None:
            del self._troubles[name]
            logger.info("reconciler check=%s works again", name)
        else:
            self._troubles[name] = trouble
            logger.warning("reconciler check=%s failed and is tried again every %s s: %s", name, self._period_seconds, trouble)

    def _expire_overdue(self) -> None:
        for decision in self._decision_log.claim_overdue():
            logger.info("decision_id=%s expired: the baseline stays", decision.decision_id)

    def _deliver_all(self) -> None:
        undelivered = self._decision_log.undelivered()
        for decision in undelivered:
            self._guarded(f"delivery of {decision.decision_id}", lambda decision=decision: self._deliver(decision))

    def _deliver(self, decision: Decision) -> None:
        decision_id, flow_run_id = decision.decision_id, decision.request.flow_run_id
        key_prefix = decision.pause_key_prefix
        result = self._gateway.guarded_resume(flow_run_id, key_prefix=key_prefix, decision_id=decision_id)
        if result is ResumeResult.RESUMED:
            logger.info("decision_id=%s flow_run_id=%s resumed", decision_id, flow_run_id)
        is_stuck = result in (ResumeResult.DEAD, ResumeResult.BLOCKED)
        if (
            is_stuck
            and self._decision_log.begin_repair(decision_id)
            and self._gateway.reschedule_if_dead(flow_run_id, blocked_key_prefix=key_prefix)
        ):
            logger.warning("decision_id=%s flow_run_id=%s was %s and is rescheduled", decision_id, flow_run_id, result)
