"""What a person wants to know before anything else: what is live, what waits, what happened last.

Each system is asked by itself: one that does not answer is one sentence, and the rest is still shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from flows.domain.decision_record import latest_outcome
from flows.domain.errors import FraudABError
from slackbot.messages.status_messages import Known, Overview

if TYPE_CHECKING:
    from flows.domain.decision_record import DecisionRecord
    from slackbot.bot import Bot

DECISIONS_SHOWN = 5

T = TypeVar("T")


def read_overview(bot: Bot) -> Overview:
    """Ask Kubernetes and the decision log; never raises."""
    return Overview(
        datetime.now(UTC), _read(bot.emergency.read), _read(lambda: _decisions(bot)), _read(lambda: _last_change(bot))
    )


def _decisions(bot: Bot) -> Sequence[Known]:
    found: list[Known] = []
    for decision in bot.decision_log.decisions()[:DECISIONS_SHOWN]:
        kinds = [record.kind for record in bot.decision_log.records(decision.decision_id)]
        found.append(Known(decision, latest_outcome(kinds), bot.publisher.address(decision.decision_id)))
    return found


def _last_change(bot: Bot) -> DecisionRecord | None:
    return next((record for record in reversed([*bot.decision_log.records()]) if record.kind.is_change), None)


def _read(part: Callable[[], T]) -> T | str:
    try:
        return part()
    except FraudABError as error:
        return str(error)
