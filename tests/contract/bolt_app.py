"""A real Bolt app on the stand-in of Slack, and what it shows there; for the modules that name it as a plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from slack_bolt import App
from slack_bolt.adapter.socket_mode import SocketModeHandler as BuiltinHandler
from slack_bolt.adapter.socket_mode.websocket_client import SocketModeHandler as WebsocketClientHandler
from slack_bolt.adapter.wsgi import SlackRequestHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.models.views import View
from werkzeug.serving import make_server

from deployments.sandbox.slack import SandboxSlack
from tests.slack_world import wait_until

ACK_SECONDS = 0.7  # Slack's three, shortened where an app stays silent on purpose
CONNECT_SECONDS = 30.0  # a client whose first connection fails tries again at its next ping, after 10 s
TRANSPORTS = ("builtin", "websocket_client", "signed_http")


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def button(action_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": action_id, "text": plain(action_id), "value": "d-1", **more}


WHEN = {
    "type": "static_select",
    "action_id": "when",
    "options": [{"text": plain("in 4 hours"), "value": "4h"}, {"text": plain("tomorrow"), "value": "1d"}],
}
VERDICT = [
    section("*fraud_v2* wins. Promote it?"),
    {
        "type": "actions",
        "block_id": "decide",
        "elements": [button("confirm", style="primary"), *map(button, ("postpone", "refuse", "silent", "seen"))],
    },
]
MODAL = {
    "type": "modal",
    "callback_id": "confirm_modal",
    "title": plain("Promote"),
    "submit": plain("Confirm"),
    "private_metadata": "d-1",
    "blocks": [
        section("baseline 80 % → 0 %"),
        {
            "type": "input",
            "block_id": "why",
            "label": plain("Why"),
            "element": {"type": "plain_text_input", "action_id": "reason"},
        },
        {"type": "input", "block_id": "until", "label": plain("When"), "element": WHEN, "optional": True},
    ],
}


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(SlackApiError) as caught:
        call()
    return str(caught.value.response["error"])


@dataclass
class Bot:
    """A Bolt app that opens modals, answers commands and keeps what it was sent."""

    app: App
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    release: threading.Event = field(default_factory=threading.Event)

    def last(self, kind: str) -> dict[str, Any]:
        return [body for body in self.bodies if body.get("type") == kind][-1]


def _bolt_app(slack: SandboxSlack, *, signing_secret: str) -> Bot:
    bot = Bot(App(client=WebClient(slack.bot_token, base_url=slack.api_url), signing_secret=signing_secret))

    @bot.app.use
    def keep(body: dict[str, Any], next: Callable[[], Any]) -> None:  # noqa: A002 - Bolt's name
        bot.bodies.append(body)
        next()

    _listen_to_presses(bot)
    _listen_to_the_rest(bot.app)
    return bot


def _listen_to_presses(bot: Bot) -> None:
    app = bot.app

    @app.action("confirm")
    def open_modal(ack: Any, body: dict[str, Any], client: WebClient) -> None:
        ack()
        view = client.views_open(trigger_id=body["trigger_id"], view=MODAL)["view"]
        assert View(**view).callback_id == "confirm_modal"

    @app.action("postpone")
    def answer_by_response_url(ack: Any, respond: Any) -> None:
        ack()
        respond(text="postponed", replace_original=True)
        respond(text="noted", response_type="ephemeral")

    @app.action("refuse")
    def refuse(ack: Any, body: dict[str, Any], client: WebClient) -> None:
        ack()
        client.chat_postEphemeral(channel=body["channel"]["id"], user=body["user"]["id"], text="You may not")

    @app.action("silent")
    def stay_silent() -> None:
        bot.release.wait(ACK_SECONDS * 6)

    @app.action("seen")
    def see(ack: Any) -> None:
        ack()


def _listen_to_the_rest(app: App) -> None:
    @app.view("confirm_modal")
    def submitted(ack: Any, view: dict[str, Any]) -> None:
        reason = view["state"]["values"]["why"]["reason"]["value"]
        answers = {
            "short": {"response_action": "errors", "errors": {"why": "Say more"}},
            "change": {"response_action": "update", "view": {**MODAL, "title": plain("Changed")}},
        }
        ack(**answers.get(reason, {}))

    @app.command("/fraud-rollback")
    def command(ack: Any, command: dict[str, Any], client: WebClient) -> None:
        if command["text"] == "modal":
            ack()
            client.views_open(trigger_id=command["trigger_id"], view=MODAL)
        else:
            ack(f"Rolling back: {command['text']}")

    @app.event("app_home_opened")
    def home(event: dict[str, Any], client: WebClient) -> None:
        client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [section("live: fraud_v1")]})


@contextmanager
def running(slack: SandboxSlack, transport: str, *, signing_secret: str | None = None) -> Iterator[Bot]:
    bot = _bolt_app(slack, signing_secret=signing_secret or slack.signing_secret)
    if transport == "signed_http":
        http = make_server("127.0.0.1", 0, SlackRequestHandler(bot.app), threaded=True)
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        slack.request_url = f"http://127.0.0.1:{http.server_port}/slack/events"
        try:
            yield bot
        finally:
            bot.release.set()
            http.shutdown()
            http.server_close()
            thread.join()
        return
    handler = {"builtin": BuiltinHandler, "websocket_client": WebsocketClientHandler}[transport](bot.app, slack.app_token)
    before = slack.sockets.count
    handler.connect()
    try:
        wait_until(lambda: slack.sockets.count == before + 1, "the app's connection", CONNECT_SECONDS)
        yield bot
    finally:
        bot.release.set()
        threading.Thread(target=handler.close).start()  # the clients take up to 3 s to close; nothing here depends on it


@pytest.fixture
def slack() -> Iterator[SandboxSlack]:
    with SandboxSlack(ack_seconds=ACK_SECONDS) as started:
        yield started


@pytest.fixture
def web(slack: SandboxSlack) -> WebClient:
    return WebClient(slack.bot_token, base_url=slack.api_url)


@pytest.fixture
def bot(request: pytest.FixtureRequest, slack: SandboxSlack) -> Iterator[Bot]:
    with running(slack, getattr(request, "param", "websocket_client")) as started:
        yield started


over_each_transport = pytest.mark.parametrize("bot", TRANSPORTS, indirect=True)


@pytest.fixture
def verdict(slack: SandboxSlack, web: WebClient) -> str:
    return str(web.chat_postMessage(channel="C0FRAUD", text="A verdict", blocks=VERDICT)["ts"])
