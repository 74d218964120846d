"""Modals and rollback messages: presets, exact changes, Slack's limits, and never a dead end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from slack_sdk.models.views import View as SlackView

from deployments.sandbox.slack.block_kit import block_problems, view_problems
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Confirmation, Decision, Person
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.serving_state import INTENT, OPERATION, REVERT_TO, UNRECORDED, Predictor, ServingState
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Field
from slackbot.messages import rollback_messages
from slackbot.messages.block_kit import ExceedsSlackLimit, SlackMessage, escape, header, modal, plain, quote, section, select
from slackbot.messages.modals import confirm_modal, force_rollback_modal, fraud_rollback_modal, notice_modal, postpone_modal
from slackbot.messages.wording import Cause
from slackbot.payloads import AskedQuestion, AskedRollback

Asking = Callable[..., Decision]

ASKED = AskedQuestion(decision_id="ab-2026-03-1", evidence="sha256:" + "a" * 64, channel="C0FRAUD")
TITLES = {
    VerdictKind.PROMOTE: "Promote the candidate",
    VerdictKind.KEEP_BASELINE: "Keep the baseline",
    VerdictKind.INCONCLUSIVE: "Extend the test",
    VerdictKind.NOT_EVALUABLE: "End with the baseline",
}


def accepted(view: dict[str, Any]) -> str:
    assert view_problems(view) == []
    SlackView(**view).validate_json()
    return json.dumps(view, ensure_ascii=False)


@pytest.mark.parametrize("kind", VerdictKind)
def test_confirming_shows_the_exact_change_of_its_verdict(decision: Asking, kind: VerdictKind) -> None:
    view = confirm_modal(decision(kind), ASKED)
    text = accepted(view)
    assert view["title"]["text"] == TITLES[kind]
    assert AskedQuestion.parse(view["private_metadata"]) == ASKED
    assert ("Now → after" in text) is (kind is not VerdictKind.INCONCLUSIVE)
    assert ("fraud_v2 takes all traffic" in text) is (kind is VerdictKind.PROMOTE)


def test_the_first_of_two_confirms_nothing_yet_and_the_second_reads_who_did(decision: Asking) -> None:
    asked = decision(policy=Policy(two_person=True))
    first = confirm_modal(asked, ASKED)
    assert "Two people have to confirm a promotion." in accepted(first)
    assert first["submit"]["text"] == "Confirm as the first"
    confirmed = Confirmation(Person("U0BEN", "ben"), "", asked.created_at)
    second = confirm_modal(replace(asked, first_confirmation=confirmed), ASKED)
    assert "<@U0BEN> has confirmed" in accepted(second)
    assert second["submit"]["text"] == "Promote"


def test_postponing_offers_the_policys_times_with_the_first_chosen(decision: Asking) -> None:
    view = postpone_modal(decision(postponements_left=2), ASKED, Policy().postponements)
    accepted(view)
    element = next(block["element"] for block in view["blocks"] if block.get("block_id") == Field.UNTIL)
    assert [item["value"] for item in element["options"]] == list(Policy().postponements)
    assert [item["text"]["text"] for item in element["options"]][:2] == ["in 4 hours", "tomorrow 09:00 (your time)"]
    assert element["initial_option"]["value"] == "4 hours"
    assert "left, with this one: 2" in str(view)


def test_postponing_until_frauds_are_seen_says_how_many_there_are(decision: Asking) -> None:
    offered = ["4 hours", "250 frauds", "1 fraud"]
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 900, 820), ModelCounts(112, 90, 99, 90)))
    text = accepted(view := postpone_modal(decision(evidence=evidence), ASKED, offered))
    element = next(block["element"] for block in view["blocks"] if block.get("block_id") == Field.UNTIL)
    labels = {item["value"]: item["text"]["text"] for item in element["options"]}
    assert labels == {
        "4 hours": "in 4 hours",
        "250 frauds": "when 250 frauds are seen",
        "1 fraud": "when 1 fraud is seen",
    }
    assert "Seen so far: 1,112 labelled frauds" in text
    assert "Seen so far" not in str(postpone_modal(decision(evidence=evidence), ASKED, ["4 hours"]))
    assert "Seen so far" not in str(postpone_modal(decision(), ASKED, offered))


@pytest.mark.parametrize("view", [force_rollback_modal(ASKED), fraud_rollback_modal(AskedRollback(channel="C0FRAUD"))])
def test_a_rollback_needs_no_typing(view: dict[str, Any]) -> None:
    accepted(view)
    cause, note = (block for block in view["blocks"] if block["type"] == "input")
    assert cause["element"]["initial_option"]["value"] == Cause.MISBEHAVES
    assert note["optional"] is True


def test_a_notice_can_only_be_closed() -> None:
    view = notice_modal("Nothing has changed.")
    accepted(view)
    assert "submit" not in view


def state(baseline: int = 80, candidate: int = 20, *, gone: bool = False, **annotations: str) -> ServingState:
    point = json.dumps({"predictor": "fraud-v1", "spec": {"name": "fraud-v1"}})
    one = () if gone else (Predictor("fraud-v1", baseline),)
    return ServingState(
        name="fraud-predictor",
        namespace="models",
        resource_version="7",
        generation=1,
        predictors=(*one, Predictor("fraud-v2", candidate)),
        annotations={REVERT_TO: point, **annotations},
    )


def said(message: SlackMessage) -> str:
    assert block_problems(list(message.blocks)) == []
    return f"{message.text} {json.dumps(message.blocks, ensure_ascii=False)}"


def test_a_revert_says_before_and_after_who_and_why() -> None:
    text = said(rollback_messages.rolled_back(state(), state(100, 0), "U0CHI", "losses <rise>"))
    for part in (
        "Rolled back: fraud-v1 gets all traffic",
        "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 100 %",
        "<@U0CHI>",
        "losses &lt;rise&gt;",
    ):
        assert part in text


def test_a_revert_on_the_baseline_says_so() -> None:
    text = said(rollback_messages.rolled_back(state(100, 0), state(100, 0), "U0CHI", "x"))
    assert "fraud-v1 had all traffic already" in text
    assert "Rolled back" not in text


def test_a_revert_that_has_to_start_the_baseline_does_not_claim_that_traffic_moved() -> None:
    after = state(0, 100, **{INTENT: "revert:fraud-v1"})
    text = said(rollback_messages.rolled_back(state(candidate=100, gone=True), after, "U0CHI", "x"))
    assert "is being started again" in text
    assert "has all traffic" not in text


def test_a_baseline_that_was_deployed_anew_since_the_test_began_is_said() -> None:
    before = state()
    changed = Predictor("fraud-v1", 80, spec={"graph": {"name": "fraud-v1", "modelUri": "s3://models/fraud_v3"}})
    anew = replace(before, predictors=(changed, before.predictors[1]))
    assert "was changed since the test started" in said(rollback_messages.rolled_back(anew, state(100, 0), "U0CHI", "x"))
    assert "was changed since the test started" in said(rollback_messages.preview(anew))
    assert "was changed" not in said(rollback_messages.rolled_back(before, state(100, 0), "U0CHI", "x"))


def test_a_revert_tells_what_else_was_going_on() -> None:
    earlier = json.dumps([{"id": "r1", "actor": "ana (U0ANA)", "reason": "y", "at": "2026-03-02T09:00:00+00:00"}])
    before = state(**{OPERATION: "ab-1", UNRECORDED: earlier})
    text = said(rollback_messages.rolled_back(before, state(100, 0), "U0CHI", "x"))
    assert "ab-1 was being carried out; it stops" in text
    assert "An earlier rollback by ana (U0ANA) (<!date^1772442000^" in text
    unreadable = state(**{UNRECORDED: json.dumps([{"actor": "ana", "at": "<long ago>"}])})
    assert "(&lt;long ago&gt;)" in said(rollback_messages.rolled_back(unreadable, state(100, 0), "U0CHI", "x"))


def test_a_rollback_of_a_shadow_says_that_the_copies_end() -> None:
    predictors = (Predictor("fraud-v1", 100), Predictor("fraud-v2", 100, shadow=True))
    shadowed = replace(state(), predictors=predictors)
    text = said(rollback_messages.rolled_back(shadowed, state(100, 0), "U0CHI", "too much load"))
    assert "fraud-v2 was a shadow; nothing is copied to it any more" in text
    assert "was a shadow" not in said(rollback_messages.rolled_back(state(), state(100, 0), "U0CHI", "x"))


def test_a_preview_changes_nothing_and_says_what_would() -> None:
    assert "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 100 %, fraud-v2 0 %" in said(rollback_messages.preview(state()))
    assert "already: no traffic would move" in said(rollback_messages.preview(state(100, 0)))
    assert "would be started again first" in said(rollback_messages.preview(state(candidate=100, gone=True)))
    assert "names no baseline" in said(rollback_messages.preview(state(**{REVERT_TO: ""})))


@pytest.mark.parametrize(
    "message",
    [rollback_messages.still_trying("models", "fp"), rollback_messages.unreachable("models", "fp", "no answer <x>")],
)
def test_without_kubernetes_there_is_a_runbook(message: SlackMessage) -> None:
    text = said(message)
    assert "kubectl -n models edit sdep fp" in text
    assert "Rolled back" not in text


def test_what_remains_is_listed() -> None:
    text = rollback_messages.follow_up("", ["Prefect failed while starting", "the decision ab-1 is not answered"])
    assert "Still to be done" in text
    assert text.count("•") == 2
    assert "Still to be done" not in rollback_messages.follow_up("https://prefect.example/1", [])


@pytest.mark.parametrize(
    "build",
    [
        lambda: header("x" * 151),
        lambda: section(""),
        lambda: section("x" * 3001),
        lambda: modal("x" * 25, []),
        lambda: select("f", "label", []),
        lambda: SlackMessage("x", tuple(section("x" * 2900) for _ in range(3))),
        lambda: SlackMessage("x" * 3001),
    ],
)
def test_what_slack_would_refuse_raises(build: Callable[[], object]) -> None:
    with pytest.raises(ExceedsSlackLimit):
        build()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fraud_v2", "fraud_v2"),
        ("_fraud_ v2", "＿fraud＿ v2"),
        ("*b* ~s~ `c`", "∗b∗ ∼s∼ ˋcˋ"),
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
        ("a\n\tb", "a b"),
        ("\u202ereversed", "reversed"),
        ("", "(empty)"),
        ("n" * 60, "n" * 23 + "…" + "n" * 23),
    ],
)
def test_foreign_text_is_harmless(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_only_a_persons_own_words_lose_their_end() -> None:
    assert quote("word " * 100).endswith("…”")
    assert plain("80 % " * 100) == ("80 % " * 100).strip()
