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

import psutil
from rich.console import Console

from benchmarks.fault_cases import CaseResult, bad_lines, count_table, totals
from benchmarks.fault_stage import Plan, Seen, Stage
from deployments.sandbox.fault_proxy import Mishap

if TYPE_CHECKING:
    from benchmarks.fault_lane import Played

LANES, QUICK_LANES = 4, 2
SEED = 7
QUICK_CASES = 4
PROMOTION, KEEP_BASELINE, ROLLBACK, EMERGENCY = SCENARIOS = ("promotion", "keep-baseline", "rollback", "emergency")
KILLS = ("killed before", "killed after")
WAYS = (Mishap.REFUSED, Mishap.TIMEOUT, Mishap.SERVER_ERROR, Mishap.TOO_MANY_REQUESTS)
OVER_HTTP = ("Kubernetes", "MLflow", "S3", "Slack", "Prometheus")
ANYWHERE = dict.fromkeys(OVER_HTTP, WAYS) | {"database": (Mishap.REFUSED, Mishap.TIMEOUT)}
OF_WRITES = dict.fromkeys(ANYWHERE, (Mishap.REPLY_LOST,)) | dict.fromkeys(
    ("Kubernetes", "MLflow", "S3"), (Mishap.CONFLICT, Mishap.REPLY_LOST)
)
NOTES = """\
The product's waiting times are shortened (benchmarks/fault_worker.py). An outage is a system that refuses everything from the
step on until the execution ends. The database has no 500, 429 or 409; its timeout is a connection cut after 2 silent seconds.\
"""


def plan_cases(seen: Mapping[str, Sequence[Seen]]) -> list[tuple[str, Plan]]:
    """The faults of every scenario, from what its clean run showed: which steps there are, and which systems each talks to.

    A step is killed before and after. Where a promotion or an emergency changes Kubernetes, it fails in every way. Any other
    system that a step changes fails there once, and what is only read at every second such step; the ways take turns. The steps
    that follow an emergency are those of `rollback`, and have their faults there.
    """
    turns, reads = {system: itertools.count() for system in ANYWHERE}, itertools.count()
    followed = {one.step for one in seen[ROLLBACK]}
    planned: list[tuple[str, Plan]] = []
    for scenario, requests in seen.items():
        steps = dict.fromkeys(one.step for one in requests if one.step)
        for step in [step for step in steps if scenario != EMERGENCY or step not in followed]:
            planned += [(scenario, Plan(step, kill)) for kill in KILLS]
            writes = {one.system for one in requests if one.step == step and one.is_write}
            for system in dict.fromkeys(one.system for one in requests if one.step == step):
                if system not in writes and next(reads) % 2:
                    continue
                ways = _ways(step, system, has_write=system in writes)
                is_all = system == "Kubernetes" and system in writes and scenario in (PROMOTION, EMERGENCY)
                planned += [(scenario, way) for way in (ways if is_all else [ways[next(turns[system]) % len(ways)]])]
    return planned


def _ways(step: str, system: str, *, has_write: bool) -> list[Plan]:
    """How a system can fail at a step: once, until the execution ends, and where it is changed as only a write can."""
    return [
        *(Plan(step, way, system, on_write=has_write) for way in ANYWHERE[system]),
        Plan(step, Mishap.REFUSED, system, is_lasting=True),
        *(Plan(step, way, system, on_write=True) for way in OF_WRITES[system] if has_write),
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
        try:
            yield pool.submit(process_fault_cases, quick=is_quick)
        except BaseException:
            for child in psutil.Process().children(recursive=True):
                if any("multiprocessing.spawn" in word for word in child.cmdline()):
                    child.terminate()  # and it stops what it has started
            raise


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    with process_faults(is_quick=is_quick) as of_processes, Stage(QUICK_LANES if is_quick else LANES) as stage:
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
