"""`/fraud-status` and the App Home: what is live, what changed last, what waits, what was decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from flows.domain.serving_state import describe_serving
from slackbot.identifiers import Command
from slackbot.messages import wording
from slackbot.messages.block_kit import (
    Json,
    SlackMessage,
    context,
    divider,
    escape,
    header,
    home,
    iso_time,
    link,
    local_time,
    section,
)
from slackbot.messages.short_names import brief, with_short_names

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord, RecordKind
    from flows.domain.serving_state import ServingState

REASON_SHOWN = 100
NOTHING = "No test has been decided here yet."


@dataclass(frozen=True, slots=True)
class Known:
    """A decision, what has come of it so far (None: nothing yet) and where its message is (empty: nobody knows)."""

    decision: Decision
    outcome: RecordKind | None
    address: str


@dataclass(frozen=True, slots=True)
class Overview:
    """`serving`, `decisions` (newest first) and `changed`, the record of the last change of production, are sentences where a
    system did not answer."""

    at: datetime
    serving: ServingState | str
    decisions: Sequence[Known] | str
    changed: DecisionRecord | str | None = None


def status_message(overview: Overview) -> SlackMessage:
    """The answer to `/fraud-status`, for the one who asked."""
    lines = [_live(overview), _changed(overview), _test(overview)]
    return SlackMessage(" ".join(lines), (*(section(line) for line in lines), context(_as_of(overview))))


def home_view(overview: Overview, *, may_decide: bool) -> Json:
    """The App Home of one person.

    Args:
        may_decide: this person may answer a verdict.
    """
    blocks = [header("What is live"), *(section(part(overview)) for part in (_live, _changed, _which_test)), divider()]
    if isinstance(overview.decisions, str):
        blocks.append(section(_unread("The decisions", overview.decisions)))
    else:
        waiting = [known for known in overview.decisions if known.decision.is_pending]
        answered = [known for known in overview.decisions if not known.decision.is_pending]
        blocks += [header("Waits for you" if may_decide else "Waits for an answer"), *_waiting(waiting), divider()]
        blocks += [header("Last decisions"), *_answered(answered)]
    emergency = f"In an emergency, in any channel: `{Command.FRAUD_ROLLBACK}`"
    return home([*blocks, divider(), context(emergency, _as_of(overview))])


def _waiting(waiting: Sequence[Known]) -> list[Json]:
    return [section(_told(known)) for known in waiting] or [section("Nothing.")]


def _answered(answered: Sequence[Known]) -> list[Json]:
    return [section(_told(known)) for known in answered] or [section(NOTHING)]


def _told(known: Known) -> str:
    request, claim = with_short_names(known.decision.request), known.decision.claim
    if claim is None:
        return f"*{escape(wording.question(request))}*\n{_until(known)}{_where(known)}"
    title = wording.decided_title(request, claim, known.outcome)
    return f"*{escape(title)}*\n{wording.answered(request, claim, most=REASON_SHOWN)}{_where(known)}"


def _until(known: Known) -> str:
    until = f"To be answered until {local_time(known.decision.deadline)}; {wording.BASELINE_BY_SILENCE}."
    return f"{wording.who_confirms(known.decision)} {until}".strip()


def _where(known: Known) -> str:
    return f" {link(known.address, 'Open the message')}" if known.address else ""


def _live(overview: Overview) -> str:
    serving = overview.serving
    if isinstance(serving, str):
        return _unread("*Live*", serving)
    return "\n".join([f"*Live*: {escape(describe_serving(serving))}", *_unfinished(serving)])


def _unfinished(serving: ServingState) -> list[str]:
    lines = [f"{escape(serving.operation)} is being carried out."] if serving.operation else []
    if serving.intent:
        lines.append("A rollback is starting the baseline again.")
    unrecorded = [f"{escape(brief(entry['actor']))} ({iso_time(entry['at'])})" for entry in serving.unrecorded]
    return lines + [f"Still to be recorded: the rollback by {one}." for one in unrecorded]


def _test(overview: Overview) -> str:
    """Which test this is, its day, and what the latest question about it is."""
    latest = _latest(overview)
    test = _tested(overview)
    if test is None or latest is None or latest.decision.request.test.test_id != test.test_id:
        return _which_test(overview)
    return f"{_which_test(overview)}\n{_told(latest)}"


def _which_test(overview: Overview) -> str:
    test, latest = _tested(overview), _latest(overview)
    if test is None:
        return "*Test*: none is known."
    day = max(1, (overview.at - test.started_at).days + 1)
    names = " against ".join(escape(brief(model.name)) for model in test.models)
    said = f"*Test*: {escape(brief(test.test_id))}, day {day}: {names}."
    is_judged = latest is not None and latest.decision.request.test.test_id == test.test_id
    return said if is_judged else f"{said} It has not been judged yet."


def _tested(overview: Overview) -> ABTest | None:
    """The test of which the deployment tells, else that of the latest question."""
    test = None if isinstance(overview.serving, str) else overview.serving.test
    latest = _latest(overview)
    return test or (latest.decision.request.test if latest else None)


def _latest(overview: Overview) -> Known | None:
    return overview.decisions[0] if overview.decisions and not isinstance(overview.decisions, str) else None


def _changed(overview: Overview) -> str:
    match overview.changed:
        case None:
            return "*Last change*: none is recorded yet."
        case str() as why:
            return _unread("*Last change*", why)
        case record:
            return f"*Last change*: {wording.changed(record, most=REASON_SHOWN)}"


def _unread(what: str, why: str) -> str:
    return f"{what} cannot be read: {escape(why)}."


def _as_of(overview: Overview) -> str:
    return f"As of {local_time(overview.at)}"
