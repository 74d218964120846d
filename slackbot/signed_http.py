"""Signed HTTP: what Slack has not signed, or nobody can read, ends here, before Bolt parses any of it or writes it to a log."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from slack_bolt import BoltRequest, BoltResponse
from slack_sdk.signature import SignatureVerifier
from waitress import wasyncore
from waitress.server import create_server

from flows.domain.errors import SettingsInvalid
from slackbot.monitoring import Receiver

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from slack_bolt import App

logger = logging.getLogger(__name__)

REQUEST_PATH = "/slack/events"
THREADS = 64  # acknowledgements wait for a free one: a modal that waits for the database must not hold up an emergency
MAX_BODY_BYTES = 1_000_000
MAX_TIMESTAMP_DIGITS = 12
DRAIN_SECONDS = 5.0
POLL_SECONDS = 0.02


class SignedHttp:
    """The WSGI application: lets through to Bolt what is signed, fresh and readable."""

    def __init__(self, app: App, signing_secret: str) -> None:
        self._app = app
        self._verifier = SignatureVerifier(signing_secret)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = self._answer(environ)
        body = answer.body.encode()
        content_type = answer.headers.get("content-type", ["text/plain;charset=utf-8"])[0]
        headers = [("content-type", content_type), ("content-length", str(len(body)))]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> BoltResponse:
        if environ["PATH_INFO"] != REQUEST_PATH:
            return BoltResponse(status=HTTPStatus.NOT_FOUND)
        if environ["REQUEST_METHOD"] != "POST":
            return BoltResponse(status=HTTPStatus.METHOD_NOT_ALLOWED)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        signed = {name: environ.get(f"HTTP_{name.upper().replace('-', '_')}", "") for name in _SIGNED}
        if not self._is_from_slack(body, *signed.values()):
            return BoltResponse(status=HTTPStatus.UNAUTHORIZED)
        headers = {**signed, "content-type": environ.get("CONTENT_TYPE", "")}
        try:
            return self._app.dispatch(BoltRequest(body=body.decode(), headers=headers))
        except Exception as error:  # noqa: BLE001 - Bolt takes the payload apart here, and fails in many ways at one that is none
            return unreadable(error)

    def _is_from_slack(self, body: bytes, timestamp: str, signature: str) -> bool:
        """Signed with the app's secret within the last five minutes; anything that the verifier would choke on is not."""
        if not timestamp.isdecimal() or len(timestamp) > MAX_TIMESTAMP_DIGITS or not signature.isascii():
            return False
        try:
            return self._verifier.is_valid(body, timestamp, signature)
        except UnicodeDecodeError:
            return False


_SIGNED = ("x-slack-request-timestamp", "x-slack-signature")


def unreadable(error: Exception) -> BoltResponse:
    """The answer to a payload of another shape than Slack's; also as Bolt's handler of what fails before any listener."""
    logger.warning("unreadable_payload error=%s", type(error).__name__)
    return BoltResponse(status=HTTPStatus.BAD_REQUEST)


@contextmanager
def serving_http(app: App, signing_secret: str, *, host: str, port: int) -> Generator[Receiver]:
    """Receive signed requests on a threaded WSGI server until the block ends; what has arrived by then is answered first.

    Args:
        port: 0 asks for a free one.

    Raises:
        SettingsInvalid: the address cannot be listened on.
    """
    try:
        server: Any = create_server(
            SignedHttp(app, signing_secret),
            host=host,
            port=port,
            threads=THREADS,
            max_request_body_size=MAX_BODY_BYTES,
            channel_timeout=30,
            ident=None,
        )
    except OSError as error:
        raise SettingsInvalid("--http", [f"{host}:{port} cannot be listened on: {error.strerror}"]) from error
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    at = int(server.effective_port)
    try:
        yield Receiver(f"http://{host}:{at}{REQUEST_PATH}", {"http": thread.is_alive}, thread.is_alive, at)
    finally:
        _finish(server)
        server.task_dispatcher.shutdown()
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))  # noqa: SLF001 - all that its loop waits for
        thread.join(timeout=5)


def _finish(server: Any) -> None:
    """Take no new connection, and answer what the open ones have asked. The loop's own thread closes what it waits for."""
    server.trigger.pull_trigger(lambda: wasyncore.dispatcher.close(server))
    deadline, pause = time.monotonic() + DRAIN_SECONDS, threading.Event()
    while time.monotonic() < deadline and (server.accepting or any(map(_is_busy, list(server.active_channels.values())))):
        pause.wait(POLL_SECONDS)


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests or channel.total_outbufs_len)
