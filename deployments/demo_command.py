"""`fraud-ab demo`: the options of the demo."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Scenario(StrEnum):
    """The simulated worlds; they differ by their cause, not by a tuned outcome."""

    WIN = "win"
    LOSE = "lose"
    INCONCLUSIVE = "inconclusive"
    SPLIT_BUG = "split-bug"
    SLOW_CANDIDATE = "slow-candidate"
    DRIFTED = "drifted"


class Decide(StrEnum):
    """What the demo presses by itself."""

    CONFIRM = "confirm"
    POSTPONE = "postpone"
    ROLLBACK = "rollback"


def demo(
    scenario: Annotated[Scenario, typer.Argument(help="what happens in the simulated world")] = Scenario.WIN,
    decide: Annotated[Decide | None, typer.Option(help="press this in Slack by itself and end; without it, you press")] = None,
    seed: Annotated[int, typer.Option(help="of the simulated world")] = 7,
    browser: Annotated[bool, typer.Option(help="open the Slack page in a browser")] = True,
) -> None:
    """Decide the A/B test of two real fraud models on the embedded stack: everything is started, and gone at the end."""
    from deployments.demo import run_demo

    run_demo(scenario, decide, seed=seed, browser=browser and decide is None)
