"""How every effect on the outside runs: a Prefect task whose result is kept, retried only where trying again can help.

A resumed or retried run executes the flow's body from the top; a step that finished comes back from its stored result. The key of
a result is the flow run, the step's name and its arguments, not the step's source (Prefect's default), so that an upgrade between
question and answer repeats nothing. Steps therefore take identifiers and numbers only and read everything else themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import task

from flows.domain.errors import OutsideSystemError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.context import TaskRunContext
    from prefect.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")

RETRY_SECONDS: list[float] = [1, 3, 10, 30]


def step(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorate a function as a persisted, retryable step shown in the Prefect UI under `name`.

    Args:
        run_name: tells its runs of one flow run apart, by arguments in braces.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=run_name,
            persist_result=True,
            cache_key_fn=_step_key,
            retries=len(RETRY_SECONDS),
            retry_delay_seconds=RETRY_SECONDS,
            retry_jitter_factor=0.5,
            retry_condition_fn=is_retryable,
        )(function)

    return decorate


def _step_key(context: TaskRunContext, arguments: dict[str, Any]) -> str | None:
    text = json.dumps(arguments, sort_keys=True)
    digest = hashlib.sha256(f"{context.task.name}\n{text}".encode()).hexdigest()[:32]
    return f"{context.task_run.flow_run_id}-{digest}"


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except OutsideSystemError as error:
        return error.retryable
    except Exception:  # noqa: BLE001 - the question here is only whether it is one of ours
        return False
    return False
