"""Is a planted cause found, and none where there is none? `make planted-causes` (SEED=2: others; QUICK=1: fewer)."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.planted_world import World
from benchmarks.planting import FINDS, Cause, plant
from flows.diagnosis import diagnose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.findings import Finding

WORLDS, RUNS, NOTHING_RUNS = 10, 25, 50
QUICK_WORLDS, QUICK_RUNS, QUICK_NOTHING_RUNS = 2, 2, 2
NONE = "none"


@dataclass(frozen=True)
class Run:
    """One diagnosis: the planted cause, how it was planted, and the supported hypotheses in their order."""

    cause: Cause
    world: int
    strength: str
    harm: float
    supported: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def first(self) -> str:
        return self.supported[0] if self.supported else NONE

    @property
    def is_right(self) -> bool:
        return self.first == (FINDS[self.cause].value if self.cause in FINDS else NONE)


def run_world(seed: int, number: int, causes: Sequence[tuple[Cause, int]]) -> list[Run]:
    """All runs of one world; the same seed gives the same runs."""
    world = World(seed * 1000 + number)
    return [run_one(world, number, cause, np.random.default_rng([seed, number, *cause.encode(), run])) for cause, run in causes]


def run_one(world: World, number: int, cause: Cause, rng: np.random.Generator) -> Run:
    """Plant a cause into a world and look for it."""
    began = time.monotonic()
    with threadpool_limits(1, user_api="openmp"):  # its waiting threads make a busy machine ten times slower
        planted = plant(world, cause, rng)
        supported = [finding for finding in diagnose(planted.material) if finding.is_supported]
    names, said = tuple(finding.hypothesis.value for finding in supported), tuple(map(_words, supported))
    return Run(cause, number, planted.strength, planted.harm, names, said, time.monotonic() - began)


def _words(finding: Finding) -> str:
    explained = "" if finding.explained_recall is None else f" [{finding.explained_recall:.3f}]"
    return f"{finding.hypothesis.value}{explained}: {finding.said}"


def main() -> None:
    began, is_quick, seed = time.monotonic(), os.environ.get("QUICK") == "1", int(os.environ.get("SEED") or 1)
    worlds, runs, nothing = (QUICK_WORLDS, QUICK_RUNS, QUICK_NOTHING_RUNS) if is_quick else (WORLDS, RUNS, NOTHING_RUNS)
    planned = [(cause, run) for cause in Cause for run in range(nothing if cause is Cause.NOTHING else runs)]
    with ProcessPoolExecutor(max_workers=2) as pool:
        parts = [pool.submit(run_world, seed, number, planned[number::worlds]) for number in range(worlds)]
        done = [run for part in parts for run in part.result()]
    show(done)
    planted = [run for run in done if run.cause is not Cause.NOTHING]
    harmless = [run for run in done if run.cause is Cause.NOTHING]
    result = {
        "runs": len(done),
        "ranked_first": round(sum(run.is_right for run in planted) / len(planted), 4),
        "false_supported_share": round(sum(bool(run.supported) for run in harmless) / len(harmless), 4),
        "by_cause": {cause.value: sum(run.is_right for run in planted if run.cause is cause) for cause in FINDS},
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
        "seed": seed,
    }
    Console().print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


def show(done: Sequence[Run]) -> None:
    """The confusion matrix, and each run that came out otherwise than planted."""
    console = Console(width=160)
    wanted = [hypothesis.value for hypothesis in FINDS.values()]
    others = sorted({run.first for run in done} - {*wanted, NONE})
    columns = [*wanted, *others, NONE]
    table = Table("planted", *columns, title="Supported and ranked first")
    for cause in Cause:
        counts = Counter(run.first for run in done if run.cause is cause)
        table.add_row(cause.value, *(str(counts[name] or "·") for name in columns))
    console.print(table)
    for run in done:
        if not run.is_right:
            console.print(
                f"world {run.world}, {run.cause} ({run.strength}; {run.harm:.3f}): {'; '.join(run.said) or NONE}", markup=False
            )


if __name__ == "__main__":
    main()
