"""The demo: a simulated A/B test is evaluated, decided in (a local) Slack and carried out; then the promise is checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import webbrowser
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn, TypeVar

from rich.console import Console

from deployments.demo_command import Decide, Scenario
from deployments.demo_report import final_state, print_ending, print_investigation, print_parts, print_verdict
from deployments.sandbox.processes import ROOT, ChildFailed
from deployments.sandbox.stack import EmbeddedStack
from flows.domain.decision import Choice, Decision, NextStep, next_step
from flows.domain.decision_record import Investigation, RecordKind, is_lost, latest_investigation
from flows.domain.errors import FraudABError, SettingsInvalid
from flows.domain.verdict import VerdictKind
from slackbot.publisher import message_key

if TYPE_CHECKING:
    from deployments.sandbox.installed_test import InstalledTest
    from flows.wiring import Systems

T = TypeVar("T")

CACHE = ROOT / ".cache" / "simulator"
KEPT = ROOT / "build" / "demo"
VERDICT_SECONDS = 180.0
STORY_SECONDS = 180.0
POLL_SECONDS = 0.25
INTERRUPTED = 130
LOG_WIDTH = 160  # where nobody can widen the window

PROMISED = {
    Scenario.WIN: VerdictKind.PROMOTE,
    Scenario.LOSE: VerdictKind.KEEP_BASELINE,
    Scenario.INCONCLUSIVE: VerdictKind.INCONCLUSIVE,
    Scenario.SPLIT_BUG: VerdictKind.NOT_EVALUABLE,
    Scenario.SLOW_CANDIDATE: VerdictKind.KEEP_BASELINE,
    Scenario.DRIFTED: VerdictKind.KEEP_BASELINE,
}
CHOICES = {Decide.CONFIRM: Choice.CONFIRM, Decide.POSTPONE: Choice.POSTPONE, Decide.ROLLBACK: Choice.FORCE_ROLLBACK}


class PromiseBroken(FraudABError):
    """The story did not end as it should."""


class _Stopped(BaseException):
    """Somebody asked the demo to stop."""


def run_demo(scenario: Scenario, decide: Decide | None, *, seed: int, browser: bool) -> None:
    """Tell the whole story once.

    Raises:
        PromiseBroken: the final state is not the promised one; the message says what differs.
    """
    if decide and os.environ.get("SLACK_BOT_TOKEN"):
        raise SettingsInvalid(
            "--decide", ["it presses buttons in the embedded Slack only: unset SLACK_BOT_TOKEN, or press yourself"]
        )
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    stack = EmbeddedStack()
    with _stoppable(stack, exit_code=INTERRUPTED if decide else 0):
        try:
            _Story(console, stack, scenario, seed).tell(CHOICES[decide] if decide else None, browser=browser)
        except ChildFailed as error:
            raise PromiseBroken(str(error)) from error


@contextlib.contextmanager
def _stoppable(stack: EmbeddedStack, *, exit_code: int) -> Generator[None]:
    """Stop and clean up on the end, on Ctrl-C and on SIGTERM alike."""

    def stop(_number: int, _frame: object) -> NoReturn:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)  # once is enough; a second Ctrl-C must not leave processes behind
        raise _Stopped

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except _Stopped:
        if exit_code:  # a story that decides by itself and was stopped has not ended as promised
            raise SystemExit(exit_code) from None
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Story:
    def __init__(self, console: Console, stack: EmbeddedStack, scenario: Scenario, seed: int) -> None:
        self.console = console
        self.stack = stack
        self.scenario = scenario
        self.seed = seed
        self.begin = time.monotonic()

    def tell(self, choice: Choice | None, *, browser: bool) -> None:
        world, systems = self._prepare()
        world.start_live_traffic()
        try:
            before = final_state(systems, world.test)
            decision = self._until(lambda: self._asked(systems, 1), VERDICT_SECONDS, "the verdict")
            print_verdict(self.console, decision, self._elapsed())
            self._show_addresses(browser=browser)
            if choice is None:
                self.console.print("\nOpen the Slack page, choose who you are, and decide. Ctrl-C ends the demo.\n")
            else:
                self._press(choice)
            answered = self._until(lambda: self._answered(systems, decision), STORY_SECONDS if choice else None, "the answer")
            self._finish(world, systems, answered, before)
            if choice is None:
                self.console.print("\nThe story is over; the page and the Prefect UI stay open until Ctrl-C.")
                while True:
                    time.sleep(1)  # an endless wait would not notice a signal that another thread has caught
        finally:
            world.stop()

    def _prepare(self) -> tuple[InstalledTest, Systems]:
        from deployments.sandbox.installed_test import install_test
        from deployments.sandbox.simulator import simulate_test

        self.console.print(f"[bold]fraud-ab demo[/bold]: scenario {self.scenario}, seed {self.seed}")
        with ThreadPoolExecutor(1) as pool:
            simulating = pool.submit(simulate_test, self.scenario, self.seed, cache=CACHE)
            self.stack.start()
            print_parts(self.console, self.stack.parts)
            os.environ.update(self.stack.environment)
            self.stack.start_product()
            self.console.print(f"Simulating card transactions, training both models …  ({self._elapsed():.0f} s)")
            simulated = simulating.result()
        from flows.wiring import systems

        connected = systems()
        world = install_test(simulated, connected, self.stack)
        self.console.print(f"{world.summary()}  ({self._elapsed():.0f} s)")
        world.start_flow()
        return world, connected

    def _elapsed(self) -> float:
        return time.monotonic() - self.begin

    def _until(self, ask: Callable[[], T | None], seconds: float | None, what: str) -> T:
        """Ask until there is an answer, watching that every process lives."""
        begin, pause = time.monotonic(), threading.Event()
        while seconds is None or time.monotonic() - begin < seconds:
            answer = ask()
            if answer is not None:
                return answer
            self.stack.require_alive()
            pause.wait(POLL_SECONDS)
        raise PromiseBroken(f"{what} did not come within {seconds:.0f} s; the logs are in {self._keep_logs()}")

    def _asked(self, systems: Systems, number: int) -> Decision | None:
        """The decision of a round once its message is in Slack."""
        asked = [decision for decision in systems.decision_log.decisions() if decision.request.round == number]
        return asked[0] if asked and systems.outbox.find(message_key(asked[0].decision_id)) else None

    def _answered(self, systems: Systems, decision: Decision) -> Decision | None:
        now = systems.decision_log.read(decision.decision_id)
        return None if now.is_pending else now

    def _show_addresses(self, *, browser: bool) -> None:
        if self.stack.slack is not None:
            self.console.print(f"\n  Slack page   {self.stack.slack.url}")
            if browser:
                webbrowser.open(self.stack.slack.url)
        self.console.print(f"  Prefect UI   {self.stack.prefect_url}\n  MLflow       {self.stack.mlflow_url}")

    def _investigated(self, systems: Systems, decision: Decision) -> Investigation | None:
        return latest_investigation(systems.decision_log.records(decision.decision_id))

    def _press(self, choice: Choice) -> None:
        from deployments.sandbox.demo_person import answer

        if self.stack.slack is None:
            raise PromiseBroken("--decide needs the embedded Slack")
        answer(self.stack.slack, choice)
        self.console.print(f"\nAna answers in Slack: [bold]{choice.value.replace('_', ' ')}[/bold]  ({self._elapsed():.0f} s)")

    def _finish(self, world: InstalledTest, systems: Systems, decision: Decision, before: dict[str, str]) -> None:
        claim = decision.claim
        if claim is None:
            raise PromiseBroken("the decision lost its answer")
        follows = next_step(decision.request.verdict.kind, claim.choice)
        if follows is NextStep.EVALUATE_AGAIN and claim.choice is Choice.POSTPONE:
            self.console.print(f"Postponed until {claim.due_at:%H:%M:%S} UTC. Meanwhile a week passes in the simulated world.")
            world.advance(days=7)
            again = self._until(lambda: self._asked(systems, 2), STORY_SECONDS, "the second evaluation")
            print_verdict(self.console, again, self._elapsed())
            if (again.request.verdict.exposure_days or 0) <= (decision.request.verdict.exposure_days or 0):
                raise PromiseBroken("the second evaluation saw no later look than the first")
        elif follows is not NextStep.EVALUATE_AGAIN:
            self._until(world.flow_ended, STORY_SECONDS, "the end of the flow")
        verdict, stays = decision.request.verdict.kind, follows is NextStep.KEEP_BASELINE
        is_investigated = stays and is_lost(RecordKind.BASELINE_KEPT, verdict, claim.choice)
        if is_investigated and self.stack.features is not None:
            found = self._until(lambda: self._investigated(systems, decision), STORY_SECONDS, "the investigation")
            print_investigation(self.console, found, self._elapsed())
        after = final_state(systems, world.test)
        kept = print_ending(self.console, systems, decision, before=before, after=after, keep=KEPT / self.scenario)
        self._check(decision, follows, before, after, kept)
        self.console.print(f"\n[bold]As promised.[/bold] The whole story took {self._elapsed():.0f} s.")

    def _check(
        self, decision: Decision, follows: NextStep, before: dict[str, str], after: dict[str, str], kept: list[str]
    ) -> None:
        """The final state must be the promised one."""
        test = decision.request.test
        promised = {
            NextStep.EVALUATE_AGAIN: before,
            NextStep.PROMOTE_CANDIDATE: {
                **after,
                "traffic": f"{test.baseline.predictor} 0 %, {test.candidate.predictor} 100 %",
                test.baseline.name: "Archived (previous)",
                test.candidate.name: "Production (champion)",
            },
            NextStep.KEEP_BASELINE: {
                **after,
                "traffic": f"{test.baseline.predictor} 100 %, {test.candidate.predictor} 0 %",
                test.baseline.name: "Production (champion)",
                test.candidate.name: "Archived",
            },
        }[follows]
        wrong = [
            f"{what} is “{after.get(what)}”, promised was “{value}”"
            for what, value in promised.items()
            if after.get(what) != value
        ]
        if decision.request.verdict.kind is not PROMISED[self.scenario]:
            wrong.append(f"the verdict is {decision.request.verdict.kind}, promised was {PROMISED[self.scenario]}")
        if {"decision_document", "model_lifecycle", "production_model"} - set(kept):
            wrong.append("the decision document, the lifecycle page or the page for fraud analysts is missing")
        if wrong:
            raise PromiseBroken(f"{'; '.join(wrong)}; the logs are in {self._keep_logs()}")

    def _keep_logs(self) -> str:
        target = KEPT / self.scenario / "logs"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for log in self.stack.folder.glob("*.log"):
            shutil.copy(log, target)
        return str(target)
