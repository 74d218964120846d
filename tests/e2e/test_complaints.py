"""What people complain about in tools like this one, a test for each complaint: here it is impossible.

The complaints are those of other projects' trackers: integrations/slack#1347, sentry#69252, keel#1002, teleport-plugins#153,
keel#1131, argo-rollouts#261. Two need a whole flow and are part of `test_whole_story`: "approved", but the run never
continued, and thread lines echoed to the channel.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployments.sandbox.slack import NothingThere, Outcome
from flows.domain.decision import Choice, NextStep, next_step
from flows.domain.decision_record import RecordKind
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action, Field, View
from slackbot.messages.block_kit import local_time
from tests.e2e.app_in_process import ANA, BEN, CHI, ONCE, World, claim_directly, confirm
from tests.slack_world import all_at_once, text_of

pytest_plugins = ("tests.e2e.app_in_process",)


def submit_twice(world: World, user: str) -> list[Outcome]:
    """One modal, submitted twice at the same moment: a double tap, or a delivery that Slack repeats."""
    return all_at_once(world.slack.submit, [user, user])


def test_approving_takes_many_steps_away_from_the_message(world: World) -> None:
    """Two taps where the message is: its button, and the modal's; nothing has to be typed or chosen."""
    decision = world.ask()
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert world.wait(lambda: world.slack.open_view(ANA))["callback_id"] == View.CONFIRM
    submitted = world.slack.submit(ANA)
    assert (submitted.acked, submitted.error, dict(submitted.field_errors)) == (True, None, {})
    claim = world.answered(decision).claim
    assert claim is not None
    assert (claim.choice, claim.actor.id) == (Choice.CONFIRM, ANA)


def test_one_click_acts_twice_or_the_first_click_does_nothing(world: World) -> None:
    decision = world.ask()
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert world.wait(lambda: world.slack.open_view(ANA))["callback_id"] == View.CONFIRM, "the first click opens it"
    submit_twice(world, ANA)
    world.answered(decision)
    records = [record.kind for record in world.bot.decision_log.records(decision.decision_id)]
    assert (records, len(world.nudges)) == ([RecordKind.DECIDED], 1)
    assert world.slack.slash(CHI, "/fraud-rollback").acked
    assert world.wait(lambda: world.slack.open_view(CHI))["callback_id"] == View.FRAUD_ROLLBACK
    submit_twice(world, CHI)
    world.told(CHI, "fraud-v1 100 %")
    assert len(world.bot.emergency.read().unrecorded) == 1


def test_buttons_stay_alive_after_the_decision_was_taken_elsewhere(world: World) -> None:
    """A press that was on its way does nothing and says who decided; the message loses its buttons at the latest then."""
    decision = world.ask()
    old = str(world.message()["ts"])
    claim_directly(world, decision, Choice.FORCE_ROLLBACK)
    assert world.slack.press(ANA, Action.CONFIRM, message_ts=old).acked
    assert "*Rollback forced* by <@U0BEN>" in world.told(ANA, "Your press has changed nothing")
    assert world.slack.open_view(ANA) is None
    claim = world.answered(decision).claim
    assert claim is not None
    assert claim.actor.id == BEN
    for action in (Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK):
        with pytest.raises(NothingThere):
            world.slack.press(ANA, action, message_ts=old)


def test_nobody_can_see_who_approved(world: World) -> None:
    """In the message, in the record that nobody can change unnoticed, and in everybody's status."""
    decision = world.ask()
    confirm(world, ANA, **{Field.REASON: "checked with risk"})
    claim = world.answered(decision).claim
    assert claim is not None
    shown = text_of(world.message())
    assert all(part in shown for part in ("*Confirmed* by <@U0ANA>", "“checked with risk”", local_time(claim.claimed_at)))
    [record] = world.bot.decision_log.records(decision.decision_id)
    assert (record.payload["actor"], record.hash) == ({"id": ANA, "name": "ana"}, record.recomputed_hash)
    assert world.slack.slash(BEN, "/fraud-status").acked
    world.told(BEN, "*Confirmed* by <@U0ANA>", "checked with risk")


@pytest.mark.parametrize("action", [Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK])
def test_a_mis_tap_on_a_phone(world: World, action: Action) -> None:
    """One tap decides nothing: it opens what would be done, and closing that leaves everything as it is."""
    decision, before = world.ask(), world.traffic()
    assert world.slack.press(ANA, action).acked
    view = world.wait(lambda: world.slack.open_view(ANA))
    assert view["close"]["text"]
    world.slack.close_modal(ANA)
    assert world.bot.decision_log.read(decision.decision_id).is_pending
    assert world.traffic() == before
    assert all(one in str(world.message()["blocks"]) for one in (Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK))


@ONCE
def test_inconclusive_asked_again_and_again_or_promoted_in_the_end(world: World) -> None:
    """It says what is missing and when it is expected; Confirm waits for the next look, and no answer promotes."""
    next_look = datetime.now(UTC) + timedelta(days=7)
    decision = world.ask(VerdictKind.INCONCLUSIVE, next_look_at=next_look, postponements_left=0)
    assert "Promote" not in text_of(world.message())
    with pytest.raises(NothingThere):  # the policy's postponements are used up
        world.slack.press(ANA, Action.POSTPONE)
    confirm(world, ANA)
    claim = world.answered(decision).claim
    assert claim is not None
    assert abs((claim.due_at or datetime.max.replace(tzinfo=UTC)) - next_look) < timedelta(seconds=1)
    assert {next_step(VerdictKind.INCONCLUSIVE, choice) for choice in Choice} <= {NextStep.EVALUATE_AGAIN, NextStep.KEEP_BASELINE}
