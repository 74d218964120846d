"""Every sentence that a person reads in Slack about a decision. Names and reasons of others come in escaped."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, assert_never

from flows.domain.criteria import Criterion, CriterionName, CriterionStatus, points, signed
from flows.domain.decision import Choice, Claim, Confirmation, Decision, DecisionRequest, Person
from flows.domain.decision_record import DecisionRecord, RecordKind
from flows.domain.verdict import ModelMetrics, Verdict, VerdictKind
from slackbot.messages.block_kit import escape, link, local_time, mention, plain, quote
from slackbot.messages.short_names import brief
from slackbot.postponements import needs_time_zone, wanted_frauds

NOTHING_CHANGED = "Nothing has changed."
EVIDENCE_CHANGED = (
    "The evidence is no longer the one that this button was made for, so nothing has been done. "
    "The message is redrawn: read it and decide on what it shows now."
)
BASELINE_BY_SILENCE = "if nobody decides, the baseline stays"
STATUS = {
    CriterionStatus.PASSED: "✓ passed",
    CriterionStatus.FAILED: "✗ failed",
    CriterionStatus.UNDECIDED: "… undecided",
    CriterionStatus.NOT_CHECKED: "– not checked",
}
CRITERION = {
    CriterionName.RECALL_IMPROVEMENT: "Recall",
    CriterionName.PRECISION_STABILITY: "Precision",
    CriterionName.RECALL_SIGNIFICANCE: "Significance",
    CriterionName.LATENCY: "Latency, p95",
    CriterionName.ERROR_RATE: "Errors",
}
CONFIRM_TITLE = {
    VerdictKind.PROMOTE: "Promote the candidate",
    VerdictKind.KEEP_BASELINE: "Keep the baseline",
    VerdictKind.INCONCLUSIVE: "Extend the test",
    VerdictKind.NOT_EVALUABLE: "End with the baseline",
}
CONFIRM_SUBMIT = {
    VerdictKind.PROMOTE: "Promote",
    VerdictKind.KEEP_BASELINE: "Keep baseline",
    VerdictKind.INCONCLUSIVE: "Extend",
    VerdictKind.NOT_EVALUABLE: "End the test",
}
CONFIRM_FIRST = "Confirm as the first"  # changes nothing yet


class Cause(StrEnum):
    """Preset causes of a rollback; the first is chosen already."""

    MISBEHAVES = "the candidate misbehaves in production"
    COMPLAINTS = "customers are blocked or complain"
    LATENCY_OR_ERRORS = "latency or errors"
    DATA = "data or features look wrong"
    PRECAUTION = "precaution"


def status(criterion: Criterion, verdict: Verdict) -> str:
    """Passed or not, in words; nothing passes of numbers that cannot be judged."""
    does_not_count = verdict.kind is VerdictKind.NOT_EVALUABLE and criterion.status is not CriterionStatus.NOT_CHECKED
    return "– does not count" if does_not_count else STATUS[criterion.status]


def question(request: DecisionRequest) -> str:
    """The header: plain text."""
    candidate, baseline = plain(request.test.candidate.name), plain(request.test.baseline.name)
    match request.verdict.kind:
        case VerdictKind.PROMOTE:
            return f"{candidate} wins. Promote it?"
        case VerdictKind.KEEP_BASELINE:
            return f"{candidate} does not win. Keep {baseline}?"
        case VerdictKind.INCONCLUSIVE:
            return f"{candidate}: too early to tell. Extend the test?"
        case VerdictKind.NOT_EVALUABLE:
            return f"{candidate} cannot be judged. End the test?"
    assert_never(request.verdict.kind)


IF_POSTPONED_BROKEN = "*Postpone* means: it will be repaired, evaluate again then."
"""Beside what Confirm means, where a test cannot be evaluated."""


def if_confirmed(request: DecisionRequest) -> str:
    """What Confirm means for this verdict, before the exact changes."""
    test = request.test
    candidate, baseline = escape(test.candidate.name), escape(test.baseline.name)
    match request.verdict.kind:
        case VerdictKind.PROMOTE:
            return f"*If you confirm:* {candidate} takes all traffic."
        case VerdictKind.KEEP_BASELINE:
            return f"*If you confirm:* {baseline} stays in charge with all traffic. The next steps are in the decision document."
        case VerdictKind.INCONCLUSIVE:
            when = f"on {local_time(request.next_look_at)}" if request.next_look_at else "at its next planned look"
            return f"*If you confirm:* the test goes on unchanged and is evaluated again {when}."
        case VerdictKind.NOT_EVALUABLE:
            return f"*If you confirm:* the test ends and {baseline} stays in charge with all traffic."
    assert_never(request.verdict.kind)


def who_confirms(decision: Decision) -> str:
    """What the policy asks of those who confirm a promotion, and who has done so already; empty where one person is enough."""
    request, first = decision.request, decision.first_confirmation
    sentences: list[str] = []
    if first is not None:
        sentences.append(f"{_confirmed_first(first)} A second person has to; until then nothing changes.")
    elif request.needs_two_people:
        sentences.append("Two people have to confirm a promotion.")
    if request.bars_initiator:
        initiator = request.test.initiator
        sentences.append(
            f"{mention([initiator])} started this test and cannot confirm it."
            if initiator
            else "Nobody can confirm it: who started this test is not known."
        )
    return " ".join(sentences)


def confirmed_first(decision: Decision) -> str:
    """For the first of two who confirm."""
    return (
        f"Your confirmation is kept. A second person has to confirm until {local_time(decision.deadline)}; {BASELINE_BY_SILENCE}."
    )


def ask_second_person(decision: Decision, people: Sequence[str]) -> str:
    """For those who can be the second; `people` are Slack ids."""
    return f"{who_confirms(decision)} {mention(people)}: please look, until {local_time(decision.deadline)}.".strip()


def remind(decision: Decision, people: Sequence[str]) -> str:
    """What nobody has answered yet, and what their silence means; `people` are Slack ids, and each of them is called."""
    called = " ".join(mention([person]) for person in people)
    state = f"this decision is still open. {who_confirms(decision)}".rstrip()
    return f"{called} {state} Without an answer by {local_time(decision.deadline)} the baseline stays in charge.".strip()


def _confirmed_first(first: Confirmation) -> str:
    # shorter than the answer's own: both have to fit into one message; the record has all of it
    reason = f" Reason: {quote(first.reason, most=80)}" if first.reason else ""
    return f"*{who(first.actor)} has confirmed*, {local_time(first.confirmed_at)}.{reason}"


def postponement(choice: str) -> str:
    """What the policy offers, as an option of the list."""
    frauds = wanted_frauds(choice)
    if frauds is not None:
        return f"when {_frauds(frauds)} seen"
    return f"{choice} (your time)" if needs_time_zone(choice) else f"in {choice}"


def frauds_so_far(request: DecisionRequest, choices: Sequence[str]) -> str:
    """What a number of frauds to wait for is compared with; empty where none is offered."""
    if request.frauds_seen is None or all(wanted_frauds(choice) is None for choice in choices):
        return ""
    return f" Seen so far: {request.frauds_seen:,} labelled frauds that the comparison rests on."


def _frauds(number: int) -> str:
    return f"{number:,} {'fraud is' if number == 1 else 'frauds are'}"


def measured(criterion: Criterion, verdict: Verdict) -> str:
    """A criterion in numbers: before → after, and what is required."""
    if criterion.observed is None:
        return escape(criterion.reason)
    baseline, candidate = verdict.metrics.baseline, verdict.metrics.candidate
    match criterion.name:
        case CriterionName.RECALL_IMPROVEMENT:
            required = f"{signed(criterion.threshold)} required"
            return f"{_arrow(baseline.recall, candidate.recall)} ({signed(criterion.observed)}; {required})"
        case CriterionName.PRECISION_STABILITY:
            limit = f"limit {criterion.threshold * 100:g}"
            return f"{_arrow(baseline.precision, candidate.precision)} ({points(criterion.observed)}; {limit})"
        case CriterionName.RECALL_SIGNIFICANCE:
            return f"p = {criterion.observed:.2g} (below {criterion.threshold:.2g} required)"
        case CriterionName.LATENCY:
            return f"{criterion.observed:g} ms (limit {criterion.threshold:g} ms)"
        case CriterionName.ERROR_RATE:
            return f"{points(criterion.observed)} (limit {criterion.threshold * 100:g})"
    assert_never(criterion.name)


def _arrow(before: float | None, after: float | None) -> str:
    return " → ".join("unknown" if share is None else f"{share:.3f}" for share in (before, after))


def confusion(name: str, metrics: ModelMetrics) -> str:
    """What a model caught, missed and flagged wrongly."""
    missed = "an unknown number" if metrics.false_negatives is None else f"{metrics.false_negatives:,}"
    return f"{escape(name)}: {metrics.true_positives:,} frauds caught, {missed} missed, {metrics.false_positives:,} false alerts"


def who(person: Person) -> str:
    """A person as Slack shows them; others (`cli:…`, expiry) by their name."""
    is_slack_id = person.id[:1] in ("U", "W") and person.id.isalnum()
    return mention([person.id]) if is_slack_id else escape(person.name)


def decided_title(request: DecisionRequest, claim: Claim, recorded: RecordKind | None) -> str:
    """The header once it is answered: plain text; what has been recorded as done comes before what was decided."""
    candidate, baseline = plain(request.test.candidate.name), plain(request.test.baseline.name)
    done = {
        RecordKind.FAILED: f"{candidate}: to be undone",
        RecordKind.PROMOTED: f"{candidate} is promoted",
        RecordKind.BASELINE_KEPT: f"{baseline} stays in charge",
        RecordKind.COMPENSATED: f"Undone: {baseline} is in charge",
        RecordKind.SUPERSEDED: f"{candidate}: superseded",
        RecordKind.EMERGENCY_REVERT: f"Rolled back: {baseline} is in charge",
    }
    if recorded is not None and recorded in done:
        return done[recorded]
    decided = {
        Choice.CONFIRM: f"{candidate}: confirmed “{CONFIRM_TITLE[request.verdict.kind]}”",
        Choice.POSTPONE: f"{candidate}: postponed",
        Choice.FORCE_ROLLBACK: f"{candidate}: rollback forced",
        Choice.EXPIRE: f"{candidate}: nobody decided in time",
    }
    return decided[claim.choice]


def decided(request: DecisionRequest, claim: Claim, recorded: RecordKind | None) -> str:
    """Who, when, what and why; then what has come of it so far."""
    return f"{answered(request, claim)}\n{_so_far(request, claim, recorded)}"


def answered(request: DecisionRequest, claim: Claim, *, most: int = 300) -> str:
    """Who answered what, when and why; of the reason at most so many characters."""
    when, reason = local_time(claim.claimed_at), f" Reason: {quote(claim.reason, most)}" if claim.reason else ""
    before = f"{_confirmed_first(claim.first)} " if claim.first else ""
    match claim.choice:
        case Choice.CONFIRM:
            second = " as the second person" if claim.first else ""
            what = CONFIRM_TITLE[request.verdict.kind].lower()
            return f"{before}*Confirmed*{second} by {who(claim.actor)}, {when}: {what}.{reason}"
        case Choice.POSTPONE:
            return f"{before}*Postponed* by {who(claim.actor)}, {when}.{reason}"
        case Choice.FORCE_ROLLBACK:
            return f"{before}*Rollback forced* by {who(claim.actor)}, {when}.{reason}"
        case Choice.EXPIRE:
            nobody = "no second person confirmed" if claim.first else "nobody decided"
            return f"{before}*Expired* {when}: {nobody} in time, so the baseline stays."
    assert_never(claim.choice)


def _so_far(request: DecisionRequest, claim: Claim, recorded: RecordKind | None) -> str:
    candidate, baseline = escape(request.test.candidate.name), escape(request.test.baseline.name)
    match recorded:
        case RecordKind.FAILED:
            return (
                "It failed and could not be undone at once: that is tried again until it is done. `/fraud-rollback` does it now."
            )
        case RecordKind.PROMOTED:
            return f"Done: all traffic goes to {candidate}."
        case RecordKind.BASELINE_KEPT:
            return f"Done: all traffic goes to {baseline}."
        case RecordKind.COMPENSATED:
            return f"It could not be carried out in full and was undone: all traffic goes to {baseline}."
        case RecordKind.SUPERSEDED:
            return "A newer decision or an emergency rollback took over before this one was carried out."
        case RecordKind.EMERGENCY_REVERT:
            return f"All traffic was sent back to {baseline}."
        case (
            RecordKind.CONFIRMED_FIRST
            | RecordKind.DECIDED
            | RecordKind.BREACH
            | RecordKind.WATCHED
            | RecordKind.RETIRED
            | RecordKind.INVESTIGATED
            | RecordKind.DOCUMENTED
            | None
        ):
            return _again(claim) or "The steps are reported in the thread, each when it is done."
    assert_never(recorded)


def changed(record: DecisionRecord, *, most: int) -> str:
    """What a record of a change tells: when, what, from what to what, by whom and why; of the why at most so many characters."""
    told = record.payload
    traffic: Any = told.get("traffic") or {}
    before = escape(str(traffic.get("before") or told.get("before") or ""))
    moved = f"{before} → {escape(str(traffic['after']))}" if traffic else before
    match record.kind:
        case RecordKind.PROMOTED:
            what = f"promotion, {moved}"
        case RecordKind.BASELINE_KEPT:
            what = f"the baseline is kept, {moved}"
        case RecordKind.COMPENSATED:
            what = f"a promotion was undone, {moved}. Why: {quote(str(told.get('why', '')), most)}"
        case RecordKind.EMERGENCY_REVERT:
            reason = f" Reason: {quote(str(told['reason']), most)}" if told.get("reason") else ""
            what = f"emergency rollback by {escape(brief(str(told.get('actor', ''))))}, before it {moved}.{reason}"
        case RecordKind.RETIRED:
            what = f"the predictor {escape(str(told.get('predictor', '')))} is retired"
        case _:
            what = str(record.kind)
    return f"{local_time(record.at)}: {what}"


def investigating(decision: Decision, run_url: str) -> str:
    """To who has asked for an investigation."""
    run = link(run_url, "Follow it in Prefect") if run_url else ""
    candidate = escape(brief(str(decision.request.test.candidate)))
    asked = escape(brief(decision.decision_id))
    said = f"Why {candidate} did not win ({asked}) is being looked into; production stays as it is."
    return f"{said} The thread tells what is found. {run}".strip()


def _again(claim: Claim) -> str:
    if claim.due_at is None:
        return ""
    if claim.wanted_frauds is None:
        return f"The test is evaluated again on {local_time(claim.due_at)}."
    seen = f"{_frauds(claim.wanted_frauds)} seen"
    return f"The test is evaluated again when {seen}, at the latest on {local_time(claim.due_at)}."


def already_decided(decision: Decision) -> str:
    """For the one who came second."""
    claim = decision.claim
    if claim is None:
        return f"The time to decide ended {local_time(decision.deadline)}: the baseline stays. Your press has changed nothing."
    return f"Your press has changed nothing: this was decided before. {answered(decision.request, claim)}"
