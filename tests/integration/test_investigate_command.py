"""`fraud-ab investigate` on files: what drifted, in which weeks, what that says, and what is wrong with its input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 4_000


def frame(seed: int, start: str) -> pd.DataFrame:
    """Four weeks of transactions in which nothing changes."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "transaction_id": [f"{seed}-{at}" for at in range(ROWS)],
            "event_time": pd.Timestamp(start, tz="UTC") + pd.to_timedelta(np.linspace(0, 27.99, ROWS), unit="D"),
            "is_fraud": draw.random(ROWS) < 0.05,
            "amount": draw.lognormal(3, 1, ROWS),
            "risk": np.where(draw.random(ROWS) < 0.3, draw.exponential(size=ROWS), 0),
            "velocity": draw.normal(size=ROWS),
            "channel": draw.choice(["web", "shop"], ROWS),
        }
    )


def last_week(rows: pd.DataFrame) -> pd.Series:
    return rows.index >= ROWS * 3 // 4


def investigated(folder: Path, training: pd.DataFrame, production: pd.DataFrame, *options: str) -> Result:
    files: list[str] = []
    for name, rows in (("training", training), ("production", production)):
        rows.to_parquet(folder / f"{name}.parquet")
        files.append(f"--{name}={folder / name}.parquet")
    return CliRunner().invoke(app, ["investigate", *files, *options], env={"COLUMNS": "160"})


def found(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_everything_that_changed_is_said_and_nothing_else(tmp_path: Path) -> None:
    training, production = frame(1, "2024-01-01"), frame(2, "2024-06-01")
    production = production.assign(
        amount=production["amount"] * 2, risk=0.0, velocity=np.nan, opened=pd.Timestamp("2020-01-01"), new=1
    )
    result = investigated(tmp_path, training.assign(old=1.0), production)
    assert result.exit_code == 0
    for said in (
        "4,000 rows of training, 4,000 of production",
        "always null (0.0 % in training)",
        "always 0",
        "larger: median",
        "as in training",
        "2024-06-22",
        "Production lacks old.",
        "Only production has new.",
        "neither numbers nor text: opened.",
        "Supported findings",
        "serving skew",
        "feature drift",
        "Not supported: scaling",
        "Not testable without the models and systems of the test: artifact",
    ):
        assert said in result.stdout
    assert result.stdout.splitlines()[-1].startswith("3 of 4 features drifted, all severely; the worst is velocity (always null")


def test_a_feature_against_itself_is_quiet(tmp_path: Path) -> None:
    result = investigated(tmp_path, frame(1, "2024-01-01"), frame(1, "2024-06-01"))
    assert "Supported findings" not in result.stdout
    assert result.stdout.splitlines()[-1] == "None of 4 features drifted: production is like training in all of them."


def test_json_has_every_number_and_the_week_in_which_it_began(tmp_path: Path) -> None:
    production = frame(2, "2024-06-01")
    production.loc[last_week(production), "risk"] = 9.0
    data = json.loads(investigated(tmp_path, frame(1, "2024-01-01"), production, "--json").stdout)
    assert data["training"] == {"name": str(tmp_path / "training.parquet"), "rows": ROWS}
    assert data["drifts"][0]["feature"] == "risk"
    assert data["drifts"][0]["severity"] == "severe"
    assert data["drifts"][0]["distance"] == pytest.approx(0.25, abs=0.03)
    weeks = [week["distances"]["risk"] for week in data["weeks"]]
    assert [week["begins"][:10] for week in data["weeks"]] == ["2024-06-01", "2024-06-08", "2024-06-15", "2024-06-22"]
    assert max(weeks[:3]) < 0.1
    assert weeks[3] > 0.9
    assert {finding["hypothesis"]: finding["status"] for finding in data["findings"]}["feature_drift"] == "supported"
    assert data["written"] == []
    assert data["conclusion"].startswith("1 of 4 features drifted")


def test_without_times_there_are_no_weeks_and_csv_does_as_well(tmp_path: Path) -> None:
    rows = frame(1, "2024-01-01").drop(columns="event_time")
    rows.to_csv(tmp_path / "t.csv", index=False)
    files = [f"--{side}={tmp_path / 't.csv'}" for side in ("training", "production")]
    data = found(CliRunner().invoke(app, ["investigate", *files, "--json"]))
    assert data["weeks"] == []
    assert len(data["drifts"]) == 4  # type: ignore[arg-type]
    timeless = frame(1, "2024-01-01").assign(event_time=pd.Series([pd.NaT] * ROWS, dtype="datetime64[us, UTC]"))
    assert found(investigated(tmp_path, frame(1, "2024-01-01"), timeless, "--json"))["weeks"] == []


def test_the_report_is_evidentlys_and_a_picture(tmp_path: Path) -> None:
    production = frame(2, "2024-06-01").assign(velocity=np.nan)
    result = investigated(tmp_path, frame(1, "2024-01-01"), production, f"--report={tmp_path / 'made' / 'report'}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "made" / "report" / "drift.png").read_bytes().startswith(b"\x89PNG")
    assert "channel" in (tmp_path / "made" / "report" / "drift.html").read_text(encoding="utf-8")
    assert "Evidently's report on 4,000 and 4,000 rows, without velocity (no values)" in result.stdout


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda rows: rows, ["--holdout=absent.csv"], "absent.csv: there is no such file."),
        (lambda rows: rows[:0], [], "production.parquet has no rows."),
        (
            lambda rows: rows.rename(columns=lambda name: f"{name}_2"),
            [],
            "have no feature in common; their columns must have the same names.",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], options: list[str], said: str
) -> None:
    result = investigated(tmp_path, frame(1, "2024-01-01"), change(frame(2, "2024-06-01")), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip().endswith(said)
    assert len(result.stderr.strip().splitlines()) == 1


def test_numbers_that_come_as_text_are_told_beside_the_other_features(tmp_path: Path) -> None:
    result = investigated(tmp_path, frame(1, "2024-01-01"), frame(2, "2024-06-01").assign(velocity="fast"))
    assert result.exit_code == 0, result.output
    assert "text, and numbers in training" in " ".join(result.stdout.split())


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    result = investigated(tmp_path, frame(1, "2024-01-01"), frame(2, "2024-06-01"), f"--report={tmp_path / 'taken'}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{tmp_path / 'taken'} cannot be written to" in result.stderr
