"""How the Slack stand-in delivers to a real Bolt app: several connections, new ones, none, and what is not acknowledged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import websocket
from slack_sdk import WebClient

from deployments.sandbox.slack import SandboxSlack
from tests.contract.bolt_app import ACK_SECONDS, CONNECT_SECONDS, VERDICT, Bot, over_each_transport, running
from tests.slack_world import wait_until

pytest_plugins = ("tests.contract.bolt_app",)


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
        wait_until(
            lambda: slack.sockets._connections and not set(before) & set(slack.sockets._connections),
            "a new connection",
            CONNECT_SECONDS,
        )
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
