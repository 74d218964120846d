"""`/fraud-status` and the App Home: what is live, what waits, what was decided; each part alone when the others are down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from slack_sdk.models.views import View as SlackView

from deployments.sandbox.slack.block_kit import block_problems, view_problems
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import RecordKind
from flows.domain.serving_state import OPERATION, REVERT_TO, UNRECORDED, Predictor, ServingState
from flows.domain.verdict import VerdictKind
from slackbot.messages.block_kit import SlackMessage
from slackbot.messages.status_messages import Known, Overview, home_view, status_message
from slackbot.overview import DECISIONS_SHOWN

Asking = Callable[..., Decision]

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def serving(**annotations: str) -> ServingState:
    point = json.dumps({"predictor": "fraud-v1", "spec": {"name": "fraud-v1"}})
    predictors = (Predictor("fraud-v1", 80), Predictor("fraud-v2", 20))
    return ServingState("fraud-predictor", "models", "7", 1, predictors, {REVERT_TO: point, **annotations})


def overview(*known: Known, **more: Any) -> Overview:
    return replace(Overview(NOW, serving(), known), **more)


def said(message: SlackMessage) -> str:
    assert block_problems(list(message.blocks)) == []
    return f"{message.text} {json.dumps(message.blocks, ensure_ascii=False)}"


def shown(view: dict[str, Any]) -> str:
    assert view_problems(view) == []
    SlackView(**view).validate_json()
    return json.dumps(view, ensure_ascii=False)


def test_the_status_says_what_is_live_the_tests_day_and_the_open_question(decision: Asking) -> None:
    text = said(status_message(overview(Known(decision(), None, "https://slack.example/archives/C1/p1"))))
    for part in (
        "fraud-v1 80 %, fraud-v2 20 %",
        "ab-2026-03, day 52",
        "fraud_v2 wins. Promote it?",
        "To be answered until",
        "<https://slack.example/archives/C1/p1|Open the message>",
    ):
        assert part in text


def test_the_last_decision_is_what_really_came_of_a_decision(decision: Asking) -> None:
    promoted = Known(decision(choice=Choice.CONFIRM), RecordKind.PROMOTED, "")
    waiting = Known(decision(round=2), None, "")
    text = said(status_message(overview(waiting, promoted)))
    assert "*Last decision*: *fraud_v2 is promoted*" in text
    assert "<@U0ANA>" in text
    assert "No test has been decided here yet" in said(status_message(overview(waiting)))


def test_what_is_unfinished_is_said() -> None:
    entry = json.dumps([{"id": "r1", "actor": "ana (U0ANA)", "reason": "y", "at": "2026-03-02T09:00:00+00:00"}])
    text = said(status_message(overview(serving=serving(**{OPERATION: "ab-1", UNRECORDED: entry}))))
    assert "ab-1 is being carried out" in text
    assert "Still to be recorded: the rollback by ana (U0ANA)" in text


def test_a_system_that_is_down_is_one_sentence_and_the_rest_is_shown(decision: Asking) -> None:
    known = Known(decision(), None, "")
    without_cluster = said(status_message(overview(known, serving="Kubernetes failed while reading <it>")))
    assert "*Live* cannot be read: Kubernetes failed while reading &lt;it&gt;" in without_cluster
    assert "ab-2026-03, day 52" in without_cluster
    without_log = said(status_message(overview(decisions="the decision log failed")))
    assert "fraud-v1 80 %" in without_log
    assert "*Last decision* cannot be read" in without_log
    assert "cannot be read: down too" in shown(home_view(overview(serving="down", decisions="down too"), may_decide=True))


@pytest.mark.parametrize("may_decide", [True, False])
def test_the_home_shows_what_waits_and_for_whom_without_any_button(decision: Asking, *, may_decide: bool) -> None:
    waiting = Known(decision(round=2), None, "https://slack.example/archives/C1/p2")
    kept = Known(decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM), RecordKind.BASELINE_KEPT, "")
    text = shown(home_view(overview(waiting, kept), may_decide=may_decide))
    assert ("Waits for you" in text) is may_decide
    assert text.count("Promote it?") == 1  # where it waits, and not with the test again
    assert "fraud_v1 stays in charge" in text
    assert "Open the message" in text
    assert "button" not in text


@pytest.mark.parametrize("kind", VerdictKind)
@pytest.mark.parametrize("choice", [None, *Choice])
def test_the_longest_home_is_within_slacks_limits(decision: Asking, kind: VerdictKind, choice: Choice | None) -> None:
    one = decision(kind, choice, reason="<&>" * 160)
    rounds = range(DECISIONS_SHOWN)
    known = [Known(replace(one, request=replace(one.request, round=number)), None, "https://x.example") for number in rounds]
    shown(home_view(overview(*known, at=NOW + timedelta(days=400)), may_decide=True))
    said(status_message(overview(*known)))
