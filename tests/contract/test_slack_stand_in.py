"""The Slack stand-in behaves to the real slack_sdk and to a real Bolt app as Slack does.

The Web API part also runs against another Slack-compatible server when SLACK_API_URL and SLACK_BOT_TOKEN are set
(SLACK_CHANNEL names a channel that the app has joined there; default `fraud-models`).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import websocket
from slack_bolt import App
from slack_bolt.adapter.socket_mode import SocketModeHandler as BuiltinHandler
from slack_bolt.adapter.socket_mode.websocket_client import SocketModeHandler as WebsocketClientHandler
from slack_bolt.adapter.wsgi import SlackRequestHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler, ServerErrorRetryHandler
from slack_sdk.models.blocks import Block
from slack_sdk.models.metadata import Metadata
from slack_sdk.models.views import View
from slack_sdk.webhook import WebhookClient
from werkzeug.serving import make_server

from deployments.sandbox.faults import Fault
from deployments.sandbox.slack import NothingThere, SandboxSlack

ACK_SECONDS = 0.7  # Slack's three, shortened where an app stays silent on purpose
TRANSPORTS = ("builtin", "websocket_client", "signed_http")
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


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


def wait_until(look: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """A client whose first reconnection fails tries again at its next ping, after 10 s."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


# The Web API, on the stand-in and on whatever else is named


@dataclass(frozen=True)
class Server:
    web: WebClient
    channel: str


@pytest.fixture(params=["stand-in", "other server"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "stand-in":
        with SandboxSlack() as slack:
            yield Server(WebClient(slack.bot_token, base_url=slack.api_url), "C0FRAUD")
        return
    url, token = os.environ.get("SLACK_API_URL"), os.environ.get("SLACK_BOT_TOKEN")
    if not url or not token:
        pytest.skip("SLACK_API_URL and SLACK_BOT_TOKEN name no other Slack-compatible server")
    web = WebClient(token, base_url=url, retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=3)])
    wanted = os.environ.get("SLACK_CHANNEL", "fraud-models")
    listed = web.conversations_list(types="public_channel", limit=999)["channels"]
    yield Server(web, next(one["id"] for one in listed if wanted in (one["id"], one["name"])))


def test_the_bot_knows_who_it_is(server: Server) -> None:
    answer = server.web.auth_test()
    assert answer["user_id"].startswith("U")
    assert answer["bot_id"].startswith("B")
    assert answer["team_id"].startswith("T")


def test_a_missing_and_a_wrong_token_are_refused(server: Server) -> None:
    nobody = WebClient(base_url=server.web.base_url)
    assert refused(nobody.auth_test) == "not_authed"
    assert refused(WebClient("xoxb-wrong", base_url=server.web.base_url).auth_test) == "invalid_auth"


def test_an_unknown_method_is_named_as_such(server: Server) -> None:
    assert refused(lambda: server.web.api_call("chat.shout")) == "unknown_method"


def test_a_message_is_posted_found_by_its_metadata_and_updated(server: Server) -> None:
    metadata = {"event_type": "fraud_ab_verdict", "event_payload": {"decision_id": f"d-{time.time_ns()}"}}
    posted = server.web.chat_postMessage(channel=server.channel, text="A verdict", blocks=VERDICT, metadata=metadata)
    history = server.web.conversations_history(channel=server.channel, include_all_metadata=True, limit=20)["messages"]
    found = [message for message in history if message.get("metadata", {}).get("event_payload") == metadata["event_payload"]]
    assert [message["ts"] for message in found] == [posted["ts"]]
    assert Metadata(**found[0]["metadata"]).event_type == "fraud_ab_verdict"
    assert [type(block).__name__ for block in Block.parse_all(found[0]["blocks"])] == ["SectionBlock", "ActionsBlock"]
    assert all(block["block_id"] for block in found[0]["blocks"])
    without = server.web.conversations_history(channel=server.channel, limit=20)["messages"]
    assert all("metadata" not in message for message in without)

    updated = server.web.chat_update(channel=server.channel, ts=posted["ts"], text="Decided")
    assert updated["ts"] == posted["ts"]
    assert updated["message"]["edited"]
    again = server.web.conversations_history(
        channel=server.channel, latest=posted["ts"], oldest=posted["ts"], inclusive=True, include_all_metadata=True
    )["messages"][0]
    assert again["text"] == "Decided"
    assert not [block for block in again.get("blocks", []) if block["type"] == "actions"]  # text alone drops the blocks
    assert again["metadata"]["event_payload"] == metadata["event_payload"]  # but not the metadata


def test_a_message_has_an_address_for_browsers(server: Server) -> None:
    posted = server.web.chat_postMessage(channel=server.channel, text="where am I?")
    address = str(server.web.chat_getPermalink(channel=posted["channel"], message_ts=posted["ts"])["permalink"])
    assert address.endswith(f"/archives/{posted['channel']}/p{str(posted['ts']).replace('.', '')}")
    assert refused(lambda: server.web.chat_getPermalink(channel=posted["channel"], message_ts="1.1")) == "message_not_found"


def test_a_thread_holds_its_replies_and_a_broadcast_reaches_the_channel(server: Server) -> None:
    parent = server.web.chat_postMessage(channel=server.channel, text="A verdict")["ts"]
    quiet = server.web.chat_postMessage(channel=server.channel, text="step", thread_ts=parent)["ts"]
    loud = server.web.chat_postMessage(channel=server.channel, text="failed", thread_ts=parent, reply_broadcast=True)["ts"]
    replies = server.web.conversations_replies(channel=server.channel, ts=parent)["messages"]
    assert [message["ts"] for message in replies] == [parent, quiet, loud]
    assert replies[0]["reply_count"] == 2
    history = [m["ts"] for m in server.web.conversations_history(channel=server.channel, limit=20)["messages"]]
    assert loud in history
    assert quiet not in history


def test_history_comes_in_pages(server: Server) -> None:
    posted = [server.web.chat_postMessage(channel=server.channel, text=f"line {n}")["ts"] for n in range(5)]
    seen: list[str] = []
    for page in server.web.conversations_history(channel=server.channel, limit=2, oldest=posted[0], inclusive=True):
        seen += [message["ts"] for message in page["messages"]]
    assert seen == posted[::-1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({}, "no_text"),
        ({"text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
        ({"text": "x", "blocks": [{"type": "banner"}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "header", "text": plain("h" * 151)}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "header", "text": {"type": "mrkdwn", "text": "h"}}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [section("s" * 3001)]}, "invalid_blocks"),
        ({"text": "x", "blocks": [section("")]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "section", "fields": [plain("f")] * 11}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "section", "fields": [plain("f" * 2001)]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "divider"}] * 51}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button("a"), button("a")]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button(f"a{n}") for n in range(26)]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button("a", value="v" * 2001)]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button("a", text=plain("t" * 76))]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button("a" * 256)]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "actions", "elements": [button("a", colour="red")]}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "divider", "block_id": "b"}] * 2}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "image", "image_url": "https://example.org/a.png"}]}, "invalid_blocks"),
        ({"text": "x", "blocks": [section("s" * 2900)] * 5}, "msg_blocks_too_long"),
        ({"text": "x", "blocks": "[{"}, "invalid_blocks_format"),
        ({"text": "x", "metadata": {"event_type": "t"}}, "invalid_metadata_format"),
    ],
)
def test_what_slack_refuses_is_refused_by_name(server: Server, arguments: dict[str, Any], error: str) -> None:
    assert refused(lambda: server.web.api_call("chat.postMessage", json={"channel": server.channel, **arguments})) == error


def test_a_refusal_points_at_the_place(server: Server) -> None:
    with pytest.raises(SlackApiError) as caught:
        server.web.chat_postMessage(channel=server.channel, text="x", blocks=[{"type": "header", "text": plain("h" * 151)}])
    assert caught.value.response["response_metadata"]["messages"] == [
        "[ERROR] must be less than 151 characters [json-pointer:/blocks/0/text/text]"
    ]


def test_a_file_is_uploaded_and_shared_in_the_thread(server: Server) -> None:
    ts = server.web.chat_postMessage(channel=server.channel, text="A verdict")["ts"]
    done = server.web.files_upload_v2(
        channel=server.channel, thread_ts=ts, content=PNG, filename="chart.png", title="Recall", alt_txt="Recall by day"
    )
    assert done["file"]["id"].startswith("F")

    def shared() -> bool:
        replies = server.web.conversations_replies(channel=server.channel, ts=ts)["messages"][1:]
        return any(file["id"] == done["file"]["id"] for reply in replies for file in reply.get("files", []))

    wait_until(shared, seconds=20)


def test_a_trigger_that_was_never_given_opens_nothing(server: Server) -> None:
    assert refused(lambda: server.web.views_open(trigger_id="1.2.3", view=MODAL)) == "invalid_trigger_id"


def test_a_view_that_is_not_there_cannot_be_updated(server: Server) -> None:
    assert refused(lambda: server.web.views_update(view_id="V0NOWHERE", view=MODAL)) == "not_found"


# Only on the stand-in: people, faults, and everything that needs a person to press


@pytest.fixture
def slack() -> Iterator[SandboxSlack]:
    with SandboxSlack(ack_seconds=ACK_SECONDS) as started:
        yield started


@pytest.fixture
def web(slack: SandboxSlack) -> WebClient:
    return WebClient(slack.bot_token, base_url=slack.api_url)


def test_people_groups_and_channels_are_known(web: WebClient) -> None:
    assert web.users_info(user="U0ANA")["user"]["tz"] == "Europe/Lisbon"
    assert web.usergroups_users_list(usergroup="S0PROMOTERS")["users"] == ["U0ANA"]
    assert web.chat_postMessage(channel="U0ANA", text="x")["channel"] == "D0ANA"
    assert web.chat_postMessage(channel="#fraud-models", text="x")["channel"] == "C0FRAUD"
    assert refused(lambda: web.usergroups_users_list(usergroup="S0NONE")) == "no_such_subteam"
    assert refused(lambda: web.users_info(user="U0NONE")) == "user_not_found"


def test_an_ephemeral_message_is_seen_by_one_person_only(slack: SandboxSlack, web: WebClient) -> None:
    web.chat_postEphemeral(channel="C0FRAUD", user="U0BEN", text="You may not", blocks=VERDICT)
    assert [message["text"] for message in slack.ephemerals("U0BEN")] == ["You may not"]
    assert slack.ephemerals("U0ANA") == slack.messages("C0FRAUD") == []
    assert web.conversations_history(channel="C0FRAUD")["messages"] == []
    with pytest.raises(NothingThere):
        slack.press("U0ANA", "confirm")


def test_an_app_token_opens_connections_and_nothing_else(slack: SandboxSlack, web: WebClient) -> None:
    assert web.apps_connections_open(app_token=slack.app_token)["url"].startswith("ws://")
    assert refused(lambda: web.apps_connections_open(app_token=slack.bot_token)) == "not_allowed_token_type"
    assert refused(WebClient(slack.app_token, base_url=slack.api_url).auth_test) == "not_allowed_token_type"


def test_a_rate_limited_call_is_retried_by_the_real_client(slack: SandboxSlack, web: WebClient) -> None:
    slack.faults.plan(Fault.TOO_MANY_REQUESTS, times=2, of="chat.postMessage")
    with pytest.raises(SlackApiError) as caught:
        web.chat_postMessage(channel="C0FRAUD", text="x")
    assert caught.value.response.headers["Retry-After"] == "1"
    web.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    web.chat_postMessage(channel="C0FRAUD", text="x")
    assert len(slack.messages("C0FRAUD")) == 1


def test_a_server_error_is_retried_by_the_real_client(slack: SandboxSlack, web: WebClient) -> None:
    slack.faults.plan(Fault.SERVER_ERROR, of="chat.postMessage")
    web.retry_handlers.append(ServerErrorRetryHandler(max_retry_count=1))
    web.chat_postMessage(channel="C0FRAUD", text="x")
    assert len(slack.messages("C0FRAUD")) == 1


@pytest.mark.parametrize(("fault", "messages"), [(Fault.LOST_BEFORE, 1), (Fault.LOST_AFTER, 2)])
def test_a_lost_reply_makes_the_real_client_post_twice(slack: SandboxSlack, web: WebClient, fault: Fault, messages: int) -> None:
    slack.faults.plan(fault, of="chat.postMessage")
    web.chat_postMessage(channel="C0FRAUD", text="x")
    assert len(slack.messages("C0FRAUD")) == messages


# A real Bolt app, over each way that it can be reached


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
        wait_until(lambda: slack.sockets.count == before + 1)
        yield bot
    finally:
        bot.release.set()
        threading.Thread(target=handler.close).start()  # the clients take up to 3 s to close; nothing here depends on it


@pytest.fixture
def bot(request: pytest.FixtureRequest, slack: SandboxSlack) -> Iterator[Bot]:
    with running(slack, getattr(request, "param", "websocket_client")) as started:
        yield started


over_each_transport = pytest.mark.parametrize("bot", TRANSPORTS, indirect=True)


@pytest.fixture
def verdict(slack: SandboxSlack, web: WebClient) -> str:
    return str(web.chat_postMessage(channel="C0FRAUD", text="A verdict", blocks=VERDICT)["ts"])


@over_each_transport
def test_a_press_is_acknowledged_and_opens_a_modal_for_that_person(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    outcome = slack.press("U0ANA", "confirm", message_ts=verdict)
    assert outcome.acked
    assert outcome.attempts == 1
    view = slack.wait_for(lambda: slack.open_view("U0ANA"))
    assert view is not None
    assert view["private_metadata"] == "d-1"
    assert slack.open_view("U0BEN") is None
    body = bot.last("block_actions")
    assert body["user"] == {"id": "U0ANA", "username": "ana", "name": "ana", "team_id": body["team"]["id"]}
    assert body["container"] == {"type": "message", "message_ts": verdict, "channel_id": "C0FRAUD", "is_ephemeral": False}
    assert body["channel"] == {"id": "C0FRAUD", "name": "fraud-models"}
    assert body["message"]["blocks"][1]["block_id"] == "decide"
    action = body["actions"][0]
    assert (action["action_id"], action["block_id"], action["value"], action["type"]) == ("confirm", "decide", "d-1", "button")
    assert body["response_url"].startswith(slack.url)
    assert body["enterprise"] is None


@over_each_transport
def test_a_modal_shows_errors_changes_and_closes(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    slack.press("U0ANA", "confirm")
    opened = slack.wait_for(lambda: slack.open_view("U0ANA"))
    assert opened is not None
    incomplete = slack.submit("U0ANA", {})
    assert (incomplete.error, incomplete.field_errors) == ("incomplete", {"why": "Please complete this required field."})
    assert not [body for body in bot.bodies if body["type"] == "view_submission"]
    assert slack.submit("U0ANA", {"reason": "short"}).field_errors == {"why": "Say more"}
    assert slack.open_view("U0ANA") == opened
    slack.submit("U0ANA", {"why": {"reason": "change"}, "until": {"when": "4h"}})
    changed = slack.open_view("U0ANA")
    assert changed is not None
    assert (changed["title"]["text"], changed["id"]) == ("Changed", opened["id"])
    assert changed["hash"] != opened["hash"]
    sent = bot.last("view_submission")["view"]
    assert sent["state"]["values"]["until"]["when"]["selected_option"]["value"] == "4h"
    assert sent["state"]["values"]["why"]["reason"] == {"type": "plain_text_input", "value": "change"}
    slack.submit("U0ANA", {"reason": "because"})
    assert slack.open_view("U0ANA") is None


def test_a_person_may_cancel_a_modal(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    slack.press("U0ANA", "confirm")
    slack.wait_for(lambda: slack.open_view("U0ANA"))
    slack.close_modal("U0ANA")
    assert slack.open_view("U0ANA") is None
    with pytest.raises(NothingThere):
        slack.submit("U0ANA", {"reason": "because"})


def test_a_view_is_updated_only_with_its_latest_hash(slack: SandboxSlack, web: WebClient, bot: Bot, verdict: str) -> None:
    slack.press("U0ANA", "confirm")
    view = slack.wait_for(lambda: slack.open_view("U0ANA"))
    assert view is not None
    web.views_update(view_id=view["id"], hash=view["hash"], view=MODAL)
    assert refused(lambda: web.views_update(view_id=view["id"], hash=view["hash"], view=MODAL)) == "hash_conflict"


def test_a_trigger_works_once_and_expires() -> None:
    now = [1_700_000_000.0]
    with SandboxSlack(clock=lambda: now[0]) as slack:
        web = WebClient(slack.bot_token, base_url=slack.api_url)
        used, late = slack.workspace.new_trigger("U0ANA"), slack.workspace.new_trigger("U0ANA")
        assert refused(lambda: web.views_open(trigger_id=used, view={**MODAL, "title": plain("t" * 25)})) == "invalid_arguments"
        fresh = slack.workspace.new_trigger("U0ANA")
        web.views_open(trigger_id=fresh, view=MODAL)
        assert refused(lambda: web.views_open(trigger_id=fresh, view=MODAL)) == "exchanged_trigger_id"
        now[0] += 3.1
        assert refused(lambda: web.views_open(trigger_id=late, view=MODAL)) == "expired_trigger_id"


@pytest.mark.parametrize(
    "broken",
    [
        {"title": plain("t" * 25)},
        {"private_metadata": "m" * 3001},
        {"submit": None},
        {"blocks": []},
        {"callback_id": "c" * 256},
        {"colour": "red"},
    ],
)
def test_a_wrong_view_is_refused(slack: SandboxSlack, web: WebClient, broken: dict[str, Any]) -> None:
    trigger = slack.workspace.new_trigger("U0ANA")
    assert refused(lambda: web.views_open(trigger_id=trigger, view={**MODAL, **broken})) == "invalid_arguments"
    assert slack.open_view("U0ANA") is None


@over_each_transport
def test_a_slash_command_is_answered_to_the_one_who_typed_it(slack: SandboxSlack, bot: Bot) -> None:
    assert slack.slash("U0CHI", "/fraud-rollback now latency").acked
    assert [message["text"] for message in slack.ephemerals("U0CHI")] == ["Rolling back: now latency"]
    assert slack.messages("C0FRAUD") == []
    slack.slash("U0CHI", "/fraud-rollback modal")
    assert slack.wait_for(lambda: slack.open_view("U0CHI"))
    form = next(body for body in bot.bodies if body.get("command"))
    assert form["text"] == "now latency"
    assert (form["user_name"], form["channel_name"], form["team_domain"]) == ("chiara", "fraud-models", "fraud-sandbox")


def test_a_response_url_replaces_the_message_and_speaks_to_the_person(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    assert slack.press("U0ANA", "postpone").acked
    slack.wait_for(lambda: slack.ephemerals("U0ANA"))
    assert [message["text"] for message in slack.messages("C0FRAUD")] == ["postponed"]
    assert [message["text"] for message in slack.ephemerals("U0ANA")] == ["noted"]
    with pytest.raises(NothingThere):
        slack.press("U0ANA", "postpone", message_ts=verdict)


def test_a_response_url_works_five_times_within_half_an_hour() -> None:
    now = [1_700_000_000.0]
    with SandboxSlack(clock=lambda: now[0]) as slack:
        webhook = WebhookClient(slack.workspace.new_response_url("U0ANA", "C0FRAUD"))
        answers = [webhook.send(text="x", response_type="in_channel") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [404]
        assert answers[0].body == "ok"
        assert "used_url" in answers[5].body
        late = WebhookClient(slack.workspace.new_response_url("U0ANA", "C0FRAUD"))
        now[0] += 1801
        assert "expired_url" in late.send(text="x").body
        assert len(slack.messages("C0FRAUD")) == 5


def test_a_refusal_reaches_only_the_one_refused(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    slack.press("U0BEN", "refuse")
    slack.wait_for(lambda: slack.ephemerals("U0BEN"))
    assert slack.ephemerals("U0ANA") == []


@over_each_transport
def test_the_app_home_is_published_when_it_is_opened(slack: SandboxSlack, bot: Bot) -> None:
    assert slack.open_home("U0ANA").acked
    home = slack.wait_for(lambda: slack.home("U0ANA"))
    assert home is not None
    assert home["blocks"][0]["text"]["text"] == "live: fraud_v1"
    assert slack.home("U0BEN") is None


@over_each_transport
def test_an_unacknowledged_press_times_out_and_nothing_else_happens(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    outcome = slack.press("U0ANA", "silent")
    assert (outcome.acked, outcome.error, outcome.attempts) == (False, "operation_timeout", 1)
    assert outcome.ack_ms >= ACK_SECONDS * 1000
    assert len([body for body in bot.bodies if body.get("type") == "block_actions"]) == 1


def test_without_an_app_the_person_is_told(slack: SandboxSlack) -> None:
    outcome = slack.slash("U0ANA", "/fraud-rollback now")
    assert (outcome.acked, outcome.error) == (False, "dispatch_failed")
    assert "could not be reached" in slack.ephemerals("U0ANA")[0]["text"]


def test_many_people_press_at_once(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: slack.press(("U0ANA", "U0BEN", "U0CHI")[n % 3], "refuse"), range(60)))
    assert all(outcome.acked for outcome in outcomes)
    slack.wait_for(lambda: sum(len(slack.ephemerals(user)) for user in ("U0ANA", "U0BEN", "U0CHI")) == 60)


# Socket Mode: several connections, and connections that are replaced


def test_an_envelope_that_one_connection_leaves_unanswered_goes_to_another(slack: SandboxSlack, verdict: str) -> None:
    with running(slack, "websocket_client") as first, running(slack, "builtin") as second:
        outcome = slack.press("U0ANA", "silent")
        assert (outcome.acked, outcome.attempts) == (False, 2)
        envelopes = [
            [body["trigger_id"] for body in one.bodies if body.get("type") == "block_actions"] for one in (first, second)
        ]
        assert envelopes[0] == envelopes[1]
        assert len(envelopes[0]) == 1


def test_each_envelope_goes_to_one_of_several_connections(slack: SandboxSlack, verdict: str) -> None:
    with running(slack, "websocket_client") as first, running(slack, "builtin") as second:
        for _ in range(6):
            assert slack.press("U0ANA", "seen").attempts == 1
        seen = [len([body for body in one.bodies if body.get("type") == "block_actions"]) for one in (first, second)]
        assert sum(seen) == 6
        assert min(seen) > 0


def test_an_envelope_whose_connection_dies_goes_to_another_at_once() -> None:
    with SandboxSlack(ack_seconds=5) as slack, running(slack, "websocket_client"), ThreadPoolExecutor(1) as pool:
        web = WebClient(slack.bot_token, base_url=slack.api_url)
        web.chat_postMessage(channel="C0FRAUD", text="A verdict", blocks=VERDICT)
        mute = websocket.create_connection(web.apps_connections_open(app_token=slack.app_token)["url"], timeout=1)
        assert json.loads(mute.recv())["type"] == "hello"
        for _ in range(3):  # the two connections take turns
            pressed = pool.submit(lambda: slack.press("U0ANA", "seen"))
            try:
                assert json.loads(mute.recv())["type"] == "interactive"
                break
            except websocket.WebSocketTimeoutException:
                assert pressed.result().attempts == 1
        mute.close()
        outcome = pressed.result()
        assert (outcome.acked, outcome.attempts) == (True, 2)
        assert outcome.ack_ms < 5000


@pytest.mark.parametrize("transport", ["builtin", "websocket_client"])
def test_an_app_asked_to_reconnect_does_so_and_goes_on(slack: SandboxSlack, verdict: str, transport: str) -> None:
    with running(slack, transport):
        before = list(slack.sockets._connections)
        slack.sockets.disconnect("refresh_requested")
        wait_until(lambda: slack.sockets._connections and not set(before) & set(slack.sockets._connections))
        assert slack.press("U0ANA", "seen").acked


def test_a_ticket_works_once(slack: SandboxSlack, web: WebClient) -> None:
    url = web.apps_connections_open(app_token=slack.app_token)["url"]
    websocket.create_connection(url, timeout=5).close()
    with pytest.raises(websocket.WebSocketBadStatusException):
        websocket.create_connection(url, timeout=5)


# Signed HTTP


def test_an_app_with_another_signing_secret_rejects_every_delivery(slack: SandboxSlack, verdict: str) -> None:
    with running(slack, "signed_http", signing_secret="another") as bot:
        assert slack.press("U0ANA", "confirm").error == "dispatch_failed"
        assert slack.slash("U0ANA", "/fraud-rollback now").error == "dispatch_failed"
        assert not bot.bodies


# The page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_the_page_shows_changes_at_once_and_lets_a_person_decide(
    chromium: Any, slack: SandboxSlack, bot: Bot, web: WebClient
) -> None:
    page = chromium.new_page()
    page.goto(f"{slack.url}/?user=U0ANA")
    page.wait_for_selector("text=Nothing has been said here yet")
    ts = web.chat_postMessage(channel="C0FRAUD", text="A verdict", blocks=VERDICT)["ts"]
    page.wait_for_selector(f"[data-message-ts='{ts}'][data-action-id=confirm]", timeout=1000).click()
    page.wait_for_selector("dialog[open] [data-modal-submit]").click()
    assert page.wait_for_selector("[data-error-for=why]").inner_text() == "Please complete this required field."
    page.fill("dialog [data-action-id=reason]", "short")
    page.select_option("dialog [data-action-id=when]", "4h")
    page.click("[data-modal-submit]")
    page.wait_for_selector("[data-error-for=why]:has-text('Say more')")
    page.fill("dialog [data-action-id=reason]", "because")
    page.click("[data-modal-submit]")
    page.wait_for_selector("#modal", state="hidden")
    assert bot.last("view_submission")["view"]["state"]["values"]["until"]["when"]["selected_option"]["value"] == "4h"
    page.fill("[data-composer]", "/fraud-rollback now latency")
    page.press("[data-composer]", "Enter")
    assert "Only visible to you" in page.wait_for_selector("[data-ephemeral]").inner_text()
    page.select_option("[data-acting-as]", "U0BEN")
    page.wait_for_selector("[data-ephemeral]", state="detached")
    page.click("[data-open-home]")
    page.wait_for_selector("text=live: fraud_v1")
    page.close()


def test_the_page_renders_mrkdwn_and_injects_nothing(chromium: Any, slack: SandboxSlack, web: WebClient) -> None:
    nasty = "<img src=x onerror=alert(1)> <javascript:alert(1)|run> &lt;b&gt; `a*b*` *bold _both_* ~old~ <@U0BEN> <https://example.org|site>"
    file = web.files_upload_v2(channel="C0FRAUD", content="<script>alert(1)</script>", filename="evil.html")["file"]
    web.chat_postMessage(channel="C0FRAUD", text=nasty, blocks=[section(nasty), {"type": "header", "text": plain("<i>h</i>")}])
    page = chromium.new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(slack.url)
    shown = page.wait_for_selector(".section .mrkdwn")
    assert shown.inner_text().startswith(
        "<img src=x onerror=alert(1)> <javascript:alert(1)|run> <b> a*b* bold both old @Ben Okafor site"
    )
    assert page.eval_on_selector_all("#list a", "links => links.map(a => a.getAttribute('href'))")[-1] == "https://example.org"
    assert [page.locator(f".section {tag}").inner_text() for tag in ("code", "strong", "em", "s")] == [
        "a*b*",
        "bold both",
        "both",
        "old",
    ]
    assert page.inner_text("h3") == "<i>h</i>"
    response = page.request.get(file["url_private"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert said == []
    page.close()


def test_another_site_cannot_press_for_the_person(slack: SandboxSlack) -> None:
    def post(headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"{slack.url}/ui/slash", json.dumps({"user": "U0ANA", "line": "/x"}).encode(), headers)
        try:
            return urllib.request.urlopen(request, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code

    assert post({"Content-Type": "text/plain"}) == 415
    assert post({"Content-Type": "application/json", "Host": "evil.example"}) == 400
    assert slack.ephemerals("U0ANA") == []
    assert post({"Content-Type": "application/json"}) == 200
    assert slack.ephemerals("U0ANA")
