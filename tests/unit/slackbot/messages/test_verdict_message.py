"""The message of a decision in every state and of every verdict: what it says, its buttons, and Slack's limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from deployments.sandbox.slack.block_kit import block_problems
from flows.domain.action_plan import Change
from flows.domain.decision import Choice, Confirmation, Decision, Person
from flows.domain.decision_record import RecordKind
from flows.domain.policy import Policy
from flows.domain.power import Outlook
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action
from slackbot.messages.block_kit import ExceedsSlackLimit, SlackMessage
from slackbot.messages.verdict_message import changes, verdict_message
from slackbot.payloads import Question

Asking = Callable[..., Decision]

ASKED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
POLICY = Policy(promoters=("U0ANA", "S0PROMOTERS"), rollbackers=("U0CHI",))
STATES = list(
    product(VerdictKind, [None, *Choice], [(), (RecordKind.DECIDED,), *((RecordKind.DECIDED, one) for one in RecordKind)])
)


def shown(message: SlackMessage) -> str:
    return json.dumps(message.blocks, ensure_ascii=False)


def buttons(message: SlackMessage) -> dict[str, str]:
    elements = [item for block in message.blocks if block["type"] == "actions" for item in block["elements"]]
    return {item["action_id"]: item["value"] for item in elements}


def accepted_by_slack(message: SlackMessage) -> bool:
    blocks = list(message.blocks)
    assert block_problems(blocks) == []
    for block in Block.parse_all(blocks):
        block.validate_json()
    assert len(json.dumps({"text": message.text, "blocks": blocks}, ensure_ascii=False).encode()) <= 6000
    assert 0 < len(message.text) <= 3000
    return True


@pytest.mark.parametrize(("kind", "choice", "recorded"), STATES)
def test_every_state_of_every_verdict_is_within_slacks_limits(
    decision: Asking, kind: VerdictKind, choice: Choice | None, recorded: tuple[RecordKind, ...]
) -> None:
    assert accepted_by_slack(verdict_message(decision(kind, choice), POLICY, recorded=recorded))


@pytest.mark.parametrize("kind", VerdictKind)
def test_a_pending_message_has_three_buttons_that_name_decision_and_evidence(decision: Asking, kind: VerdictKind) -> None:
    values = buttons(verdict_message(decision(kind), POLICY))
    assert list(values) == [Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK]
    assert {Question.parse(value) for value in values.values()} == {
        Question(decision_id="ab-2026-03-1", evidence="sha256:" + "a" * 64)
    }


def test_without_postponements_left_there_is_no_such_button(decision: Asking) -> None:
    assert Action.POSTPONE not in buttons(verdict_message(decision(postponements_left=0), POLICY))


@pytest.mark.parametrize(("kind", "choice"), list(product(VerdictKind, Choice)))
def test_an_answered_message_has_no_buttons_and_says_who_and_why(decision: Asking, kind: VerdictKind, choice: Choice) -> None:
    message = verdict_message(decision(kind, choice), POLICY)
    assert buttons(message) == {}
    assert "<!date^1772449200^" in shown(message)  # when
    if choice is not Choice.EXPIRE:
        assert "<@U0ANA>" in shown(message)
        assert "“checked with the analysts”" in shown(message)
        assert "<@U0ANA>" in message.text


def test_the_four_verdicts_ask_four_questions(decision: Asking) -> None:
    titles = {kind: verdict_message(decision(kind), POLICY).blocks[0]["text"]["text"] for kind in VerdictKind}
    assert titles == {
        VerdictKind.PROMOTE: "fraud_v2 wins. Promote it?",
        VerdictKind.KEEP_BASELINE: "fraud_v2 does not win. Keep fraud_v1?",
        VerdictKind.INCONCLUSIVE: "fraud_v2: too early to tell. Extend the test?",
        VerdictKind.NOT_EVALUABLE: "fraud_v2 cannot be judged. End the test?",
    }


def test_a_pending_message_shows_numbers_plan_people_deadline_and_default(decision: Asking) -> None:
    text = shown(verdict_message(decision(), POLICY))
    for part in (
        "0.800 → 0.850 (+6.3 %; +5.0 % required)",
        "interval +2.1 % to +10 %",
        "0.910 → 0.912 (+0.2 points; limit 1)",
        "p = 0.00041 (below 0.014 required)",
        "83 ms (limit 100 ms)",
        "– not checked",
        "Not checked: without entity_id cards",
        "fraud-v1 80 %, fraud-v2 20 % → fraud-v2 100 %, fraud-v1 0 %",
        "traffic in steps: 50 % → 100 %",
        "<@U0ANA> or <!subteam^S0PROMOTERS>",
        "<!date^1772701200^",
        "if nobody decides, the baseline stays",
        "<https://prefect.example/runs/1|Prefect run>",
        "12,346 EUR (95 % interval 2,346 to 22,346)",
        "240 frauds caught, 60 missed, 24 false alerts",
    ):
        assert part in text, part


def test_keeping_the_baseline_promises_no_investigation(decision: Asking) -> None:
    text = shown(verdict_message(decision(VerdictKind.KEEP_BASELINE), POLICY))
    assert "investigat" not in text.lower()
    assert "stays in charge with all traffic" in text
    assert "decision document" in text


def test_nothing_can_be_promoted_against_a_verdict(decision: Asking) -> None:
    for kind in (VerdictKind.KEEP_BASELINE, VerdictKind.INCONCLUSIVE, VerdictKind.NOT_EVALUABLE):
        assert "takes all traffic" not in shown(verdict_message(decision(kind), POLICY))


def test_of_a_test_that_cannot_be_judged_what_is_broken_comes_first_and_nothing_passes(decision: Asking) -> None:
    message = verdict_message(decision(VerdictKind.NOT_EVALUABLE), POLICY)
    broken, numbers = message.blocks[1]["text"]["text"].split("\n")
    assert broken.startswith("The numbers cannot carry a verdict")
    assert numbers.startswith("The candidate catches 85.0 %")
    assert broken in message.text
    assert "passed" not in shown(message)
    assert shown(message).count("– does not count") == 4
    assert shown(message).count("– not checked") == 1


def test_what_is_missing_has_a_line_of_its_own(decision: Asking) -> None:
    asked = decision(VerdictKind.INCONCLUSIVE)
    outlook = Outlook(0.77, 1918, 18, "Recall needs 1918 more frauds, which takes about 18 days.")
    comparison, why = asked.request.verdict.reasons
    verdict = replace(asked.request.verdict, outlook=outlook, reasons=(comparison, f"{why} {outlook.sentence}"))
    message = verdict_message(replace(asked, request=replace(asked.request, verdict=verdict)), POLICY)
    assert message.blocks[1]["text"]["text"].split("\n")[:3] == [comparison, why, outlook.sentence]


def test_a_change_says_once_what_both_sides_have_in_common_and_what_stays(decision: Asking) -> None:
    asked = decision()
    diff = (
        Change("traffic", "v1 80 %", "v1 80 %, v2 20 %"),
        Change("registry", "v2 v1: Staging", "v2 v1: Production"),
        Change("registry", "v1 v3: Production", "v1 v3: Production"),
    )
    lines = changes(replace(asked.request.plan, changes=diff, traffic_steps=(100,)))
    assert lines == [
        "• traffic: v1 80 % → v1 80 %, v2 20 %",
        "• registry: v2 v1: Staging → Production",
        "• registry: v1 v3: Production, as now",
    ]


def test_of_very_many_deciders_the_first_are_named_and_the_others_counted(decision: Asking) -> None:
    policy = Policy(promoters=tuple(f"U{number:09}" for number in range(200)))
    text = shown(verdict_message(decision(), policy))
    assert "<@U000000014> or 185 more until" in text
    assert "<@U000000015>" not in text


def test_what_happened_is_said_only_when_it_is_recorded(decision: Asking) -> None:
    confirmed = decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    before = verdict_message(confirmed, POLICY, recorded=[RecordKind.DECIDED])
    after = verdict_message(confirmed, POLICY, recorded=[RecordKind.DECIDED, RecordKind.PROMOTED])
    assert "Done" not in shown(before)
    assert "is promoted" not in shown(before)
    assert after.blocks[0]["text"]["text"] == "fraud_v2 is promoted"
    assert "Done: all traffic goes to fraud_v2." in shown(after)
    assert before.digest != after.digest


def test_superseded_and_undone_read_so(decision: Asking) -> None:
    confirmed = decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    assert "took over before" in shown(verdict_message(confirmed, POLICY, recorded=[RecordKind.SUPERSEDED]))
    assert "was undone" in shown(verdict_message(confirmed, POLICY, recorded=[RecordKind.COMPENSATED]))


def test_a_postponed_message_says_until_when(decision: Asking) -> None:
    text = shown(verdict_message(decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE), POLICY))
    assert "evaluated again on <!date^1772528400^" in text


def test_a_message_that_waits_for_frauds_says_for_how_many_and_until_when(decision: Asking) -> None:
    asked = decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE)
    assert asked.claim is not None
    message = verdict_message(replace(asked, claim=replace(asked.claim, wanted_frauds=1250)), POLICY)
    assert accepted_by_slack(message)
    assert "when 1,250 frauds are seen, at the latest on <!date^1772528400^" in shown(message)


def test_the_same_truth_has_the_same_digest(decision: Asking) -> None:
    assert verdict_message(decision(), POLICY).digest == verdict_message(decision(), POLICY).digest


TWO = Policy(two_person=True)
FIRST = Confirmation(Person("U0BEN", "ben"), "recall <holds>", ASKED_AT)


def test_where_two_have_to_confirm_the_message_says_so_and_then_who_has(decision: Asking) -> None:
    nobody_yet = verdict_message(decision(policy=TWO), POLICY)
    assert "Two people have to confirm a promotion." in shown(nobody_yet)
    assert "Two people have to confirm" in nobody_yet.text
    one = verdict_message(replace(decision(policy=TWO), first_confirmation=FIRST), POLICY)
    assert accepted_by_slack(one)
    for text in (shown(one), one.text):
        assert "*<@U0BEN> has confirmed*" in text
        assert "A second person has to" in text
        assert "“recall &lt;holds&gt;”" in text
    assert list(buttons(one)) == [Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK]
    assert nobody_yet.digest != one.digest


@pytest.mark.parametrize("kind", VerdictKind)
def test_only_a_promotion_needs_two(decision: Asking, kind: VerdictKind) -> None:
    text = shown(verdict_message(decision(kind, policy=TWO), POLICY))
    assert ("Two people" in text) is (kind is VerdictKind.PROMOTE)


@pytest.mark.parametrize("choice", Choice)
def test_an_answered_message_names_both(decision: Asking, choice: Choice) -> None:
    asked = decision(VerdictKind.PROMOTE, choice, policy=TWO)
    assert asked.claim is not None
    message = verdict_message(replace(asked, claim=replace(asked.claim, first=FIRST)), POLICY)
    assert accepted_by_slack(message)
    assert "*<@U0BEN> has confirmed*" in shown(message)
    if choice is Choice.EXPIRE:
        assert "no second person confirmed in time, so the baseline stays" in shown(message)
    else:
        assert "<@U0ANA>" in shown(message)
    assert ("as the second person" in shown(message)) is (choice is Choice.CONFIRM)


@pytest.mark.parametrize("character", ["x", "模", "😀"])
def test_two_people_may_have_much_to_say(decision: Asking, character: str) -> None:
    reason = f"{character * 40} " * 12
    first, strict = replace(FIRST, reason=reason), Policy(two_person=True, initiator_may_promote=False)
    assert accepted_by_slack(verdict_message(replace(decision(policy=strict), first_confirmation=first), POLICY))
    for choice in Choice:
        asked = decision(VerdictKind.PROMOTE, choice, reason=reason, policy=strict)
        assert asked.claim is not None
        assert accepted_by_slack(verdict_message(replace(asked, claim=replace(asked.claim, first=first)), POLICY))


@pytest.mark.parametrize(
    ("initiator", "said"),
    [("U0CHI", "<@U0CHI> started this test and cannot confirm it."), ("", "who started this test is not known")],
)
def test_a_barred_initiator_is_said_up_front(decision: Asking, initiator: str, said: str) -> None:
    asked = decision(policy=Policy(initiator_may_promote=False))
    request = replace(asked.request, test=replace(asked.request.test, initiator=initiator))
    assert said in shown(verdict_message(replace(asked, request=request), POLICY))
    assert "started this test" not in shown(verdict_message(decision(policy=Policy()), POLICY))


def test_a_policy_without_promoters_says_so(decision: Asking) -> None:
    assert "the policy names no promoters" in shown(verdict_message(decision(), Policy()))


ODD = st.text(max_size=300) | st.sampled_from(
    [
        "<!channel>",
        "*bold* _it_ ~no~ `x`",
        "<https://evil.example|click>",
        "a\nb",
        "\u202eevil",
        "ﬁ" * 250,
        "模型" * 120,
        "x" * 256,
        "",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(kind=st.sampled_from(list(VerdictKind)), choice=st.sampled_from([None, *Choice]), name=ODD, reason=ODD, other=ODD)
def test_odd_names_and_reasons_are_escaped_and_fit(
    decision: Asking, kind: VerdictKind, choice: Choice | None, name: str, reason: str, other: str
) -> None:
    message = verdict_message(decision(kind, choice, candidate=name, baseline=other, reason=reason), POLICY)
    assert accepted_by_slack(message)
    for text in _mrkdwn(message.blocks):
        for token in text.split("<")[1:]:
            assert token.startswith(("@U0ANA>", "@U0CHI>", "!subteam^S0PROMOTERS>", "!date^", "https://")), token
            assert not token.startswith("https://evil")


def _mrkdwn(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _mrkdwn(item)]
    if isinstance(value, dict):
        own = [value["text"]] if value.get("type") == "mrkdwn" else []
        return own + [text for item in value.values() for text in _mrkdwn(item)]
    return []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(number=st.integers(min_value=0, max_value=10**40), repeated=st.integers(min_value=1, max_value=400))
def test_a_number_is_shown_whole_or_not_at_all(decision: Asking, number: int, repeated: int) -> None:
    asked = decision(VerdictKind.PROMOTE)
    change = Change("traffic", " ".join([f"{number} %"] * repeated), f"then {number} %")
    asked = replace(asked, request=replace(asked.request, plan=replace(asked.request.plan, changes=(change,))))
    try:
        message = verdict_message(asked, POLICY)
    except ExceedsSlackLimit:
        return
    assert shown(message).count(f"{number} %") >= repeated + 1
