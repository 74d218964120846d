"""A lost test starts its own investigation as soon as its outcome is recorded; documents and page may still be on their way."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.deployment_names import INVESTIGATE
from flows.domain.decision import is_lost
from flows.steps import step
from flows.wiring import systems


def investigate_if_lost(decision_id: str) -> None:
    """Once for each decision, inside a flow run. A missing deployment must not stop the story."""
    decision = systems().decision_log.read(decision_id)
    if decision.claim is None or not is_lost(decision.request.verdict.kind, decision.claim.choice):
        return
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
