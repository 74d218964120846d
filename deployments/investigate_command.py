"""`fraud-ab investigate`: of a decision the whole investigation, in Prefect; of two files what drifted, without any server."""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.domain.errors import FraudABError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.table import Table

    from flows.domain.column_summary import ColumnSummary
    from flows.domain.drift import FeatureDrift
    from flows.domain.findings import Finding
    from flows.ports import FeatureTable
    from flows.table_drift import TableDrift

    OnStep = Callable[[str, int], object]

Sources = tuple[str, str, str | None, str | None]
"""Training, production, holdout and reference."""
_BAD_INPUT = 2
_LEAST_SHOWN = 10
_HTML, _PNG = "drift.html", "drift.png"


@dataclass(frozen=True, slots=True)
class Investigated:
    """What was found out; `sides`: name and rows of training and production, `written`: the report's files."""

    sides: tuple[tuple[str, int], tuple[str, int]]
    drift: TableDrift
    findings: Sequence[Finding]
    left_out: Sequence[str]
    written: Sequence[str]


def investigate(
    decision: Annotated[
        str | None, typer.Argument(help="of a decided test, such as autumn-1: why its candidate did not win; takes no options")
    ] = None,
    training: Annotated[
        str | None, typer.Option(help="features of the training: Parquet, CSV or postgresql://…/db?table=schema.table")
    ] = None,
    production: Annotated[
        str | None, typer.Option(help="features as the candidate got them, with event_time and is_fraud if known")
    ] = None,
    holdout: Annotated[str | None, typer.Option(help="the holdout's features: was it like production?")] = None,
    reference: Annotated[str | None, typer.Option(help="production's rows as the offline pipeline computes them")] = None,
    report: Annotated[
        Path | None, typer.Option(help=f"folder for Evidently's report ({_HTML}) and the worst feature's picture ({_PNG})")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything as JSON")] = False,
) -> None:
    """Start the investigation of a decision, or compare --training and --production and print what drifted.

    Exit 0 whatever was found; bad input: exit 2.
    """
    if decision is not None:
        if any((training, production, holdout, reference, report, as_json)):
            raise typer.BadParameter("a decision is investigated with the tables of the settings: give it alone")
        _start(decision)
    elif training is None or production is None:
        raise typer.BadParameter("name a decision, or give --training and --production")
    else:
        _compare((training, production, holdout, reference), report, as_json=as_json)


def _start(decision_id: str) -> None:
    """As `/fraud-investigate` does it."""
    from flows.deployment_names import INVESTIGATE
    from flows.wiring import systems
    from slackbot.prefect_gateway import PrefectGateway

    connected = systems()
    connected.decision_log.read(decision_id)  # says so when there is no such decision
    gateway = PrefectGateway(ui_url=connected.settings.prefect_ui_url)
    key = f"investigate-{decision_id}-{uuid.uuid4()}"
    address = gateway.start_run(INVESTIGATE, {"decision_id": decision_id}, idempotency_key=key)
    typer.echo(f"The investigation of {decision_id} has started; its findings come into the decision's thread: {address}")


def _compare(sources: Sources, report: Path | None, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("opening the tables", total=None)

        def on_step(doing: str, steps: int) -> None:
            progress.update(task, description=doing, total=steps, advance=1)

        try:
            found = _investigated(sources, report, on_step)
        except FraudABError as error:
            progress.stop()
            typer.echo(" ".join(str(error).split()), err=True)
            raise typer.Exit(_BAD_INPUT) from error
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(found, Console())


def _investigated(sources: Sources, report: Path | None, on_step: OnStep) -> Investigated:
    from flows.adapters.feature_table_duckdb import open_features
    from flows.diagnosis import diagnose
    from flows.material import Material
    from flows.table_drift import compare_tables

    with ExitStack() as opened:
        before, after = (opened.enter_context(open_features(one)) for one in sources[:2])
        holdout, reference = (opened.enter_context(open_features(one)) if one else None for one in sources[2:])
        extra = 2 if report else 1
        drift = compare_tables(before, after, lambda doing, steps: on_step(doing, steps + extra))
        steps = len(drift.drifts) + extra
        on_step("looking for causes", steps)
        material = Material(training=before, holdout=holdout, production=after, reference=reference, drifts=drift.drifts)
        findings = diagnose(material)
        written = _write_report(report, before, after, drift, lambda doing: on_step(doing, steps)) if report else []
        sides = (before.name, before.rows), (after.name, after.rows)
        return Investigated(sides, drift, findings, sorted({*before.left_out, *after.left_out}), written)


def _write_report(
    folder: Path, training: FeatureTable, production: FeatureTable, drift: TableDrift, on_step: Callable[[str], object]
) -> list[str]:
    """Evidently's report and the picture; returns a sentence about each."""
    from flows.adapters.drift_evidently import draw_evidently_report
    from flows.reports.drift_chart import drift_chart

    on_step("Evidently's report")
    worst = drift.drifts[0]
    picture = drift_chart(worst, training.column(worst.feature), production.column(worst.feature))
    evidently = draw_evidently_report(training, production)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PNG).write_bytes(picture)
        (folder / _HTML).write_text(evidently.html, encoding="utf-8")
    except OSError as error:
        raise FraudABError(f"{folder} cannot be written to: {error.strerror}.") from error
    rows = " and ".join(f"{count:,}" for count in evidently.rows)
    without = f", without {', '.join(evidently.left_out)} (no values)" if evidently.left_out else ""
    return [f"{folder / _PNG}: {worst.feature}", f"{folder / _HTML}: Evidently's report on {rows} rows{without}"]


def _as_json(found: Investigated) -> dict[str, Any]:
    from flows.domain.evidence import plain
    from flows.reports.drift_words import conclude_drift, describe_drift

    drift = found.drift
    return {
        **{
            side: {"name": name, "rows": rows} for side, (name, rows) in zip(("training", "production"), found.sides, strict=True)
        },
        "conclusion": conclude_drift(drift.drifts),
        "drifts": [plain(one) | {"severity": one.severity.value, "said": describe_drift(one)} for one in drift.drifts],
        "weeks": plain(drift.weeks),
        "absent": drift.absent,
        "unexpected": drift.unexpected,
        "left_out": found.left_out,
        "findings": plain(tuple(found.findings)),
        "written": found.written,
    }


def _show(found: Investigated, console: Console) -> None:
    from flows.reports.drift_words import conclude_drift

    drift = found.drift
    shown = drift.drifts[: max(_LEAST_SHOWN, len(drift.drifted))]
    console.print(_drift_table(found, shown))
    if len(drift.drifts) > len(shown):
        console.print(f"{len(drift.drifts) - len(shown)} more features are as in training.")
    if len(drift.weeks) > 1:
        console.print(_week_table(drift))
    for words, names in (
        ("Production lacks", drift.absent),
        ("Only production has", drift.unexpected),
        ("Not compared, because they are neither numbers nor text:", found.left_out),
    ):
        if names:
            console.print(f"{words} {', '.join(names)}.", markup=False)
    _show_findings(found.findings, console)
    for line in found.written:
        console.print(line, markup=False, soft_wrap=True)
    console.print(conclude_drift(drift.drifts), style="bold", markup=False)


def _drift_table(found: Investigated, drifts: Sequence[FeatureDrift]) -> Table:
    from rich.table import Table

    from flows.reports.drift_words import describe_drift

    (_, before), (_, after) = found.sides
    title = f"Features, worst first: {before:,} rows of training, {after:,} of production"
    table = Table("feature", "drift", title=title, title_justify="left")
    for name in ("D", "PSI", "q", "nulls", "zeros", "scale"):
        table.add_column(name, justify="right", no_wrap=name in {"D", "PSI"})
    table.add_column("what it means")
    for one in drifts:
        numbers = (f"{value:.3f}" if value is not None else "–" for value in (one.distance, one.psi))
        q_value = "–" if one.q_value is None else f"{one.q_value:.2g}"
        ratio = "–" if one.scale_ratio is None else f"{one.scale_ratio:.3g}"
        nulls, zeros = _change(one, lambda side: side.null_share), _change(one, lambda side: side.zero_share)
        table.add_row(one.feature, one.severity.value, *numbers, q_value, nulls, zeros, ratio, describe_drift(one))
    return table


def _change(drift: FeatureDrift, share: Callable[[ColumnSummary], float | None]) -> str:
    """A share in training and in production, where either is not 0."""
    before, after = share(drift.training), share(drift.production)
    if before is None or after is None or before == after == 0:
        return "–"
    return f"{before:.1%} → {after:.1%}"


def _week_table(drift: TableDrift) -> Table:
    from rich.table import Table

    features = [name for one in drift.drifts if (name := one.feature) in drift.weeks[0].distances]
    table = Table("feature", title="Distance from training by week of production", title_justify="left")
    for week in drift.weeks:
        table.add_column(f"{week.begins:%Y-%m-%d}\n{week.rows:,} rows", justify="right")
    for name in features:
        table.add_row(name, *(f"{week.distances[name]:.3f}" if name in week.distances else "–" for week in drift.weeks))
    return table


def _show_findings(findings: Sequence[Finding], console: Console) -> None:
    from rich.table import Table

    from flows.domain.findings import FindingStatus

    table = Table("finding", "what the data say", "next step", title="Supported findings", title_justify="left")
    for finding in findings:
        if finding.is_supported:
            table.add_row(_words(finding), finding.said, finding.next_step)
    if table.row_count:
        console.print(table)
    for status, words in (
        (FindingStatus.NOT_SUPPORTED, "Not supported"),
        (FindingStatus.NOT_TESTABLE, "Not testable without the models and systems of the test"),
    ):
        names = [_words(finding) for finding in findings if finding.status is status]
        if names:
            console.print(f"{words}: {', '.join(names)}.", markup=False)


def _words(finding: Finding) -> str:
    return finding.hypothesis.value.replace("_", " ")
