"""What is said about rollbacks, after they have happened; and what to do by hand when they could not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.domain.action_plan import describe_traffic
from flows.domain.serving_state import describe_serving, only_these
from slackbot.identifiers import Command
from slackbot.messages.block_kit import SlackMessage, escape, header, iso_time, link, mention, plain, quote, section
from slackbot.messages.short_names import brief

if TYPE_CHECKING:
    from flows.domain.serving_state import ServingState

HELP = "\n".join(
    (
        f"• `{Command.FRAUD_ROLLBACK}` opens a form with the cause preset",
        f"• `{Command.FRAUD_ROLLBACK} now [cause]` sends all traffic to the baseline at once",
        f"• `{Command.FRAUD_ROLLBACK} preview` shows what would change",
        f"• `{Command.FRAUD_ROLLBACK} help` shows this",
    )
)


def _message(title: str, *paragraphs: str) -> SlackMessage:
    shown = [paragraph for paragraph in paragraphs if paragraph]
    return SlackMessage(f"{escape(title)}. {' '.join(shown)}", (header(title), *(section(one) for one in shown)))


def help_message(unknown: str = "") -> SlackMessage:
    known = f"I do not know {quote(unknown, 60)}; nothing has changed. " if unknown else ""
    return SlackMessage(f"{known}These are the forms:\n{HELP}")


def rolled_back(before: ServingState, after: ServingState, actor_id: str, reason: str) -> SlackMessage:
    """What a revert that Kubernetes has accepted did: moved traffic, found nothing to move, or started the baseline again."""
    baseline, asked = plain(_baseline(before)), f"Asked for by {mention([actor_id])}. Cause: {quote(reason)}"
    if after.intent is not None:
        title = f"Rolling back: {baseline} is being started again"
        what = "Its predictor had been removed. It is restored without traffic and gets all of it as soon as it is ready."
    elif before.serves_alone(_baseline(before)):
        title = f"{baseline} had all traffic already"
        what = "No traffic had to move. The request is noted, and a promotion that was in progress stops."
    else:
        title = f"Rolled back: {baseline} gets all traffic"
        moved = f"{escape(describe_serving(before))} → {escape(describe_serving(after))}"
        what = f"Traffic: {moved}. The router follows within seconds; the channel is told when it has."
    return _message(title, what, _others(before, after), asked)


def _others(before: ServingState, after: ServingState) -> str:
    """What else was going on, and has ended."""
    ended = [one.name for one in before.predictors if one.shadow and not after.is_shadow(one.name)]
    lines = [f"{escape(name)} was a shadow; nothing is copied to it any more." for name in ended]
    lines += _changed_since(before)
    if before.operation:
        lines.append(f"{escape(before.operation)} was being carried out; it stops where it is.")
    if before.intent:
        lines.append("An earlier rollback was still starting the baseline again.")
    if before.unrecorded:
        earlier = before.unrecorded[-1]
        lines.append(
            f"An earlier rollback by {escape(brief(earlier['actor']))} ({iso_time(earlier['at'])}) is still being recorded."
        )
    return "\n".join(lines)


def _changed_since(state: ServingState) -> list[str]:
    """Whose name serves is known, and whether it is still the model of the test."""
    baseline = _baseline(state)
    if state.predictor(baseline) is None or state.is_as_tested(baseline):
        return []
    return [f"Note: the predictor {escape(baseline)} was changed since the test started; what it is now is what serves."]


def follow_up(run_url: str, problems: Sequence[str]) -> str:
    """What happens beside the traffic: where it is carried on, and what could not be started yet."""
    where = f"Registry, documents and records follow: {link(run_url, 'Prefect run')}." if run_url else ""
    if not problems:
        return where or "Registry, documents and records follow."
    listed = "\n".join(f"• {escape(problem)}" for problem in problems)
    kept = "the SeldonDeployment keeps who, when and why until then"
    return f"{where}\nStill to be done when this works again ({kept}):\n{listed}".strip()


def preview(state: ServingState) -> SlackMessage:
    """The diff of a rollback, without making it."""
    if state.revert_to is None:
        return _message("Preview: there is nothing to roll back to", no_rollback_point(state.namespace, state.name))
    baseline = _baseline(state)
    title = f"Preview: all traffic to {plain(baseline)}"
    if state.serves_alone(baseline):
        return _message(title, f"{escape(baseline)} is the baseline and has all traffic already: no traffic would move.")
    after = {**only_these(state, {baseline: 100}), baseline: 100}
    missing = "" if state.predictor(baseline) else f"{escape(baseline)} has been removed and would be started again first."
    moved = f"Traffic: {escape(describe_serving(state))} → {escape(describe_traffic(after))}"
    return _message(title, moved, missing, *_changed_since(state), "Nothing has changed.")


def still_trying(namespace: str, name: str) -> SlackMessage:
    title = "Kubernetes is slow to answer"
    return _message(
        title, "The traffic has not been moved yet; I go on trying and will say how it ends.", runbook(namespace, name)
    )


def unreachable(namespace: str, name: str, error: str) -> SlackMessage:
    """The traffic was not moved (or nobody knows)."""
    title = "Kubernetes did not do it"
    said = f"{escape(error)}. The traffic is probably where it was: look, and move it by hand, or try again in a moment."
    return _message(title, said, runbook(namespace, name))


def not_reverted(namespace: str, name: str, error: str) -> SlackMessage:
    """The deployment is not as a revert needs it: nothing was moved, and here is what can be done."""
    return _message("Nothing was reverted", f"{escape(error[:1].upper() + error[1:])}.", runbook(namespace, name))


def no_rollback_point(namespace: str, name: str) -> str:
    said = "The SeldonDeployment names no baseline (annotation `fraud-ab/revert-to`), so nothing has been moved."
    return f"{said}\n{runbook(namespace, name)}"


def runbook(namespace: str, name: str) -> str:
    """By hand, from any machine that reaches the cluster."""
    where = f"kubectl -n {escape(namespace)}"
    return (
        "*By hand:*\n"
        '```fraud-ab rollback --reason "…"```\n'
        "or, from any machine that reaches the cluster,\n"
        f"```{where} get sdep {escape(name)} -o yaml\n"
        f"{where} edit sdep {escape(name)}```\n"
        "Set `traffic: 100` at the baseline's predictor (the annotation `fraud-ab/revert-to` names it) and 0 at the other, "
        "raise `fraud-ab/epoch` by one and delete `fraud-ab/operation`."
    )


def _baseline(state: ServingState) -> str:
    return str((state.revert_to or {}).get("predictor", "the baseline"))
