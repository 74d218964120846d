"""Misfortunes on demand: the next requests are refused, or their connection is lost before or after they took effect."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REMEMBERED_REQUESTS = 10_000


class Fault(StrEnum):
    """What happens to a request instead of its answer."""

    TOO_MANY_REQUESTS = "429 with Retry-After"
    SERVER_ERROR = "500"
    LOST_BEFORE = "connection lost before the effect"
    LOST_AFTER = "connection lost after the effect"


class FaultGate:
    """Stands before an application and applies planned faults, each to one request; `requests` lists what arrived.

    Args:
        refusals: how the real server words its 429 and its 500.
    """

    def __init__(self, app: ASGIApp, refusals: Mapping[Fault, ASGIApp]) -> None:
        self._app = app
        self._refusals = refusals
        self._planned: deque[tuple[Fault | None, str]] = deque()
        self.requests: deque[str] = deque(maxlen=REMEMBERED_REQUESTS)

    def plan(self, fault: Fault, times: int = 1, *, of: str = "", skip: int = 0) -> None:
        """Let the next `times` requests meet `fault`, after `skip` that go well.

        Args:
            of: only requests whose first line has this: `PATCH`, or a method of Slack.
        """
        self._planned.extend([(None, of)] * skip + [(fault, of)] * times)

    def reset(self) -> None:
        """Forget what is planned and what has arrived."""
        self._planned.clear()
        self.requests.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._due(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        elif fault in self._refusals:
            await self._refusals[fault](scope, receive, send)
        else:
            if fault is Fault.LOST_AFTER:
                await self._app(scope, receive, _swallow)
            connection: Any = send
            connection.__self__.transport.abort()  # ASGI has no word for it: this is uvicorn's own transport

    def _due(self, scope: Scope) -> Fault | None:
        request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"
        self.requests.append(request)
        planned = next((planned for planned in self._planned if planned[1] in request), None)
        if planned is None:
            return None
        self._planned.remove(planned)
        return planned[0]


async def _swallow(_message: Message) -> None:
    """The answer that never arrives."""
