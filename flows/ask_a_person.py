"""Ask a person and wait for the answer, however long it takes and whatever restarts in between.

A suspended run costs nothing and no process. Each resume is a new process that runs the flow from the top, where finished steps
come back from their results. Who resumed the run, and with what input, means nothing here: the answer is read from the decision
log, and without one, or woken before a postponement is over, the run suspends again. It does so under a fresh key each time,
because Prefect lets a suspension fire only once. So pressing Resume in the Prefect UI changes nothing.

The read is never persisted: only an answer that is there and due may be remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run

from flows.deployment_names import REMINDER
from flows.domain.errors import Superseded
from flows.steps import RETRY_SECONDS, is_retryable, step
from flows.wiring import systems

if TYPE_CHECKING:
    from datetime import datetime

    from flows.domain.decision import Decision

REMINDERS_AT = (0.5, 0.8, 1.0)  # shares of the time to decide; at the last one it is over


class WokenBy(RunInput):
    """What a resume carries: the decision it is about, for people to read. Nothing depends on it."""

    decision_id: str


def wait_for_answer(decision_id: str) -> Decision:
    """Suspend until the decision has an answer that is due.

    Raises:
        Superseded: another run has taken this question over.
        OutsideSystemError: the decision log failed.
    """
    while True:
        decision, is_due = read_answer(decision_id)
        if is_due:
            return decision
        suspend_flow_run(wait_for_input=WokenBy, key=_fresh_key(decision.pause_key_prefix))


@task(
    name="read the answer",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=is_retryable,
)
def read_answer(decision_id: str) -> tuple[Decision, bool]:
    """The decision as the log has it now, and whether the flow may act on it."""
    log = systems().decision_log
    decision = log.read(decision_id)
    if decision.request.flow_run_id != flow_run.get_id():
        raise Superseded(f"{decision_id} is now waited for by the flow run {decision.request.flow_run_id}: this one ends here")
    return decision, decision.is_due(log.now())


@step("mark as carried out")
def mark_as_carried_out(decision_id: str, attempt: int) -> None:
    """Until this is done, the reconciler brings a run that died back to life: what was answered is carried out.

    Args:
        attempt: the number of this execution: another attempt at a promotion is marked anew.
    """
    del attempt
    systems().decision_log.consume(decision_id)


@step("schedule reminders")
def schedule_reminders(decision_id: str) -> int:
    """Runs that remind, and at the deadline let the question expire; the reconciler does the latter without them too.

    Returns:
        how many are scheduled; 0 when the deployment is missing, which must not stop the story.
    """
    decision = systems().decision_log.read(decision_id)
    time_to_decide = decision.deadline - decision.created_at
    try:
        for share in REMINDERS_AT:
            _start_reminder(decision_id, share, decision.created_at + share * time_to_decide)
    except ObjectNotFound:
        get_run_logger().warning("decision_id=%s nobody is reminded: start the deployment %s", decision_id, REMINDER)
        return 0
    return len(REMINDERS_AT)


def _start_reminder(decision_id: str, share: float, at: datetime) -> None:
    run_deployment(
        REMINDER,
        parameters={"decision_id": decision_id, "share": share},
        scheduled_time=at,
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{decision_id}-{share}",
    )


def _fresh_key(prefix: str) -> str:
    """The first key that this run has not suspended under.

    It begins to count at the number of starts of the run, since a manual retry in the Prefect UI forgets the fired keys but not
    the stored inputs of theirs.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run.get_id()))
    fired, number = run.empirical_policy.pause_keys or set(), run.run_count
    while f"{prefix}{number}" in fired:
        number += 1
    return f"{prefix}{number}"
