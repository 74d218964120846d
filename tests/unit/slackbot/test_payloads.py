"""Forged and malformed payloads are refused with a sentence, and never repeat what was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackbot.payloads import AskedQuestion, PayloadInvalid, Press, Question, SlashCommand, Submission

DIGEST = "sha256:" + "a" * 64
GOOD = {"v": 1, "decision_id": "ab-1", "evidence": DIGEST}
PRESS: dict[str, Any] = {
    "type": "block_actions",
    "user": {"id": "U0ANA", "username": "ana", "name": "ana"},
    "channel": {"id": "C0FRAUD"},
    "trigger_id": "1.2",
    "response_url": "https://hooks.slack.example/1",
    "actions": [{"action_id": "verdict_confirm", "value": json.dumps(GOOD)}],
}


def test_a_question_survives_the_trip() -> None:
    question = Question(decision_id="ab-1", evidence=DIGEST)
    assert Question.parse(question.to_json()) == question
    assert Press.parse(PRESS).question == question


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{}",
        "null",
        "confirm",
        json.dumps({**GOOD, "v": 2}),
        json.dumps({**GOOD, "v": "1"}),
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({**GOOD, "evidence": "sha256:secret"}),
        json.dumps({**GOOD, "evidence": None}),
        json.dumps({**GOOD, "decision_id": ""}),
        json.dumps({**GOOD, "decision_id": "x" * 301}),
        json.dumps({**GOOD, "decision_id": 7}),
        json.dumps(GOOD)[:-1],
    ],
)
def test_a_forged_value_is_refused(value: str) -> None:
    with pytest.raises(PayloadInvalid, match="was not made by this release") as refused:
        Question.parse(value)
    assert "secret" not in str(refused.value)


@given(st.text())
def test_any_text_is_a_question_or_refused(value: str) -> None:
    with pytest.raises(PayloadInvalid):
        Question.parse(value)


@pytest.mark.parametrize(
    "change",
    [
        {"user": {"id": "<@U1>"}},
        {"user": {}},
        {"channel": None},
        {"actions": []},
        {"actions": PRESS["actions"] * 2},
        {"actions": [{"value": "x" * 2001}]},
        {"trigger_id": None},
    ],
)
def test_a_malformed_press_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PayloadInvalid):
        Press.parse({**PRESS, **change})


def test_a_command_is_read_from_its_form() -> None:
    form = {
        "command": "/fraud-rollback",
        "user_id": "U0CHI",
        "user_name": "chi",
        "channel_id": "D1",
        "trigger_id": "9",
        "text": "now x",
    }
    command = SlashCommand.parse(form)
    assert (command.user.id, command.user.name, command.channel.id, command.text) == ("U0CHI", "chi", "D1", "now x")
    assert command.press_id == SlashCommand.parse(form).press_id != SlashCommand.parse({**form, "trigger_id": "10"}).press_id


def test_a_submission_gives_what_was_entered() -> None:
    asked = AskedQuestion(decision_id="ab-1", evidence=DIGEST, channel="C0FRAUD")
    values = {
        "reason": {"reason": {"type": "plain_text_input", "value": " why "}},
        "until": {"until": {"type": "static_select", "selected_option": {"text": {}, "value": "3 days"}}},
        "note": {"note": {"type": "plain_text_input", "value": None}},
    }
    body = {"user": {"id": "U0ANA"}, "view": {"id": "V1", "private_metadata": asked.to_json(), "state": {"values": values}}}
    submission = Submission.parse(body)
    assert [submission.entered(name) for name in ("reason", "until", "note", "cause")] == ["why", "3 days", "", ""]
    assert AskedQuestion.parse(submission.view.private_metadata) == asked


@pytest.mark.parametrize("user", ["S0PROMOTERS", "C0FRAUD", "", "u0ana"])
def test_only_a_persons_id_is_a_person(user: str) -> None:
    """The policy names groups by their ids in the same list."""
    with pytest.raises(PayloadInvalid):
        Press.parse({**PRESS, "user": {"id": user}})
