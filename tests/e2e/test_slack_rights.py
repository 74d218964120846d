"""Who may answer the verdict in the app, alone or as one of two, and what the others are told."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from flows.domain.policy import Policy
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action, Field
from tests.e2e.app_in_process import ANA, BEN, CHI, ONCE, TEAM, World, alarm, confirm
from tests.slack_world import all_at_once, question, text_of

pytest_plugins = ("tests.e2e.app_in_process",)


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
    all_at_once(world.slack.submit, people)
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
