"""`fraud-ab serve`: the Prefect deployments of this project, run by this process, with the reconciler beside them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from deployments.metrics import start_metrics
from flows.check_running_test import check_running_test
from flows.deployment_names import FOLLOW_UP
from flows.domain.errors import OutsideSystemError
from flows.emergency_revert import settle
from flows.finalize_ab_test import finalize_ab_test
from flows.investigate_candidate import investigate_candidate
from flows.registry_steps import follow_test_that_serves
from flows.rehearse_rollback import rehearse_rollback
from flows.remind_pending_decision import remind_pending_decision
from flows.rollback_to_baseline import rollback_to_baseline
from flows.wake_postponed import wake_postponed
from flows.watch_promotion import watch_promotion
from flows.wiring import systems
from slackbot.late_messages import LateMessages
from slackbot.periodic_checks import PeriodicChecks
from slackbot.prefect_gateway import KnownRun, PrefectGateway
from slackbot.reconciler import Reconciler

DEPLOYMENT = "fraud"
RUNS_AT_ONCE = 8
PRODUCTION_SECONDS, REGISTRY_SECONDS = 5.0, 30.0
FRAUDS_SECONDS = 3600.0  # each look counts the window anew, and labels are loaded by the hour or the day
SERVER_WAIT_SECONDS = 120
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
SCHEDULES = {  # UTC
    check_running_test.name: "0 6 * * *",
    watch_promotion.name: "*/5 * * * *",
    rehearse_rollback.name: "0 9 * * 2",  # when people are there to mend what it finds
}


def flows_served() -> tuple[Flow[..., Any], ...]:
    """Every flow that becomes a deployment `<flow>/fraud`."""
    return (
        finalize_ab_test,
        rollback_to_baseline,
        investigate_candidate,
        remind_pending_decision,
        check_running_test,
        watch_promotion,
        rehearse_rollback,
    )


def run() -> None:
    """Serve until the process is told to stop.

    Raises:
        OutsideSystemError: no Prefect API answers at PREFECT_API_URL.
        SettingsInvalid: the metrics' address cannot be listened on.
    """
    settings = get_current_settings()
    wait_for_prefect(settings.api.url)
    gateway = PrefectGateway(ui_url=systems().settings.prefect_ui_url)
    production = {"settle": lambda: settle(systems().serving), "catch-up": lambda: catch_up(gateway)}
    threads = (
        Reconciler(systems().decision_log, systems().executions, gateway),
        LateMessages(systems().decision_log, systems().publisher),
        PeriodicChecks("production", production, period_seconds=PRODUCTION_SECONDS),
        PeriodicChecks("registry", {"follow": follow_test_that_serves}, period_seconds=REGISTRY_SECONDS),
        PeriodicChecks("frauds", {"wake": lambda: wake_postponed(systems())}, period_seconds=FRAUDS_SECONDS),
    )
    start_metrics(systems())
    for thread in threads:
        thread.start()
    try:
        serve(*map(_deployment, flows_served()), limit=RUNS_AT_ONCE, pause_on_shutdown=False, print_starting_message=False)
    finally:
        for thread in threads:
            thread.stop()


def _deployment(flow: Flow[..., Any]) -> RunnerDeployment:
    # by module path: a run's process imports the installed package and depends on no working directory
    return flow.to_deployment(  # pyright: ignore[reportReturnType]
        name=DEPLOYMENT, entrypoint_type=EntrypointType.MODULE_PATH, cron=SCHEDULES.get(flow.name)
    )


def catch_up(gateway: PrefectGateway) -> None:
    """Start the catch-up of every emergency revert that is still noted on the deployment: from a shell, or in an outage.

    Once; and when that run has ended and the note is still there, again, after a pause that doubles each time. A run that has
    not ended is waited for, but not for ever: its machine may be gone.
    """
    for entry in systems().serving.read().unrecorded:
        revert_id = entry["id"]
        runs = gateway.runs_with(FOLLOW_UP, "revert_id", revert_id)
        if runs and datetime.now(UTC) < patience_ends(runs[0], tried=len(runs)):
            continue
        parameters = {"revert_id": revert_id, "actor": entry["actor"], "reason": entry["reason"]}
        key = f"{revert_id}-{len(runs)}" if runs else revert_id  # several of us may get here at once
        gateway.start_run(FOLLOW_UP, parameters, idempotency_key=key)


def patience_ends(run: KnownRun, *, tried: int) -> datetime:
    """Until when (UTC) a catch-up is left to `run`, the latest of as many that were tried."""
    pause = min(FIRST_PAUSE * 2 ** min(tried - 1, 7), LONGEST_PAUSE) if run.is_over else LONGEST_PAUSE
    return (run.since or datetime.now(UTC)) + pause


def wait_for_prefect(api_url: str | None) -> None:
    """Wait until the Prefect API answers; it may be starting beside us."""
    if api_url is None:
        raise OutsideSystemError("Prefect", "looking for its API: set PREFECT_API_URL", retryable=False)

    @retry(
        stop=stop_after_delay(SERVER_WAIT_SECONDS),
        wait=wait_fixed(0.25),
        retry=retry_if_exception_type(httpx.HTTPError),
        reraise=True,
    )
    def ask() -> None:
        httpx.get(f"{api_url}/health", timeout=5).raise_for_status()

    try:
        ask()
    except httpx.HTTPError as error:
        raise OutsideSystemError("Prefect", f"waiting for its API at {api_url}", retryable=True) from error
