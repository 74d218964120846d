"""A promotion and an emergency at the same time, again and again: `make races` (QUICK=1: fewer; SEED=: other moments).

The emergency is the function behind `/fraud-rollback` with its follow-up flow. It comes at a random moment of each step of the
promotion until it is accepted. In the end the baseline serves, and the promotion says that it was superseded; or it had been
accepted just before, and then both are recorded.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import as_completed
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.fault_stage import Stage

if TYPE_CHECKING:
    from benchmarks.fault_lane import Race, Raced

LANES = 2
RUNS, QUICK_RUNS = 50, 8
LATEST_SECONDS = 0.2
LAST_STEP = "Close the operation"
SUPERSEDED, ACCEPTED_BEFORE = ["emergency_revert", "superseded"], ["emergency_revert", "promoted"]


def plan_races(steps: list[str], runs: int, seed: int) -> Iterator[Race]:
    """As many of each step as of any other, each at a random moment."""
    from benchmarks.fault_lane import Race

    moments = random.Random(seed)  # noqa: S311 - moments, no secret
    for number in range(runs):
        yield Race(number + 2, steps[number % len(steps)], moments.uniform(0, LATEST_SECONDS))


def run_races(stage: Stage, runs: int, seed: int) -> list[Raced]:
    from benchmarks.fault_lane import Case, open_lanes, play, play_race

    with open_lanes(stage.lanes) as pool:
        clean = pool.submit(play, Case(1, "promotion")).result()
        steps = list(dict.fromkeys(one.step for one in clean.seen if one.step))
        steps = steps[: steps.index(LAST_STEP) + 1]
        futures = [pool.submit(play_race, race) for race in plan_races(steps, runs, seed)]
        for done, _ in enumerate(as_completed(futures), start=1):
            if not done % 10:
                Console(stderr=True).print(f"{done} of {runs} runs", highlight=False)
        return [future.result() for future in futures]


def fault_of(raced: Raced) -> str:
    """What is wrong with a run; empty when nothing is."""
    if raced.ending != "baseline":
        return "; ".join(raced.problems) or f"it ended as {raced.ending}"
    return "" if sorted(raced.records) in (SUPERSEDED, ACCEPTED_BEFORE) else f"recorded: {', '.join(raced.records)}"


def show(results: list[Raced]) -> Table:
    table = Table("the emergency came at", "runs", "superseded", "accepted before", "bad", title="Races")
    counted: dict[str, Counter[str]] = {}
    for one in results:
        kind = "bad" if fault_of(one) else "superseded" if sorted(one.records) == SUPERSEDED else "accepted before"
        counted.setdefault(one.race.step, Counter())[kind] += 1
    for step, kinds in counted.items():
        table.add_row(step, str(kinds.total()), *(str(kinds[kind]) for kind in ("superseded", "accepted before", "bad")))
    return table


def main() -> None:
    began, is_quick, seed = time.monotonic(), os.environ.get("QUICK") == "1", int(os.environ.get("SEED", "1"))
    with Stage(LANES) as stage:
        os.environ.update(stage.environment)
        results = run_races(stage, QUICK_RUNS if is_quick else RUNS, seed)
    console = Console(width=120)
    console.print(show(results))
    bad = [one for one in results if fault_of(one)]
    for one in bad:
        text = f"BAD {one.race.step}, {one.race.delay_seconds:.3f} s after its beginning: {fault_of(one)}"
        console.print(text, markup=False, highlight=False)
    result = {
        "runs": len(results),
        "bad": len(bad),
        "accepted_before": sum(sorted(one.records) == ACCEPTED_BEFORE for one in results),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
    }
    console.print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
