"""The weekly rehearsal of the emergency: a rollback that has not been tried for months is a hope."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from flows.emergency_revert import rehearse_revert
from flows.steps import step
from flows.telling import announce
from flows.wiring import systems


@flow(name="rehearse-rollback", persist_result=True)
def rehearse_rollback() -> str:
    """Rehearse a revert as a server-side dry run, say in Slack how it went, and return that."""
    said = rehearse()
    say(said)
    return said


@step("Rehearse a revert")
def rehearse() -> str:
    """Nothing is changed; what is in the way is no error of this run."""
    return str(rehearse_revert(systems().serving, at=datetime.now(UTC)))


@step("Say how the rehearsal went")
def say(said: str) -> None:
    """Once for each run."""
    warning = "" if said.startswith("ready") else ":warning: "
    announce(f"rehearsal:{flow_run.id}", f"{warning}Rollback rehearsed: {said}")
