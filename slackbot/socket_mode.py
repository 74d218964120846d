"""Socket Mode: the app dials out to Slack, so it needs no address of its own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slack_bolt.adapter.socket_mode.websocket_client import SocketModeHandler

from slackbot.monitoring import Receiver
from slackbot.publisher import slack_errors

if TYPE_CHECKING:
    from collections.abc import Generator

    from slack_bolt import App
    from slack_sdk.socket_mode.websocket_client import SocketModeClient

THREADS = 64  # acknowledgements wait for a free one: a modal that waits for the database must not hold up an emergency
PING_SECONDS = 10
DRAIN_SECONDS = 5.0
POLL_SECONDS = 0.02


@contextmanager
def serving_socket_mode(app: App, app_token: str) -> Generator[Receiver]:
    """Receive over Socket Mode until the block ends; what has arrived by then is acknowledged first.

    Raises:
        OutsideSystemError: Slack gives no address to connect to.
    """
    handler = SocketModeHandler(app, app_token, ping_interval=PING_SECONDS, concurrency=THREADS)
    client = handler.client
    runners = {
        "connection": client.current_session_runner,
        "reconnection": client.current_app_monitor,
        "messages": client.message_processor,
    }
    try:
        with slack_errors("opening Socket Mode"):
            handler.connect()
        yield Receiver(
            "Socket Mode", {name: runner.is_alive for name, runner in runners.items()}, is_receiving=client.is_connected
        )
    finally:
        _finish(client)
        handler.close()


def _finish(client: SocketModeClient) -> None:
    """Acknowledge what has arrived while the connection is still there; what comes later is Slack's to deliver elsewhere."""
    deadline, pause = time.monotonic() + DRAIN_SECONDS, threading.Event()
    while not client.message_queue.empty() and time.monotonic() < deadline:
        pause.wait(POLL_SECONDS)
    client.closed = True  # the client looks at it before it takes the next message
    client.message_processor.shutdown()
    client.message_workers.shutdown()
