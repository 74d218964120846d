"""How what a person does reaches the app: over Socket Mode, or signed to a request URL.

Slack gives an app three seconds to acknowledge, and tells the person if it does not. Each event is delivered once.
Over Socket Mode an envelope goes to one of the open connections, and to another one if that closes, or stays silent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import httpx
from slack_sdk.signature import SignatureVerifier
from starlette.websockets import WebSocket, WebSocketDisconnect

from deployments.sandbox.slack import people

if TYPE_CHECKING:
    from deployments.sandbox.slack.block_kit import Json

Kind = Literal["interactive", "slash_commands", "events_api"]
TICKET_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the app took it: `error` is what Slack tells the person, `answer` what came with the acknowledgement.

    `field_errors` are shown at the inputs of a modal, by block id; `ack_ms` is the wait for the acknowledgement.
    """

    acked: bool
    ack_ms: float
    attempts: int = 1
    error: str | None = None
    answer: Any = None
    field_errors: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True, eq=False)
class _Connection:
    socket: WebSocket
    loop: asyncio.AbstractEventLoop
    retiring: bool = False
    waiting: dict[str, Future[Any]] = field(default_factory=dict[str, "Future[Any]"])

    def send(self, message: Json) -> None:
        """Send from a thread; a connection that just closed is no error: its waiting deliveries are told."""
        asyncio.run_coroutine_threadsafe(self.socket.send_text(json.dumps(message)), self.loop)


class SocketMode:
    """The open connections of the app."""

    def __init__(self, *, ack_seconds: float) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[str, float] = {}
        self._connections: list[_Connection] = []
        self._turn = 0
        self._ack_seconds = ack_seconds

    @property
    def count(self) -> int:
        with self._lock:
            return len(self._connections)

    def ticket(self) -> str:
        with self._lock:
            ticket = secrets.token_urlsafe(16)
            self._tickets[ticket] = time.monotonic() + TICKET_SECONDS
            return ticket

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from its ticket to its end."""
        with self._lock:
            welcome = self._tickets.pop(socket.query_params.get("ticket", ""), 0.0) > time.monotonic()
        if not welcome:
            await socket.close(1008)
            return
        await socket.accept()
        connection = _Connection(socket, asyncio.get_running_loop())
        with self._lock:
            self._connections.append(connection)
        try:
            about = {"connection_info": {"app_id": people.APP_ID}, "debug_info": {"host": "sandbox"}}
            await socket.send_json({"type": "hello", "num_connections": self.count, **about})
            while True:
                self._acknowledge(connection, await socket.receive_text())
        except WebSocketDisconnect:
            pass
        finally:
            with self._lock:
                self._connections.remove(connection)
                left = list(connection.waiting.values())
            for waiting in left:
                waiting.cancel()

    def _acknowledge(self, connection: _Connection, text: str) -> None:
        message = json.loads(text)
        with self._lock:
            waiting = connection.waiting.pop(message.get("envelope_id", ""), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.get("payload"))

    def disconnect(self, reason: str) -> None:
        """Ask every connection to be replaced, as Slack does every few hours (`refresh_requested`) or with a `warning`."""
        with self._lock:
            retiring = list(self._connections)
            for connection in retiring:
                connection.retiring = True
        for connection in retiring:
            connection.send({"type": "disconnect", "reason": reason, "debug_info": {"host": "sandbox"}})

    def deliver(self, kind: Kind, payload: Json) -> Outcome:
        """Give an envelope to one connection, then to another one if it is not acknowledged."""
        envelope: Json = {"envelope_id": secrets.token_hex(16), "type": kind, "payload": payload}
        is_event = kind == "events_api"
        envelope |= {"retry_attempt": 0, "retry_reason": ""} if is_event else {}
        envelope["accepts_response_payload"] = not is_event
        tried: list[_Connection] = []
        started = time.monotonic()
        while (connection := self._next(tried)) is not None:
            tried.append(connection)
            try:
                answer = self._offer(connection, envelope)
            except (CancelledError, TimeoutError):
                continue
            return Outcome(True, _ms_since(started), len(tried), answer=answer)
        error = "operation_timeout" if tried else "dispatch_failed"
        return Outcome(False, _ms_since(started), len(tried), error)

    def _next(self, tried: list[_Connection]) -> _Connection | None:
        with self._lock:
            left = [one for one in self._connections if one not in tried]
            left = [one for one in left if not one.retiring] or left
            self._turn += 1
            return left[self._turn % len(left)] if left else None

    def _offer(self, connection: _Connection, envelope: Json) -> Any:
        waiting: Future[Any] = Future()
        with self._lock:
            connection.waiting[envelope["envelope_id"]] = waiting
            closed = connection not in self._connections
        if closed:
            raise CancelledError
        connection.send(envelope)
        try:
            return waiting.result(timeout=self._ack_seconds)
        finally:
            with self._lock:
                connection.waiting.pop(envelope["envelope_id"], None)


class Deliveries:
    """The one way to the app: signed to `request_url` if there is one, else over Socket Mode."""

    def __init__(self, sockets: SocketMode, *, signing_secret: str, ack_seconds: float) -> None:
        self.request_url: str | None = None
        self._sockets = sockets
        self._signer = SignatureVerifier(signing_secret)
        alone = httpx.Limits(max_keepalive_connections=0)  # each delivery on a connection of its own
        self._http = httpx.Client(timeout=ack_seconds, trust_env=False, limits=alone)

    def deliver(self, kind: Kind, payload: Json) -> Outcome:
        """One delivery and how it went."""
        if self.request_url is None:
            return self._sockets.deliver(kind, payload)
        return self._post(self.request_url, kind, payload)

    def _post(self, url: str, kind: Kind, payload: Json) -> Outcome:
        content_type = "application/json" if kind == "events_api" else "application/x-www-form-urlencoded"
        match kind:
            case "events_api":
                body = json.dumps(payload)
            case "interactive":
                body = urlencode({"payload": json.dumps(payload)})
            case "slash_commands":
                body = urlencode(payload)
        now = str(int(time.time()))
        signature = self._signer.generate_signature(timestamp=now, body=body) or ""
        signed = {"Content-Type": content_type, "X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}
        started, error = time.monotonic(), "dispatch_failed"
        try:
            reply = self._http.post(url, content=body, headers=signed)
            if reply.is_success:
                return Outcome(True, _ms_since(started), answer=_answer(reply.text))
        except httpx.TimeoutException:
            error = "operation_timeout"
        except httpx.HTTPError:
            pass
        return Outcome(False, _ms_since(started), error=error)


def _answer(body: str) -> Any:
    """What came with a 200: JSON, plain text for the person, or nothing."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return {"text": body}


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
