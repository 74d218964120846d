"""Faults of real processes, a part of `make faults`: kills of flow runs and of machines, and restarts of Prefect's server.

Nothing is done by hand after a fault: what goes on is what a user has, `fraud-ab serve` with its reconciler and the bot. A case
is bad when the change neither arrived nor left the baseline serving, when an invariant is broken, or when the fault met nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console

from benchmarks.fault_cases import CaseResult, Ending, bad_lines, count_table
from benchmarks.fault_stage import end_on_sigterm
from benchmarks.process_checks import broken_invariants, ending_of, registry_problems, serving_problems
from benchmarks.process_world import WATCH_CLOSELY_SECONDS, NotSeen, ProcessWorld, Story, process_world
from flows.domain.action_plan import Stage
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from slackbot.publisher import message_key

CHIARA = "U0CHI"
PROMOTION, KEEPING = "promotion", "keep the baseline"
STORY = "postponed, promoted, reverted"
KILLED, LOST = "SIGKILL of the flow run's process", "runner and flow run lost"
RESTARTED = {True: "Prefect's server killed", False: "Prefect's server stopped"}
END_SECONDS = 300.0
LAPSE_SECONDS = 420.0  # a lost machine's lease has to lapse first
WATCH_MINUTES = 0.5  # longer than Prefect's server takes to start

Seen = Callable[[ProcessWorld, Story], object]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: where, and by what one sees from outside that the run is there."""

    scenario: str
    step: str
    seen: Seen
    machine: bool = False


def _says(words: str) -> Seen:
    return lambda world, story: any(words in line for line in world.thread(story))


def _in_task(name: str) -> Seen:
    return lambda world, story: world.is_in_task(story, name)


def _is_open(world: ProcessWorld, story: Story) -> bool:
    return world.state().operation == story.decision_id


def _is_closed(world: ProcessWorld, story: Story) -> bool:
    return f"{story.decision_id}:accepted" in (world.state().outcome or "")


def _serves_candidate(world: ProcessWorld, story: Story) -> bool:
    return world.state().serves_alone(story.test.candidate.predictor)


def _candidate_is_in_production(world: ProcessWorld, story: Story) -> bool:
    return _serves_candidate(world, story) and world.systems.registry.entry(story.test.candidate).stage is Stage.PRODUCTION


def _is_recorded(world: ProcessWorld, story: Story) -> bool:
    return RecordKind.BASELINE_KEPT in world.kinds(story)


# each story meets them one after the other: what has been started again is killed again
KILLS = (
    (
        Kill(PROMOTION, "archive", _says("loads and predicts")),
        Kill(PROMOTION, "registry: one of two models changed", _candidate_is_in_production),
    ),
    (Kill(KEEPING, "opened", _is_open), Kill(KEEPING, "closed, not recorded", _is_closed)),
    (
        Kill(PROMOTION, "check", _in_task("Check the candidate")),
        Kill(PROMOTION, "traffic shifted, not verified", _serves_candidate, machine=True),
    ),
    (Kill(KEEPING, "verify", _says("traffic:")), Kill(KEEPING, "recorded, not documented", _is_recorded)),
)


def process_fault_cases(*, quick: bool) -> list[CaseResult]:
    """All cases, in two worlds beside each other, each with a process and an environment of its own.

    Args:
        quick: one kill.
    """
    end_on_sigterm()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_on_sigterm) as pool:
        worlds = [pool.submit(_kill_all, quick=quick)] + ([] if quick else [pool.submit(_break_all)])
        return [result for world in worlds for result in world.result()]


def _kill_all(*, quick: bool) -> list[CaseResult]:
    with process_world() as world:
        return [result for kills in ([KILLS[0][:1]] if quick else KILLS) for result in _kill(world, *kills)]


def _break_all() -> list[CaseResult]:
    with process_world() as world:
        return _restart_at_each_wait(world)


# ---- kills --------------------------------------------------------------------------------------------------------


def _kill(world: ProcessWorld, *kills: Kill) -> list[CaseResult]:
    """One story; all its kills share how it ends."""
    scenario, seconds = kills[0].scenario, LAPSE_SECONDS if any(kill.machine for kill in kills) else END_SECONDS
    wanted = RecordKind.PROMOTED if scenario == PROMOTION else RecordKind.BASELINE_KEPT

    def play() -> tuple[Ending, list[str]]:
        world.let(candidate_win=scenario == PROMOTION)
        story = world.new_story()
        world.press(story, Choice.CONFIRM)
        for kill in kills:
            world.until(partial(kill.seen, world, story), kill.step, pause=WATCH_CLOSELY_SECONDS)
            if kill.machine:
                world.lose_machine(story)
            else:
                world.kill_run(story)
        return _at_rest(world, story, wanted, seconds)

    ended = _case(scenario, KILLED, ", then ".join(kill.step for kill in kills), play)
    return [replace(ended, step=kill.step, fault=LOST if kill.machine else KILLED) for kill in kills]


def _at_rest(world: ProcessWorld, story: Story, wanted: RecordKind, seconds: float = END_SECONDS) -> tuple[Ending, list[str]]:
    """Wait for the end of the run, then look whether everything is as it must be."""
    world.until(lambda: world.run_state(story) == "Completed", "the run to complete", seconds)
    return ending_of(world, story, wanted), broken_invariants(world, story)


def _case(scenario: str, fault: str, step: str, play: Callable[[], tuple[Ending, list[str]]]) -> CaseResult:
    begin = time.monotonic()
    try:
        ending, problems = play()
    except Exception as error:  # noqa: BLE001 - one case's trouble is its result; the next one has its chance
        ending, problems = "bad", [f"{type(error).__name__}: {error}"]
    took = round(time.monotonic() - begin, 1)
    result = CaseResult(scenario, fault, step, "bad" if problems else ending, tuple(problems), took)
    sys.stderr.write(f"{took:6.1f} s  {result.ending:8}  {scenario}, {fault}: {step}  {'; '.join(problems)}\n")
    return result


# ---- restarts of Prefect's server -----------------------------------------------------------------------------------


def _restart_at_each_wait(world: ProcessWorld) -> list[CaseResult]:
    """One story with a restart at each of its waits, and a kill between two; after a bad one the rest is not reached."""
    world.let(candidate_win=True)
    world.set_watch(WATCH_MINUTES)
    results: list[CaseResult] = []
    for step, fault, play in _Waits(world).in_order():
        if results and results[-1].ending == "bad":
            results.append(CaseResult(STORY, fault, step, "bad", ("not reached",), 0.0))
        else:
            results.append(_case(STORY, fault, step, play))
    return results


class _Waits:
    """A story that waits for everything that a story can wait for; Prefect's server is away at each."""

    def __init__(self, world: ProcessWorld) -> None:
        self._world = world
        self._story: Story | None = None

    def in_order(self) -> Iterator[tuple[str, str, Callable[[], tuple[Ending, list[str]]]]]:
        killed, stopped = RESTARTED[True], RESTARTED[False]
        yield "waits for the answer, which is to postpone", killed, self._postponed_while_down
        yield "waits for a postponement to become due", stopped, self._due_while_down
        yield "waits for the answer, which is to promote", stopped, self._confirmed_while_down
        yield "traffic shifted, not verified", KILLED, self._killed_when_shifted
        yield "waits in Verify the traffic", killed, self._verifying_while_down
        yield "an emergency's follow-up waits", stopped, self._emergency_while_down

    @property
    def _now(self) -> Story:
        if self._story is None:
            self._story = self._world.new_story()
        return self._story

    def _postponed_while_down(self) -> tuple[Ending, list[str]]:
        _await_suspended(self._world, self._now)
        with prefect_down(self._world, killed=True):
            self._world.press(self._now, Choice.POSTPONE)
        return self._asked_again()

    def _due_while_down(self) -> tuple[Ending, list[str]]:
        self._world.press(self._now, Choice.POSTPONE)
        with prefect_down(self._world, killed=False):
            log = self._world.systems.decision_log
            self._world.until(lambda: log.read(self._now.decision_id).is_due(log.now()), "the postponement to become due")
        return self._asked_again()

    def _asked_again(self) -> tuple[Ending, list[str]]:
        """Delivered: the next round is asked, and only then is the postponement carried out."""
        before = self._now
        self._story = before.next_round()
        _await_suspended(self._world, self._now)
        is_consumed = self._world.decision(before).consumed_at is not None
        return "finished", [] if is_consumed else ["asked again, but the postponement is not marked as carried out"]

    def _confirmed_while_down(self) -> tuple[Ending, list[str]]:
        with prefect_down(self._world, killed=False):
            self._world.press(self._now, Choice.CONFIRM)
        self._world.until(lambda: _serves_candidate(self._world, self._now), "the traffic to be shifted", END_SECONDS)
        return "finished", []

    def _killed_when_shifted(self) -> tuple[Ending, list[str]]:
        before = self._world.executions(self._now)
        self._world.kill_run(self._now)
        self._world.until(lambda: self._world.executions(self._now) > before, "the run to be started again", END_SECONDS)
        return "finished", []

    def _verifying_while_down(self) -> tuple[Ending, list[str]]:
        self._world.until(lambda: self._world.is_in_task(self._now, "Verify the traffic"), "the watch", END_SECONDS)
        with prefect_down(self._world, killed=True):
            if self._world.process_of(self._now) is None or not _is_open(self._world, self._now):
                raise NotSeen("the watch was over before Prefect was away")
        return _at_rest(self._world, self._now, RecordKind.PROMOTED)

    def _emergency_while_down(self) -> tuple[Ending, list[str]]:
        world, story = self._world, self._now
        with prefect_down(world, killed=False):
            world.slack.slash(CHIARA, "/fraud-rollback now too many false alarms")
            world.until(lambda: world.state().serves_alone(story.test.baseline.predictor), "the traffic to be back", 10)
        world.until(lambda: not world.state().unrecorded, "the follow-up to be done", END_SECONDS)
        kinds = [record.kind for record in world.systems.decision_log.records()]
        recorded = [] if RecordKind.EMERGENCY_REVERT in kinds else ["the revert is not recorded"]
        return "finished", [*recorded, *serving_problems(world), *registry_problems(world, story)]


@contextlib.contextmanager
def prefect_down(world: ProcessWorld, *, killed: bool) -> Generator[None]:
    """Prefect's server is away while the block runs, and then starts again on the same database."""
    server = world.stack.child("prefect")
    if killed:
        server.lose()
    else:
        server.end()
    try:
        yield
    finally:
        server.start_again()
        world.await_prefect()


def _await_suspended(world: ProcessWorld, story: Story) -> None:
    """The question is asked, and the run waits for its answer."""
    key = message_key(story.decision_id)
    world.until(lambda: world.systems.outbox.find(key), f"the question {story.decision_id}", END_SECONDS)
    world.until(lambda: world.run_state(story) == "Suspended", "the run to wait")


def main() -> None:
    results = process_fault_cases(quick=os.environ.get("QUICK") == "1")
    console = Console(width=140)
    console.print(count_table(results))
    for line in bad_lines(results):
        console.print(line)


if __name__ == "__main__":
    main()
