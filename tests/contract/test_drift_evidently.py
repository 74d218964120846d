"""Evidently's real report on samples of two tables."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from flows.adapters.drift_evidently import draw_evidently_report
from flows.adapters.feature_table_duckdb import open_features
from flows.domain.errors import DataInvalid, OutsideSystemError

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 500


def frame(seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": draw.lognormal(3, 1, ROWS),
            "hour": draw.integers(0, 24, ROWS),
            "channel": draw.choice(["web", "shop", None], ROWS),  # type: ignore[arg-type]
            "same": 1.0,
        }
    )


def written(folder: Path, **frames: pd.DataFrame) -> list[str]:
    for name, rows in frames.items():
        rows.to_parquet(folder / f"{name}.parquet")
    return [str(folder / f"{name}.parquet") for name in frames]


def test_the_report_shows_the_features_of_a_sample_and_names_those_without_values(tmp_path: Path) -> None:
    production = frame(2).assign(lost=np.nan, amount=lambda rows: np.where(rows.index < 3, np.inf, rows["amount"] * 3), new=1)
    files = written(tmp_path, training=frame(1).assign(lost=1.0), production=production)
    with open_features(files[0]) as before, open_features(files[1]) as after:
        report = draw_evidently_report(before, after, rows=300)
    assert (report.rows, report.left_out) == ((300, 300), ("lost",))
    assert "<html" in report.html.lower()
    for name in ("amount", "hour", "channel", "same"):
        assert name in report.html
    assert "<script src=" not in report.html  # it stands alone
    assert "<link" not in report.html


def test_tables_without_a_common_feature_are_said(tmp_path: Path) -> None:
    files = written(tmp_path, training=frame(1)[["amount"]], production=frame(2)[["hour"]])
    with (
        open_features(files[0]) as before,
        open_features(files[1]) as after,
        pytest.raises(DataInvalid, match="no feature in common"),
    ):
        draw_evidently_report(before, after)


def test_evidentlys_own_failure_is_one_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, one=frame(1), two=frame(2))
    monkeypatch.setitem(sys.modules, "evidently", None)  # as if it were not installed
    with open_features(files[0]) as before, open_features(files[1]) as after:
        with pytest.raises(OutsideSystemError, match="Evidently failed while drawing its drift report"):
            draw_evidently_report(before, after)
        assert before.column("amount").size == ROWS


def test_whatever_evidently_raises_is_its_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evidently import Report

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Report, "run", refuse)
    files = written(tmp_path, one=frame(1), two=frame(2))
    with (
        open_features(files[0]) as before,
        open_features(files[1]) as after,
        pytest.raises(OutsideSystemError, match=r"drawing its drift report \(AssertionError\)"),
    ):
        draw_evidently_report(before, after)


def test_evidently_is_imported_only_to_draw_and_never_reports_home() -> None:
    code = (
        "import sys, flows.adapters.drift_evidently as drift;"
        "assert 'evidently' not in sys.modules;"
        "import pandas as pd;"
        "drift._drawn(pd.DataFrame({'x': [1.0, 2.0] * 9}), pd.DataFrame({'x': [1.0, 3.0] * 9}));"
        "from evidently.telemetry import event_logger; assert not event_logger.is_enabled()"
    )
    bare = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=bare, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr
