"""`make bench-drift`: the drift of 30 features by our computation, beside Evidently's drift preset and scipy on the same rows.

DuckDB makes two Parquet files from a seed, in which two features drifted. Each measurement runs in a process of its own, so that
its peak memory is its own; what is imported counts as memory and not as time. All three must find the same p-values. At the end
the whole investigation, with a holdout as large as the others, labels and two models of a few lines; and `fraud-ab investigate`
with its report; imports and all. QUICK=1 does the same with fewer rows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flows.domain.findings import FindingStatus

ROWS = 100_000 if os.environ.get("QUICK") else 1_000_000
FEATURES, SEED = 30, 20240101
NAMES = tuple(f"f{at:02}" for at in range(FEATURES))
REPEATS = 1 if os.environ.get("QUICK") else 3
MEGABYTE = 1024  # in KiB
SIDES = ("training", "production")
FILES = {"training": "2024-01-01", "holdout": "2024-01-29", "production": "2024-03-04"}
"""The first day of each file's four weeks."""

# Kinds as fraud models have them; `u`, `v` and `w` are independent and uniform, `moved` is 1 in production and else 0.
KINDS = (
    "round(exp(3 + 1.2 * {normal} + 0.3 * {moved}), 2)",
    "CASE WHEN {u} < 0.1 * (1 - {moved}) THEN -ln(1 - {v}) ELSE 0 END",
    "{normal}",
    "floor({u} * 24)",
    "({u} < 0.07)::DOUBLE",
    "floor(-ln(1 - {u}) * 20)",
)
LEAST_TESTED = 9  # hypotheses; the others need what is no table: a run's losses, an archive, telemetry
DRIFTED = 2  # the first features of the first two kinds
MADE = """
COPY (
    SELECT TIMESTAMPTZ '{start} 00:00:00Z' + to_seconds(i * 2419200.0 / {rows}) AS event_time,
        hash(i, {seed}) % 1000 < 10 AS is_fraud, hash(i, {seed}) % 1000 < 7 AS baseline_prediction,
        f00 > 40 AND hash(i, {seed}) % 1000 < 9 AS candidate_prediction, {names}
    FROM (SELECT i, {features} FROM range({rows}) r(i))
) TO '{file}' (FORMAT parquet)
"""


def make(folder: str, side: str) -> None:
    """One side's file: the first features of both moved kinds drift, all others differ by chance alone."""
    import duckdb

    seed = SEED + 1_000_000 * list(FILES).index(side)
    features: list[str] = []
    for at in range(FEATURES):
        u, v, w = (f"((hash(i, {seed + 10 * at + part}) % 1000003 + 0.5) / 1000003)" for part in range(3))
        normal = f"sqrt(-2 * ln({v})) * cos(2 * pi() * {w})"
        moved = int(side == "production" and at < DRIFTED)
        features.append(f"{KINDS[at % len(KINDS)].format(u=u, v=v, normal=normal, moved=moved)} AS f{at:02}")
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        made = MADE.format(
            rows=ROWS,
            seed=seed,
            start=FILES[side],
            features=", ".join(features),
            names=", ".join(NAMES),
            file=f"{folder}/{side}.parquet",
        )
        connection.execute(made)


def by_us(folder: str) -> dict[str, float]:
    """The deciding computation: distance, PSI, q-value, summaries and shapes of every feature, over all rows."""
    from flows.adapters.feature_table_duckdb import open_features
    from flows.domain.drift import feature_drifts

    with open_features(f"{folder}/training.parquet") as before, open_features(f"{folder}/production.parquet") as after:
        drifts = feature_drifts((name, before.column(name), after.column(name)) for name in before.features)
    return {drift.feature: float(drift.p_value or 0) for drift in drifts}


def by_evidently(folder: str) -> dict[str, float]:
    """Its drift preset with KS on all rows, as its documentation shows it; no HTML."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = list(NAMES)
    definition = DataDefinition(numerical_columns=names)
    frames = (pd.read_parquet(f"{folder}/{side}.parquet", columns=names) for side in SIDES)
    before, after = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    snapshot = Report([DataDriftPreset(columns=names, num_method="ks")]).run(after, before)
    found = ((re.search(r"column=(f\d\d)\b", metric["metric_name"]), metric["value"]) for metric in snapshot.dict()["metrics"])
    return {name[1]: float(value) for name, value in found if name}


def by_scipy(folder: str) -> dict[str, float]:
    """`ks_2samp` alone, column by column: neither PSI nor shapes."""
    import pandas as pd
    from scipy.stats import ks_2samp

    found: dict[str, float] = {}
    for name in NAMES:
        one, two = (pd.read_parquet(f"{folder}/{side}.parquet", columns=[name])[name].to_numpy() for side in SIDES)
        found[name] = float(ks_2samp(one, two, method="asymp").pvalue)
    return found


def investigate_all(folder: str) -> dict[str, float]:
    """Every hypothesis that the tables can tell of, and Evidently's report on a sample, as the flow does it; imports count."""
    from flows.adapters.drift_evidently import draw_evidently_report
    from flows.adapters.feature_table_duckdb import open_features
    from flows.diagnosis import diagnose
    from flows.domain.model_findings import ModelFacts
    from flows.material import Material

    facts = ModelFacts("fraud_v2", NAMES)
    with ExitStack() as ends:
        tables = {side: ends.enter_context(open_features(f"{folder}/{side}.parquet")) for side in FILES}
        findings = diagnose(
            Material(
                **tables,
                baseline=facts,
                candidate=facts,
                flags=lambda rows: ((rows["f00"] > 40) & (rows["f02"] > -1)).to_numpy(),
                baseline_flags=lambda rows: (rows["f00"] > 30).to_numpy(),
                scores=lambda rows: 1 / (1 + np.exp(5 - rows["f02"].to_numpy())),
            )
        )
        draw_evidently_report(tables["training"], tables["production"])
    tested = [finding for finding in findings if finding.status is not FindingStatus.NOT_TESTABLE]
    if len(tested) < LEAST_TESTED:
        raise SystemExit(f"only {[finding.hypothesis for finding in tested]} could be tested")
    return {}


def investigate(folder: str) -> dict[str, float]:
    """The whole command for drift, with weeks, Evidently's report on a sample and a picture; imports count."""
    from deployments.cli import app

    options = [f"--{side}={folder}/{side}.parquet" for side in SIDES]
    app(["investigate", *options, f"--report={folder}/report"], standalone_mode=False)
    return {}


HOW = {"ours": by_us, "evidently": by_evidently, "scipy": by_scipy, "all": investigate_all, "investigate": investigate}
PREFIXES = {"ours": "", "evidently": "evidently_", "scipy": "scipy_", "all": "investigation_", "investigate": "command_"}
"""Of the names in the result."""
IMPORTS = {
    "ours": ("flows.adapters.feature_table_duckdb", "flows.domain.drift", "scipy.stats"),
    "evidently": ("pandas", "pyarrow.parquet", "evidently.presets"),
    "scipy": ("pandas", "pyarrow.parquet", "scipy.stats"),
    "all": (),
    "investigate": (),
}
TITLES = {
    "ours": "the deciding computation: KS, PSI, q-values, shapes",
    "evidently": "Evidently's drift preset with KS",
    "scipy": "scipy's ks_2samp alone",
    "all": "the whole investigation, every hypothesis",
    "investigate": "`fraud-ab investigate --report`, whole",
}


def measure_here(how: str, folder: str) -> None:
    for module in IMPORTS[how]:
        import_module(module)
    begun, worked = time.perf_counter(), time.process_time()
    found = HOW[how](folder)
    spent = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - worked}
    show(json.dumps(spent | {"peak_mb": peak_kilobytes() / MEGABYTE, "found": found}))


def peak_kilobytes() -> int:
    """Of this process alone: what getrusage says begins with the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measured(how: str, folder: str, repeats: int) -> dict[str, Any]:
    """The best of some runs, each in its own process."""
    runs: list[dict[str, Any]] = []
    for _ in range(repeats):
        command = [sys.executable, "-W", "ignore", __file__, how, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{how} failed:\n{done.stderr}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best = min(runs, key=lambda run: run["seconds"])
    best["peak_mb"] = max(run["peak_mb"] for run in runs)
    return best


def agreed(runs: dict[str, dict[str, Any]]) -> None:
    """A faster computation of something else is no comparison."""
    ours = runs["ours"]["found"]
    for how in ("evidently", "scipy"):
        theirs = runs[how]["found"]
        different = {name: (p, theirs.get(name)) for name, p in ours.items() if abs(p - theirs.get(name, 2)) > 1e-9}
        if different:
            raise SystemExit(f"{how} finds other p-values, so the times cannot be compared: {different}")


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    with TemporaryDirectory(prefix="bench-drift-") as folder:
        for side in FILES:
            make(folder, side)
        runs = {how: measured(how, folder, REPEATS if how == "ours" else 1) for how in HOW}
    agreed(runs)
    table = Table(
        "what", "seconds", "CPU seconds", "peak MB", title=f"{FEATURES} features × {ROWS:,} rows a side", title_justify="left"
    )
    for how, run in runs.items():
        table.add_row(TITLES[how], f"{run['seconds']:.1f}", f"{run['cpu_seconds']:.1f}", f"{run['peak_mb']:,.0f}")
    Console().print(table)
    ours, evidently = runs["ours"], runs["evidently"]
    faster, smaller = evidently["seconds"] / ours["seconds"], evidently["peak_mb"] / ours["peak_mb"]
    show(f"Evidently takes {faster:.1f} times our seconds and {smaller:.1f} times our memory, and finds the same p-values.")
    result: dict[str, Any] = {"rows": ROWS, "features": FEATURES}
    for prefix, how in (
        ("", "ours"),
        ("evidently_", "evidently"),
        ("scipy_", "scipy"),
        ("investigation_", "all"),
        ("command_", "investigate"),
    ):
        result |= {f"{prefix}{name}": round(runs[how][name], 2) for name in ("seconds", "cpu_seconds", "peak_mb")}
    result |= {"faster": round(faster, 2), "smaller": round(smaller, 2), "quick": bool(os.environ.get("QUICK"))}
    show("RESULT " + json.dumps(result))


def show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    measure_here(*sys.argv[1:]) if len(sys.argv) > 1 else main()
