"""What the tests of investigations do and look at alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry

from flows.domain.decision_record import Investigation, latest_investigation
from flows.investigate_candidate import investigate_candidate

if TYPE_CHECKING:
    from prefect import State

    from tests.integration.production_world import World


def retry_in_prefect(failed: State[list[str]], decision_id: str) -> list[str]:
    """*Retry*, and the execution that Prefect's runner then starts."""
    run_id = failed.state_details.flow_run_id
    assert run_id is not None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, AwaitingRetry(), force=True)
        run = client.read_flow_run(run_id)
    return run_flow(investigate_candidate, run, {"decision_id": decision_id})


def investigation(world: World, decision_id: str) -> Investigation:
    found = latest_investigation(world.systems.decision_log.records(decision_id))
    assert found is not None
    return found
