"""The command line `fraud-ab`. Commands import what they need when they run, so that help and errors are quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deployments.demo_command import demo
from deployments.evaluate_command import evaluate
from deployments.investigate_command import investigate
from deployments.rollback_command import rollback
from deployments.start_command import start
from deployments.status_command import status
from deployments.verify_command import export_records, verify_record
from flows.domain.errors import FraudABError

BAD_INPUT = 2

app = typer.Typer(name="fraud-ab", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command("demo")(demo)
app.command("evaluate")(evaluate)
app.command("investigate")(investigate)
app.command("start")(start)
app.command("status")(status)
app.command("rollback")(rollback)
app.command("verify-record")(verify_record)
app.command("export-records")(export_records)


@app.command()
def serve() -> None:
    """Run the Prefect deployments (finalize-ab-test, rollback-to-baseline, investigate-candidate, remind-pending-decision,
    check-running-test, watch-promotion, rehearse-rollback)."""
    from deployments.serve import run

    run()


@app.command()
def bot(
    http: Annotated[int | None, typer.Option(help="serve signed HTTP requests on this port instead of Socket Mode")] = None,
) -> None:
    """Run the Slack app."""
    from slackbot.app import run

    run(http)


def main() -> None:
    """Run a command; what a person can mend is one sentence on stderr and exit code 2."""
    try:
        app()
    except FraudABError as error:
        sys.stderr.write(f"fraud-ab: {error}\n")
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
