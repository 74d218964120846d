"""What the demo prints: the parts, the verdict with its numbers, and what changed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flows.domain.ab_test import ABTest
from flows.domain.decision import Decision
from flows.domain.serving_state import describe_serving
from flows.reports.lifecycle_page import PAGE_PATH
from flows.reports.production_model import PRODUCTION_PATH

if TYPE_CHECKING:
    from deployments.sandbox.stack import Part
    from flows.domain.decision_record import Investigation
    from flows.wiring import Systems


def print_parts(console: Console, parts: Iterable[Part]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for part in parts:
        table.add_row(part.name, part.where, "" if part.embedded else "[bold](not embedded)[/bold]")
    console.print(table)


def print_verdict(console: Console, decision: Decision, elapsed_seconds: float) -> None:
    """The verdict as the person is asked it."""
    verdict = decision.request.verdict
    console.print(f"\n[bold]Verdict, round {decision.request.round}: {verdict.kind}[/bold]  ({elapsed_seconds:.0f} s)")
    for reason in verdict.reasons:
        console.print(f"  {reason}")
    table = Table(box=None, padding=(0, 2))
    for column in ("criterion", "status", "why"):
        table.add_column(column)
    for item in (*verdict.criteria, *verdict.guardrails):
        table.add_row(str(item.name), str(item.status), item.reason)
    console.print(table)


def print_investigation(console: Console, found: Investigation, seconds: float) -> None:
    """Why the candidate lost, as the thread tells it."""
    console.print(f"\n[bold]Why the candidate lost[/bold]  ({seconds:.0f} s)")
    for line in found.summary:
        console.print(f"  {line}", markup=False)


def final_state(systems: Systems, test: ABTest) -> dict[str, str]:
    """Traffic and registry as they are now, in words."""
    state = {"traffic": describe_serving(systems.serving.read())}
    for model in test.models:
        entry = systems.registry.entry(model)
        aliases = f" ({', '.join(sorted(entry.aliases))})" if entry.aliases else ""
        state[model.name] = f"{entry.stage}{aliases}"
    return state


def print_ending(
    console: Console, systems: Systems, decision: Decision, *, before: dict[str, str], after: dict[str, str], keep: Path
) -> list[str]:
    """Who decided what, before → after, and the documents, of which copies stay in `keep`. Returns the documents' names."""
    claim = decision.claim
    if claim is not None:
        choice = claim.choice.value.replace("_", " ")
        console.print(f"\n[bold]Decided by {claim.actor.name}[/bold]: {choice}, {claim.claimed_at:%Y-%m-%d %H:%M:%S} UTC")
    table = Table(box=None, padding=(0, 2))
    for column in ("", "before", "after"):
        table.add_column(column)
    for what, value in before.items():
        table.add_row(what if what == "traffic" else f"registry, {what}", value, after[what])
    console.print(table)
    documents = _keep_documents(systems, decision.request.test, keep)
    for document in documents:
        console.print(f"  {document.name:<28}{document}")
    console.print(f"  on the test's MLflow run    {systems.registry.run_url(decision.request.test)}")
    return [document.stem for document in documents]


def _keep_documents(systems: Systems, test: ABTest, keep: Path) -> list[Path]:
    """Copy the documents out of the embedded systems, which are gone when the demo ends."""
    from mlflow.artifacts import download_artifacts

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    shutil.rmtree(keep, ignore_errors=True)
    keep.mkdir(parents=True)
    download_artifacts(run_id=test.experiment_run_id, dst_path=str(keep), tracking_uri=systems.settings.mlflow_tracking_uri)
    for name in (PAGE_PATH, PRODUCTION_PATH):
        page = Path(systems.settings.lifecycle_repository) / name
        if page.is_file():
            shutil.copy(page, keep)
    return sorted(file for file in keep.rglob("*") if file.suffix in {".md", ".json", ".html"})
