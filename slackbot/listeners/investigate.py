"""`/fraud-investigate`: look (again) into why a candidate did not win. It changes nothing in production."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.deployment_names import INVESTIGATE
from flows.domain.errors import NotAuthorized, UnknownDecision
from slackbot.authorization import Permission
from slackbot.bot import Presser
from slackbot.messages import wording

if TYPE_CHECKING:
    from flows.domain.decision import Decision
    from slackbot.bot import Bot
    from slackbot.payloads import SlashCommand


def fraud_investigate_typed(bot: Bot, command: SlashCommand) -> None:
    """Of the decision that is named, else of the latest one that is answered."""
    presser = Presser.of(command)
    try:
        bot.require(Permission.INVESTIGATE, presser.person)
        decision = _asked_about(bot, command.text.strip())
    except (NotAuthorized, UnknownDecision) as refusal:
        bot.tell(presser, bot.explain(refusal, presser))
        return
    decision_id = decision.decision_id
    address = bot.gateway.start_run(
        INVESTIGATE, {"decision_id": decision_id}, idempotency_key=f"investigate-{decision_id}-{command.press_id}"
    )
    bot.tell(presser, wording.investigating(decision, address))


def _asked_about(bot: Bot, named: str) -> Decision:
    if named:
        return bot.read(named)
    answered = [decision for decision in bot.decision_log.decisions() if not decision.is_pending]
    if not answered:
        raise UnknownDecision("no question has been answered yet, so there is nothing to investigate")
    return answered[0]
