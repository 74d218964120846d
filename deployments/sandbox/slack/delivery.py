"""How what a person does reaches the app: over Socket Mode, or signed to a request URL.

Slack gives an app three seconds to acknowledge. It tries an event again up to three times; of an interaction it tells the person.
Over Socket Mode an envelope goes to one of the open connections, and to another one if that closes, or stays silent.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

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
            await socket.send_json({"type": "hello", "num_connections": self.count, **_hello()})
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

    def drop(self) -> None:
        """Close every connection without a word."""
        with self._lock:
            dropped = list(self._connections)
        for connection in dropped:
            asyncio.run_coroutine_threadsafe(connection.socket.close(1001), connection.loop)

    def deliver(self, kind: Kind, payload: Json, retry: Json) -> Outcome:
        """Give an envelope to one connection, then to another one if it is not acknowledged."""
        envelope = {"envelope_id": secrets.token_hex(16), "type": kind, "payload": payload, **retry}
        envelope["accepts_response_payload"] = kind != "events_api"
        tried: list[_Connection] = []
        started = time.monotonic()
        while (connection := self._next(tried)) is not None:
            tried.append(connection)
            try:
                answer = self._offer(connection, envelope)
            except CancelledError:
                continue
            except TimeoutError:
                if kind == "events_api":  # tried again later, and marked as a retry
                    break
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

    def __init__(
        self, sockets: SocketMode, *, signing_secret: str, ack_seconds: float, event_retry_seconds: Sequence[float]
    ) -> None:
        self.request_url: str | None = None
        self.stopping = threading.Event()
        self._sockets = sockets
        self._signer = SignatureVerifier(signing_secret)
        self._ack_seconds = ack_seconds
        self._event_retry_seconds = tuple(event_retry_seconds)

    def deliver(self, kind: Kind, payload: Json, *, attempt: int = 0) -> Outcome:
        """One delivery and how it went; `attempt` counts the retries of an event."""
        if self.request_url is None:
            retry: Json = {"retry_attempt": attempt, "retry_reason": "timeout" if attempt else ""} if kind == "events_api" else {}
            return self._sockets.deliver(kind, payload, retry)
        headers = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_timeout"} if attempt else {}
        return self._post(self.request_url, kind, payload, headers)

    def deliver_event(self, payload: Json) -> Outcome:
        """An event: the first attempt is waited for, the retries follow in the background on Slack's schedule."""
        outcome = self.deliver("events_api", payload)
        if not outcome.acked:
            threading.Thread(target=self._try_again, args=(payload,), name="slack-event-retries", daemon=True).start()
        return outcome

    def _try_again(self, payload: Json) -> None:
        for attempt, wait_seconds in enumerate(self._event_retry_seconds, start=1):
            if self.stopping.wait(wait_seconds) or self.deliver("events_api", payload, attempt=attempt).acked:
                return

    def _post(self, url: str, kind: Kind, payload: Json, headers: dict[str, str]) -> Outcome:
        match kind:
            case "events_api":
                body, content_type = json.dumps(payload), "application/json"
            case "interactive":
                body, content_type = urlencode({"payload": json.dumps(payload)}), "application/x-www-form-urlencoded"
            case "slash_commands":
                body, content_type = urlencode(payload), "application/x-www-form-urlencoded"
        now = str(int(time.time()))
        signature = self._signer.generate_signature(timestamp=now, body=body) or ""
        signed = {"Content-Type": content_type, "X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature, **headers}
        request = urllib.request.Request(url, body.encode(), signed)  # noqa: S310 - the address is set by the test or demo
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=self._ack_seconds) as reply:  # noqa: S310 - as above
                return Outcome(True, _ms_since(started), answer=_answer(reply.read().decode()))
        except TimeoutError:
            return Outcome(False, _ms_since(started), error="operation_timeout")
        except (OSError, http.client.HTTPException) as error:
            error_code = "operation_timeout" if isinstance(getattr(error, "reason", None), TimeoutError) else "dispatch_failed"
            return Outcome(False, _ms_since(started), error=error_code)


def _answer(body: str) -> Any:
    """What came with a 200: JSON, plain text for the person, or nothing."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return {"text": body}


def _hello() -> Json:
    debug = {"host": "sandbox", "build_number": 1, "approximate_connection_time": 18060}
    return {"connection_info": {"app_id": people.APP_ID}, "debug_info": debug}


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
