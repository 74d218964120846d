"""`fraud-ab evaluate` as a person runs it: one clear sentence and exit 2 for anything that cannot be evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from jsonschema import validate
from typer.testing import CliRunner

from deployments.evaluate_command import evaluate
from deployments.verdict_schema import verdict_schema
from tests.feedback_tables import feedback_frame, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = json.loads((DOCS / "verdict.schema.json").read_text(encoding="utf-8"))
PAIRED = {
    "design": "paired",
    "frauds": {"both": 7800, "baseline_only": 200, "candidate_only": 600, "neither": 1400},
    "flagged": {"baseline": {"true": 8000, "all": 8791}, "candidate": {"true": 8400, "all": 9231}},
}
SPLIT = {
    "design": "split",
    "baseline": {"true_positives": 3200, "false_negatives": 800, "false_positives": 300},
    "candidate": {"true_positives": 880, "false_negatives": 120, "false_positives": 82},
}


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("evaluate")(evaluate)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["evaluate", *arguments])


def refused(result: Result, *named: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    sentence = result.stderr.strip()
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    for name in named:
        assert name in sentence


def test_the_published_schema_is_the_verdicts() -> None:
    assert verdict_schema() == (DOCS / "verdict.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("counts", [PAIRED, SPLIT], ids=["paired", "split"])
def test_counts_give_a_verdict_in_the_published_form(tmp_path: Path, counts: dict) -> None:
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    result = run("--counts", str(tmp_path / "counts.json"), "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    validate(verdict, SCHEMA)
    assert verdict["verdict"] == "PROMOTE"
    assert verdict["is_calculation"]


def test_feedback_gives_a_verdict_for_machines_and_for_people(tmp_path: Path) -> None:
    url = written(feedback_frame(), tmp_path)
    machine = run("--feedback", url, "--json")
    assert machine.exit_code == 0, machine.output
    verdict = json.loads(machine.stdout)
    validate(verdict, SCHEMA)
    assert verdict["exposure_days"] == 21
    people = run("--feedback", url, "--start", "2026-01-01")
    assert people.exit_code == 0
    assert verdict["verdict"] in people.stdout
    assert verdict["evidence_digest"] in people.stdout


def test_a_policy_changes_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(json.dumps(SPLIT))
    (tmp_path / "policy.toml").write_text('[recall_improvement]\nrelative = "0.20"\n')
    result = run("--counts", str(tmp_path / "counts.json"), "--policy", str(tmp_path / "policy.toml"), "--json")
    assert json.loads(result.stdout)["verdict"] == "KEEP_BASELINE"


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[3]]])


def early(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[3, "label_time"] = frame.loc[3, "event_time"] - pd.Timedelta(hours=1)
    return frame


def changed(column: str, value: object, row: int = 3) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return change


BAD = {
    "missing column": (lambda frame: frame.drop(columns=["is_fraud"]), ["lacks the column is_fraud"]),
    "empty table": (lambda frame: frame.iloc[:0], ["holds no rows"]),
    "duplicate transactions": (repeated, ["t3", "more than once"]),
    "labels before transactions": (early, ["t3", "label_time before"]),
    "NaN latency": (changed("latency_ms", float("nan")), ["t3", "NaN", "latency_ms"]),
    "NaN amount": (changed("amount", float("nan")), ["t3", "NaN", "amount"]),
    "NaN prediction": (lambda frame: frame.assign(is_fraud=frame.is_fraud.astype(float)), ["is_fraud", "NaN is a number"]),
    "text as time": (lambda frame: frame.assign(event_time="yesterday"), ["event_time", "timestamps"]),
    "numbers as predictions": (lambda frame: frame.assign(baseline_prediction=1), ["baseline_prediction", "true, false"]),
    "text as latency": (lambda frame: frame.assign(latency_ms="fast"), ["latency_ms", "numbers"]),
    "unknown arm": (changed("arm", "shadow"), ["t3", "neither baseline nor candidate"]),
    "no time": (changed("event_time", pd.NaT), ["t3", "event_time"]),
}


@pytest.mark.parametrize(("break_it", "named"), BAD.values(), ids=BAD)
def test_bad_feedback_is_refused_in_one_sentence(
    tmp_path: Path, break_it: Callable[[pd.DataFrame], pd.DataFrame], named: list[str]
) -> None:
    path, frame = tmp_path / "feedback.parquet", break_it(feedback_frame(400))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name in frame.select_dtypes("float64"):  # from_pandas would make nulls of NaN
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(frame[name].to_numpy()))
    pq.write_table(table, path)
    refused(run("--feedback", str(path)), "feedback.parquet", *named)


def test_files_that_are_not_there_or_not_readable_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("this is no Parquet")
    (tmp_path / "feedback.xlsx").write_text("")
    refused(run("--feedback", str(tmp_path / "none.parquet")), "none.parquet", "no such file")
    refused(run("--feedback", str(tmp_path / "broken.parquet")), "broken.parquet", "cannot be read")
    refused(run("--feedback", str(tmp_path / "feedback.xlsx")), "feedback.xlsx", ".parquet or .csv")
    refused(run("--counts", str(tmp_path / "none.json")), "none.json", "cannot be read")


def test_an_unreadable_policy_is_refused(tmp_path: Path) -> None:
    url = written(feedback_frame(100), tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "broken.toml").write_text("alpha = ")
    (tmp_path / "wrong.toml").write_text("alpha = 2\nfoo = 1")
    refused(run("--feedback", url, "--policy", str(tmp_path / "none.toml")), "none.toml", "cannot be read")
    refused(run("--feedback", url, "--policy", str(tmp_path)), "cannot be read")
    refused(run("--feedback", url, "--policy", str(tmp_path / "bytes.toml")), "bytes.toml", "UTF-8")
    refused(run("--feedback", url, "--policy", str(tmp_path / "broken.toml")), "broken.toml", "TOML")
    refused(run("--feedback", url, "--policy", str(tmp_path / "wrong.toml")), "wrong.toml", "alpha", "foo")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ('{"design": "other"}', "design"),
        (
            json.dumps({**SPLIT, "baseline": {"true_positives": -1, "false_negatives": 0, "false_positives": 0}}),
            "baseline.true_positives",
        ),
        (
            json.dumps({**SPLIT, "candidate": {"true_positives": 1.5, "false_negatives": 0, "false_positives": 0}}),
            "candidate.true_positives",
        ),
        (
            json.dumps({**PAIRED, "flagged": {"baseline": {"true": 9, "all": 8}, "candidate": {"true": 1, "all": 1}}}),
            "9 true alerts",
        ),
        (json.dumps({**PAIRED, "extra": 1}), "extra"),
    ],
)
def test_bad_counts_are_refused_in_one_sentence(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "counts.json").write_text(text)
    refused(run("--counts", str(tmp_path / "counts.json")), "counts.json", named)


def test_contradicting_or_missing_options_are_refused(tmp_path: Path) -> None:
    refused(run(), "--feedback or --counts")
    refused(run("--feedback", "a.parquet", "--counts", "b.json"), "--feedback or --counts")
    refused(run("--feedback", written(feedback_frame(100), tmp_path), "--start", "soon"), "--start soon")


def test_another_policy_may_be_tried_on_the_same_evidence(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(json.dumps(SPLIT))
    (tmp_path / "other.toml").write_text('[recall_improvement]\nrelative = "0.20"\n')
    options = ("--counts", str(tmp_path / "counts.json"), "--what-if", str(tmp_path / "other.toml"))
    verdict = json.loads(run(*options, "--json").stdout)
    validate(verdict, SCHEMA)
    assert (verdict["verdict"], verdict["what_if"]["after"]) == ("PROMOTE", "KEEP_BASELINE")
    people = run(*options)
    assert "PROMOTE would be KEEP_BASELINE" in " ".join(people.stdout.split())
    assert "decides" in people.stdout
    refused(run("--counts", str(tmp_path / "counts.json"), "--what-if", str(tmp_path / "none.toml")), "none.toml")


def test_the_largest_frauds_are_shown_masked(tmp_path: Path) -> None:
    frame = feedback_frame()
    frame.loc[100, ["is_fraud", "baseline_prediction", "candidate_prediction", "amount"]] = [True, False, True, 98765.43]
    frame.loc[100, "transaction_id"] = "secret-transaction-0042"
    people = run("--feedback", written(frame, tmp_path), "--start", "2026-01-01")
    assert "98,765.43" in people.stdout
    assert "…0042" in people.stdout
    assert "secret" not in people.stdout
    assert "Estimated savings" in people.stdout
