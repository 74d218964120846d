"""A lost test starts its own investigation as soon as its outcome is recorded; documents and page may still be on their way."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.deployment_names import INVESTIGATE
from flows.domain.decision_record import RecordKind, is_lost
from flows.steps import step
from flows.wiring import systems


def investigate_if_lost(decision_id: str, outcome: RecordKind) -> None:
    """Once for each decision, inside a flow run."""
    decision = systems().decision_log.read(decision_id)
    if is_lost(outcome, decision.request.verdict.kind, decision.claim.choice if decision.claim else None):
        start_investigation(decision_id)


def start_investigation(decision_id: str) -> None:
    """Once for each decision. A missing deployment must not stop the story."""
    try:
        start_run(decision_id)
    except ObjectNotFound:
        get_run_logger().warning("decision_id=%s is not investigated: start the deployment %s", decision_id, INVESTIGATE)


@step("Start the investigation")
def start_run(decision_id: str) -> None:
    run_deployment(
        INVESTIGATE,
        parameters={"decision_id": decision_id},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"investigate-{decision_id}",
    )
