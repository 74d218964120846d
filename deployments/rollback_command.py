"""`fraud-ab rollback`: the emergency revert without Slack, and its rehearsal; both need Kubernetes alone."""

from __future__ import annotations

import getpass
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.emergency_revert import RevertOutcome
    from flows.ports import Serving

ARRIVAL_SECONDS, START_SECONDS = 60.0, 300.0


def rollback(
    reason: Annotated[str, typer.Option(help="why; it is written on the deployment and into the decision records")] = "",
    drill: Annotated[
        bool, typer.Option("--drill", help="rehearse it: a timed dry run on the server, nothing is changed")
    ] = False,
    namespace: Annotated[str, typer.Option(envvar="FRAUD_AB_NAMESPACE", help="namespace of the SeldonDeployment")] = "models",
    name: Annotated[str, typer.Option(envvar="FRAUD_AB_SELDON_DEPLOYMENT", help="its name")] = "fraud-predictor",
    kubeconfig: Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="without it: the pod's own account")] = None,
) -> None:
    """Put all traffic on the baseline now; registry, documents and notices follow by themselves."""
    if not drill and not reason.strip():
        raise typer.BadParameter("say why you roll back (or rehearse it with --drill)", param_hint="--reason")
    from flows.adapters.serving_seldon import SeldonServing

    serving = SeldonServing(kubeconfig=kubeconfig, namespace=namespace, name=name)
    if drill:
        _rehearse(serving)
    else:
        _roll_back(serving, name, reason)


def _rehearse(serving: Serving) -> None:
    from flows.emergency_revert import rehearse_revert

    rehearsal = rehearse_revert(serving, at=datetime.now(UTC))
    typer.echo(str(rehearsal), err=bool(rehearsal.in_the_way))
    if rehearsal.in_the_way:
        raise typer.Exit(1)


def _roll_back(serving: Serving, name: str, reason: str) -> None:
    from flows.emergency_revert import revert_traffic

    outcome = revert_traffic(
        serving,
        revert_id=f"revert-{uuid.uuid4()}",
        actor=f"cli:{_login()}",
        reason=reason,
        at=datetime.now(UTC),
    )
    _say_what_was_done(outcome)
    _say_whether_it_arrived(serving, name, START_SECONDS if outcome.pending_restore else ARRIVAL_SECONDS)


def _login() -> str:
    """Who types: the login; the number of a user without a name, as pods have it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the second from Python 3.13 on
        return f"uid-{os.getuid()}"


def _say_what_was_done(outcome: RevertOutcome) -> None:
    from flows.domain.serving_state import describe_serving

    before, after = describe_serving(outcome.before), describe_serving(outcome.after)
    if outcome.pending_restore:
        typer.echo(
            f"The baseline's predictor was gone and is being restored; traffic follows when it is ready. Traffic now: {after}"
        )
    elif outcome.already_on_baseline:
        typer.echo(f"All traffic was on the baseline already: {after}. Anything that was changing it has been told to stop.")
    else:
        typer.echo(f"Traffic: {before} → {after}")


def _say_whether_it_arrived(serving: Serving, name: str, seconds: float) -> None:
    from flows.watch import await_arrival, removed_in_words

    arrival = await_arrival(serving, seconds)
    for predictor in arrival.removed:
        typer.echo(f"Note: {removed_in_words(predictor)}.")
    if not arrival.is_there:
        waited = f"after {seconds:g} seconds the router does not send all traffic to {arrival.baseline or 'the baseline'} yet"
        typer.echo(
            f"Kubernetes has accepted the change, but {waited}: look at the pods of {name}. A worker or the bot goes on with it; "
            "so does this command when you give it again.",
            err=True,
        )
        raise typer.Exit(1)
    if arrival.baseline:
        typer.echo(f"The router sends all traffic to {arrival.baseline}.")
