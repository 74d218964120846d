"""`fraud-ab verify-record` on a real decision log and on a decision document."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, DecisionRequest, Links, Person
from flows.domain.decision_record import RecordKind
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.reports.dossier import Dossier
from flows.reports.record_json import document_json

EVIDENCE = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 900, 820), ModelCounts(1000, 860, 950, 865)))
REQUEST = DecisionRequest(
    test=ABTest("t", Model("v1", "1", "p1"), Model("v2", "2", "p2"), datetime(2026, 9, 1, tzinfo=UTC), "experiment"),
    round=1,
    flow_run_id="run",
    verdict=decide_verdict(EVIDENCE, Policy()),
    plan=ActionPlan(Arm.CANDIDATE, (100,), ()),
    rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
    epoch=1,
    links=Links(),
    decide_within_hours=72,
    next_look_at=None,
    evidence=EVIDENCE,
    policy=Policy(),
)


def verify(which: str, database: Path | None) -> tuple[int, str]:
    log = ["--log-url", f"sqlite:///{database}"] if database else []
    command = [sys.executable, "-m", "deployments.cli", "verify-record", which, *log]
    elsewhere = ("MLFLOW_TRACKING_URI", "FRAUD_AB_ARCHIVE_BUCKET", "FRAUD_AB_DECISION_LOG_URL")  # another test may have set them
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def decided(database: Path, request: DecisionRequest) -> SqlDecisionLog:
    log = SqlDecisionLog(f"sqlite:///{database}")
    log.open(request)
    digest = request.verdict.evidence_digest
    log.claim("t-1", evidence_digest=digest, choice=Choice.CONFIRM, actor=Person("U1", "ana"), reason="")
    log.append_record(RecordKind.PROMOTED, "t-1", {"traffic": {"before": "a", "after": "b"}})
    return log


def test_a_record_that_nobody_touched_is_verified(database: Path) -> None:
    decided(database, REQUEST)
    code, text = verify("t-1", database)
    assert (code, text.splitlines()) == (
        0,
        [
            "t-1: every verdict follows from its evidence and policy, and the hashes agree.",
            "Not compared: the stored documents (MLFLOW_TRACKING_URI); the archived artifacts (FRAUD_AB_ARCHIVE_BUCKET).",
        ],
    )


def test_a_verdict_that_does_not_follow_from_its_evidence_is_told(database: Path) -> None:
    decided(database, replace(REQUEST, verdict=replace(REQUEST.verdict, rows_left_out=7)))
    code, text = verify("t-1", database)
    assert code == 1
    assert "rows_left_out is recorded as 7, but the evidence gives 0" in text


def test_a_record_that_was_changed_in_the_database_is_told(database: Path) -> None:
    decided(database, REQUEST)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER decision_records_refuse_UPDATE")
        connection.execute("UPDATE decision_records SET payload = replace(payload, 'ana', 'eve')")
        connection.commit()
    code, text = verify("t-1", database)
    assert code == 1
    assert "record 1 (t-1, decided) was changed" in text


def test_a_decision_document_is_verified_without_a_database(database: Path, tmp_path: Path) -> None:
    log = decided(database, REQUEST)
    ending = next(record for record in log.records("t-1") if record.kind is RecordKind.PROMOTED)
    document = tmp_path / "decision_document.json"
    document.write_text(document_json(Dossier(REQUEST.test, log.read("t-1"), ending, tuple(log.records()))))
    code, text = verify(str(document), None)
    elsewhere = "the digest in MLflow's tags (MLFLOW_TRACKING_URI); the digest in the log's records (FRAUD_AB_DECISION_LOG_URL)"
    assert (code, text.splitlines()[1]) == (0, f"Not compared: {elsewhere}.")
    body = json.loads(document.read_text())
    body["actions"]["traffic"]["after"] = "c"
    document.write_text(json.dumps(body))
    code, text = verify(str(document), None)
    assert (code, text) == (1, f"{document}: actions was changed: its record tells otherwise.\n")
    body["records"][1]["payload"]["traffic"]["after"] = "c"
    document.write_text(json.dumps(body))
    code, text = verify(str(document), None)
    assert code == 1
    assert text.startswith(f"{document}: record 2 (t-1, promoted) was changed after it was written")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read: No such file"), ("[]", "is no decision document"), ("{", "is no decision document")],
)
def test_what_is_no_decision_document_is_one_sentence(content: str | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    code, text = verify(str(file), None)
    assert code == 2
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_an_unknown_decision_is_one_sentence(database: Path) -> None:
    log = decided(database, REQUEST)
    log.open(replace(REQUEST, round=2))
    assert "is not decided yet" in verify("t-2", database)[1]
    code, text = verify("t-3", database)
    assert code == 2
    assert "no decision is called t-3" in text


def test_a_record_of_another_version_is_one_sentence(database: Path) -> None:
    log = SqlDecisionLog(f"sqlite:///{database}")
    log.append_record(RecordKind.DECIDED, "old-1", {"request": {"verdict": {}, "evidence": {}}})
    code, text = verify("old-1", database)
    assert code == 2
    assert "is no decision document or record of this version" in text
    assert len(text.splitlines()) == 1


def test_an_export_of_all_records_is_verified_without_a_database(database: Path, tmp_path: Path) -> None:
    decided(database, REQUEST)
    export = tmp_path / "records.json"
    command = [sys.executable, "-m", "deployments.cli", "export-records", str(export), "--log-url", f"sqlite:///{database}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"{export}: 2 records; the latest is record 2 (t-1, promoted), sha256:")
    code, text = verify(str(export), None)
    assert (code, text.splitlines()[0]) == (
        0,
        f"{export}: every verdict follows from its evidence and policy, and the hashes agree.",
    )
    body = json.loads(export.read_text())
    body["records"].reverse()
    export.write_text(json.dumps(body))
    code, text = verify(str(export), None)
    assert code == 1
    assert "the log was re-ordered" in text
