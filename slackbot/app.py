"""The Slack app as a process: Socket Mode by default, signed HTTP behind a proxy; with the threads that bring things in order."""

from __future__ import annotations

import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from slack_bolt import App, BoltResponse
from slack_bolt.adapter.socket_mode.websocket_client import SocketModeHandler

from slackbot.publisher import slack_errors
from slackbot.routes import add_routes
from slackbot.settings import load_bot_settings
from slackbot.signed_http import REQUEST_PATH, serving_http, unreadable
from slackbot.wiring import build_bot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from slack_bolt import BoltContext

    from slackbot.bot import Bot

logger = logging.getLogger(__name__)

LISTENER_THREADS = 64  # acknowledgements wait for a free one: a listener that waits for Kubernetes must not hold them up
DELIVERY_THREADS = 32
PING_SECONDS = 10


def build_app(bot: Bot, *, signing_secret: str = "", executor: ThreadPoolExecutor | None = None) -> App:
    """The Bolt app with all its routes; asks Slack once who it is.

    Raises:
        OutsideSystemError: Slack does not answer, or refuses the token.
    """
    listeners = executor or ThreadPoolExecutor(LISTENER_THREADS, thread_name_prefix="listener")
    with slack_errors("checking the app's token"):
        team = str(bot.client.auth_test()["team_id"])
        app = App(client=bot.client, signing_secret=signing_secret, listener_executor=listeners)
    app.use(_of_this_team(team))
    app.error(unreadable)  # what a listener raises never gets there (slackbot/door.py)
    add_routes(app, bot)
    return app


def _of_this_team(team: str) -> Callable[..., BoltResponse | None]:
    """Bolt does not ask whose workspace a press comes from; the policy's people are those of one."""

    def check(context: BoltContext, next: Callable[[], None]) -> BoltResponse | None:  # noqa: A002 - Bolt's name for it
        if context.team_id in (team, None):  # events of the whole organisation name no team
            return next()
        logger.warning("refused another team's request team=%s", context.team_id)
        return BoltResponse(status=HTTPStatus.FORBIDDEN)

    return check


@contextmanager
def serving_socket_mode(app: App, app_token: str) -> Generator[None]:
    """Receive over Socket Mode until the block ends."""
    handler = SocketModeHandler(app, app_token, ping_interval=PING_SECONDS, concurrency=DELIVERY_THREADS)
    try:
        with slack_errors("opening Socket Mode"):
            handler.connect()
        yield
    finally:
        handler.close()


def run(http_port: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; what has been acknowledged by then is finished.

    Args:
        http_port: receive signed HTTP there instead of Socket Mode.

    Raises:
        SettingsInvalid: the environment lacks something.
        OutsideSystemError: Slack cannot be reached at start.
    """
    settings = load_bot_settings(is_http=http_port is not None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    bot, threads = build_bot(settings)
    stopping = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        stopping.set()

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    secret = settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else ""
    token = settings.slack_app_token.get_secret_value() if settings.slack_app_token else ""
    with ThreadPoolExecutor(LISTENER_THREADS, thread_name_prefix="listener") as executor:
        app = build_app(bot, signing_secret=secret, executor=executor)
        serving = (
            serving_socket_mode(app, token)
            if http_port is None
            else serving_http(app, secret, host=settings.bot_host, port=http_port)
        )
        for thread in threads:
            thread.start()
        try:
            with serving as port:
                logger.info(
                    "serving over %s", "Socket Mode" if port is None else f"http://{settings.bot_host}:{port}{REQUEST_PATH}"
                )
                while not stopping.wait(1):  # an endless wait would not notice a signal that another thread has caught
                    pass
        finally:
            for thread in threads:
                thread.stop()
