"""`fraud-ab evaluate`: a verdict on a laptop, no servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.domain.errors import FeedbackInvalid, FraudABError

if TYPE_CHECKING:
    from flows.adapters.feedback_ibis import LargeFraud
    from flows.domain.policy import Policy
    from flows.domain.verdict import ModelMetrics, Verdict
    from flows.domain.what_if import WhatIf
    from flows.evaluate_ab_test import Evaluation

_BAD_INPUT = 2
_LARGEST = 5


def evaluate(
    feedback: Annotated[str | None, typer.Option(help="Parquet or CSV file, or postgresql://…/db?table=schema.table")] = None,
    counts: Annotated[Path | None, typer.Option(help="JSON file with counts instead of feedback (docs: counts file)")] = None,
    policy: Annotated[Path | None, typer.Option(help="policy.toml; without it the defaults apply")] = None,
    start: Annotated[
        str | None, typer.Option(help="when the test began, as 2026-01-31 (UTC); default: day of the first event")
    ] = None,
    what_if: Annotated[
        Path | None, typer.Option(help="another policy.toml: the same evidence under it, and which criterion decides")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the verdict as JSON (docs/verdict.schema.json)")] = False,
) -> None:
    """Evaluate feedback or counts and print the verdict. Exit 0 whatever the verdict; bad input: one sentence and exit 2."""
    from flows.domain.evidence import plain

    try:
        evaluation = _evaluation(feedback, counts, policy, start)
        other = _what_if(evaluation, what_if) if what_if else None
        frauds = _largest(feedback, evaluation, policy) if feedback and not as_json else []
    except FraudABError as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(_BAD_INPUT) from error
    if as_json:
        found = evaluation.verdict.to_json() | ({"what_if": plain(other)} if other else {})
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
        return
    _show(evaluation.verdict)
    _show_largest(frauds)
    if other:
        _show_what_if(other)


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


def _what_if(evaluation: Evaluation, policy_file: Path) -> WhatIf:
    from flows.domain.what_if import what_if

    return what_if(evaluation.evidence, evaluation.verdict, _policy(policy_file))


def _largest(feedback: str, evaluation: Evaluation, policy_file: Path | None) -> list[LargeFraud]:
    from flows.adapters.feedback_ibis import IbisFeedback

    window, policy = evaluation.evidence.window, _policy(policy_file)
    return IbisFeedback(feedback, policy).largest(window, policy, _LARGEST) if window else []


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
    if verdict.savings_per_month:
        console.print(f"Estimated savings over 30 days of all traffic: {verdict.savings_per_month}", markup=False)
    if verdict.homogeneity:
        tested = (("recall", verdict.homogeneity.recall_p_value), ("precision", verdict.homogeneity.precision_p_value))
        shown = ", ".join(f"{what} {'unknown' if p is None else f'p = {p:.2g}'}" for what, p in tested)
        console.print(f"The same difference in every week? {shown}", markup=False)
    if verdict.not_checked:
        console.print(f"Not checked, because the feedback lacks it: {', '.join(verdict.not_checked)}", markup=False)
    console.print(f"policy {verdict.policy_digest}\nevidence {verdict.evidence_digest}", soft_wrap=True)


def _show_largest(frauds: list[LargeFraud]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not frauds:
        return
    table = Table("fraud that", "transaction", "amount", title="The largest, to look at", title_justify="left")
    for fraud in frauds:
        table.add_row(fraud.what, fraud.transaction, f"{fraud.amount:,.2f}")
    Console().print(table)


def _show_what_if(other: WhatIf) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("criterion", "status", "observed", "needed", "room", title="Under the other policy", title_justify="left")
    for item in other.criteria:
        status = " → ".join(one.value.replace("_", " ") for one in (item.before, item.after))
        needed = " → ".join(f"{one:.4g}" for one in (item.threshold_before, item.threshold_after))
        observed = "unknown" if item.observed is None else f"{item.observed:.4g}"
        room = "unknown" if item.room is None else f"{item.room:+.4g} {item.unit}"
        table.add_row(item.name.value + (" (decides)" if item.decides else ""), status, observed, needed, room)
    console = Console()
    console.print(table)
    console.print(f"{other.before.value} would be {other.after.value}. {other.why}", markup=False)


def _shares(model: ModelMetrics) -> list[str]:
    return [
        "unknown" if share is None else f"{share:.4f}" for share in (model.recall, model.precision, model.fraud_detection_rate)
    ]
