"""Every step of a change of production is killed, and every outside system fails at it: `make faults` (QUICK=1: a sample).

Each case is a world of its own. It meets one fault, then what `fraud-ab serve` does brings it to rest; nobody helps by hand. Two
endings are good: the change has arrived, or the baseline serves alone. In both every invariant of DESIGN.md must hold.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.fault_cases import CaseResult, bad_lines, count_table, totals
from benchmarks.fault_stage import Plan, Seen, Stage
from deployments.sandbox.fault_proxy import Mishap

if TYPE_CHECKING:
    from benchmarks.fault_lane import Played

LANES = 3
SEED = 7
QUICK_CASES = 24
PROMOTION, KEEP_BASELINE, ROLLBACK, EMERGENCY = SCENARIOS = ("promotion", "keep-baseline", "rollback", "emergency")
KILLS = ("killed before", "killed after")
OVER_HTTP = ("Kubernetes", "MLflow", "S3", "Slack", "Prometheus")
WAYS = (Mishap.REFUSED, Mishap.TIMEOUT, Mishap.SERVER_ERROR, Mishap.TOO_MANY_REQUESTS)
ANYWHERE = dict.fromkeys(OVER_HTTP, WAYS) | {"database": (Mishap.REFUSED, Mishap.TIMEOUT)}
OF_WRITES = {
    **dict.fromkeys(ANYWHERE, (Mishap.REPLY_LOST,)),
    **dict.fromkeys(("Kubernetes", "MLflow", "S3"), (Mishap.CONFLICT, Mishap.REPLY_LOST)),
}
TURNS = {"Kubernetes": 5, "MLflow": 3, "S3": 3}
NOTES = """\
The product's waiting times are shortened (benchmarks/fault_worker.py). An outage is a system that refuses everything from the
step on until the execution ends. The database has no 500, 429 or 409; its timeout is a connection cut after 2 silent seconds.\
"""


def plans_of(seen: Iterable[Seen]) -> list[Plan]:
    """The faults of a scenario, from what its clean run showed: which steps there are, and which systems each talks to.

    A step is killed before and after. Kubernetes fails in every way wherever it is changed, MLflow and S3 there in three ways
    that take turns; what is only read, or only told, fails in one way at each step. A lost reply and a conflict are wherever one
    can be.
    """
    talks: dict[str, dict[str, bool]] = {}
    for one in seen:
        if one.step:
            systems = talks.setdefault(one.step, {})
            systems[one.system] = systems.get(one.system, False) or one.is_write
    plans, turns = [Plan(step, kill) for step in talks for kill in KILLS], itertools.count()
    for step, system, has_write in [(step, *talk) for step, systems in talks.items() for talk in systems.items()]:
        ways = [Plan(step, way, system, on_write=has_write) for way in ANYWHERE[system]]
        ways.append(Plan(step, Mishap.REFUSED, system, is_lasting=True))
        plans += [ways[next(turns) % len(ways)] for _ in range(TURNS.get(system, 1) if has_write else 1)]
        plans += [Plan(step, way, system, on_write=True) for way in OF_WRITES[system] if has_write]
    return plans


def plan_cases(seen: Mapping[str, Sequence[Seen]]) -> list[tuple[str, Plan]]:
    """Every fault of every scenario; the steps that follow an emergency are those of `rollback`, so there they are only killed."""
    followed = {one.step for one in seen[ROLLBACK]}
    return [
        (scenario, plan)
        for scenario, requests in seen.items()
        for plan in plans_of(requests)
        if scenario != EMERGENCY or not plan.system or plan.step not in followed
    ]


def play_all(pool: ProcessPoolExecutor, planned: Sequence[tuple[str, Plan | None]], numbers: Iterable[int]) -> list[Played]:
    """In the order of `planned`."""
    from benchmarks.fault_lane import Case, play

    cases = [Case(number, scenario, plan) for number, (scenario, plan) in zip(numbers, planned, strict=False)]
    futures = [pool.submit(play, case) for case in cases]
    console, began = Console(stderr=True, width=200), time.monotonic()
    for done, future in enumerate(as_completed(futures), start=1):
        console.print(*bad_lines([future.result().result]), sep="\n", end="", markup=False, highlight=False)
        if not done % 50:
            console.print(f"{done} of {len(futures)} cases, {time.monotonic() - began:.0f} s", highlight=False)
    return [future.result() for future in futures]


def run_matrix(stage: Stage, *, is_quick: bool) -> list[CaseResult]:
    """A clean run of each scenario, then every fault that it showed to be possible (or a seeded sample)."""
    from benchmarks.fault_lane import open_lanes

    numbers = itertools.count(1)
    with open_lanes(stage.lanes) as pool:
        clean = play_all(pool, [(scenario, None) for scenario in SCENARIOS], numbers)
        planned = plan_cases({played.result.scenario: played.seen for played in clean})
        if is_quick:
            planned = random.Random(SEED).sample(planned, QUICK_CASES)  # noqa: S311 - a sample, no secret
        played = play_all(pool, planned, numbers)
    return [*(one.result for one in clean if one.result.ending == "bad"), *(one.result for one in played)]


@contextmanager
def process_faults(*, is_quick: bool) -> Generator[Future[list[CaseResult]]]:
    """The faults of real processes, beside the others: they wait for a lot. Prefect reads its settings once in a process."""
    from benchmarks.process_faults import process_fault_cases

    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool.submit(process_fault_cases, quick=is_quick)


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    with process_faults(is_quick=is_quick) as of_processes, Stage(LANES) as stage:
        os.environ.update(stage.environment)
        results = run_matrix(stage, is_quick=is_quick)
        results += of_processes.result()
    console = Console(width=120)
    console.print(count_table(results))
    console.print(NOTES, soft_wrap=True, highlight=False)
    console.print(*bad_lines(results), sep="\n", markup=False, highlight=False)
    result = {**totals(results), "seconds": round(time.monotonic() - began), "quick": is_quick}
    console.print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
