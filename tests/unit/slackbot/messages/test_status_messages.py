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
from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind
from flows.domain.serving_state import OPERATION, REVERT_TO, UNRECORDED, Predictor, ServingState
from flows.domain.verdict import VerdictKind
from slackbot.messages.block_kit import SlackMessage, local_time
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


MOVED = {"traffic": {"before": "fraud-v1 80 %, fraud-v2 20 %", "after": "fraud-v1 0 %, fraud-v2 100 %"}}
MOVED_IN_WORDS = "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 0 %, fraud-v2 100 %"


@pytest.mark.parametrize(
    ("kind", "payload", "told"),
    [
        (RecordKind.PROMOTED, MOVED, f"promotion, {MOVED_IN_WORDS}"),
        (RecordKind.BASELINE_KEPT, MOVED, "the baseline is kept, fraud-v1 80 %"),
        (
            RecordKind.COMPENSATED,
            {**MOVED, "why": "p95 <140> ms"},
            f"a promotion was undone, {MOVED_IN_WORDS}. Why: “p95 &lt;140&gt; ms”",
        ),
        (
            RecordKind.EMERGENCY_REVERT,
            {"actor": "chiara (U0CHI)", "reason": "wrong alerts", "before": "fraud-v2 100 %"},
            "emergency rollback by chiara (U0CHI), before it fraud-v2 100 %. Reason: “wrong alerts”",
        ),
        (RecordKind.RETIRED, {"predictor": "fraud-v1"}, "the predictor fraud-v1 is retired"),
    ],
)
def test_the_last_change_says_what_from_what_by_whom_and_why(kind: RecordKind, payload: dict[str, Any], told: str) -> None:
    assert kind.is_change
    record = DecisionRecord(1, kind, "d-1", NOW, payload, GENESIS, GENESIS)
    assert f"*Last change*: {local_time(NOW)}: {told}" in status_message(overview(changed=record)).text
    assert told in shown(home_view(overview(changed=record), may_decide=True))


def test_before_any_change_that_is_said() -> None:
    assert "*Last change*: none is recorded yet" in said(status_message(overview()))


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
    assert "*Last change* cannot be read: down" in said(status_message(overview(changed="down")))
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
