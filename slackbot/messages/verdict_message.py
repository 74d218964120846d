"""The one message of a decision, drawn from the stored truth in each of its states. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.domain.decision_record import RecordKind, latest_outcome
from flows.domain.guardrails import GuardrailStatus
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action
from slackbot.messages import wording
from slackbot.messages.block_kit import (
    Json,
    SlackMessage,
    actions,
    button,
    context,
    escape,
    fields,
    header,
    link,
    local_time,
    mention,
    section,
)
from slackbot.messages.short_names import brief, with_short_names
from slackbot.payloads import Question

if TYPE_CHECKING:
    from flows.domain.action_plan import ActionPlan, Change
    from flows.domain.decision import Claim, Decision, DecisionRequest
    from flows.domain.policy import Policy
    from flows.domain.verdict import Verdict


def verdict_message(decision: Decision, policy: Policy, *, recorded: Sequence[RecordKind] = ()) -> SlackMessage:
    """The decision as it is now.

    Args:
        policy: who may decide.
        recorded: the kinds of the decision's records, oldest first: what has really come of it.

    Raises:
        ExceedsSlackLimit: it cannot be shown in full.
    """
    shown = replace(decision, request=with_short_names(decision.request))
    if shown.claim is None:
        return _pending(shown, policy)
    return _answered(shown.request, shown.claim, latest_outcome(recorded))


def _pending(decision: Decision, policy: Policy) -> SlackMessage:
    request, title = decision.request, wording.question(decision.request)
    seen = escape(_reasons(request.verdict)[0])
    rules = wording.who_confirms(decision)
    blocks = [header(title), *_evidence(request.verdict), section(_if_confirmed(request))]
    blocks += [section(rules), _buttons(request)] if rules else [_buttons(request)]
    until = f"To be decided until {local_time(decision.deadline)}; {wording.BASELINE_BY_SILENCE}."
    return SlackMessage(
        text=" ".join(part for part in (escape(title), seen, rules, until) if part),
        blocks=(*blocks, context(_who_and_until(decision, policy)), *_footer(request)),
    )


def _answered(request: DecisionRequest, claim: Claim, outcome: RecordKind | None) -> SlackMessage:
    title = wording.decided_title(request, claim, outcome)
    state = wording.decided(request, claim, outcome)
    blocks = (header(title), section(state), *_evidence(request.verdict), *_footer(request))
    return SlackMessage(text=f"{escape(title)}. {state}", blocks=blocks)


def _evidence(verdict: Verdict) -> list[Json]:
    """Why, the criteria with their numbers, and what could not be checked."""
    sentences = [escape(reason) for reason in _reasons(verdict)]
    if verdict.savings_per_month and verdict.kind is VerdictKind.PROMOTE:
        sentences.append(f"Estimated savings a month: {verdict.savings_per_month}.")
    criteria = [
        (f"*{wording.CRITERION[item.name]}*\n{wording.status(item, verdict)}", wording.measured(item, verdict))
        for item in verdict.criteria
    ]
    unchecked = [*verdict.not_checked]
    unchecked += [check.reason for check in verdict.guardrails if check.status is GuardrailStatus.NOT_CHECKED]
    listed = [context(f"Not checked: {escape('; '.join(unchecked))}")] if unchecked else []
    return [section("\n".join(sentences)), fields(criteria), *listed]


def _reasons(verdict: Verdict) -> list[str]:
    """The sentences, each for a line of its own; what is broken comes before the numbers that do not count because of it."""
    outlook = verdict.outlook.sentence if verdict.outlook else ""
    reasons = [reason.removesuffix(outlook).strip() for reason in verdict.reasons]
    ordered = reasons[::-1] if verdict.kind is VerdictKind.NOT_EVALUABLE else reasons
    return [*ordered, outlook] if outlook else ordered


def _if_confirmed(request: DecisionRequest) -> str:
    is_broken = request.verdict.kind is VerdictKind.NOT_EVALUABLE
    lines = [f"{wording.if_confirmed(request)} {wording.IF_POSTPONED_BROKEN}" if is_broken else wording.if_confirmed(request)]
    if request.verdict.kind is not VerdictKind.INCONCLUSIVE:
        lines += changes(request.plan)
    return "\n".join(lines)


def changes(plan: ActionPlan) -> list[str]:
    """The diff that a person confirms, one line a change."""
    steps = (
        [f"• traffic in steps: {' → '.join(f'{step} %' for step in plan.traffic_steps)}"] if len(plan.traffic_steps) > 1 else []
    )
    return [_change(change) for change in plan.changes] + steps


def _change(change: Change) -> str:
    """`registry: fraud_v2 v1: Staging → Production`: what both sides begin with is said once."""
    what, before, after = escape(change.what), change.before, change.after
    if not before:
        return f"• {what}: {escape(after)}"
    if before == after:
        return f"• {what}: {escape(after)}, as now"
    subject, colon, _ = before.partition(": ")
    said = after.removeprefix(f"{subject}: ") if colon else after
    return f"• {what}: {escape(before)} → {escape(said)}"


def _buttons(request: DecisionRequest) -> Json:
    value = Question(decision_id=request.decision_id, evidence=request.verdict.evidence_digest).to_json()
    postpone = [button("Postpone…", Action.POSTPONE, value)] if request.postponements_left > 0 else []
    return actions(
        button("Confirm…", Action.CONFIRM, value, style="primary"),
        *postpone,
        button("Force rollback…", Action.FORCE_ROLLBACK, value, style="danger"),
    )


def _who_and_until(decision: Decision, policy: Policy) -> str:
    deciders = mention(policy.promoters) or "nobody (the policy names no promoters)"
    also = f" ({mention(policy.rollbackers)} may also roll back)" if policy.rollbackers else ""
    return f"To be decided by {deciders}{also} until {local_time(decision.deadline)}; {wording.BASELINE_BY_SILENCE}."


def _footer(request: DecisionRequest) -> list[Json]:
    test, verdict = request.test, request.verdict
    models = (
        wording.confusion(test.baseline.name, verdict.metrics.baseline),
        wording.confusion(test.candidate.name, verdict.metrics.candidate),
    )
    days = f"{verdict.exposure_days} days of exposure · " if verdict.exposure_days is not None else ""
    digest = verdict.evidence_digest.removeprefix("sha256:")[:8]
    about = f"{escape(brief(test.test_id))} · round {request.round} · {days}evidence {digest}"
    blocks = [context(" · ".join(models)), context(about)]
    shown = " · ".join(link(url, label) for label, url in _links(request) if url)
    return [*blocks, context(shown)] if shown else blocks


def _links(request: DecisionRequest) -> Iterable[tuple[str, str]]:
    links = request.links
    yield "Prefect run", links.prefect_run
    yield "MLflow run", links.mlflow_run
    yield "Dashboard", links.dashboard
    yield "Report", links.report
