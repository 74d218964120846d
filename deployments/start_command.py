"""`fraud-ab start`: begin an A/B test. Everything is checked before anything is changed, and it may be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.domain.errors import FraudABError

if TYPE_CHECKING:
    from flows.start_ab_test import Start
    from flows.wiring import Systems
    from slackbot.prefect_gateway import PrefectGateway

ARRIVAL_SECONDS = 60.0
_HALFWAY = 1


def start(
    file: Annotated[Path, typer.Argument(help="TOML: test_id, and name, version, predictor in tables baseline and candidate")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, change nothing, show what would be done")] = False,
) -> None:
    """Start an A/B test: rollback point and split, registry, and the run that takes its first look."""
    from deployments.wanted_test import read_wanted_test
    from flows.start_ab_test import prepare_start
    from flows.wiring import systems
    from slackbot.prefect_gateway import PrefectGateway

    wanted, connected = read_wanted_test(file), systems()
    gateway = PrefectGateway(ui_url=connected.settings.prefect_ui_url)
    prepared = prepare_start(connected, gateway, wanted.test(connected.decision_log.now()), wanted.experiment)
    if prepared.is_complete:
        _show(f"{prepared.test.test_id} is started already.", _outcome(connected, prepared))
    elif dry_run:
        _show(f"{prepared.test.test_id} can start; nothing was changed. To be done:", _plan(connected, prepared))
    else:
        done = _carry_out(connected, gateway, prepared)
        _show(f"{done.test.test_id} is started.", _outcome(connected, done))
        _await_router(connected)


def _carry_out(systems: Systems, gateway: PrefectGateway, prepared: Start) -> Start:
    from flows.start_ab_test import carry_out_start

    try:
        return carry_out_start(systems, gateway, prepared)
    except FraudABError as error:
        typer.echo(f"fraud-ab: {error}. The start may be half done: repeat the command, it goes on from there.", err=True)
        raise typer.Exit(_HALFWAY) from error


def _await_router(systems: Systems) -> None:
    """The patch is what Kubernetes accepted; only the router says what is served."""
    from flows.watch import poll

    if not poll(lambda: systems.serving.readiness().is_done, ARRIVAL_SECONDS):
        seen = f"after {ARRIVAL_SECONDS:g} seconds the split has not arrived ({systems.serving.readiness()})"
        typer.echo(f"Kubernetes has accepted the change, but {seen}: look at the pods.", err=True)
        raise typer.Exit(_HALFWAY)


def _plan(systems: Systems, prepared: Start) -> dict[str, str]:
    from flows.domain.serving_state import describe_serving

    test = prepared.test
    before, after = describe_serving(prepared.before), describe_serving(prepared.after)
    run = test.experiment_run_id or f"a new one in the experiment {prepared.experiment}"
    return {
        "traffic": f"{before} → {after}{_about_shadow(prepared)}",
        "rollback point": f"{test.baseline.predictor} with its spec",
        "registry": f"{test.baseline} in charge, {test.candidate} on trial (now {'; '.join(map(str, prepared.registry))})",
        "MLflow run": run,
        "first look": _first_look(systems, prepared),
    }


def _outcome(systems: Systems, done: Start) -> dict[str, str]:
    from flows.domain.serving_state import describe_serving

    test, run = done.test, done.run
    scheduled = f"{run.starts_at:%Y-%m-%d %H:%M} UTC, {run.state}: {run.url}" if run and run.starts_at else ""
    return {
        "serving": f"{describe_serving(done.after)}{_about_shadow(done)}",
        "exposure": f"since {test.started_at:%Y-%m-%d %H:%M} UTC",
        "initiator": test.initiator or "not said",
        "registry": "; ".join(map(str, done.registry)),
        "MLflow run": systems.registry.run_url(test) or test.experiment_run_id,
        "first look": scheduled or _first_look(systems, done),
        "way back": 'fraud-ab rollback --reason "…", at any time',
    }


def _first_look(systems: Systems, prepared: Start) -> str:
    policy = systems.policy
    days = f"exposure day {policy.looks[0]}, and {policy.label_maturity_days} days until its labels have matured"
    return f"{prepared.first_look_at:%Y-%m-%d %H:%M} UTC ({days})"


def _about_shadow(prepared: Start) -> str:
    candidate = prepared.test.candidate.predictor
    return f" ({candidate} scores a copy of all traffic and answers nobody)" if prepared.after.is_shadow(candidate) else ""


def _show(title: str, lines: dict[str, str]) -> None:
    typer.echo(title)
    for name, text in lines.items():
        typer.echo(f"  {name:<15}{text}")
