"""`/fraud-investigate`: who may, of which decision, and what happens while Prefect is away."""

from __future__ import annotations

from flows.domain.decision import Choice
from flows.domain.verdict import VerdictKind
from tests.e2e.app_in_process import ANA, BEN, ONCE, World, claim_directly

pytest_plugins = ("tests.e2e.app_in_process",)


@ONCE
def test_nobody_else_may(world: World) -> None:
    assert world.slack.slash(BEN, "/fraud-investigate").acked
    assert world.told(BEN, "You cannot start an investigation", "Nothing has changed")


@ONCE
def test_an_unknown_decision_is_named(world: World) -> None:
    assert world.slack.slash(ANA, "/fraud-investigate ab-nowhere-1").acked
    assert world.told(ANA, "no decision is called ab-nowhere-1")


@ONCE
def test_prefect_that_is_away_is_said(world: World) -> None:
    decision = world.ask(VerdictKind.KEEP_BASELINE)
    claim_directly(world, decision, Choice.CONFIRM)
    assert world.slack.slash(ANA, f"/fraud-investigate {decision.decision_id}").acked
    assert world.told(ANA, "That did not work", "Prefect")
