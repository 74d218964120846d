"""The real app on a real decision log, in Socket Mode and over signed HTTP, between the stand-ins of Slack and Kubernetes."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest

from deployments.sandbox.faults import Fault
from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.slack import NothingThere
from flows.domain.bake import Breach, BreachKind
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Decision, Person
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action, Field, View
from slackbot.late_messages import LateMessages
from slackbot.messages.block_kit import section
from slackbot.messages.breach_message import breach_message
from slackbot.signed_http import REQUEST_PATH
from tests.e2e.app_in_process import (
    ANA,
    BEN,
    CHI,
    ONCE,
    TEAM,
    World,
    claim_directly,
    confirm,
    serving_app,
)
from tests.slack_world import CHANNEL, WHERE, deploy, question, text_of

pytest_plugins = ("tests.e2e.app_in_process",)


@pytest.fixture
def broken_database(world: World) -> Iterator[Callable[[], None]]:
    """Call it to lose the table of decisions until the test ends."""

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(world.database)) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    yield lambda: rename("decisions", "elsewhere")
    rename("elsewhere", "decisions")


def test_a_confirmation_is_claimed_once_redrawn_and_delivered(world: World) -> None:
    decision = world.ask()
    outcome = confirm(world, ANA, **{Field.REASON: "looks *good* <!channel>"})
    assert outcome.acked
    claim = world.answered(decision).claim
    assert claim is not None
    assert (claim.choice, claim.actor, claim.reason) == (Choice.CONFIRM, Person(ANA, "ana"), "looks *good* <!channel>")
    assert len(world.nudges) == 1
    text = text_of(world.message())
    assert "<@U0ANA>" in text
    assert "<!channel>" not in text
    assert len([one for one in world.slack.messages(CHANNEL) if one["metadata"]]) == 1


def test_two_at_the_same_second_make_one_claim_and_the_other_is_told(world: World) -> None:
    decision = world.ask()
    for user in (ANA, CHI):
        action = Action.CONFIRM if user == ANA else Action.FORCE_ROLLBACK
        assert world.slack.press(user, action).acked
        world.wait(lambda user=user: world.slack.open_view(user))
    barrier = threading.Barrier(2)

    def submit(user: str) -> Any:
        barrier.wait()
        return world.slack.submit(user)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(submit, [ANA, CHI]))
    claim = world.answered(decision).claim
    assert claim is not None
    loser = CHI if claim.actor.id == ANA else ANA

    def loser_knows() -> bool:
        shown = [text_of(one) for one in world.slack.ephemerals(loser)] + [json.dumps(world.slack.open_view(loser) or {})]
        return any("decided before" in text and f"<@{claim.actor.id}>" in text for text in shown)

    world.wait(loser_knows)
    kinds = [record.kind for record in world.bot.decision_log.records(decision.decision_id)]
    assert kinds == [RecordKind.DECIDED]
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}  # whoever won, who asked for safety got it


def test_ten_at_once_make_one_claim_and_nine_are_told(world: World) -> None:
    decision = world.ask()
    people = [user.id for user in TEAM]
    for user in people:
        assert world.slack.press(user, Action.CONFIRM).acked
    for user in people:
        world.wait(lambda user=user: world.slack.open_view(user))
    barrier = threading.Barrier(len(people))

    def submit(user: str) -> Any:
        barrier.wait()
        return world.slack.submit(user)

    with ThreadPoolExecutor(len(people)) as pool:
        assert all(outcome.acked for outcome in pool.map(submit, people))
    claim = world.answered(decision).claim
    assert claim is not None

    def told(user: str) -> bool:
        shown = [text_of(one) for one in world.slack.ephemerals(user)] + [json.dumps(world.slack.open_view(user) or {})]
        return any("decided before" in text and f"<@{claim.actor.id}>" in text for text in shown)

    world.wait(lambda: sum(told(user) for user in people) == len(people) - 1)
    assert not told(claim.actor.id)
    assert len(world.nudges) == 1


def test_a_press_after_the_decision_changes_nothing_and_says_who_decided(world: World) -> None:
    decision = world.ask()
    old = world.message()
    claim_directly(world, decision, Choice.POSTPONE, until=datetime.now(UTC) + timedelta(hours=4))
    outcome = world.slack.press(ANA, Action.CONFIRM, message_ts=old["ts"])  # the message still shows its buttons
    assert outcome.acked
    assert "*Postponed* by <@U0BEN>" in world.told(ANA, "decided before", "Your press has changed nothing")
    assert world.answered(decision).claim is not None
    assert world.slack.open_view(ANA) is None
    with pytest.raises(NothingThere):  # redrawn: the buttons are gone
        world.slack.press(ANA, Action.CONFIRM, message_ts=old["ts"])


def test_a_modal_submitted_after_the_decision_says_so(world: World) -> None:
    decision = world.ask()
    world.slack.press(ANA, Action.CONFIRM)
    world.wait(lambda: world.slack.open_view(ANA))
    claim_directly(world, decision, Choice.FORCE_ROLLBACK)
    world.slack.submit(ANA)
    view = world.slack.open_view(ANA)
    assert view is not None
    assert view["title"]["text"] == "Nothing was done"
    assert "<@U0BEN>" in str(view)


def test_the_status_command_tells_one_person_what_is_live(world: World) -> None:
    decision = world.ask()
    outcome = world.slack.slash(BEN, "/fraud-status")  # who may decide nothing may look
    assert outcome.acked
    text = world.told(BEN, "fraud-v1 80 %, fraud-v2 20 %", decision.request.test.test_id)
    assert f"/archives/{CHANNEL}/p{str(world.message()['ts']).replace('.', '')}" in text
    assert world.bot.decision_log.read(decision.decision_id).is_pending


def test_the_home_is_drawn_anew_whenever_somebody_opens_it(world: World) -> None:
    decision = world.ask()

    def home(user: str, *parts: str) -> str:
        assert world.slack.open_home(user).acked
        return world.wait(lambda: all(part in str(world.slack.home(user)) for part in parts) and str(world.slack.home(user)))

    assert "Waits for you" in home(ANA, "fraud-v1 80 %", "fraud_v2 wins. Promote it?")
    assert "Waits for an answer" in home(BEN, "fraud_v2 wins. Promote it?")
    claim_directly(world, decision, Choice.FORCE_ROLLBACK)
    assert "<@U0BEN>" in home(ANA, "rollback forced")


def test_nobody_unauthorised_can_decide_or_roll_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    decision = world.ask()
    caplog.set_level("INFO", logger="slackbot")
    alarm(world, decision)
    for action in Action:
        assert world.slack.press(BEN, action).acked
    assert world.slack.slash(BEN, "/fraud-rollback now I want to").acked
    assert world.slack.slash(BEN, "/fraud-rollback").acked
    world.wait(lambda: len(world.slack.ephemerals(BEN)) == 6)
    for message in world.slack.ephemerals(BEN):
        assert "Nothing has changed." in message["text"]
        assert "<@U0ANA>" in message["text"]
    assert world.slack.open_view(BEN) is None
    assert world.bot.decision_log.read(decision.decision_id).is_pending
    assert world.traffic() == {"fraud-v1": 80, "fraud-v2": 20}
    refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(refused) == 6
    assert all("actor=U0BEN" in line and "NotAuthorized" in line for line in refused)


def test_a_rollbacker_may_not_promote_but_reads_what_they_can_do(world: World) -> None:
    decision = world.ask()
    world.slack.press(CHI, Action.CONFIRM)
    assert "roll back, with *Force rollback…*" in world.told(CHI, "You cannot answer the verdict")
    assert world.bot.decision_log.read(decision.decision_id).is_pending


@ONCE
def test_rights_are_looked_at_again_when_the_modal_is_submitted(world: World) -> None:
    """A modal opened by one who may, submitted by another: the same metadata under another name."""
    decision = world.ask()
    world.slack.press(ANA, Action.CONFIRM)
    view = world.wait(lambda: world.slack.open_view(ANA))
    with world.slack.workspace.lock:
        world.slack.workspace.modals[BEN] = view
    world.slack.submit(BEN)
    assert "You cannot answer the verdict" in str(world.slack.open_view(BEN))
    assert world.bot.decision_log.read(decision.decision_id).is_pending


def test_two_people_promote_and_one_alone_does_not(world: World) -> None:
    decision, (bea, cem) = world.ask(policy=Policy(two_person=True)), (TEAM[0].id, TEAM[1].id)
    log = world.bot.decision_log
    assert confirm(world, bea, **{Field.REASON: "recall holds"}).acked
    world.told(bea, "Your confirmation is kept", "A second person has to confirm")
    world.wait(lambda: f"*<@{bea}> has confirmed*" in text_of(world.message()))
    assert "actions" in str(world.message()["blocks"]), "the second person needs the buttons"
    assert log.read(decision.decision_id).is_pending
    assert world.nudges == []
    [line] = world.wait(lambda: world.slack.thread(world.message()["ts"]))
    assert "<!subteam^S0PROMOTERS>" in line["text"]
    assert world.slack.press(bea, Action.CONFIRM).acked
    assert "Nothing has changed." in world.told(bea, "You have confirmed this already", "ask somebody else")
    assert world.slack.press(BEN, Action.CONFIRM).acked
    world.told(BEN, "You cannot answer the verdict")
    assert confirm(world, cem).acked
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.first is not None
    assert (claim.choice, claim.first.actor.id, claim.actor.id) == (Choice.CONFIRM, bea, cem)
    shown = text_of(world.message())
    assert f"*<@{bea}> has confirmed*" in shown
    assert f"as the second person by <@{cem}>" in shown
    kinds = [record.kind for record in log.records(decision.decision_id)]
    assert kinds == [RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED]
    assert len(world.nudges) == 1


def test_two_who_confirm_at_the_same_second_are_the_two(world: World) -> None:
    decision, people = world.ask(policy=Policy(two_person=True)), [TEAM[0].id, TEAM[1].id]
    for user in people:
        assert world.slack.press(user, Action.CONFIRM).acked
    for user in people:
        world.wait(lambda user=user: world.slack.open_view(user))
    barrier = threading.Barrier(2)

    def submit(user: str) -> Any:
        barrier.wait()
        return world.slack.submit(user)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(submit, people))
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.first is not None
    assert {claim.actor.id, claim.first.actor.id} == set(people)
    kinds = [record.kind for record in world.bot.decision_log.records(decision.decision_id)]
    assert kinds == [RecordKind.CONFIRMED_FIRST, RecordKind.DECIDED]


def test_one_person_is_enough_for_safety_whatever_a_promotion_needs(world: World) -> None:
    decision = world.ask(policy=Policy(two_person=True))
    assert confirm(world, TEAM[0].id).acked
    world.told(TEAM[0].id, "Your confirmation is kept")
    world.slack.press(CHI, Action.FORCE_ROLLBACK)
    world.wait(lambda: world.slack.open_view(CHI))
    assert world.slack.submit(CHI).acked
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.choice is Choice.FORCE_ROLLBACK
    assert f"*<@{TEAM[0].id}> has confirmed*" in text_of(world.message())
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}


def test_who_started_the_test_cannot_promote_where_the_policy_says_so(world: World) -> None:
    test, policy = question(VerdictKind.PROMOTE, f"ab-{uuid.uuid4().hex[:8]}").test, Policy(initiator_may_promote=False)
    decision = world.ask(test=replace(test, initiator=ANA), policy=policy)
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert "Nothing has changed." in world.told(ANA, "You started this test", "ask somebody else who may")
    assert world.slack.open_view(ANA) is None
    view = world.slack.press(TEAM[0].id, Action.CONFIRM) and world.wait(lambda: world.slack.open_view(TEAM[0].id))
    with world.slack.workspace.lock:
        world.slack.workspace.modals[ANA] = view  # somebody else's modal under her name
    world.slack.submit(ANA)
    assert "You started this test" in str(world.slack.open_view(ANA))
    assert world.bot.decision_log.read(decision.decision_id).is_pending
    world.slack.submit(TEAM[0].id)
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.actor.id == TEAM[0].id


@ONCE
def test_a_test_that_nobody_is_known_to_have_started_is_not_promoted_then(world: World) -> None:
    decision = world.ask(policy=Policy(initiator_may_promote=False))
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert "Nothing has changed." in world.told(ANA, "who started this one is not known", "postpone it or force a rollback")
    assert world.bot.decision_log.read(decision.decision_id).is_pending


def test_a_button_of_other_evidence_does_nothing_and_the_message_is_redrawn(world: World) -> None:
    decision = world.ask()
    shown = world.message()
    forged = json.loads(json.dumps(shown["blocks"]).replace(decision.request.verdict.evidence_digest, "sha256:" + "0" * 64))
    world.bot.client.chat_update(channel=CHANNEL, ts=shown["ts"], text="as it was before", blocks=forged)
    world.slack.press(ANA, Action.CONFIRM)
    world.told(ANA, "nothing has been done")
    world.wait(lambda: "0" * 64 not in str(world.message()["blocks"]))
    assert decision.request.verdict.evidence_digest in str(world.message()["blocks"])
    assert world.slack.open_view(ANA) is None
    assert world.bot.decision_log.read(decision.decision_id).is_pending


def test_a_malformed_button_is_refused_clearly(world: World) -> None:
    world.ask()
    shown = world.message()
    for value in ("{}", "confirm", '{"v":2,"decision_id":"x","evidence":"y"}'):
        forged = [block for block in shown["blocks"] if block["type"] == "actions"]
        forged[0]["elements"][0]["value"] = value
        world.bot.client.chat_update(channel=CHANNEL, ts=shown["ts"], text="forged", blocks=forged)
        before = len(world.slack.ephemerals(ANA))
        assert world.slack.press(ANA, Action.CONFIRM).acked
        world.wait(lambda before=before: len(world.slack.ephemerals(ANA)) > before)
        assert "was not made by this release" in world.slack.ephemerals(ANA)[-1]["text"]


def test_a_postponement_is_in_the_persons_own_time(world: World) -> None:
    decision = world.ask(VerdictKind.INCONCLUSIVE)
    world.slack.press(ANA, Action.POSTPONE)
    world.wait(lambda: world.slack.open_view(ANA))
    assert world.slack.submit(ANA, {Field.UNTIL: "tomorrow 09:00"}).acked
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.due_at is not None
    lisbon = claim.due_at.astimezone(ZoneInfo("Europe/Lisbon"))
    assert (lisbon.hour, lisbon.minute) == (9, 0)
    assert "*Postponed* by <@U0ANA>" in text_of(world.message())


def test_a_postponement_beyond_the_last_look_is_said_at_its_field(world: World) -> None:
    decision = world.ask(VerdictKind.INCONCLUSIVE, horizon_at=datetime.now(UTC) + timedelta(hours=5))
    world.slack.press(ANA, Action.POSTPONE)
    world.wait(lambda: world.slack.open_view(ANA))
    outcome = world.slack.submit(ANA, {Field.UNTIL: "3 days"})
    assert "last look" in outcome.field_errors[Field.UNTIL]
    assert world.bot.decision_log.read(decision.decision_id).is_pending
    assert world.slack.submit(ANA, {Field.UNTIL: "4 hours"}).field_errors == {}
    assert world.answered(decision).claim is not None


def test_a_postponement_until_frauds_are_seen_keeps_their_number(world: World) -> None:
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(4000, 3200, 3516, 3200), ModelCounts(1000, 880, 967, 880)))
    decision = world.ask(VerdictKind.INCONCLUSIVE, evidence=evidence)
    world.slack.press(ANA, Action.POSTPONE)
    view = world.wait(lambda: world.slack.open_view(ANA))
    assert "when 6,000 frauds are seen" in str(view)
    outcome = world.slack.submit(ANA, {Field.UNTIL: "250 frauds"})
    assert "250 frauds are seen already (the evidence has 5,000)" in outcome.field_errors[Field.UNTIL]
    assert world.bot.decision_log.read(decision.decision_id).is_pending
    assert world.slack.submit(ANA, {Field.UNTIL: "6000 frauds"}).field_errors == {}
    claim = world.answered(decision).claim
    assert claim is not None
    assert (claim.choice, claim.wanted_frauds, claim.due_at) == (Choice.POSTPONE, 6000, decision.request.horizon_at)
    assert "when 6,000 frauds are seen, at the latest on" in text_of(world.message())
    assert [one.decision_id for one in world.bot.decision_log.waiting_for_frauds()] == [decision.decision_id]
    assert world.bot.decision_log.wake(decision.decision_id)  # so that no other test finds it


def test_force_rollback_moves_the_traffic_and_answers_the_decision(world: World) -> None:
    decision = world.ask()
    world.slack.press(CHI, Action.FORCE_ROLLBACK)
    world.wait(lambda: world.slack.open_view(CHI))
    assert world.slack.submit(CHI, {Field.NOTE: "cards blocked"}).acked
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.choice is Choice.FORCE_ROLLBACK
    assert claim.reason == "the candidate misbehaves in production: cards blocked"
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}
    world.told(CHI, "Rolled back: fraud-v1 gets all traffic", "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 100 %, fraud-v2 0 %")


def test_fraud_rollback_now_moves_traffic_and_tells_the_channel_and_what_remains(world: World) -> None:
    assert world.slack.slash(CHI, "/fraud-rollback now fraud losses *rise*").acked
    world.told(CHI, "Rolled back: fraud-v1 gets all traffic")
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}
    world.told(CHI, "Still to be done", "Prefect failed")  # Prefect is down in these tests
    announced = world.wait(lambda: [one for one in world.slack.messages(CHANNEL) if "fraud losses" in one["text"]])
    assert "<@U0CHI>" in text_of(announced[0])
    assert "fraud losses ∗rise∗" in text_of(announced[0])
    state = world.bot.emergency.read()
    assert state.epoch == 2
    assert [entry["actor"] for entry in state.unrecorded] == ["chiara (U0CHI)"]
    assert world.slack.slash(CHI, "/fraud-rollback now").acked
    world.told(CHI, "fraud-v1 had all traffic already", "is still being recorded")


def test_fraud_rollback_opens_a_preset_modal(world: World) -> None:
    assert world.slack.slash(CHI, "/fraud-rollback").acked
    view = world.wait(lambda: world.slack.open_view(CHI))
    assert view["callback_id"] == View.FRAUD_ROLLBACK
    assert world.slack.submit(CHI).acked  # nothing has to be filled in
    world.told(CHI, "Rolled back", "the candidate misbehaves in production")
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}


def alarm(world: World, decision: Decision) -> None:
    """The message of a breach after the promotion by this decision."""
    breach = Breach(BreachKind.LATENCY, "p95 140 ms is above 100 ms")
    message = breach_message(decision.request.test, decision.decision_id, breach, is_reverted=False)
    world.bot.publisher.thread_line(
        decision.decision_id, "breach-latency", message.text, blocks=message.blocks, also_to_channel=True
    )


def promote(world: World, decision: Decision) -> None:
    """The deployment after the promotion by this decision."""
    outcome = {"fraud-ab/epoch": "5", "fraud-ab/outcome": f"{decision.decision_id}:accepted@5"}
    traffic = [{"op": "add", "path": f"/spec/predictors/{place}/traffic", "value": 100 * place} for place in (0, 1)]
    annotations = [
        {"op": "add", "path": f"/metadata/annotations/{key.replace('/', '~1')}", "value": value} for key, value in outcome.items()
    ]
    world.api.patch_namespaced_custom_object(
        *WHERE, "fraud-predictor", [*traffic, *annotations], _content_type="application/json-patch+json"
    )


def test_the_button_of_a_breach_opens_the_rollback_with_the_cause_filled_in(world: World) -> None:
    decision = world.ask()
    promote(world, decision)
    alarm(world, decision)
    assert world.slack.press(CHI, Action.REVERT).acked
    view = world.wait(lambda: world.slack.open_view(CHI))
    assert view["callback_id"] == View.FRAUD_ROLLBACK
    assert "latency: p95 140 ms is above 100 ms" in str(view)
    assert world.slack.submit(CHI).acked
    world.told(CHI, "Rolled back: fraud-v1 gets all traffic")
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}
    [entry] = world.bot.emergency.read().unrecorded
    assert entry["reason"] == "the candidate misbehaves in production: latency: p95 140 ms is above 100 ms"


def test_the_button_of_an_old_breach_does_not_end_what_came_after_it(world: World) -> None:
    """The promotion is over and another test is running: the command would end it, an old alarm must not."""
    decision = world.ask()
    alarm(world, decision)
    world.slack.press(CHI, Action.REVERT)
    world.wait(lambda: world.slack.open_view(CHI))
    assert world.slack.submit(CHI).acked
    world.told(CHI, "Nothing was reverted", f"has changed since {decision.decision_id}", "/fraud-rollback")
    assert world.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


def test_preview_and_help_change_nothing(world: World) -> None:
    for line, part in (
        ("/fraud-rollback preview", "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 100 %, fraud-v2 0 %"),
        ("/fraud-rollback help", "opens a form with the cause preset"),
        ("/fraud-rollback frobnicate", "I do not know “frobnicate”; nothing has changed"),
    ):
        assert world.slack.slash(BEN, line).acked
        world.told(BEN, part)
    assert world.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


@ONCE
def test_kubernetes_down_is_said_with_what_to_do_by_hand(world: World) -> None:
    world.kubernetes.faults.plan(Fault.SERVER_ERROR, times=1000)
    started = time.monotonic()
    assert world.slack.slash(CHI, "/fraud-rollback now").acked
    world.told(CHI, "Kubernetes is slow to answer", "kubectl -n models edit sdep fraud-predictor")
    assert time.monotonic() - started < 5
    world.told(CHI, "Kubernetes did not do it", "fraud-ab rollback --reason")
    world.kubernetes.faults.reset()
    assert world.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


@ONCE
def test_without_the_database_a_forced_rollback_still_moves_the_traffic(
    world: World, broken_database: Callable[[], None]
) -> None:
    world.ask()
    world.slack.press(CHI, Action.FORCE_ROLLBACK)
    world.wait(lambda: world.slack.open_view(CHI))
    broken_database()
    assert world.slack.submit(CHI).acked
    world.told(CHI, "Rolled back: fraud-v1 gets all traffic")
    world.told(CHI, "Still to be done", "is not answered")
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}


def test_without_the_database_a_confirmation_says_that_it_did_not_work(world: World, broken_database: Callable[[], None]) -> None:
    world.ask()
    broken_database()
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert "Reference" in world.told(ANA, "That did not work", "the decision log failed")


@ONCE
def test_an_answer_reaches_a_person_where_the_app_is_not(world: World) -> None:
    world.slack.faults.plan(Fault.SERVER_ERROR, times=100, of="chat.postEphemeral")
    assert world.slack.slash(BEN, "/fraud-rollback help").acked
    world.told(BEN, "opens a form")


@ONCE
def test_a_lost_reply_posts_no_second_message(world: World) -> None:
    request = question(VerdictKind.PROMOTE, f"ab-{uuid.uuid4().hex[:8]}")
    decision = world.bot.decision_log.open(request)
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.publish_decision(decision.decision_id)
    first = world.bot.publisher.publish_decision(decision.decision_id)
    assert world.bot.publisher.publish_decision(decision.decision_id) == first
    assert len(world.slack.messages(CHANNEL)) == 1
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.thread_line(decision.decision_id, "step", "archived")
    for _ in range(2):
        world.bot.publisher.thread_line(decision.decision_id, "step", "archived")
    assert [one["text"] for one in world.slack.thread(first.ts)] == ["archived"]
    assert len(world.slack.messages(CHANNEL)) == 1  # not echoed to the channel


@ONCE
def test_a_picture_is_uploaded_once_below_the_message_also_after_a_lost_reply(world: World) -> None:
    decision = world.ask()
    world.slack.faults.plan(Fault.LOST_AFTER, of="files.completeUploadExternal")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.thread_picture(decision.decision_id, "chart", b"a picture", "recall by day")
    for _ in range(2):
        posted = world.bot.publisher.thread_picture(decision.decision_id, "chart", b"a picture", "recall by day")
    [line] = world.slack.thread(world.message()["ts"])
    assert [(file["id"], file["alt_txt"]) for file in line["files"]] == [(posted.ts, "recall by day")]
    assert len(world.slack.messages(CHANNEL)) == 1


@ONCE
def test_a_summary_in_another_channel_whose_answer_was_lost_is_found_there_and_not_posted_again(world: World) -> None:
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.announce("summary-2", "a better model", channel="C0BUSINESS")
    for _ in range(2):
        posted = world.bot.publisher.announce("summary-2", "a better model", channel="C0BUSINESS")
    assert posted.channel == "C0BUSINESS"
    assert [one["ts"] for one in world.slack.messages("C0BUSINESS") if one["text"] == "a better model"] == [posted.ts]
    assert world.slack.messages(CHANNEL) == []


@ONCE
def test_an_outage_of_slack_delays_messages_and_loses_none(world: World) -> None:
    decision, publisher = world.ask(), world.bot.publisher
    question_ts = str(world.message()["ts"])
    said: list[Callable[[], object]] = [
        lambda: publisher.thread_line(decision.decision_id, "shifted", "traffic is shifted"),
        lambda: publisher.thread_picture(decision.decision_id, "chart", b"png", "recall by day"),
        lambda: publisher.thread_line(decision.decision_id, "failed", "it failed", also_to_channel=True),
        lambda: publisher.announce("revert-1", "rolled back", [section("rolled *back*")]),
        lambda: publisher.announce("summary-1", "the model stays", channel="C0BUSINESS"),
        lambda: publisher.publish_decision(decision.decision_id),
    ]
    claim_directly(world, decision, Choice.FORCE_ROLLBACK)
    for method in ("chat.postMessage", "files.getUploadURLExternal", "chat.update"):
        world.slack.faults.plan(Fault.SERVER_ERROR, times=1000, of=method)
    for say in said:
        with pytest.raises(OutsideSystemError, match="Slack"):
            say()
    late = LateMessages(world.bot.decision_log, publisher)
    late.check_once()
    assert "kept messages" in late.troubles
    world.slack.faults.reset()
    for _ in range(2):
        late.check_once()
        thread = world.slack.thread(question_ts)
        lines = [line["text"].partition(" (Said late")[0] for line in thread if line["text"]]
        assert lines == ["traffic is shifted", "it failed"]
        assert [file["alt_txt"] for line in thread for file in line.get("files") or ()] == ["recall by day"]
        [announced] = [one for one in world.slack.messages(CHANNEL) if one["text"].startswith("rolled back")]
        assert "Said late, Slack was away" in str(announced["blocks"])
        [summary] = world.slack.messages("C0BUSINESS")
        assert summary["text"].startswith("the model stays (Said late")
        [redrawn] = [one for one in world.slack.messages(CHANNEL) if one["ts"] == question_ts]
        assert "actions" not in str(redrawn["blocks"])
    assert decision.decision_id not in str(late.troubles)


@pytest.mark.parametrize("is_http", [False, True])
def test_a_compatible_server_without_files_and_user_groups(
    kubernetes: tuple[SandboxKubernetes, Path], tmp_path: Path, *, is_http: bool
) -> None:
    """The message goes out without its chart, and of a group whose members nobody tells nobody may promote."""
    policy = 'promoters = ["U0ANA", "S0ONCALL"]\nrollbackers = ["S0ONCALL", "U0BEN"]\n'
    with serving_app(kubernetes, tmp_path, is_http=is_http, policy=policy, lacking=("files.", "usergroups.")) as world:
        deploy(world.api)
        try:
            decision = world.ask()
            with pytest.raises(OutsideSystemError, match="unknown_method"):
                world.bot.publisher.thread_picture(decision.decision_id, "chart", b"png", "in words")
            assert world.slack.press(CHI, Action.CONFIRM).acked
            world.told(CHI, "Slack did not tell who is in <!subteam^S0ONCALL>", "Nothing has changed")
            confirm(world, ANA)
            assert world.answered(decision).claim is not None
            assert world.slack.slash(BEN, "/fraud-rollback now wrong alerts").acked
            world.told(BEN, "fraud-v1 100 %")
        finally:
            world.api.delete_namespaced_custom_object(*WHERE, "fraud-predictor")


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
