"""The Slack stand-in answers the real slack_sdk as Slack's Web API does.

The first part also runs against another Slack-compatible server when SLACK_API_URL and SLACK_BOT_TOKEN are set
(SLACK_CHANNEL names a channel that the app has joined there; default `fraud-models`).
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler, ServerErrorRetryHandler
from slack_sdk.models.blocks import Block
from slack_sdk.models.metadata import Metadata

from deployments.sandbox.faults import Fault
from deployments.sandbox.slack import NothingThere, SandboxSlack
from tests.contract.bolt_app import MODAL, VERDICT, button, plain, refused, section
from tests.slack_world import wait_until

pytest_plugins = ("tests.contract.bolt_app",)

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


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

    wait_until(shared, "the file in the thread", 20)


def test_a_trigger_that_was_never_given_opens_nothing(server: Server) -> None:
    assert refused(lambda: server.web.views_open(trigger_id="1.2.3", view=MODAL)) == "invalid_trigger_id"


def test_a_view_that_is_not_there_cannot_be_updated(server: Server) -> None:
    assert refused(lambda: server.web.views_update(view_id="V0NOWHERE", view=MODAL)) == "not_found"


# Only on the stand-in: people, and faults


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
