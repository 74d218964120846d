"""What people do on the Slack stand-in reaches a real Bolt app as from Slack, and its answers them: presses, modals, commands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.webhook import WebhookClient

from deployments.sandbox.slack import NothingThere, SandboxSlack
from tests.contract.bolt_app import MODAL, Bot, over_each_transport, plain, refused

pytest_plugins = ("tests.contract.bolt_app",)


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


def test_many_people_press_at_once(slack: SandboxSlack, bot: Bot, verdict: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: slack.press(("U0ANA", "U0BEN", "U0CHI")[n % 3], "refuse"), range(60)))
    assert all(outcome.acked for outcome in outcomes)
    slack.wait_for(lambda: sum(len(slack.ephemerals(user)) for user in ("U0ANA", "U0BEN", "U0CHI")) == 60)
