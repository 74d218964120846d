"""`fraud-ab evaluate`: a verdict on a laptop, no servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.domain.errors import FeedbackInvalid, FraudABError

if TYPE_CHECKING:
    from flows.domain.policy import Policy
    from flows.domain.verdict import ModelMetrics, Verdict
    from flows.evaluate_ab_test import Evaluation

_BAD_INPUT = 2


def evaluate(
    feedback: Annotated[str | None, typer.Option(help="Parquet or CSV file, or postgresql://…/db?table=schema.table")] = None,
    counts: Annotated[Path | None, typer.Option(help="JSON file with counts instead of feedback (docs: counts file)")] = None,
    policy: Annotated[Path | None, typer.Option(help="policy.toml; without it the defaults apply")] = None,
    start: Annotated[
        str | None, typer.Option(help="when the test began, as 2026-01-31 (UTC); default: day of the first event")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the verdict as JSON (docs/verdict.schema.json)")] = False,
) -> None:
    """Evaluate feedback or counts and print the verdict. Exit 0 whatever the verdict; bad input: one sentence and exit 2."""
    try:
        evaluation = _evaluation(feedback, counts, policy, start)
    except FraudABError as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(_BAD_INPUT) from error
    if as_json:
        typer.echo(json.dumps(evaluation.verdict.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(evaluation.verdict)


def _evaluation(feedback: str | None, counts: Path | None, policy_file: Path | None, start: str | None) -> Evaluation:
    from flows.evaluate_ab_test import evaluate as evaluate_feedback
    from flows.evaluate_ab_test import evaluate_counts

    if (feedback is None) == (counts is None):
        raise FeedbackInvalid("Give either --feedback or --counts.")
    policy = _policy(policy_file)
    if counts is not None:
        from flows.adapters.counts_file import parse_counts

        return evaluate_counts(parse_counts(_text(counts), str(counts)), policy)
    from flows.adapters.feedback_ibis import IbisFeedback
    from flows.adapters.telemetry_feedback import FeedbackTelemetry

    source = IbisFeedback(str(feedback), policy)
    source.refuse_bad_rows()
    began = _moment(start) if start else source.first_event().replace(hour=0, minute=0, second=0, microsecond=0)
    now = datetime.now(UTC)
    return evaluate_feedback(source, FeedbackTelemetry(str(feedback), policy), policy, began, now, previous_looks=None)


def _policy(file: Path | None) -> Policy:
    from flows.domain.policy import Policy, load_policy

    return load_policy(_text(file), str(file)) if file else Policy()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise FraudABError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FraudABError(f"{file} cannot be read: it is no UTF-8 text.") from error


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FeedbackInvalid(f"--start {text}: write a date such as 2026-01-31, or a time such as 2026-01-31T08:00.") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _show(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{verdict.kind.value}[/bold]  ({verdict.design.value} design)")
    for reason in verdict.reasons:
        console.print(reason, markup=False)
    metrics = Table("", "recall", "precision", "fraud detection rate", title="Models", title_justify="left")
    for name, model in (("baseline", verdict.metrics.baseline), ("candidate", verdict.metrics.candidate)):
        metrics.add_row(name, *_shares(model))
    checks = Table("what", "status", "why", title="Criteria and guardrails", title_justify="left")
    for item in (*verdict.criteria, *verdict.guardrails):
        checks.add_row(item.name.value, item.status.value.replace("_", " "), item.reason)
    console.print(metrics, checks)
    if verdict.significance:
        test = verdict.significance
        console.print(f"p = {test.p_value:.4g} ({test.test.value}), level of look {test.look}: {test.alpha:.4g}")
    if verdict.not_checked:
        console.print(f"Not checked, because the feedback lacks it: {', '.join(verdict.not_checked)}", markup=False)
    console.print(f"policy {verdict.policy_digest}\nevidence {verdict.evidence_digest}", soft_wrap=True)


def _shares(model: ModelMetrics) -> list[str]:
    return [
        "unknown" if share is None else f"{share:.4f}" for share in (model.recall, model.precision, model.fraud_detection_rate)
    ]
