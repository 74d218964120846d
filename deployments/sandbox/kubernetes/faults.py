"""Misfortunes on demand: the next requests are refused, or their connection is lost before or after they took effect."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from deployments.sandbox.kubernetes.responses import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Fault(StrEnum):
    """What happens to a request instead of its answer."""

    TOO_MANY_REQUESTS = "429 with Retry-After"
    SERVER_ERROR = "500"
    LOST_BEFORE = "connection lost before the effect"
    LOST_AFTER = "connection lost after the effect"


class FaultGate:
    """Stands before an application and applies planned faults, each to one request; `requests` lists what arrived."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._planned: deque[tuple[Fault | None, str]] = deque()
        self.requests: list[str] = []

    def plan(self, fault: Fault, times: int = 1, *, method: str = "", skip: int = 0) -> None:
        """Let the next `times` requests (of a method, when given) meet `fault`, after `skip` that go well."""
        self._planned.extend([(None, method)] * skip + [(fault, method)] * times)

    def reset(self) -> None:
        """Forget what is planned and what has arrived."""
        self._planned.clear()
        self.requests.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self.requests.append(f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}")
        planned = next((planned for planned in self._planned if planned[1] in ("", scope["method"])), None)
        if planned is not None:
            self._planned.remove(planned)
        if planned is None or planned[0] is None:
            return await self._app(scope, receive, send)
        return await self._misfortune(planned[0], scope, receive, send)

    async def _misfortune(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault is Fault.TOO_MANY_REQUESTS:
            error = ApiError(429, "TooManyRequests", "too many requests, please try again later")
            return await JSONResponse(error.as_status(), 429, {"Retry-After": "1"})(scope, receive, send)
        if fault is Fault.SERVER_ERROR:
            error = ApiError(500, "InternalError", "Internal error occurred: planned by a test")
            return await JSONResponse(error.as_status(), 500)(scope, receive, send)
        if fault is Fault.LOST_AFTER:
            await self._app(scope, receive, _swallow)
        connection: Any = send
        connection.__self__.transport.abort()  # ASGI has no word for it: this is uvicorn's own transport
        return None


async def _swallow(_message: Message) -> None:
    """The answer that never arrives."""
