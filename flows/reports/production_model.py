"""`docs/production_model.md`, for fraud analysts: which model is in production and what to expect of it, in everyday words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.counts import Design
from flows.domain.lifecycle import LifecycleStatus
from flows.domain.policy import LabelBasis
from flows.reports.markdown import bullets, harmless, section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.ab_test import Model
    from flows.domain.decision import Decision
    from flows.domain.lifecycle import ModelLife
    from flows.domain.verdict import ModelMetrics

PRODUCTION_PATH = "docs/production_model.md"
AS_BEFORE = 0.005  # a difference of half in 100, which nobody would notice
_NUMBERS = "These numbers are from its trial. Fraud is often reported weeks later, so newer ones need time to be complete."
_WRONG = (
    "Many false alerts, customers who complain, fraud that slips through: say so in the fraud channel. Those on call can put the "
    "model before back within seconds, with `/fraud-rollback` in Slack. Nobody needs to be sure first."
)
_VERBS = {
    LifecycleStatus.PROMOTED: "is the new fraud model",
    LifecycleStatus.RETAINED: "stays the fraud model",
    LifecycleStatus.RESTORED: "is the fraud model again",
}


def production_model_page(lives: Sequence[ModelLife]) -> str:
    """The generated part of the page."""
    in_charge = next((life for life in lives if life.status.is_in_production), None)
    if in_charge is None:
        return section("In production", ["At this moment nobody can say: the model is being changed."])
    on_trial = [life for life in lives if life.status is LifecycleStatus.IN_TEST]
    alone = "" if on_trial else " It checks every transaction."
    sections = [
        section("In production", [f"{_who(in_charge)}{alone}", _why(in_charge, lives)]),
        section("What to expect", [bullets(_expected(in_charge)), _NUMBERS]),
        section("On trial", [_trial(life) for life in on_trial]) if on_trial else "",
        section("When something looks wrong", [_WRONG]),
    ]
    return "\n\n".join(part for part in sections if part)


def _who(life: ModelLife) -> str:
    verb = _VERBS.get(life.status)
    if verb is None:  # since before its first test: nobody knows since when
        return f"**{_name(life.model)}** is the fraud model."
    return f"**{_name(life.model)}** {verb}, since {life.last_updated:%Y-%m-%d}."


def _why(life: ModelLife, lives: Sequence[ModelLife]) -> str:
    baseline, candidate = life.decision.request.test.models
    match life.status:
        case LifecycleStatus.PROMOTED:
            both = "Both were tried side by side on real transactions, and the new one caught more fraud."
            return f"It replaces {_name(baseline)}. {both}"
        case LifecycleStatus.RETAINED:
            is_out = any(one.model == candidate and one.status is LifecycleStatus.ARCHIVED for one in lives)
            what = "is not used" if is_out else "may be tried again"
            return f"{_name(candidate)} was tried beside it and {what}. For you nothing changes."
        case LifecycleStatus.RESTORED:
            return f"{_name(candidate)} was taken out of production. Expect alerts as they were before it."
        case _:
            return ""


def _expected(life: ModelLife) -> list[str]:
    """Caught fraud, false alerts and work, each beside what it was with the model before."""
    verdict = life.decision.request.verdict
    is_new = life.status is LifecycleStatus.PROMOTED
    mine, before = life.metrics, verdict.metrics.baseline if is_new else None
    lines = [
        _of_100("Of 100 frauds it catches about {}", mine.recall, before.recall if before else None),
        _of_100("Of 100 alerts about {} are really fraud", mine.precision, before.precision if before else None),
        _work(mine, before, life.decision) if before else "",
    ]
    return [line for line in lines if line] or ["How well it does was not measured."]


def _of_100(sentence: str, share: float | None, before: float | None) -> str:
    if share is None:
        return ""
    number = sentence.format(round(100 * share))
    if before is None:
        return f"{number}."
    return f"{number}, as before." if abs(share - before) < AS_BEFORE else f"{number} (before: {round(100 * before)})."


def _work(mine: ModelMetrics, before: ModelMetrics, decision: Decision) -> str:
    """Alerts among 10,000 transactions; empty where the evidence does not tell how many transactions there were."""
    evidence, basis = decision.request.evidence, decision.request.verdict.label_basis
    feedback = evidence.feedback if evidence else None
    if feedback is None or basis is not LabelBasis.ALL:
        return ""
    is_paired = feedback.outcomes.design is Design.PAIRED
    rows = [feedback.outcomes.rows] * 2 if is_paired else [feedback.baseline.labelled, feedback.candidate.labelled]
    if not all(rows):
        return ""
    was, now = (
        round(10_000 * (one.true_positives + one.false_positives) / count)
        for one, count in zip((before, mine), rows, strict=True)
    )
    return f"Of 10,000 transactions about {now:,} raise an alert (before: {was:,})."


def _trial(life: ModelLife) -> str:
    policy = life.decision.request.policy
    share = f" on {policy.traffic.candidate} % of the transactions" if policy and policy.traffic.candidate else ""
    fair = "Work on the alerts of both models in the same way, so that the trial is fair."
    return f"**{_name(life.model)}** is being tried{share}. {fair}"


def _name(model: Model) -> str:
    return f"{harmless(model.name)} (version {harmless(model.version)})"
