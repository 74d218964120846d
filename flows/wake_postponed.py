"""Wakes who postponed a decision until a number of frauds is seen. It remembers nothing, so any process may do it, and again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flows.evaluate_ab_test import frauds_seen

if TYPE_CHECKING:
    from flows.wiring import Systems

logger = logging.getLogger(__name__)


def wake_postponed(systems: Systems) -> list[str]:
    """Make every postponement due whose frauds are there; the reconciler brings it to its run, which evaluates and asks again.

    The feedback is read only when somebody waits for it. Only the number of frauds is looked at, not how either model did on
    them: the outcomes are looked at by the evaluation that follows.

    Returns:
        the ids of the decisions that this call has woken.

    Raises:
        FeedbackInvalid: the feedback cannot be used.
        OutsideSystemError: the decision log or the feedback's database failed.
    """
    log, woken = systems.decision_log, list[str]()
    for decision in log.waiting_for_frauds():
        wanted = decision.claim.wanted_frauds if decision.claim else None
        seen = frauds_seen(systems.feedback, systems.policy, decision.request.test.started_at, log.now())
        if wanted is not None and seen >= wanted and log.wake(decision.decision_id):
            logger.info("decision_id=%s wanted_frauds=%d seen=%d evaluated again", decision.decision_id, wanted, seen)
            woken.append(decision.decision_id)
    return woken
