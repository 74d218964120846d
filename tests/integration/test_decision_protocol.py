"""The decision protocol against a real Prefect server, a real runner with its processes, and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from deployments.sandbox.slack import SandboxSlack
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.executions_sql import SqlExecutions
from flows.adapters.outbox_sql import SqlOutbox
from flows.domain.ab_test import ABTest, Model
from flows.domain.decision import Choice, Decision, Person
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import plain
from flows.domain.policy import Policy
from slackbot.late_messages import LateMessages
from slackbot.prefect_gateway import PrefectGateway, ResumeResult
from slackbot.publisher import Publisher, slack_client
from slackbot.reconciler import Reconciler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import FlowRun

    from deployments.sandbox.prefect_server import PrefectServer

ALICE = Person("U1", "Alice")
SECONDS = 150  # all runs start at once, and a busy machine takes its time


@dataclass(frozen=True)
class Asked:
    """One run of the test flow, and what it wrote."""

    test_id: str
    flow_run_id: str
    journal: Path

    def lines(self) -> list[str]:
        return self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []

    def decision_id(self, round_number: int) -> str:
        return f"{self.test_id}-{round_number}"

    def die_before_it_is_carried_out(self) -> None:
        Path(f"{self.journal}.trap").touch()

    def hang_before_it_is_carried_out(self) -> None:
        Path(f"{self.journal}.trap").write_text("hang", encoding="utf-8")


@contextlib.contextmanager
def process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all its children, gone when the block ends."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(10)


def until(look: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Wait until `look` gives something true."""
    attempts = Retrying(
        retry=retry_if_result(lambda found: not found) | retry_if_exception_type((httpx.HTTPError, OutsideSystemError)),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.2),
    )
    try:
        return attempts(look)
    except RetryError as error:
        raise AssertionError(f"waited {seconds} s for: {what}") from error


@pytest.fixture(scope="module")
def prefect_api(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process and its children talk to the server; what the runs store is kept in a folder of this module."""
    from prefect.context import refresh_global_settings_context

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        environment.setenv("PREFECT_API_URL", f"{prefect_server.url}/api")
        environment.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "1")
        environment.setenv("PREFECT_LOGGING_LEVEL", "WARNING")
        refresh_global_settings_context()
        yield
    refresh_global_settings_context()


@pytest.fixture(scope="module")
def log(new_database: Callable[[], str]) -> Iterator[SqlDecisionLog]:
    url = new_database()
    names = ("FEEDBACK_URL", "LIFECYCLE_REPOSITORY", "SLACK_CHANNEL")
    with pytest.MonkeyPatch.context() as environment:
        for name in (*(f"FRAUD_AB_{name}" for name in names), "MLFLOW_TRACKING_URI", "SLACK_BOT_TOKEN"):
            environment.setenv(name, "not-used")
        environment.setenv("FRAUD_AB_DECISION_LOG_URL", url)
        opened = SqlDecisionLog(url)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, prefect_api: None, log: SqlDecisionLog, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Asked]]:
    """A run of the test flow for each test here, all started at once; their runner looks for work every second."""
    folder = tmp_path_factory.mktemp("runs")
    script = str(Path(__file__).with_name("protocol_flow.py"))
    mine = [item for item in request.session.items if item.path == Path(__file__)]
    tests = [item.name for item in mine if "asked" in getattr(item, "fixturenames", ())]
    with process(sys.executable, script, "protocol", log=folder / "runner.log"):
        until(lambda: not isinstance(_found_deployment(), Exception), "the deployment")
        yield {test: _start(f"test-{uuid.uuid4().hex[:8]}", folder) for test in tests}


def new_test(test_id: str, journal: str) -> ABTest:
    """A test whose experiment is called like the file that its run writes to."""
    return ABTest(test_id, Model("v1", "1", "fraud-v1"), Model("v2", "2", "fraud-v2"), datetime(2026, 9, 1, tzinfo=UTC), journal)


def _start(test_id: str, folder: Path, deployment: str = "ask/protocol") -> Asked:
    parameters = {"test": plain(new_test(test_id, str(folder / test_id)))}
    url, again = (
        until(lambda: PrefectGateway().start_run(deployment, parameters, idempotency_key=test_id), "a busy Prefect") for _ in "12"
    )
    assert url == again, "one run per idempotency key"
    return Asked(test_id, url.rsplit("/", 1)[-1], folder / test_id)


@pytest.fixture
def asked(runs: dict[str, Asked], request: pytest.FixtureRequest) -> Asked:
    """This test's run, waiting for the answer to its first question."""
    run = runs[request.node.name]
    until(lambda: waits_under(run), "the first suspension")
    return run


@pytest.fixture(scope="module")
def slack() -> Iterator[SandboxSlack]:
    with SandboxSlack() as running:
        yield running


def reconciler_of(log: SqlDecisionLog, gateway: PrefectGateway, *, finalize: str) -> Reconciler:
    executions = SqlExecutions(os.environ["FRAUD_AB_DECISION_LOG_URL"])
    return Reconciler(log, executions, gateway, finalize=finalize, period_seconds=0.5)


@pytest.fixture
def reconciler(prefect_api: None, log: SqlDecisionLog) -> Iterator[Reconciler]:
    running = reconciler_of(log, PrefectGateway(), finalize="ask/protocol")
    running.start()
    yield running
    running.stop()


def _found_deployment(name: str = "ask/protocol") -> object:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            return error


def run_of(asked: Asked) -> FlowRun:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(asked.flow_run_id))


def waits_under(asked: Asked, prefix: str = "decision-", *, other_than: str = "") -> str:
    """The key under which the run is suspended now, once its input can be given."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    state = run_of(asked).state
    assert state is not None
    assert not state.is_final(), state
    key = state.state_details.pause_key if state.is_paused() else None
    if not key or key == other_than or not key.startswith(prefix):
        return ""
    with get_client(sync_client=True) as client:
        try:
            client.read_flow_run_input(UUID(asked.flow_run_id), state.state_details.run_input_keyset["schema"])
        except (ObjectNotFound, httpx.HTTPStatusError):
            return ""
    return key


def answer(log: SqlDecisionLog, decision_id: str, choice: Choice = Choice.CONFIRM, **changes: Any) -> Decision:
    digest = log.read(decision_id).request.verdict.evidence_digest
    return log.claim(decision_id, evidence_digest=digest, choice=choice, actor=ALICE, reason="", **changes)


def let_time_pass(log: SqlDecisionLog, decision_id: str, until_after: str) -> None:
    in_the_past(log, f"UPDATE decisions SET {until_after} = statement_timestamp() WHERE decision_id = :it", decision_id)


def in_the_past(log: SqlDecisionLog, statement: str, it: str) -> None:
    with log._database.transaction("moving a moment into the past") as connection:
        assert connection.execute(text(statement), {"it": it}).rowcount == 1


def is_pending(asked: Asked) -> bool:
    state = run_of(asked).state
    return state is not None and state.is_pending()


def is_completed(asked: Asked) -> bool:
    state = run_of(asked).state
    return state is not None and state.is_completed()


def press_resume_in_the_ui(asked: Asked) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.resume_flow_run(UUID(asked.flow_run_id), run_input={"decision_id": f"{asked.test_id}-1"})


def test_a_resume_in_the_prefect_ui_changes_nothing_and_an_answer_goes_on(
    asked: Asked, log: SqlDecisionLog, reconciler: Reconciler
) -> None:
    first = waits_under(asked)
    press_resume_in_the_ui(asked)
    second = until(lambda: waits_under(asked, other_than=first), "a suspension under a fresh key")
    assert second.startswith("decision-1-")
    assert asked.lines() == ["asked 1"]
    assert log.read(asked.decision_id(1)).is_pending
    answer(log, asked.decision_id(1))
    reconciler.nudge()
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} confirm"]
    assert log.read(asked.decision_id(1)).consumed_at is not None


def test_a_waiting_run_is_left_alone_and_of_racing_resumes_one_wins(asked: Asked, log: SqlDecisionLog) -> None:
    gateway = PrefectGateway()
    assert not gateway.reschedule_if_dead(asked.flow_run_id)
    assert not gateway.reschedule_if_dead(asked.flow_run_id, blocked_key_prefix="decision-2-")
    other_round = gateway.guarded_resume(asked.flow_run_id, key_prefix="decision-2-", decision_id="another")
    assert other_round is ResumeResult.NOT_WAITING
    answer(log, asked.decision_id(1))
    assert asked.decision_id(1) in [decision.decision_id for decision in log.undelivered()]
    together = threading.Barrier(6)

    def resume(_: int) -> ResumeResult:
        together.wait(10)
        answered = asked.decision_id(1)
        return until(lambda: gateway.guarded_resume(asked.flow_run_id, key_prefix="decision-1-", decision_id=answered), "Prefect")

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(resume, range(6)))
    assert results.count(ResumeResult.RESUMED) == 1, results
    assert ResumeResult.BLOCKED not in results
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} confirm"]


def test_a_postponement_waits_until_it_is_due_and_asks_again(asked: Asked, log: SqlDecisionLog, reconciler: Reconciler) -> None:
    first = waits_under(asked)
    answer(log, asked.decision_id(1), Choice.POSTPONE, postponed_until=log.now() + timedelta(days=1))
    press_resume_in_the_ui(asked)  # too early
    until(lambda: waits_under(asked, "decision-1-", other_than=first), "a suspension under a fresh key")
    assert asked.lines() == ["asked 1"]
    let_time_pass(log, asked.decision_id(1), "due_at")
    until(lambda: waits_under(asked, "decision-2-"), "the question of round 2")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} postpone", "asked 2"]
    answer(log, asked.decision_id(2), Choice.FORCE_ROLLBACK)
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines()[3:] == [f"acted {asked.decision_id(2)} force_rollback"]


def test_a_postponement_until_frauds_are_seen_asks_again_when_it_is_woken(
    asked: Asked, log: SqlDecisionLog, reconciler: Reconciler
) -> None:
    answer(log, asked.decision_id(1), Choice.POSTPONE, postponed_until=log.now() + timedelta(days=7), wanted_frauds=10_000)
    reconciler.check_once()
    assert asked.lines() == ["asked 1"]
    assert log.wake(asked.decision_id(1))
    until(lambda: waits_under(asked, "decision-2-"), "the question of round 2")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} postpone", "asked 2"]
    answer(log, asked.decision_id(2), Choice.FORCE_ROLLBACK)
    until(lambda: is_completed(asked), "the run to end")


def test_a_run_that_is_killed_before_it_has_carried_the_answer_out_goes_on_where_it_was(
    asked: Asked, log: SqlDecisionLog, reconciler: Reconciler
) -> None:
    asked.die_before_it_is_carried_out()
    answer(log, asked.decision_id(1))
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} confirm", "died"]
    assert log.read(asked.decision_id(1)).consumed_at is not None


def test_a_run_whose_whole_machine_died_goes_on_elsewhere(
    prefect_api: None, log: SqlDecisionLog, reconciler: Reconciler, tmp_path: Path
) -> None:
    """Runner and child at once: nobody is left to tell Prefect, which shows the run as Running for ever."""
    runner = (sys.executable, str(Path(__file__).with_name("protocol_flow.py")), "machine")
    with process(*runner, log=tmp_path / "first.log") as first:
        until(lambda: not isinstance(_found_deployment("ask/machine"), Exception), "the deployment")
        asked = _start(f"test-{uuid.uuid4().hex[:8]}", tmp_path, "ask/machine")
        until(lambda: waits_under(asked), "the first suspension")
        asked.hang_before_it_is_carried_out()
        answer(log, asked.decision_id(1))
        until(lambda: "hangs" in asked.lines(), "the run to be in the middle of it")
        os.killpg(first.pid, signal.SIGKILL)
    with process(*runner, log=tmp_path / "second.log"):
        assert run_of(asked).state_name == "Running"
        in_the_past(
            log, "UPDATE executions SET renewed_at = renewed_at - interval '2 minutes' WHERE flow_run_id = :it", asked.flow_run_id
        )
        until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} confirm", "hangs"]
    assert log.read(asked.decision_id(1)).consumed_at is not None


def test_a_run_whose_machine_died_before_its_first_line_goes_on_elsewhere(
    prefect_api: None, log: SqlDecisionLog, tmp_path: Path
) -> None:
    """It is Pending for ever: it has no lease that could lapse, and no decision yet that somebody would miss."""
    runner = (sys.executable, str(Path(__file__).with_name("protocol_flow.py")), "early")
    with process("env", "HELD_RUNS=1", *runner, log=tmp_path / "first.log") as first:
        until(lambda: not isinstance(_found_deployment("ask/early"), Exception), "the deployment")
        asked = _start(f"test-{uuid.uuid4().hex[:8]}", tmp_path, "ask/early")
        until(lambda: is_pending(asked), "the run to be taken by the runner")
        os.killpg(first.pid, signal.SIGKILL)
    url = os.environ["FRAUD_AB_DECISION_LOG_URL"]
    executions, gateway = SqlExecutions(url), PrefectGateway(starting=timedelta(0))
    reconciler = reconciler_of(log, gateway, finalize="ask/early")
    reconciler_of(log, PrefectGateway(), finalize="ask/early").check_once()
    assert not executions.is_leased(asked.flow_run_id), "it may be just starting"
    reconciler.check_once()
    assert executions.is_leased(asked.flow_run_id)
    assert is_pending(asked), "a process may still renew the lease"
    in_the_past(
        log, "UPDATE executions SET renewed_at = renewed_at - interval '2 minutes' WHERE flow_run_id = :it", asked.flow_run_id
    )
    reconciler.check_once()
    with process(*runner, log=tmp_path / "second.log"):
        until(lambda: waits_under(asked), "the question")
    assert asked.lines() == ["asked 1"]


def test_an_answer_whose_run_was_cancelled_is_carried_out_by_another_run(
    asked: Asked, log: SqlDecisionLog, reconciler: Reconciler
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(asked.flow_run_id), Cancelled(), force=True)
    answer(log, asked.decision_id(1))
    until(lambda: log.read(asked.decision_id(1)).consumed_at, "another run to carry it out")
    assert asked.lines() == ["asked 1", "asked 1", f"acted {asked.decision_id(1)} confirm"]  # asked twice, stored once
    assert log.read(asked.decision_id(1)).request.flow_run_id != asked.flow_run_id


def test_a_question_that_nobody_was_shown_is_posted_once(asked: Asked, log: SqlDecisionLog, slack: SandboxSlack) -> None:
    """Its flow does not post, as if it had died then."""
    outbox = SqlOutbox(os.environ["FRAUD_AB_DECISION_LOG_URL"])
    late = LateMessages(log, Publisher(slack_client(slack.bot_token, slack.api_url), outbox, log, Policy(), channel="C0FRAUD"))

    def posted() -> list[str]:
        return [str(one["metadata"]) for one in slack.messages("C0FRAUD") if asked.decision_id(1) in str(one["metadata"])]

    for _ in range(2):
        late.check_once()
        assert len(posted()) == 1


def test_silence_keeps_the_baseline(asked: Asked, log: SqlDecisionLog, reconciler: Reconciler) -> None:
    let_time_pass(log, asked.decision_id(1), "deadline")
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} expire"]


def test_a_run_whose_resume_is_blocked_is_rescheduled(asked: Asked, log: SqlDecisionLog, reconciler: Reconciler) -> None:
    from prefect.client.orchestration import get_client

    state = run_of(asked).state
    assert state is not None
    keyset = state.state_details.run_input_keyset
    assert keyset is not None
    with get_client(sync_client=True) as client:  # as if the process had died before it was saved
        client.delete_flow_run_input(UUID(asked.flow_run_id), keyset["schema"])
    answer(log, asked.decision_id(1))
    until(lambda: is_completed(asked), "the run to end")
    assert asked.lines() == ["asked 1", f"acted {asked.decision_id(1)} confirm"]


def test_a_replaced_run_leaves_the_question_to_its_successor(asked: Asked, log: SqlDecisionLog) -> None:
    log.open(replace(log.read(asked.decision_id(1)).request, flow_run_id=str(uuid.uuid4())))
    press_resume_in_the_ui(asked)
    until(lambda: run_of(asked).state_name == "Failed", "the replaced run to end")
    assert asked.lines() == ["asked 1"]


def test_a_prefect_that_is_away_is_worth_another_try() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(OutsideSystemError) as failure,
    ):
        PrefectGateway(call_seconds=1).guarded_resume(str(uuid.uuid4()), key_prefix="decision-1-", decision_id="x")
    assert failure.value.retryable
