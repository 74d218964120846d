"""What is live, for one person: `/fraud-status` and the app's Home."""

from __future__ import annotations

from flows.domain.decision import Choice
from tests.e2e.app_in_process import ANA, BEN, World, claim_directly
from tests.slack_world import CHANNEL

pytest_plugins = ("tests.e2e.app_in_process",)


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
