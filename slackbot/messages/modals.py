"""The modals: what exactly is about to happen, with every default preset. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Field, View
from slackbot.messages import wording
from slackbot.messages.block_kit import Json, context, escape, local_time, modal, section, select, text_input
from slackbot.messages.short_names import brief, with_short_names
from slackbot.messages.verdict_message import changes
from slackbot.payloads import MAX_INPUT_CHARACTERS, AskedQuestion, AskedRollback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.decision import Decision

_MULTIPLE_WAYS = "Everything that follows (registry, documents, records) does not hold the traffic up."


def confirm_modal(decision: Decision, asked: AskedQuestion) -> Json:
    """The exact change, now → after."""
    request = with_short_names(decision.request)
    kind = request.verdict.kind
    blocks = [section(wording.if_confirmed(request))]
    if kind is not VerdictKind.INCONCLUSIVE:
        blocks.append(section("*Now → after*\n" + "\n".join(changes(request.plan))))
    if rules := wording.who_confirms(decision):
        blocks.append(section(rules))
    blocks.append(_reason())
    is_first = request.needs_two_people and decision.first_confirmation is None
    return modal(
        wording.CONFIRM_TITLE[kind],
        blocks,
        submit=wording.CONFIRM_FIRST if is_first else wording.CONFIRM_SUBMIT[kind],
        callback_id=View.CONFIRM,
        private_metadata=asked.to_json(),
    )


def postpone_modal(decision: Decision, asked: AskedQuestion, choices: Sequence[str]) -> Json:
    """When to evaluate again: a time of day in the time zone of who chooses, or a number of frauds."""
    options = [(wording.postponement(choice), choice) for choice in choices]
    left = decision.request.postponements_left
    horizon = decision.request.horizon_at
    limit = f" The last look is due {local_time(horizon)}." if horizon else ""
    return modal(
        "Postpone",
        [
            section("The traffic stays as it is. The test is evaluated again then, and you are asked anew."),
            select(Field.UNTIL, "Evaluate again", options),
            _reason(),
            context(f"Postponements left, with this one: {left}.{limit}{wording.frauds_so_far(decision.request, choices)}"),
        ],
        submit="Postpone",
        callback_id=View.POSTPONE,
        private_metadata=asked.to_json(),
    )


def force_rollback_modal(asked: AskedQuestion) -> Json:
    """Opened from a verdict message; nothing has to be looked up for it."""
    said = f"All traffic goes to the baseline at once and {escape(brief(asked.decision_id))} is answered with it."
    return _rollback_modal(said, View.FORCE_ROLLBACK, asked.to_json())


def fraud_rollback_modal(asked: AskedRollback, note: str = "") -> Json:
    """Opened by the slash command, or by the button of a breach with what was found as the note."""
    said = "All traffic goes to the baseline at once. A promotion in progress stops."
    return _rollback_modal(said, View.FRAUD_ROLLBACK, asked.to_json(), note)


def _rollback_modal(said: str, view: View, private_metadata: str, note: str = "") -> Json:
    causes = [(str(cause), str(cause)) for cause in wording.Cause]
    return modal(
        "Roll back",
        [
            section(f"{said} {_MULTIPLE_WAYS}"),
            select(Field.CAUSE, "Cause", causes),
            text_input(Field.NOTE, "Note", most=MAX_INPUT_CHARACTERS, initial=note),
        ],
        submit="Roll back now",
        callback_id=view,
        private_metadata=private_metadata,
    )


def notice_modal(text: str) -> Json:
    """Replaces a modal whose submission does not count."""
    return modal("Nothing was done", [section(text)])


def _reason() -> Json:
    return text_input(Field.REASON, "Reason", most=MAX_INPUT_CHARACTERS, hint="It is kept in the decision record.")
