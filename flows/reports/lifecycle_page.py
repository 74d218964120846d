"""The generated part of `docs/model_lifecycle.md`: YAML inside Markdown, newest knowledge about every tested model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.lifecycle import LifecycleStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.lifecycle import ModelLife
    from flows.domain.policy import Traffic
    from flows.domain.verdict import ModelMetrics

PAGE_PATH = "docs/model_lifecycle.md"
BEGIN = "<!-- fraud-ab begins: this part is written by fraud-ab, your own words go above or below it -->"
END = "<!-- fraud-ab ends -->"


def merge_page(existing: str, generated: str) -> str:
    """Put the generated part into a page, between its markers or, when it has none, at its end."""
    part = f"{BEGIN}\n{generated.strip()}\n{END}"
    if BEGIN in existing and END in existing:
        before, _, rest = existing.partition(BEGIN)
        return before + part + rest.partition(END)[2]
    return f"{existing.rstrip()}\n\n{part}\n" if existing.strip() else f"{part}\n"


def lifecycle_page(lives: Sequence[ModelLife], traffic: Traffic) -> str:
    """Models with status, metrics, A/B test and history; the same input gives the same text, so nothing changed is no commit."""
    lines = ["model_lifecycle:"]
    for life in lives:
        lines += _model(life, _key(life, lives), traffic)
    yaml = "\n".join(lines)
    return f"## Model history\n\n```yaml\n{yaml}\n```\n\n## Recommendations\n\n" + "\n".join(map(_recommendation, lives))


def _key(life: ModelLife, lives: Sequence[ModelLife]) -> str:
    is_unique = sum(other.model.name == life.model.name for other in lives) == 1
    return _quoted(life.model.name if is_unique else f"{life.model.name}_v{life.model.version}", plain=is_unique)


def _model(life: ModelLife, key: str, traffic: Traffic) -> list[str]:
    verdict = life.decision.request.verdict
    metrics = verdict.metrics.candidate if life.arm is Arm.CANDIDATE else verdict.metrics.baseline
    lines = [
        f"  {key}:",
        f"    status: {_quoted(life.status)}",
        f"    version: {_quoted(life.model.version)}",
        f"    metrics: {_metrics(metrics)}",
        f'    last_updated: "{life.last_updated:%Y-%m-%d}"',
    ]
    if life.arm is Arm.CANDIDATE:
        lines += _test(life, traffic)
    lines.append("    history:")
    for item in life.history:
        lines.append(
            f'      - {{ date: "{item.at:%Y-%m-%d}", status: {_quoted(item.status)}, because: {_quoted(item.because)} }}'
        )
    return lines


def _test(life: ModelLife, traffic: Traffic) -> list[str]:
    request, claim = life.decision.request, life.decision.claim
    failed = life.status in (LifecycleStatus.ARCHIVED, LifecycleStatus.RETAINED)
    return [
        "    ab_test:",
        f"      id: {_quoted(request.test.test_id)}",
        f"      duration: {_quoted(_duration(request.verdict.exposure_days))}",
        f"      traffic_split: {{ baseline: {traffic.baseline}%, candidate: {traffic.candidate}% }}",
        f"      outcome: {_quoted(f'{life.status}: ' + ' '.join(request.verdict.reasons))}",
        f"      decided_by: {_quoted(claim.actor.name) if claim else 'null'}",
        f"      decision: {_quoted(life.decision.decision_id)}",
        f"    failure_analysis: {_quoted(_failure(life)) if failed else 'null'}",
    ]


def _failure(life: ModelLife) -> str:
    missed = [one.reason for one in life.decision.request.verdict.criteria if one.status not in ("passed", "not_checked")]
    return "; ".join(missed) or f"All criteria were met; the baseline was kept by the decision: {life.history[-1].because}"


def _recommendation(life: ModelLife) -> str:
    name = life.model.name.replace("<", "&lt;")
    match life.status:
        case LifecycleStatus.PROMOTED:
            text = (
                "watch recall, precision and fraud detection rate in production as labels mature, and latency and errors daily."
            )
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
