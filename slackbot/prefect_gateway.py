"""The little that is asked of Prefect's API: wake a waiting run, revive a dead one, start another, link to it.

Prefect tells several racing callers of a resume that they won. What it does keep is that a run's input has one row, so a resume
here always carries an input, and only the answer ACCEPT counts as a win. Whatever comes back, the decision log alone says whether
an answer has arrived: the flow marks it there.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from flows.domain.errors import OutsideSystemError, SettingsInvalid
from flows.prefect_calls import no_retries

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import OrchestrationResult

CALL_SECONDS = 10.0
RUNS_AT_MOST = 200
STARTING = timedelta(minutes=3)  # from Pending to the first line of the flow: its imports take a while
REFUSED_ONCE_SECONDS = 3.0  # a run is Suspended a moment before it can be resumed


class ResumeResult(StrEnum):
    """What a guarded resume found and did."""

    RESUMED = "resumed"
    SOMEBODY_ELSE = "somebody_else"  # won the race for this resume
    NOT_WAITING = "not_waiting"  # for this answer: it runs or is scheduled
    BLOCKED = "blocked"  # it waits, but Prefect refuses to resume it: reschedule it
    DEAD = "dead"  # Failed or Crashed: reschedule it
    STALLED = "stalled"  # Running or Pending for a while, so its process should hold a lease
    GONE = "gone"  # cancelled, deleted, or ended without the answer: another run must take the question over


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run of a deployment: its address for people, Prefect's name of its state and since when (UTC), when (UTC) it begins."""

    url: str
    state: str
    is_over: bool
    since: datetime | None
    starts_at: datetime | None


class PrefectGateway:
    """Prefect's API at `PREFECT_API_URL`; each call has a timeout and a client of its own, so threads may share the gateway.

    Args:
        ui_url: base of links for people; empty: derived from the API's address.
        call_seconds: patience with one call.
        starting: how long a run may be Pending or Running before its process is expected to hold a lease.
    """

    def __init__(self, *, ui_url: str = "", call_seconds: float = CALL_SECONDS, starting: timedelta = STARTING) -> None:
        self._ui_url = ui_url.rstrip("/")
        self._call_seconds = call_seconds
        self._starting = starting

    def guarded_resume(self, flow_run_id: str, *, key_prefix: str, decision_id: str) -> ResumeResult:
        """Resume a run that is suspended under a key with this prefix; any other run is left alone.

        Raises:
            OutsideSystemError: Prefect cannot be reached.
        """
        with self._client(f"resuming {flow_run_id}") as client:
            run = _read(client, flow_run_id)
            if run is None or _has_ended(run):
                return ResumeResult.GONE
            if _is_dead(run):
                return ResumeResult.DEAD
            if not _waits_under(run, key_prefix):
                return ResumeResult.STALLED if _is_at_work(run) and self._is_settled(run) else ResumeResult.NOT_WAITING
            return _resume(client, run, key_prefix, {"decision_id": decision_id})

    def runs_at_work(self, deployment: str) -> Sequence[str]:
        """The runs of a deployment (`flow/name`) that are Pending or Running, those left out that may be just starting.

        Raises:
            OutsideSystemError: Prefect cannot be reached.
        """
        from prefect.client.schemas import filters
        from prefect.client.schemas.objects import StateType

        flow, _, name = deployment.partition("/")
        at_work = filters.FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
        with self._client(f"looking for runs of {deployment}") as client:
            runs = client.read_flow_runs(
                flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[flow])),
                deployment_filter=filters.DeploymentFilter(name=filters.DeploymentFilterName(any_=[name])),
                flow_run_filter=filters.FlowRunFilter(state=filters.FlowRunFilterState(type=at_work)),
            )
        return [str(run.id) for run in runs if self._is_settled(run)]

    def reschedule_if_dead(self, flow_run_id: str, *, blocked_key_prefix: str | None = None) -> bool:
        """Let a Failed or Crashed run go on: finished steps come back from their results.

        A run that is Running or Pending is never forced: a second process would start beside the first. Two callers must not do
        this at the same time for the same reason; `DecisionLog.begin_repair` sees to it.

        Args:
            blocked_key_prefix: also a run that is suspended under such a key and cannot be resumed.

        Returns:
            whether the run was rescheduled.
        """
        from prefect.states import AwaitingRetry

        with self._client(f"rescheduling {flow_run_id}") as client:
            run = client.read_flow_run(UUID(flow_run_id))
            is_blocked = blocked_key_prefix is not None and _waits_under(run, blocked_key_prefix)
            if not (_is_dead(run) or is_blocked):
                return False
            # Forced, because the orderly way forgets which suspensions have fired.
            return _is_accepted(client.set_flow_run_state(run.id, AwaitingRetry(), force=True))

    def revive_abandoned(self, flow_run_id: str) -> bool:
        """Start again a run whose process is gone, whatever state it left: finished steps come back from their results.

        Only for a run that no living process executes (`Executions` tells): a second process would start beside the first.

        Returns:
            whether the run was rescheduled; False when nothing is lost: it waits, is scheduled, or has ended.
        """
        from prefect.states import AwaitingRetry, Crashed

        with self._client(f"reviving {flow_run_id}") as client:
            run = _read(client, flow_run_id)
            if run is None or not (_is_dead(run) or _is_at_work(run)):
                return False
            if not _is_dead(run):
                client.set_flow_run_state(run.id, Crashed(message="The process that executed this run is gone."), force=True)
            return _is_accepted(client.set_flow_run_state(run.id, AwaitingRetry(), force=True))

    def start_run(
        self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, scheduled_time: datetime | None = None
    ) -> str:
        """Create a run of a deployment (`flow/name`), once per idempotency key; returns its address for people."""
        from prefect.states import Scheduled

        with self._client(f"starting {deployment}") as client:
            found = client.read_deployment_by_name(deployment)
            state = Scheduled(scheduled_time=scheduled_time)
            run = client.create_flow_run_from_deployment(
                found.id, parameters=dict(parameters), state=state, idempotency_key=idempotency_key
            )
        return self.run_url(str(run.id))

    def find_run(self, deployment: str, idempotency_key: str) -> KnownRun | None:
        """The run that was created under this key; None when there is none.

        Raises:
            OutsideSystemError: Prefect cannot be reached, or has no such deployment.
        """
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey

        with self._client(f"looking for the deployment {deployment}, which `fraud-ab serve` registers") as client:
            client.read_deployment_by_name(deployment)
            key = FlowRunFilterIdempotencyKey(any_=[idempotency_key])
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=key), limit=1)
        return self._known(found[0]) if found else None

    def runs_with(self, deployment: str, parameter: str, value: str) -> list[KnownRun]:
        """The latest runs of a deployment (`flow/name`) that have this parameter, the newest first.

        Raises:
            OutsideSystemError: Prefect cannot be reached.
        """
        from prefect.client.schemas import filters
        from prefect.client.schemas.sorting import FlowRunSort

        flow, _, name = deployment.partition("/")
        with self._client(f"looking for runs of {deployment}") as client:
            runs = client.read_flow_runs(
                flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[flow])),
                deployment_filter=filters.DeploymentFilter(name=filters.DeploymentFilterName(any_=[name])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=RUNS_AT_MOST,
            )
        return [self._known(run) for run in runs if run.parameters.get(parameter) == value]

    def unfinished_parameters(self, flow_name: str) -> list[dict[str, Any]]:
        """The parameters of each run of a flow that is scheduled, waiting or running.

        Raises:
            OutsideSystemError: Prefect cannot be reached.
        """
        from prefect.client.schemas import filters
        from prefect.client.schemas.objects import TERMINAL_STATES, StateType

        unfinished = filters.FlowRunFilterStateType(any_=list(set(StateType) - TERMINAL_STATES))
        with self._client(f"looking for unfinished runs of {flow_name}") as client:
            runs = client.read_flow_runs(
                flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[flow_name])),
                flow_run_filter=filters.FlowRunFilter(state=filters.FlowRunFilterState(type=unfinished)),
                limit=RUNS_AT_MOST,
            )
        return [run.parameters for run in runs]

    def _known(self, run: FlowRun) -> KnownRun:
        name = run.state.name if run.state and run.state.name else "unknown"
        is_over = run.state is not None and run.state.is_final()
        since = run.state.timestamp if run.state else None
        return KnownRun(self.run_url(str(run.id)), name, is_over, since, run.expected_start_time)

    def run_url(self, flow_run_id: str) -> str:
        """Where a person sees the run; empty when the address is not known."""
        from prefect.utilities.urls import url_for

        if self._ui_url:
            return f"{self._ui_url}/runs/flow-run/{flow_run_id}"
        return url_for("flow-run", flow_run_id) or ""

    def _is_settled(self, run: FlowRun) -> bool:
        """In its state for so long that it is not just starting."""
        return run.state is not None and run.state.timestamp < datetime.now(UTC) - self._starting

    @contextmanager
    def _client(self, doing: str) -> Generator[SyncPrefectClient]:
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound
        from prefect.settings import get_current_settings

        if not get_current_settings().api.url:  # without an address Prefect would start a server of its own
            raise SettingsInvalid("the environment", ["PREFECT_API_URL: say where the Prefect server is"])
        try:
            with no_retries(self._call_seconds), get_client(sync_client=True) as client:
                yield client
        except ObjectNotFound as error:
            raise OutsideSystemError("Prefect", f"{doing}: it does not exist", retryable=False) from error
        except httpx.HTTPStatusError as error:
            raise OutsideSystemError("Prefect", doing, retryable=error.response.status_code >= 500) from error
        except httpx.TransportError as error:
            raise OutsideSystemError("Prefect", doing, retryable=True) from error


def _resume(client: SyncPrefectClient, run: FlowRun, key_prefix: str, run_input: dict[str, Any]) -> ResumeResult:
    """Try for a moment: a run that was suspended just now may refuse once."""
    attempts = Retrying(
        retry=retry_if_result(lambda result: result is ResumeResult.BLOCKED),
        stop=stop_after_delay(REFUSED_ONCE_SECONDS),
        wait=wait_fixed(0.3),
    )
    try:
        return attempts(_resume_once, client, run, key_prefix, run_input)
    except RetryError:
        return ResumeResult.BLOCKED


def _resume_once(client: SyncPrefectClient, run: FlowRun, key_prefix: str, run_input: dict[str, Any]) -> ResumeResult:
    import httpx

    try:
        if _is_accepted(client.resume_flow_run(run.id, run_input=run_input)):
            return ResumeResult.RESUMED
    except httpx.HTTPStatusError as error:
        if error.response.status_code != HTTPStatus.CONFLICT:
            raise
    is_still_waiting = _waits_under(client.read_flow_run(run.id), key_prefix)
    return ResumeResult.BLOCKED if is_still_waiting else ResumeResult.SOMEBODY_ELSE


def _read(client: SyncPrefectClient, flow_run_id: str) -> FlowRun | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_flow_run(UUID(flow_run_id))
    except ObjectNotFound:
        return None


def _is_accepted(result: OrchestrationResult[Any]) -> bool:
    from prefect.client.schemas.responses import SetStateStatus

    return result.status is SetStateStatus.ACCEPT


def _is_dead(run: FlowRun) -> bool:
    return run.state is not None and (run.state.is_failed() or run.state.is_crashed())


def _has_ended(run: FlowRun) -> bool:
    return run.state is not None and (run.state.is_cancelled() or run.state.is_completed())


def _is_at_work(run: FlowRun) -> bool:
    return run.state is not None and (run.state.is_running() or run.state.is_pending() or run.state.is_cancelling())


def _waits_under(run: FlowRun, key_prefix: str) -> bool:
    key = run.state.state_details.pause_key if run.state and run.state.is_paused() else None
    return key is not None and key.startswith(key_prefix)
