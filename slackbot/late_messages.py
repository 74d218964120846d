"""Says what Slack did not take when it was to be said: an outage delays messages, loses none, and holds nothing else up.

Like the reconciler it remembers nothing of its own, so any number of them may run, in the bot and in `fraud-ab serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slackbot.periodic_checks import PeriodicChecks

if TYPE_CHECKING:
    from flows.ports import DecisionLog
    from slackbot.publisher import Publisher


class LateMessages(PeriodicChecks):
    """A thread of its own, since it waits for Slack: questions and answers that nobody was shown, then what is kept."""

    def __init__(self, decision_log: DecisionLog, publisher: Publisher, *, period_seconds: float = 5.0) -> None:
        self._decision_log = decision_log
        self._publisher = publisher
        checks = {"questions": self._show_questions, "kept messages": publisher.say_kept}
        super().__init__("late messages", checks, period_seconds=period_seconds)

    def _show_questions(self) -> None:
        """The flow has posted each already, and the app has taken the buttons off those that are answered, unless it died before
        it could."""
        for decision in self._decision_log.decisions(unconsumed_only=True):
            decision_id = decision.decision_id
            self.guarded(f"showing {decision_id}", lambda decision_id=decision_id: self._publisher.publish_decision(decision_id))
