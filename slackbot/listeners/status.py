"""`/fraud-status` and the App Home: looking changes nothing, and anybody may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.decision import Person
from flows.domain.errors import NotAuthorized
from slackbot.authorization import Permission
from slackbot.bot import Presser
from slackbot.messages.status_messages import home_view, status_message
from slackbot.overview import read_overview
from slackbot.publisher import slack_errors

if TYPE_CHECKING:
    from slackbot.bot import Bot
    from slackbot.payloads import HomeOpened, SlashCommand


def fraud_status_typed(bot: Bot, command: SlashCommand) -> None:
    bot.tell(Presser.of(command), status_message(read_overview(bot)))


def home_opened(bot: Bot, opened: HomeOpened) -> None:
    """Drawn anew whenever somebody looks; it has links and no buttons, which could be out of date."""
    if not opened.is_home:
        return
    user = opened.event.user
    view = home_view(read_overview(bot), may_decide=_may_decide(bot, user))
    with slack_errors("drawing the Home"):
        bot.client.views_publish(user_id=user, view=view)


def _may_decide(bot: Bot, user: str) -> bool:
    try:
        bot.require(Permission.DECIDE, Person(user, user))
    except NotAuthorized:
        return False
    return True
