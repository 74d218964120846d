"""A lane: a process without threads that plays one case after the other, each step of it in a forked process.

Import it only where the stage's environment is set: Prefect reads it when it is imported.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import mlflow
from mlflow.models import infer_signature
from prefect.types.entrypoint import EntrypointType
from sklearn.linear_model import LogisticRegression

from benchmarks.fault_cases import CaseResult, Ending, Judged
from benchmarks.fault_stage import EXAMPLE, LaneFiles, Plan, Seen
from benchmarks.fault_worker import KILLED_AFTER, Ran, Started, forked, hurry, warm_up, watch_steps
from benchmarks.fault_world import EMERGENCY, PROMOTION, Look, World
from flows.domain.decision_record import RecordKind
from flows.rollback_to_baseline import rollback_to_baseline

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

LOOKS = 8
POLL_SECONDS = 0.001
OUTAGE = "outage"
IMPORTED_LATER = ("mlflow.pyfunc", "mlflow.sklearn", "skops.io", "opentelemetry.sdk.trace")  # by a model that is loaded


@dataclass(frozen=True, slots=True)
class Case:
    """What is played: a scenario of `fault_world` with one fault, or none."""

    number: int
    scenario: str
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """A case's result, and what the proxies saw until the execution with the fault had ended."""

    result: CaseResult
    seen: tuple[Seen, ...]


@contextmanager
def open_lanes(folders: Sequence[Path]) -> Generator[ProcessPoolExecutor]:
    """One process for each folder of `Stage.lanes`, after what all cases share has been published."""
    _publish_what_cases_share()
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED_LATER])
    queue = context.SimpleQueue()
    for folder in folders:
        queue.put(folder)
    pool = ProcessPoolExecutor(len(folders), context, _open_lane, (queue,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _publish_what_cases_share() -> None:
    """A real model and an experiment in MLflow, and the deployment that catch-ups are started from."""
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    os.environ["FAULTS_EXPERIMENT"] = mlflow.create_experiment("faults")
    with mlflow.start_run(experiment_id=os.environ["FAULTS_EXPERIMENT"]):
        model = mlflow.sklearn.log_model(  # pyright: ignore[reportPrivateImportUsage]
            LogisticRegression().fit(EXAMPLE, [0, 1, 0]),
            name="model",
            signature=infer_signature(EXAMPLE, [0, 1, 0]),
            input_example=EXAMPLE,
            pip_requirements=["scikit-learn"],
        )
    os.environ["FAULTS_MODEL"] = str(model.model_id)
    follow_up = rollback_to_baseline.to_deployment("fraud", entrypoint_type=EntrypointType.MODULE_PATH)
    follow_up.apply()  # pyright: ignore[reportAttributeAccessIssue, reportUnusedCoroutine] - the flow is synchronous


def _open_lane(folders: SimpleQueue[Path]) -> None:
    global _files  # noqa: PLW0603 - a process is one lane
    _files = LaneFiles(folders.get())
    os.environ.update(json.loads((_files.folder / "environment").read_text(encoding="utf-8")))
    tempfile.tempdir = str(_files.folder)  # what a killed process leaves behind goes with the lane
    logging.disable(logging.ERROR)  # what the product says about the faults would bury the table
    warm_up()
    hurry()
    watch_steps(_files)
    boto3.client("s3")  # its description of the service is read once


def play(case: Case) -> Played:
    """One case from its beginning until it is at rest."""
    began, world = time.monotonic(), World(case.number, case.scenario, _files)
    _files.begin(None)
    prepared = forked(world.prepare)
    if prepared.value is None:
        return Played(_result(case, began, ("bad", (f"it could not be prepared: {prepared.trouble}",))), ())
    _files.begin(case.plan)
    seen, was_hit, (ending, problems), troubles = _bring_to_rest(world, prepared.value)
    if case.plan is not None and not was_hit:
        ending, problems = "bad", (*problems, "the fault never happened")
    if ending == "bad":
        problems += troubles
    return Played(_result(case, began, (ending, problems)), seen)


@dataclass(frozen=True, slots=True)
class Race:
    """An emergency comes so many seconds after the promotion has begun a step."""

    number: int
    step: str
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Raced:
    """`ending` is `baseline` if all is well; `records` tell what became of both."""

    race: Race
    ending: Ending
    problems: tuple[str, ...]
    records: tuple[RecordKind, ...]


def play_race(race: Race) -> Raced:
    """A promotion and `/fraud-rollback` with its follow-up, each in a process of its own, until all is at rest."""
    world = World(race.number, PROMOTION, _files)
    _files.begin(None)
    prepared = forked(world.prepare)
    if prepared.value is None:
        return Raced(race, "bad", (f"it could not be prepared: {prepared.trouble}",), ())
    promoting = Started(partial(world.execute, prepared.value))
    while _files.step != race.step and not promoting.has_ended:
        time.sleep(POLL_SECONDS)
    time.sleep(race.delay_seconds)
    reverting = Started(world.revert_and_follow)
    troubles = [one.trouble for one in (promoting.wait(), reverting.wait()) if one.trouble]
    _, _, (ending, problems), more = _bring_to_rest(world, "")
    troubles += more
    records = tuple(forked(world.recorded).value or ())
    return Raced(race, ending, (*problems, *troubles) if ending != "baseline" else (), records)


def _bring_to_rest(world: World, run_id: str) -> tuple[tuple[Seen, ...], bool, Judged, tuple[str, ...]]:
    """Execute and look after, turn by turn, until nothing is left to do.

    Returns:
        what the proxies saw until the execution with the fault had ended, whether the fault happened, how the case ended, and
        what went wrong on the way.
    """
    judged: Judged = "bad", (f"it is not at rest after {LOOKS} looks",)
    runs, seen, troubles = [run_id] if run_id else [], (), list[str]()
    is_reverted, was_hit = world.scenario != EMERGENCY, False
    for look in range(LOOKS):
        ran = dict[str, Ran[str]]()
        if not is_reverted:
            reverting = forked(world.revert)
            is_reverted = not reverting.trouble and (not reverting.was_killed or _was_killed_after())  # else it is pressed again
        for one in runs:
            ran[one] = forked(partial(world.execute, one))
        troubles += [f"execution {look + 1}: {one.trouble or one.value or 'killed'}" for one in ran.values()]
        if not was_hit:
            seen, was_hit = (*seen, *_files.seen()), _files.was_hit
            _files.begin(None if was_hit else _files.plan)
        crashed = [name for name, one in ran.items() if one.was_killed]
        looked = forked(partial(world.look_after, crashed, may_rest=is_reverted))
        found = looked.value or Look((), (looked.trouble or "killed",), None)
        troubles += [f"look {look + 1}: {trouble}" for trouble in found.failed]
        runs = [*found.runs]
        if found.judged:
            judged = found.judged
            break
    return seen, was_hit, judged, tuple(troubles)


def _was_killed_after() -> bool:
    """The command had its effect: nobody has to press again."""
    plan = _files.plan
    return plan is not None and plan.fault == KILLED_AFTER


def _result(case: Case, began: float, ended: Judged) -> CaseResult:
    fault = "none" if case.plan is None else OUTAGE if case.plan.is_lasting else case.plan.fault
    step = "" if case.plan is None else " × ".join(filter(None, (case.plan.step, case.plan.system)))
    return CaseResult(case.scenario, fault, step, *ended, time.monotonic() - began)
