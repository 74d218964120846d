"""Every way to roll back in the app: the verdict's button, `/fraud-rollback`, the button of a breach."""

from __future__ import annotations

from flows.domain.decision import Choice, Decision
from slackbot.identifiers import Action, Field, View
from tests.e2e.app_in_process import BEN, CHI, World, alarm
from tests.slack_world import CHANNEL, WHERE, text_of

pytest_plugins = ("tests.e2e.app_in_process",)


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
