"""The message of a breach after a promotion: the question first, one button, within Slack's limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deployments.sandbox.slack.block_kit import block_problems
from flows.domain.ab_test import ABTest, Model
from flows.domain.bake import Breach, BreachKind
from slackbot.identifiers import Action
from slackbot.messages.block_kit import SlackMessage
from slackbot.messages.breach_message import breach_message
from slackbot.payloads import Alarm

AT = datetime(2026, 1, 5, tzinfo=UTC)
TEST = ABTest("t", Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2"), AT, "run")
FOUND = "p95 140 ms is above 100 ms"


def message(found: str = FOUND, *, is_reverted: bool = False, kind: BreachKind = BreachKind.LATENCY) -> SlackMessage:
    made = breach_message(TEST, "t-1", Breach(kind, found), is_reverted=is_reverted)
    assert block_problems(list(made.blocks)) == []
    return made


@pytest.mark.parametrize("kind", BreachKind)
def test_it_asks_first_and_its_one_button_carries_promotion_and_cause(kind: BreachKind) -> None:
    made = message(kind=kind)
    assert made.blocks[0]["text"]["text"] == "fraud_v2 breaks a limit. Put fraud_v1 back?"
    [button] = next(block["elements"] for block in made.blocks if block["type"] == "actions")
    assert button["action_id"] == Action.REVERT
    assert Alarm.parse(button["value"]) == Alarm(decision_id="t-1", cause=f"{kind.words}: p95 140 ms is above 100 ms")
    assert made.text == f"fraud_v2 breaks a limit. Put fraud_v1 back? *{kind.words}*: p95 140 ms is above 100 ms"


def test_after_an_automatic_revert_it_says_what_was_done_and_has_no_button() -> None:
    made = message(is_reverted=True)
    assert "was reverted" in made.text
    assert "all traffic goes to fraud_v1" in made.text
    assert not [block for block in made.blocks if block["type"] == "actions"]


def test_foreign_text_formats_nothing_and_a_long_one_fits_the_modals_note() -> None:
    made = message("<!channel> *x* " + "y " * 600)
    shown = [block for block in made.blocks if block["type"] != "actions"]
    assert "<!channel>" not in made.text + str(shown)
    [button] = next(block["elements"] for block in made.blocks if block["type"] == "actions")
    assert len(Alarm.parse(button["value"]).cause) == 500
