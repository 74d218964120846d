"""The processes of a lane: everything is imported once, then each execution is a forked process that may be killed for real.

The product runs as it is; only its waiting times are shortened (`hurry`), and each of its steps says its name before it begins.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import importlib
import itertools
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from mlflow import MlflowClient
from prefect.tasks import Task
from pydantic import BaseModel

from benchmarks.fault_stage import LaneFiles
from deployments import serve
from flows import database, emergency_revert, execution, finalize_ab_test, production_steps, rollback_to_baseline, watch
from flows.adapters import archive_s3, decision_log_sql, registry_mlflow, serving_seldon, telemetry_prometheus
from slackbot import publisher

T = TypeVar("T")

HUNG_SECONDS, SLOW_SECONDS = 90.0, 45.0
KILLED_BEFORE, KILLED_AFTER = "killed before", "killed after"
WAIT_SECONDS = 4.0
SHORTER = (
    (serving_seldon, "TIMEOUT_SECONDS", (1, 1)),
    (serving_seldon, "MAX_RETRYING_SECONDS", 1.5),
    (serving_seldon, "MAX_PAUSE_SECONDS", 0.1),
    (watch, "POLL_SECONDS", 0.05),
    (watch, "CONFIRM_SECONDS", WAIT_SECONDS),
    (publisher, "TIMEOUT_SECONDS", 1),
    (archive_s3, "CONNECT_SECONDS", 1),
    (archive_s3, "READ_SECONDS", 1),
    (registry_mlflow, "REQUEST_SECONDS", "2"),
    (registry_mlflow, "DOWNLOAD_SECONDS", "2"),
    (registry_mlflow, "REQUEST_RETRIES", "1"),
    (telemetry_prometheus, "REQUEST_SECONDS", 1.0),
    (database, "CONNECT_SECONDS", 2),
    (decision_log_sql, "FIRST_REPAIR_PAUSE", timedelta(0)),
    (serve, "FIRST_PAUSE", timedelta(0)),
    (execution, "RENEW_SECONDS", 3600.0),  # a request that comes from a thread belongs to no step
)
WAITING = (watch.Watch.until_ready, watch.Watch.until_routed, watch.await_arrival, production_steps.await_restore)
REVERTING = (emergency_revert.revert_traffic, emergency_revert.finish_restore, emergency_revert.let_revert_arrive)
STEPS_OF = (finalize_ab_test, rollback_to_baseline, production_steps, serve)
NOT_HERE = ("dbruntime", "IPython", "pyspark")
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Ran(Generic[T]):
    """How a forked process ended: with a value, killed, or with what went wrong."""

    value: T | None
    was_killed: bool = False
    trouble: str = ""


class Started(Generic[T]):
    """`act` in a forked process."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._reading, writing = os.pipe()
        gc.freeze()  # a collection in the child would copy every page of what is imported
        self._child = os.fork()
        if not self._child:
            os.close(self._reading)
            _run_and_exit(act, writing)
        os.close(writing)

    @property
    def has_ended(self) -> bool:
        """Or has said what it has to say, which comes last."""
        return bool(select.select([self._reading], [], [], 0)[0])

    def wait(self, seconds: float = HUNG_SECONDS) -> Ran[T]:
        """Until it ends; one that hangs is killed and said to hang. What it imported, later ones have."""
        answer, is_hung = _read_until(self._reading, time.monotonic() + seconds)
        if is_hung:
            os.kill(self._child, signal.SIGKILL)
        status = os.waitpid(self._child, 0)[1]
        if not answer or is_hung:
            return Ran(None, was_killed=os.WIFSIGNALED(status), trouble=f"it hung for {seconds:g} s" if is_hung else "")
        value, trouble, imported = pickle.loads(answer)  # noqa: S301 - written by our own child
        for name in imported:
            with suppress(Exception):
                importlib.import_module(name)
        return Ran(value, trouble=trouble)


def forked(act: Callable[[], T]) -> Ran[T]:
    """Run `act` in a process of its own until it ends."""
    return Started(act).wait()


def _read_until(reading: int, ends: float) -> tuple[bytes, bool]:
    """What was written, and whether the time was over before the writer ended."""
    answer = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, ends - time.monotonic()))[0]:
            if not (part := pipe.read(1 << 16)):
                return answer, False
            answer += part
    return answer, True


def _run_and_exit(act: Callable[[], object], writing: int) -> None:
    known, value, trouble = set(sys.modules), None, ""
    faulthandler.dump_traceback_later(SLOW_SECONDS)  # where it hangs, if it does
    try:
        value = act()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent reports it
        where = traceback.extract_tb(error.__traceback__)[-1]
        trouble = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump((value, trouble, sorted(set(sys.modules) - known)), pipe)
    os._exit(0)


def warm_up() -> None:
    """What each forked process would do anew: MLflow's look for plugins and for Databricks, and pydantic's schemas."""
    sys.modules.update(dict.fromkeys(NOT_HERE))  # pyright: ignore[reportArgumentType, reportCallIssue]
    MlflowClient(os.environ["MLFLOW_TRACKING_URI"])._get_registry_client()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    for model in _subclasses(BaseModel):
        with suppress(Exception):  # some lack what only their users define
            model.model_rebuild()


def _subclasses(kind: type[T]) -> Iterator[type[T]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def hurry() -> None:
    """Shorten what the product waits for; the order and the number of what it does stay as they are."""
    for module, name, value in SHORTER:
        setattr(module, name, value)
    for function in WAITING:
        function.__defaults__ = (WAIT_SECONDS,)
    for function in REVERTING:
        function.__kwdefaults__ = {"deadline_seconds": WAIT_SECONDS}
    for one in tasks():
        one.retry_delay_seconds = list(RETRY_SECONDS)


def tasks() -> list[Task[..., Any]]:
    """Every step of the flows."""
    modules = [module for name, module in sys.modules.items() if name.startswith("flows.")]
    found = {id(thing): thing for module in modules for thing in vars(module).values() if isinstance(thing, Task)}
    return list(found.values())


def watch_steps(files: LaneFiles) -> None:
    """Let each step say its name when it begins, and die where that is planned."""
    labels: dict[tuple[str, str], str] = {}
    counts: dict[str, Iterator[int]] = {}

    def label(name: str, arguments: object) -> str:
        key = (name, repr(arguments))
        if key not in labels:
            number = next(counts.setdefault(name, itertools.count(1)))
            labels[key] = name if number == 1 else f"{name} ({number})"
        return labels[key]

    def announced(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        def with_name(*positional: Any, **named: Any) -> Any:
            with at_step(files, label(name, (positional, named))):
                return body(*positional, **named)

        return with_name

    for one in tasks():
        one.fn = announced(one.name, one.fn)


class at_step:  # noqa: N801 - reads like the statement that it is
    """What happens inside belongs to a step; the process is killed before or after it, as planned."""

    def __init__(self, files: LaneFiles, step: str) -> None:
        self._files = files
        self._step = step

    def __enter__(self) -> None:
        self._files.announce(self._step)
        self._die_if_planned(KILLED_BEFORE)

    def __exit__(self, *_error: object) -> None:
        self._die_if_planned(KILLED_AFTER)
        self._files.announce("")

    def _die_if_planned(self, fault: str) -> None:
        plan = self._files.plan
        if plan is not None and (plan.step, plan.fault) == (self._step, fault) and not self._files.was_hit:
            self._files.mark_hit()
            os.kill(os.getpid(), signal.SIGKILL)
