"""A question that nobody answers: two reminders, the second to the escalation group, and then the baseline stays."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from flows.domain.decision import Choice
from flows.remind_pending_decision import remind_pending_decision
from tests.integration.production_world import World, lines

pytest_plugins = ("tests.integration.production_world",)


@pytest.fixture
def asked(world: World) -> str:
    """A question of this moment, with somebody to escalate to."""
    policy = world.systems.policy.model_copy(update={"promoters": ("U0ANA",), "escalation": ("S0ONCALL", "U0CHI")})
    world.systems.__dict__["policy"] = policy
    return world.ask().decision_id


def test_the_second_reminder_goes_to_the_escalation_group_and_each_is_said_once(world: World, asked: str) -> None:
    for share in (0.5, 0.5, 0.8):
        assert remind_pending_decision(asked, share) == "reminded"
    first, second = (line for line in lines(world, asked) if "still open" in line)
    assert first.startswith("<@U0ANA> this decision is still open. Without an answer by <!date^")
    assert second.startswith("<!subteam^S0ONCALL> <@U0CHI> this decision is still open.")
    assert all("the baseline stays in charge" in line for line in (first, second))
    assert not any("still open" in message["text"] for message in world.slack.messages("C0FRAUD")), "only in the thread"


def test_an_answered_question_is_not_reminded_of(world: World) -> None:
    assert remind_pending_decision(world.decide().decision_id, 0.5) == "already decided"


def test_at_its_end_it_expires_and_nothing_is_promoted(world: World, asked: str) -> None:
    assert remind_pending_decision(asked, 1) == "nothing to expire", "its time is not over"
    with world.systems.decision_log._database.transaction("moving its end into the past") as connection:
        connection.execute(text("UPDATE decisions SET deadline = '2026-01-01 00:00:00.000000'"))
    before = world.state
    assert remind_pending_decision(asked, 1) == "expired"
    claim = world.systems.decision_log.read(asked).claim
    assert claim is not None
    assert claim.choice is Choice.EXPIRE
    assert world.kinds() == [], "nothing but the answer is recorded"
    assert world.is_still(before)
