"""The generated part of `docs/model_lifecycle.md`: YAML inside Markdown, newest knowledge about every tested model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.lifecycle import LifecycleStatus
from flows.reports.dossier import failure_analysis
from flows.reports.markdown import bullets, harmless, section, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.decision import Decision
    from flows.domain.lifecycle import ModelLife
    from flows.domain.policy import Policy
    from flows.domain.verdict import ModelMetrics

PAGE_PATH = "docs/model_lifecycle.md"
BEGIN = "<!-- fraud-ab begins: this part is written by fraud-ab, your own words go above or below it -->"
END = "<!-- fraud-ab ends -->"


def merge_page(existing: str, generated: str) -> str:
    """Put the generated part into a page, between its markers or, when one of them is missing, at its end: what people wrote
    is never touched."""
    part = f"{BEGIN}\n{generated.strip()}\n{END}"
    before, begin, rest = existing.rpartition(BEGIN)  # the last one: an earlier one may have lost its end
    _, end, after = rest.partition(END)
    if begin and end:
        return before + part + after
    return f"{existing.rstrip()}\n\n{part}\n" if existing.strip() else f"{part}\n"


def lifecycle_page(lives: Sequence[ModelLife], policy: Policy) -> str:
    """Models with status, metrics, A/B test and history, then the same for people; equal input gives equal text, so that nothing
    new is no commit.

    Args:
        policy: that in force, for tests whose own is not known.
    """
    lines = ["model_lifecycle:"]
    for life in lives:
        lines += _model(life, _key(life, lives), policy)
    yaml = "\n".join(lines)
    tested = [(life, life.trial) for life in lives if life.trial is not None]
    parts = [
        section("Model history", [f"```yaml\n{yaml}\n```"]),
        section("A/B tests", [_tests(tested, policy)] if tested else []),
        section("Failure analysis", [part for life in lives if life.has_failed for part in _analysis(life)]),
        section("Recommendations", ["\n".join(map(_recommendation, lives))]),
        *(section("Monitoring plan", _plan(life, policy)) for life in lives if life.status is LifecycleStatus.PROMOTED),
    ]
    return "\n\n".join(part for part in parts if "\n" in part)  # without its lines a heading says nothing


def _key(life: ModelLife, lives: Sequence[ModelLife]) -> str:
    is_unique = sum(other.model.name == life.model.name for other in lives) == 1
    return _quoted(life.model.name if is_unique else f"{life.model.name}_v{life.model.version}", plain=is_unique)


def _model(life: ModelLife, key: str, policy: Policy) -> list[str]:
    lines = [
        f"  {key}:",
        f"    status: {_quoted(life.status)}",
        f"    version: {_quoted(life.model.version)}",
        f"    metrics: {_metrics(life.metrics)}",
        f'    last_updated: "{life.last_updated:%Y-%m-%d}"',
    ]
    if life.trial is not None:
        lines += _test(life, life.trial, policy)
    lines.append("    history:")
    for item in life.history:
        lines.append(
            f'      - {{ date: "{item.at:%Y-%m-%d}", status: {_quoted(item.status)}, because: {_quoted(item.because)} }}'
        )
    return lines


def _test(life: ModelLife, trial: Decision, policy: Policy) -> list[str]:
    request, claim, traffic = trial.request, trial.claim, (trial.request.policy or policy).traffic
    return [
        "    ab_test:",
        f"      id: {_quoted(request.test.test_id)}",
        f"      duration: {_quoted(_duration(request.verdict.exposure_days))}",
        f"      traffic_split: {{ baseline: {traffic.baseline}%, candidate: {traffic.candidate}% }}",
        f"      outcome: {_quoted(f'{_came_of(life)}: ' + ' '.join(request.verdict.reasons))}",
        f"      decided_by: {_quoted(claim.actor.name) if claim else 'null'}",
        f"      decision: {_quoted(trial.decision_id)}",
        f"    failure_analysis: {_quoted(_failure(life)) if life.has_failed else 'null'}",
    ]


def _came_of(life: ModelLife) -> LifecycleStatus:
    """How its trial ended; a model that has become a baseline since was promoted."""
    return life.status if life.arm is Arm.CANDIDATE else LifecycleStatus.PROMOTED


def _failure(life: ModelLife) -> str:
    """In one line: what an investigation has found, else which criteria were missed."""
    if life.investigation is not None:
        return life.investigation.summary[0]
    missed = [one.reason for one in life.decision.request.verdict.criteria if one.status not in ("passed", "not_checked")]
    return "; ".join(missed) or f"All criteria were met; the baseline was kept by the decision: {life.history[-1].because}"


def _tests(tested: Sequence[tuple[ModelLife, Decision]], policy: Policy) -> str:
    """One row for each model that was a candidate, by its last decision as one."""
    head = ["test", "baseline → candidate", "window", "split", "recall", "precision", "outcome", "decided by"]
    rows: list[Sequence[str]] = [head]
    for life, trial in tested:
        request, claim, traffic = trial.request, trial.claim, (trial.request.policy or policy).traffic
        before, after = request.verdict.metrics.baseline, request.verdict.metrics.candidate
        rows.append(
            [
                request.test.test_id,
                f"{request.test.baseline.name} → {life.model.name}",
                f"{_duration(request.verdict.exposure_days)} from {request.test.started_at:%Y-%m-%d}",
                f"{traffic.baseline} / {traffic.candidate} %",
                _arrow(before.recall, after.recall),
                _arrow(before.precision, after.precision),
                _came_of(life),
                claim.actor.name if claim else "not yet",
            ]
        )
    return table(rows)


def _arrow(before: float | None, after: float | None) -> str:
    return f"{_shown(before)} → {_shown(after)}"


def _analysis(life: ModelLife) -> list[str]:
    title = f"### {harmless(life.model)}"
    if life.investigation is None:
        ask = f"Not investigated: `/fraud-investigate {harmless(life.decision.decision_id)}` in Slack looks for the cause."
        return [title, harmless(_failure(life)), ask]
    return [title, *failure_analysis(life.investigation)]


def _plan(life: ModelLife, default: Policy) -> list[str]:
    """What is watched of a promoted model, when, and what to do about it."""
    policy, metrics = life.decision.request.policy or default, life.decision.request.verdict.metrics.candidate
    breach = "reverted at once" if policy.auto_revert else "posted in Slack with a button to revert"
    way_back = (
        f"its predictor is removed after {policy.retire_after_hours:g} h, and a rollback starts it again from the archive"
        if policy.retire_after_hours
        else "its predictor stays, so that a rollback is immediate"
    )
    limit = f"p95 latency (limit {float(policy.latency.p95_ms):g} ms)"
    shares = ", ".join(_shown(share) for share in (metrics.recall, metrics.precision, metrics.fraud_detection_rate))
    measured = f"Recall, precision and fraud detection rate stay those of the test ({shares}): nothing counts them anew"
    days = policy.label_maturity_days
    lines = [
        f"The first {policy.bake_hours:g} hours, every few minutes: {limit}, errors, traffic, share of flagged transactions.",
        f"A breach of these is {breach}.",
        "Always: the dashboard of the model in charge, and the alerts FraudModelSlow and FraudModelErrors.",
        f"{measured}. After {days} days, when its first labels have matured, count them from the feedback and compare.",
        f"The way back: /fraud-rollback in Slack, or fraud-ab rollback. Of the model before, {way_back}.",
    ]
    return [f"For {harmless(life.model)}:", bullets(lines)]


def _shown(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.3f}"


def _recommendation(life: ModelLife) -> str:
    name = harmless(life.model.name)
    match life.status:
        case LifecycleStatus.PROMOTED:
            text = "follow the monitoring plan below."
        case LifecycleStatus.ARCHIVED if life.arm is Arm.CANDIDATE and life.investigation is not None:
            steps = [str(one["next_step"]) for one in life.investigation.findings if one.get("next_step")]
            text = harmless(" ".join(steps) or "the investigation proposes nothing more than it says above.")
        case LifecycleStatus.ARCHIVED if life.arm is Arm.CANDIDATE:
            text = "find the cause first (drift, overfitting, pipeline), then retrain on current data or change the features."
        case LifecycleStatus.ARCHIVED:
            text = "keep its archived artifacts: they are the way back."
        case LifecycleStatus.IN_TEST:
            text = "wait for the test's verdict."
        case _:
            text = "in charge; keep its monitoring as it is."
    return f"- **{name}** version {life.model.version}: {text}"


def _duration(days: int | None) -> str:
    if days is None:
        return "unknown"
    weeks = days // 7
    return f"{weeks} week{'s' * (weeks != 1)}" if weeks and days % 7 == 0 else f"{days} day{'s' * (days != 1)}"


def _metrics(metrics: ModelMetrics) -> str:
    named = {
        "precision": metrics.precision,
        "recall": metrics.recall,
        "fraud_detection_rate": metrics.fraud_detection_rate,
    }
    return "{ " + ", ".join(f"{key}: {'null' if share is None else f'{share:.4f}'}" for key, share in named.items()) + " }"


def _quoted(text: str, *, plain: bool = False) -> str:
    """A YAML scalar: JSON's quoting is YAML's; `<` is escaped so that no text can end the generated part of the page."""
    if plain and text.replace("_", "").replace("-", "").isalnum():
        return text
    return json.dumps(str(text), ensure_ascii=False).replace("<", "\\u003c")
