"""The app over signed HTTP: only what Slack signed, from this team, to the one address, is believed."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
import uuid
from urllib.parse import urlencode

import pytest

from slackbot.signed_http import REQUEST_PATH
from tests.e2e.app_in_process import ANA, CHI, World
from tests.slack_world import CHANNEL

pytest_plugins = ("tests.e2e.app_in_process",)


def send_signed(world: World, body: bytes, *, method: str = "POST", path: str = REQUEST_PATH) -> int:
    """As Slack signs it: the answer's status."""
    now = str(int(time.time()))
    digest = hmac.new(world.slack.signing_secret.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}
    address = f"http://127.0.0.1:{world.http_port}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers, method=method), timeout=5) as reply:
            return reply.status
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.parametrize("running", ["signed http"], indirect=True)
def test_over_http_nothing_unsigned_is_believed(world: World) -> None:
    decision = world.ask()
    press = {"type": "block_actions", "user": {"id": ANA}, "actions": []}
    for body in (urlencode({"payload": json.dumps(press)}).encode(), b"\xff\xfe", b""):
        headers = {"X-Slack-Request-Timestamp": str(int(time.time())), "X-Slack-Signature": "v0=" + "0" * 64}
        address = f"http://127.0.0.1:{world.http_port}{REQUEST_PATH}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=5)
        assert refused.value.code in (400, 401)
    assert world.bot.decision_log.read(decision.decision_id).is_pending


@pytest.mark.parametrize("running", ["signed http"], indirect=True)
@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("POST", REQUEST_PATH, {}, 200),
        ("POST", REQUEST_PATH, {"team_id": "T0ANOTHER"}, 403),
        ("HEAD", REQUEST_PATH, {}, 405),
        ("POST", "/slack", {}, 404),
    ],
)
def test_over_http_only_this_teams_requests_to_the_one_address_are_taken(
    world: World, method: str, path: str, more: dict[str, str], status: int
) -> None:
    form = {"command": "/fraud-rollback", "text": "now", "user_id": CHI, "user_name": "chiara", "channel_id": CHANNEL}
    body = urlencode({**form, "trigger_id": uuid.uuid4().hex, "team_id": "T0SANDBOX", **more}).encode()
    assert send_signed(world, body, method=method, path=path) == status
    if status == 200:
        world.told(CHI, "Rolled back: fraud-v1 gets all traffic")
    assert world.traffic()["fraud-v2"] == (0 if status == 200 else 20)


@pytest.mark.parametrize("running", ["signed http"], indirect=True)
@pytest.mark.parametrize(
    "body", [b"payload=[]", b"payload=" + b"%5B" * 30_000, b'{"type": "event_callback", "event": 1}', b"payload={"]
)
def test_over_http_what_nobody_can_read_is_the_senders_fault(world: World, body: bytes) -> None:
    assert send_signed(world, body) == 400
