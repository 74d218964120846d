"""What surrounds the body of a flow: a lease, so that a run whose process is gone is found, and a notice when the run fails."""

from __future__ import annotations

import contextlib
import textwrap
import threading
from typing import TYPE_CHECKING, Any

from prefect.exceptions import Pause
from prefect.runtime import flow_run as current_run

from flows.domain.errors import OutsideSystemError
from flows.telling import LONGEST_REASON, announce
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Generator

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

RENEW_SECONDS = 10.0


@contextlib.contextmanager
def leased_run() -> Generator[None]:
    """Hold the lease while the block runs, and give it back when the run waits, fails or ends.

    A signal that ends the process leaves the lease behind on purpose: it lapses, and the reconciler starts the run again.
    """
    executions, run_id, is_over = systems().executions, current_run.get_id() or "", threading.Event()

    def keep_renewing() -> None:
        while not is_over.wait(RENEW_SECONDS):
            with contextlib.suppress(OutsideSystemError):  # the next renewal may reach the database again
                executions.renew(run_id)

    executions.renew(run_id)
    renewing = threading.Thread(target=keep_renewing, name="lease", daemon=True)
    renewing.start()
    is_killed = True
    try:
        yield
        is_killed = False
    except (Exception, Pause):
        is_killed = False
        raise
    finally:
        is_over.set()
        renewing.join()  # or a renewal on its way would bring the lease back
        if not is_killed:
            with contextlib.suppress(OutsideSystemError):  # it lapses, and the reconciler sees that there is nothing to do
                executions.end(run_id)


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: nobody watches Prefect on the day on which a test ends."""
    why = textwrap.shorten(state.message or state.name or "", LONGEST_REASON, placeholder=" …")
    text = f"{flow.name} for {flow_run.name} has failed; {_what_follows(str(flow_run.id))}. {why}"
    announce(f"failed-{flow_run.id}-{flow_run.run_count}", text)


def _what_follows(flow_run_id: str) -> str:
    """An answer that is not carried out is tried again by the reconciler; whatever else failed waits for a person."""
    with contextlib.suppress(OutsideSystemError):
        if any(decision.request.flow_run_id == flow_run_id for decision in systems().decision_log.undelivered()):
            return "it is tried again by itself, after longer and longer pauses, or at once when it is retried in Prefect"
    return "nothing more is done until it is retried in Prefect"
