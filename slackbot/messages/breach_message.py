"""What is said about a promoted model that breaks a limit, with the button that puts the baseline back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slackbot.identifiers import Action
from slackbot.messages.block_kit import SlackMessage, actions, button, context, escape, header, section
from slackbot.messages.short_names import brief
from slackbot.payloads import MAX_INPUT_CHARACTERS, Alarm

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.bake import Breach


def breach_message(test: ABTest, decision_id: str, breach: Breach, *, is_reverted: bool) -> SlackMessage:
    """The question first; without a button when the policy has let the traffic be reverted already.

    Args:
        decision_id: the decision that has put the candidate in charge.
        breach: seen in two windows after one another.
        is_reverted: Kubernetes has accepted an automatic revert.
    """
    candidate, baseline = brief(test.candidate.name), brief(test.baseline.name)
    found = f"*{escape(breach.kind.words)}*: {escape(breach.found)}"
    about = context(f"After the promotion by {escape(brief(decision_id))}. Seen in two windows after one another.")
    if is_reverted:
        title = f"{candidate} broke a limit and was reverted"
        done = f"The policy says `auto_revert`: all traffic goes to {escape(baseline)}."
        return SlackMessage(f"{escape(title)}. {found}. {done}", (header(title), section(f"{found}\n{done}"), about))
    title = f"{candidate} breaks a limit. Put {baseline} back?"
    alarm = Alarm(decision_id=decision_id, cause=f"{breach.kind.words}: {breach.found}"[:MAX_INPUT_CHARACTERS])
    revert = button("Revert…", Action.REVERT, alarm.to_json(), style="danger")
    return SlackMessage(f"{escape(title)} {found}", (header(title), section(found), actions(revert), about))
