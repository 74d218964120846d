"""The Slack app as a process: Socket Mode by default, signed HTTP behind a proxy; with the threads that bring things in order."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from slack_bolt import App, BoltRequest, BoltResponse

from slackbot.monitoring import Health, Monitoring, serving_monitoring
from slackbot.publisher import slack_errors
from slackbot.routes import add_routes
from slackbot.settings import load_bot_settings
from slackbot.signed_http import serving_http, unreadable
from slackbot.socket_mode import serving_socket_mode
from slackbot.wiring import build_bot

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from slack_bolt import BoltContext

    from slackbot.bot import Bot
    from slackbot.follow_ups import FollowUps
    from slackbot.metrics import PressMetrics
    from slackbot.monitoring import Receiver
    from slackbot.settings import BotSettings

logger = logging.getLogger(__name__)


class TimedApp(App):
    """Bolt's app; tells how long each acknowledgement took. A listener ends when it has acknowledged (slackbot/routes.py)."""

    def __init__(self, metrics: PressMetrics, follow_ups: FollowUps, **options: Any) -> None:
        super().__init__(process_before_response=True, **options)
        self._metrics = metrics
        self._follow_ups = follow_ups

    def dispatch(self, req: BoltRequest) -> BoltResponse:
        begin = time.perf_counter()
        with self._follow_ups.acknowledging():
            response = super().dispatch(req)
        if response.status == HTTPStatus.OK:
            self._metrics.acknowledged(time.perf_counter() - begin)
        return response


def build_app(bot: Bot, *, signing_secret: str = "") -> App:
    """The Bolt app with all its routes; asks Slack once who it is.

    Raises:
        OutsideSystemError: Slack does not answer, or refuses the token.
    """
    with slack_errors("checking the app's token"):
        installed = bot.client.auth_test()
        app = TimedApp(bot.metrics, bot.follow_ups, client=bot.client, signing_secret=signing_secret)
    if not installed.get("is_enterprise_install"):  # installed for a whole organisation it has many teams
        app.use(_of_this_team(str(installed["team_id"])))
    app.error(unreadable)  # what a listener raises never gets there (slackbot/door.py)
    add_routes(app, bot)
    return app


def _of_this_team(team: str) -> Callable[..., BoltResponse | None]:
    """Bolt does not ask whose workspace a press comes from; the policy's people are those of one."""

    def check(context: BoltContext, next: Callable[[], None]) -> BoltResponse | None:  # noqa: A002 - Bolt's name for it
        if context.team_id in (team, None):
            return next()
        logger.warning("refused another team's request team=%s", context.team_id)
        return BoltResponse(status=HTTPStatus.FORBIDDEN)

    return check


def run(http_port: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; what has been acknowledged by then is finished.

    Args:
        http_port: receive signed HTTP there instead of Socket Mode.

    Raises:
        SettingsInvalid: the environment lacks something, or an address cannot be listened on.
        OutsideSystemError: Slack cannot be reached at start.
    """
    settings = load_bot_settings(is_http=http_port is not None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    bot, threads = build_bot(settings)
    stopping = _told_to_stop()
    health = Health()
    monitoring = Monitoring(health, bot.decision_log, bot.metrics.registry)
    with ExitStack() as ends:  # left in the opposite order
        ends.enter_context(serving_monitoring(monitoring, host=settings.metrics_host, port=settings.bot_metrics_port))
        ends.callback(bot.redrawer.close)
        for thread in threads:
            ends.callback(thread.stop)
        ends.enter_context(bot.follow_ups)
        app = build_app(bot, signing_secret=_secret(settings))
        for thread in threads:
            thread.start()
            health.threads[thread.name] = thread.is_alive
        receiver = ends.enter_context(_receiving(app, settings, http_port))
        ends.callback(lambda: setattr(health, "is_receiving", lambda: False))  # first of all
        health.threads |= receiver.threads
        health.is_receiving = receiver.is_receiving
        logger.info("serving over %s", receiver.where)
        while not stopping.wait(1):  # an endless wait would not notice a signal that another thread has caught
            pass
        logger.info("told to stop: what has arrived is finished")


def _told_to_stop() -> threading.Event:
    stopping = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        stopping.set()

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    return stopping


def _secret(settings: BotSettings) -> str:
    return settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else ""


def _receiving(app: App, settings: BotSettings, http_port: int | None) -> AbstractContextManager[Receiver]:
    if http_port is not None:
        return serving_http(app, _secret(settings), host=settings.bot_host, port=http_port)
    token = settings.slack_app_token.get_secret_value() if settings.slack_app_token else ""
    return serving_socket_mode(app, token)
