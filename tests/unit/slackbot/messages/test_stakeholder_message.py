"""The business summary: right for each outcome, no word of statistics, harmless and within Slack's limits whatever the names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox.slack.block_kit import block_problems
from flows.domain.ab_test import Model
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import RecordKind
from flows.domain.savings import Money
from flows.domain.verdict import MetricsByArm, ModelMetrics, VerdictKind
from slackbot.messages.block_kit import SlackMessage
from slackbot.messages.stakeholder_message import stakeholder_message
from tests.unit.slackbot.conftest import make_decision

JARGON = re.compile(r"recall|precision|\bp ?=|p-value|signific|confiden|interval|alpha|hypothes|statistic|%|p95", re.IGNORECASE)
INVESTIGATED = "Why fraud_v2 is not used is investigated before it, or a successor, is tried again."
TRIED_AGAIN = "fraud_v2 can be tried again."
CHANGES = [kind for kind in RecordKind if kind.is_change and kind is not RecordKind.RETIRED]


def told(outcome: RecordKind = RecordKind.PROMOTED, savings: Money | None = None, **verdict: Any) -> str:
    made = make_decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    changed = replace(made.request.verdict, savings_per_month=savings, **verdict)
    return message(replace(made, request=replace(made.request, verdict=changed)), outcome).text


def message(made: Decision, outcome: RecordKind) -> SlackMessage:
    return stakeholder_message(made.request.test, outcome, made)


def test_a_promotion_is_told_with_its_gain_and_how_sure_it_is() -> None:
    text = told(savings=Money("12345.60", "2345.60", "22345.60", "EUR"))
    assert text.split(". ") == [
        "A better fraud model is in production",
        "*fraud_v2* checks all transactions now",
        "In its trial on real transactions it caught 85 of 100 frauds; until now it was 80",
        "About 91 of 100 alerts are really fraud, as before: customers and reviewers should notice little",
        "Expected: *a gain of about 12,300 EUR a month*, most likely between 2,350 and 22,300 EUR",
        "The new model is watched closely, and the one before can be put back within seconds.",
    ]


def test_a_gain_that_may_be_none_is_told_so() -> None:
    text = told(savings=Money("1200.00", "-310.40", "2710.00", "USD"))
    assert "*a gain of about 1,200 USD a month*. That is not certain: anything between a loss of about 310 USD and a gain" in text
    assert "*a loss of about 99 USD a month*" in told(savings=Money("-99.00", "-150.00", "-1.00", "USD"))
    assert "not known: the data carry no amounts" in told()


def test_other_alerts_than_before_are_told() -> None:
    before, after = ModelMetrics(0.8, 0.91, 0.8, 8, 2, 1), ModelMetrics(0.85, 0.95, 0.85, 8, 2, 1)
    assert "About 95 of 100 alerts are really fraud, until now it was 91" in told(metrics=MetricsByArm(before, after))
    unknown = ModelMetrics(None, None, None, 8, None, 1)
    assert "of 100" not in told(metrics=MetricsByArm(unknown, unknown))


@pytest.mark.parametrize(
    ("verdict", "choice", "why", "later"),
    [
        (VerdictKind.KEEP_BASELINE, Choice.CONFIRM, "did not pass its trial", INVESTIGATED),
        (VerdictKind.NOT_EVALUABLE, Choice.CONFIRM, "could not be judged", TRIED_AGAIN),
        (VerdictKind.PROMOTE, Choice.FORCE_ROLLBACK, "ended as a precaution", INVESTIGATED),
        (VerdictKind.PROMOTE, Choice.EXPIRE, "Nobody decided about *fraud_v2* in time", TRIED_AGAIN),
        (VerdictKind.INCONCLUSIVE, Choice.EXPIRE, "Nobody decided about *fraud_v2* in time", TRIED_AGAIN),
    ],
)
def test_a_baseline_that_stays_is_told_with_continuity_and_why(
    verdict: VerdictKind, choice: Choice, why: str, later: str
) -> None:
    text = message(make_decision(verdict, choice), RecordKind.BASELINE_KEPT).text
    assert why in text
    assert text.startswith("The fraud model stays as it is.")
    assert "*fraud_v1* checks all transactions as before. Customers and reviewers notice nothing." in text
    assert text.endswith(f"notice nothing. {later}")


def test_what_was_put_back_is_told_without_claiming_that_nobody_noticed() -> None:
    undone = told(RecordKind.COMPENSATED)
    assert "While *fraud_v2* was put in charge a check failed, and everything was put back automatically." in undone
    made = make_decision(VerdictKind.PROMOTE)
    emergency = message(made, RecordKind.EMERGENCY_REVERT).text
    assert "*fraud_v2* was taken out and *fraud_v1* put back by somebody on call." in emergency
    assert all("notice nothing" not in text and text.endswith(INVESTIGATED) for text in (undone, emergency))
    assert stakeholder_message(made.request.test, RecordKind.EMERGENCY_REVERT).text.endswith(TRIED_AGAIN), "no evidence yet"


@pytest.mark.parametrize("outcome", CHANGES)
def test_no_word_of_statistics_is_in_it(outcome: RecordKind) -> None:
    assert JARGON.search(told(outcome, Money("12345.60", "2345.60", "22345.60", "EUR"))) is None


def test_what_has_changed_nothing_has_no_summary() -> None:
    with pytest.raises(KeyError):
        told(RecordKind.SUPERSEDED)


amounts = st.decimals(-(10**12), 10**12, places=2).map(str)
names = st.text(max_size=256) | st.sampled_from(["<!channel>", "<https://evil.example|click>", "*bold*", "模" * 256, ""])


@given(names, names, st.sampled_from(CHANGES), st.none() | st.builds(Money, amounts, amounts, amounts, st.just("EUR")))
def test_whatever_the_names_and_amounts_slack_shows_it(one: str, two: str, outcome: RecordKind, savings: Money | None) -> None:
    made = make_decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    test = replace(made.request.test, baseline=Model(one, "1", "a"), candidate=Model(two, "2", "b"))
    verdict = replace(made.request.verdict, savings_per_month=savings)
    shown = message(replace(made, request=replace(made.request, test=test, verdict=verdict)), outcome)
    assert block_problems(list(shown.blocks)) == []
    assert not re.search(r"<[^>]", shown.text)
