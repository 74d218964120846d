"""Whatever names, numbers and reasons come: every message and view is one that Slack shows, within 6 kB, and harmless.

Too long names lose their middle; no number is ever cut.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View as SlackView

from deployments.sandbox.slack.block_kit import block_problems, view_problems
from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import RegistryEntry, Stage, plan_model_in_charge
from flows.domain.bake import Breach, BreachKind
from flows.domain.criteria import Criterion, CriterionName, CriterionStatus
from flows.domain.decision import Choice, Claim, Decision, DecisionRequest, Links, Person
from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind
from flows.domain.errors import NotAuthorized
from flows.domain.guardrails import Guardrail, GuardrailName, GuardrailStatus
from flows.domain.policy import Policy
from flows.domain.savings import Money
from flows.domain.serving_state import INTENT, OPERATION, REVERT_TO, UNRECORDED, Predictor, ServingState, describe_serving
from flows.domain.verdict import MetricsByArm, ModelMetrics, Verdict, VerdictKind
from slackbot.authorization import Permission, require
from slackbot.messages import modals, rollback_messages, wording
from slackbot.messages.block_kit import MESSAGE_BYTES, SlackMessage, escape, plain
from slackbot.messages.breach_message import breach_message
from slackbot.messages.short_names import NAME_BYTES, brief
from slackbot.messages.status_messages import Known, Overview, home_view, status_message
from slackbot.messages.verdict_message import verdict_message
from slackbot.overview import DECISIONS_SHOWN
from slackbot.payloads import MAX_INPUT_CHARACTERS, AskedQuestion, AskedRollback
from tests.unit.slackbot.conftest import ASKED_AT, make_decision, make_request

INJECTIONS = (
    "<!channel>",
    "<!here|look> <@U0EVIL>",
    "<https://evil.example|click> &lt;!everyone&gt;",
    "*bold* _it_ ~no~ `x` ```y```",
    "a\n\n> b\n• c",
    "\u202eevil\u2066\x00",
    "模型ﬁ😀" * 60,
    '&"<>\\' * 60,
    "model of many words " * 12,
    "x" * 256,
    "",
)
names = st.text(max_size=256) | st.sampled_from(INJECTIONS)
own_words = st.text(max_size=MAX_INPUT_CHARACTERS) | st.sampled_from(INJECTIONS)
sentences = st.text(min_size=1, max_size=250) | st.sampled_from([text for text in INJECTIONS if text])
predictors = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
test_ids = st.from_regex(r"[a-z0-9][-a-z0-9._]{0,99}", fullmatch=True)
counts = st.integers(0, 10**15)
shares = st.none() | st.floats(0, 1)
numbers = st.floats(-1e12, 1e12) | st.floats(1e-300, 1e-6)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
addresses = st.just("") | st.text("abcxyz/-_.~%?&=#|<>é", max_size=200).map(lambda path: f"https://host.example/{path}")
amounts = st.decimals(-(10**12), 10**12, places=2).map(str)
slack_ids = st.from_regex(r"[US][A-Z0-9]{8,10}", fullmatch=True)
policies = st.builds(
    lambda promoters, rollbackers: Policy(promoters=tuple(promoters), rollbackers=tuple(rollbackers)),
    st.lists(slack_ids, max_size=200, unique=True),
    st.lists(slack_ids, max_size=40, unique=True),
)
criteria = st.tuples(
    *(
        st.builds(
            Criterion, st.just(name), st.sampled_from(CriterionStatus), st.none() | numbers, numbers, st.just(""), sentences
        )
        for name in CriterionName
    )
)
metrics = st.builds(ModelMetrics, shares, shares, shares, counts, st.none() | counts, counts)


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    kind = draw(st.sampled_from(VerdictKind))
    unchecked = draw(st.lists(st.sampled_from(GuardrailName), max_size=3, unique=True))
    return replace(
        make_request(kind).verdict,
        metrics=MetricsByArm(draw(metrics), draw(metrics)),
        criteria=draw(criteria),
        reasons=(f"The candidate catches {draw(numbers)} % ({draw(numbers)}).", f"{draw(sentences)} {draw(counts):,} frauds."),
        guardrails=tuple(
            Guardrail(name, GuardrailStatus.NOT_CHECKED, draw(st.text(min_size=1, max_size=60))) for name in unchecked
        ),
        savings_per_month=draw(st.none() | st.builds(Money, amounts, amounts, amounts, st.just("EUR"))),
    )


@st.composite
def ab_tests(draw: st.DrawFn) -> ABTest:
    one, two = (Model(draw(names), draw(counts.map(str)), draw(predictors)) for _ in range(2))
    return ABTest(draw(test_ids), one, two, draw(moments), "run-1")


@st.composite
def requests(draw: st.DrawFn) -> DecisionRequest:
    test, verdict = draw(ab_tests()), draw(verdicts())
    request = make_request(verdict.kind)
    serving = ServingState(
        "d", "n", "1", 1, (Predictor(test.baseline.predictor, 80), Predictor(test.candidate.predictor, 20)), {}
    )
    entries = tuple(RegistryEntry(model.name, model.version, draw(st.sampled_from(Stage)), ()) for model in set(test.models))
    plan = plan_model_in_charge(test, request.plan.target, serving, entries, (5, 25, 50, 100))
    links = Links(*(draw(addresses) for _ in range(4)))
    left, when = draw(st.integers(0, 9)), draw(st.none() | moments)
    return replace(
        request, test=test, verdict=verdict, plan=plan, links=links, postponements_left=left, next_look_at=when, horizon_at=when
    )


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    choice, request = draw(st.none() | st.sampled_from(Choice)), draw(requests())
    if choice is None:
        return Decision(request, ASKED_AT, draw(moments))
    person = Person(draw(slack_ids | st.just("cli:root") | st.just("expiry")), draw(names))
    return Decision(
        request, ASKED_AT, draw(moments), Claim(choice, person, draw(own_words), draw(moments), draw(st.none() | moments))
    )


@st.composite
def servings(draw: st.DrawFn) -> ServingState:
    """A deployment in the middle of anything, with what people have written into its annotations."""
    one, two = draw(predictors), draw(predictors)
    actor = {"actor": f"{draw(names)} (U0ANA)", "at": draw(moments.map(datetime.isoformat) | st.just("yesterday"))}
    annotations = {
        REVERT_TO: draw(st.just("") | st.just(json.dumps({"predictor": one, "spec": {}}))),
        OPERATION: draw(st.just("") | test_ids),
        INTENT: draw(st.just("") | st.just(f"revert:{one}")),
        UNRECORDED: json.dumps([actor] * draw(st.integers(0, 3))),
    }
    first = (Predictor(one, 80),) if draw(st.booleans()) else ()
    return ServingState(
        "fraud-predictor", "models", "7", 1, (*first, Predictor(two, 20, shadow=draw(st.booleans()))), annotations
    )


def accepted(message: SlackMessage) -> None:
    blocks = list(message.blocks)
    assert block_problems(blocks) == []
    for block in Block.parse_all(blocks):
        block.validate_json()
    assert 0 < len(message.text) <= 3000
    assert size({"text": message.text, "blocks": blocks}) <= MESSAGE_BYTES
    harmless([message.text, *texts_of(blocks)])


def accepted_view(view: dict[str, Any]) -> None:
    assert view_problems(view) == []
    SlackView(**view).validate_json()
    for block in Block.parse_all(view["blocks"]):
        block.validate_json()
    assert size(view) <= MESSAGE_BYTES
    harmless(texts_of(view))


def size(shown: Any) -> int:
    return len(json.dumps(shown, ensure_ascii=False).encode())


def texts_of(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if not isinstance(value, dict):
        return []
    own = [value["text"]] if value.get("type") == "mrkdwn" else []
    return own + [text for item in value.values() for text in texts_of(item)]


def harmless(texts: list[str]) -> None:
    """Nothing mentions, links or alarms but what the app itself says."""
    for text in texts:
        for opened in text.split("<")[1:]:
            assert re.match(
                r"(@[UW]\w+|!subteam\^S\w+|!date\^-?\d+\^[^|>]*\|[^>]*|https://host\.example/[^|>]*\|[^>]*)>", opened
            ), opened
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", text)


@settings(max_examples=150, deadline=None)
@given(decisions(), policies, st.lists(st.sampled_from(RecordKind), max_size=4))
def test_every_verdict_message(decision: Decision, policy: Policy, recorded: list[RecordKind]) -> None:
    message = verdict_message(decision, policy, recorded=recorded)
    accepted(message)
    shown = json.dumps(message.blocks, ensure_ascii=False)
    for model in (decision.request.verdict.metrics.baseline, decision.request.verdict.metrics.candidate):
        assert f"{model.true_positives:,} frauds caught" in shown  # numbers are whole, however long the names


@settings(max_examples=150, deadline=None)
@given(decisions())
def test_every_modal_of_a_decision(decision: Decision) -> None:
    evidence = decision.request.verdict.evidence_digest
    asked = AskedQuestion(decision_id=decision.decision_id, evidence=evidence, channel="C0FRAUD")
    accepted_view(modals.confirm_modal(decision, asked))
    accepted_view(modals.postpone_modal(decision, asked, Policy().postponements))
    accepted_view(modals.force_rollback_modal(asked))
    accepted_view(modals.notice_modal(wording.already_decided(decision)))


@settings(max_examples=100, deadline=None)
@given(ab_tests(), sentences, st.sampled_from(BreachKind), st.booleans())
def test_every_breach_and_the_form_of_its_button(test: ABTest, found: str, kind: BreachKind, is_reverted: bool) -> None:  # noqa: FBT001
    accepted(breach_message(test, f"{test.test_id}-1", Breach(kind, found), is_reverted=is_reverted))
    accepted_view(modals.fraud_rollback_modal(AskedRollback(channel="C0FRAUD", decision_id=f"{test.test_id}-1"), found))


@settings(max_examples=150, deadline=None)
@given(servings(), servings(), own_words, names, addresses)
def test_every_answer_about_a_rollback(before: ServingState, after: ServingState, words: str, problem: str, url: str) -> None:
    accepted(rollback_messages.rolled_back(before, after, "U0CHI", words))
    accepted(rollback_messages.preview(before))
    accepted(rollback_messages.help_message(words))
    accepted(rollback_messages.still_trying(before.namespace, before.name))
    accepted(rollback_messages.unreachable(before.namespace, before.name, problem))
    accepted(rollback_messages.not_reverted(before.namespace, before.name, problem))
    accepted(SlackMessage(rollback_messages.follow_up(url, [problem] * 3)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(decisions(), st.none() | st.sampled_from(RecordKind), addresses), max_size=DECISIONS_SHOWN),
    servings(),
    moments,
    st.booleans(),
    names,
    own_words,
)
def test_every_status_and_home(
    known: list[tuple[Decision, RecordKind | None, str]],
    serving: ServingState,
    at: datetime,
    may_decide: bool,  # noqa: FBT001
    actor: str,
    why: str,
) -> None:
    told = {"actor": actor, "reason": why, "before": describe_serving(serving)}
    changed = DecisionRecord(1, RecordKind.EMERGENCY_REVERT, "r-1", at, told, GENESIS, GENESIS)
    overview = Overview(at, serving, [Known(*one) for one in known], changed)
    accepted(status_message(overview))
    accepted_view(home_view(overview, may_decide=may_decide))


@given(policies, st.sampled_from(Permission), st.booleans())
def test_every_refusal(policy: Policy, permission: Permission, are_groups_known: bool) -> None:  # noqa: FBT001
    groups = {one: frozenset[str]() for one in policy.promoters} if are_groups_known else {}
    with pytest.raises(NotAuthorized) as refused:
        require(permission, "U0NOBODY", policy, groups)
    accepted(SlackMessage(str(refused.value)))
    accepted_view(modals.notice_modal(str(refused.value)))


@given(names)
def test_a_brief_name_is_short_as_it_is_sent_and_stays_so(name: str) -> None:
    short = brief(name)
    assert size(escape(short)) <= NAME_BYTES
    assert brief(short) == short
    assert short == plain(name) or "…" in short


WORST = ("&" * 500, '"' * 500, "模" * 500, "😀" * 500, "& " * 250, "模型 " * 160)


@pytest.mark.parametrize("text", WORST)
@pytest.mark.parametrize("kind", VerdictKind)
@pytest.mark.parametrize("choice", [None, *Choice])
def test_the_worst_of_everything_at_once(text: str, kind: VerdictKind, choice: Choice | None) -> None:
    name = text[:256]
    model = Model(name, "1", "p" * 63)
    links = Links(*["https://host.example/" + "p" * 100] * 4)
    decision = make_decision(kind, choice, reason=text, test=ABTest("t" * 100, model, model, ASKED_AT, "run-1"), links=links)
    accepted(verdict_message(decision, Policy(promoters=tuple(f"U{number:010}" for number in range(200)))))
    known = [Known(decision, RecordKind.SUPERSEDED, "https://host.example/" + "p" * 60)] * DECISIONS_SHOWN
    told = {"actor": text, "reason": text, "why": text, "before": "p" * 63 + " 100 %, " + "q" * 63 + " 0 %"}
    changed = DecisionRecord(1, RecordKind.EMERGENCY_REVERT, "r-1", ASKED_AT, told, GENESIS, GENESIS)
    overview = Overview(ASKED_AT, "down", known, changed)
    accepted(status_message(overview))
    accepted_view(home_view(overview, may_decide=False))
    asked = AskedQuestion(decision_id=decision.decision_id, evidence="sha256:" + "a" * 64, channel="C0FRAUD")
    accepted_view(modals.confirm_modal(decision, asked))
    accepted_view(modals.notice_modal(wording.already_decided(decision)))
    accepted(rollback_messages.rolled_back(_gone(text), _gone(text), "U0CHI", text))
    accepted(rollback_messages.help_message(text))
    accepted_view(modals.fraud_rollback_modal(AskedRollback(channel="C0FRAUD"), text))
    for is_reverted in (True, False):
        accepted(breach_message(decision.request.test, "t" * 102, Breach(BreachKind.ERRORS, text), is_reverted=is_reverted))


def _gone(actor: str) -> ServingState:
    """Without its baseline, while a decision was being carried out and an earlier rollback is unrecorded."""
    noted = {
        REVERT_TO: json.dumps({"predictor": "p" * 63}),
        OPERATION: "t" * 102,
        UNRECORDED: json.dumps([{"actor": actor, "at": "x"}]),
    }
    return ServingState("fraud-predictor", "models", "7", 1, (Predictor("q" * 63, 100),), noted)


def test_a_long_name_is_short_wherever_it_stands_and_the_numbers_beside_it_are_whole() -> None:
    name = "the second model for card transactions without the card being there " * 3
    request = make_request(candidate=name, baseline="fraud_v1")
    message = verdict_message(Decision(request, ASKED_AT, ASKED_AT + timedelta(hours=72)), Policy(promoters=("U0ANA",)))
    shown = json.dumps(message.blocks, ensure_ascii=False)
    assert name.strip() not in shown
    assert shown.count(brief(name)) == 4
    assert "255 frauds caught, 45 missed, 25 false alerts" in shown
    assert f"{brief(name)} version 2: None → Production (champion)" in shown
