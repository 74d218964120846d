"""Answers to the verdict in the app: claimed once, redrawn for everybody, told to who came too late; stale and forged buttons."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from deployments.sandbox.slack import NothingThere
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Person
from flows.domain.decision_record import RecordKind
from flows.domain.evidence import Evidence
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action, Field
from tests.e2e.app_in_process import ANA, CHI, TEAM, World, claim_directly, confirm
from tests.slack_world import CHANNEL, all_at_once, is_told_who_decided, text_of

pytest_plugins = ("tests.e2e.app_in_process",)


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
    all_at_once(world.slack.submit, [ANA, CHI])
    claim = world.answered(decision).claim
    assert claim is not None
    loser = CHI if claim.actor.id == ANA else ANA
    world.wait(lambda: is_told_who_decided(world.slack, loser, claim.actor))
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
    assert all(outcome.acked for outcome in all_at_once(world.slack.submit, people))
    claim = world.answered(decision).claim
    assert claim is not None
    world.wait(lambda: sum(is_told_who_decided(world.slack, user, claim.actor) for user in people) == len(people) - 1)
    assert not is_told_who_decided(world.slack, claim.actor.id, claim.actor)
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
