"""Whoever changes a record, a document or an archive afterwards is found out by `fraud-ab verify-record`, which names it.

The decision log, MLflow and the archive in S3 (over HTTP) are filled as a promotion fills them; that it leaves them so is tested
in test_promotion.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from deployments.cli import app
from flows.adapters.archive_s3 import S3Archive
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.registry_mlflow import MlflowRegistry
from flows.domain.ab_test import ABTest, Model
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import DecisionRecord, RecordKind
from flows.domain.verdict import VerdictKind
from flows.reports.decision_document import decision_document
from flows.reports.dossier import Dossier, document_folder
from flows.reports.record_json import document_json
from flows.settings import RegistryMode
from tests.gallery import ANA, NOW, question

MARKDOWN, JSON = "decision_document.md", "decision_document.json"


@dataclass
class Promoted:
    """A promotion that was recorded and documented, with ways to tamper with what it left behind."""

    log: SqlDecisionLog
    registry: MlflowRegistry
    client: MlflowClient
    test: ABTest
    decision_id: str
    database: Path

    def verify(self, which: str = "", *more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["verify-record", which or self.decision_id, *more])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    def found_out(self, *more: str) -> list[str]:
        """The sentences of a verification that fails."""
        code, text = self.verify("", *more)
        assert code == 1, text
        return text.splitlines()

    def in_the_log(self, *statements: str) -> None:
        """What somebody with all rights on the database does."""
        with closing(sqlite3.connect(self.database)) as connection:
            for what in ("UPDATE", "DELETE"):
                connection.execute(f"DROP TRIGGER decision_records_refuse_{what}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def ask(self, round_: int) -> Decision:
        """A confirmed promotion."""
        asked = replace(question(VerdictKind.PROMOTE, round_=round_), test=self.test)
        self.log.open(asked)
        digest = asked.verdict.evidence_digest
        return self.log.claim(
            asked.decision_id, evidence_digest=digest, choice=Choice.CONFIRM, actor=ANA, reason="checked by ana"
        )

    def store_documents(self, ending: DecisionRecord) -> None:
        records = tuple(self.log.records())
        dossier = Dossier(self.test, self.log.read(self.decision_id), ending, records)
        for name, text in ((MARKDOWN, decision_document(dossier)), (JSON, document_json(dossier))):
            self.registry.log_document(self.test, f"{document_folder(ending.decision_id)}/{name}", text)

    def stored(self, name: str) -> str:
        return self.registry.stored_document(self.test, self.place(name)).text

    def overwrite(self, name: str, text: str) -> None:
        self.client.log_text(self.test.experiment_run_id, text, self.place(name))

    def place(self, name: str) -> str:
        return f"decisions/{self.decision_id}/{name}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """MLflow's address, an experiment in it, and S3's address."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    experiment = MlflowClient(uri).create_experiment("ab", artifact_location=(folder / "artifacts").as_uri())
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    yield uri, experiment, f"http://{host}:{port}"
    s3.stop()


@pytest.fixture
def promoted(
    servers: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Promoted]:
    uri, experiment, s3 = servers
    database = tmp_path / "log.db"
    for name, value in {
        "MLFLOW_TRACKING_URI": uri,
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{database}",
        "FRAUD_AB_ARCHIVE_BUCKET": "archive",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="archive")
    client, number = MlflowClient(uri), abs(hash(request.node.name)) % 10**8
    run = client.create_run(experiment).info
    models = [Model(f"fraud_{side}_{number}", "1", f"fraud-{side}") for side in ("v1", "v2")]
    for model in models:
        client.create_registered_model(model.name)
        client.create_model_version(model.name, run.artifact_uri or "", run.run_id)
    test = ABTest(f"t{number}", models[0], models[1], NOW, run.run_id)
    log, registry = SqlDecisionLog(f"sqlite:///{database}"), MlflowRegistry(uri, RegistryMode.BOTH)
    made = Promoted(log, registry, client, test, f"t{number}-1", database)
    made.ask(1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    receipt = S3Archive("archive").store(test.baseline, tmp_path / "model")
    made.store_documents(log.append_record(RecordKind.PROMOTED, made.decision_id, {"archive": asdict(receipt), "epoch": 3}))
    assert made.verify() == (
        0,
        f"{made.decision_id}: every verdict follows from its evidence and policy, and the hashes agree.\n",
    )
    yield made
    assert made.verify()[0] == 1, "each of these tests leaves something that is not as it was"
    log.close()


def test_a_tampered_record_is_detected_and_named(promoted: Promoted) -> None:
    promoted.in_the_log("UPDATE decision_records SET payload = replace(payload, 'ana', 'eve') WHERE sequence = 1")
    said = promoted.found_out()
    assert said[0].startswith(f"record 1 ({promoted.decision_id}, decided) was changed after it was written")
    assert any("The table decisions says" in line and "actor" in line for line in said)


def test_a_tampered_record_whose_hash_was_made_to_fit_is_detected_and_named(promoted: Promoted) -> None:
    _, record = promoted.log.records()
    payload: dict[str, Any] = {**record.payload, "traffic": {"before": "x", "after": "y"}}
    forged = replace(record, payload=payload)
    stored = json.dumps(payload, sort_keys=True, ensure_ascii=False).replace("'", "''")
    promoted.in_the_log(f"UPDATE decision_records SET payload = '{stored}', hash = '{forged.recomputed_hash}' WHERE sequence = 2")
    [line] = promoted.found_out()
    assert line.startswith(f"record 2 ({promoted.decision_id}, promoted) was written")
    assert line.endswith("is not in the log: it was removed or replaced.")


def test_an_answer_that_was_removed_from_the_table_that_the_flow_acts_on_is_named(promoted: Promoted) -> None:
    promoted.in_the_log(f"DELETE FROM decisions WHERE decision_id = '{promoted.decision_id}'")
    gone = f"The table decisions has no {promoted.decision_id}, but record 1 ({promoted.decision_id}, decided) tells of it."
    assert promoted.found_out() == [gone]


def test_a_reordered_log_is_detected_and_named(promoted: Promoted) -> None:
    promoted.in_the_log(
        "UPDATE decision_records SET sequence = 9 WHERE sequence = 1",
        "UPDATE decision_records SET sequence = 1 WHERE sequence = 2",
        "UPDATE decision_records SET sequence = 2 WHERE sequence = 9",
    )
    said = promoted.found_out()
    assert f"record 1 ({promoted.decision_id}, promoted) was written as record 2: the log was re-ordered." in said
    assert f"record 2 ({promoted.decision_id}, decided) was written as record 1: the log was re-ordered." in said


def test_a_record_that_was_removed_before_others_is_detected_and_named(promoted: Promoted) -> None:
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence = 1")
    said = promoted.found_out()
    assert f"record 1 is missing before record 2 ({promoted.decision_id}, promoted)." in said
    assert f"The record of the answer to {promoted.decision_id} is missing from the log." in said


def test_a_record_that_was_removed_at_the_end_is_detected_and_named_by_the_document_that_tells_of_it(promoted: Promoted) -> None:
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence = 2")
    [line] = promoted.found_out()
    assert line.startswith(f"record 2 ({promoted.decision_id}, promoted) was written")
    assert "is not in the log: it was removed or replaced." in line


def test_a_record_that_was_removed_at_the_end_is_detected_and_named_by_an_earlier_export(
    promoted: Promoted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "records.json"
    told = CliRunner().invoke(app, ["export-records", str(export)]).output
    assert f"2 records; the latest is record 2 ({promoted.decision_id}, promoted), sha256:" in told
    assert promoted.verify("", "--against", str(export))[0] == 0
    assert promoted.verify(str(export))[0] == 0
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence = 2")
    with monkeypatch.context() as alone:
        alone.delenv("MLFLOW_TRACKING_URI")
        assert promoted.verify()[0] == 0, "the log by itself cannot show it"
        [line] = promoted.found_out("--against", str(export))
    assert line.startswith(f"record 2 ({promoted.decision_id}, promoted) was written")


def test_an_export_that_was_reordered_or_changed_is_detected_and_named(promoted: Promoted, tmp_path: Path) -> None:
    export = tmp_path / "records.json"
    CliRunner().invoke(app, ["export-records", str(export)])
    body = json.loads(export.read_text())

    def tampered(change: Callable[[list[dict[str, Any]]], object]) -> str:
        records = json.loads(json.dumps(body["records"]))
        change(records)
        export.write_text(json.dumps({**body, "records": records}))
        code, text = promoted.verify(str(export))
        assert code == 1
        return text

    assert "the log was re-ordered" in tampered(lambda records: records.reverse())
    assert f"record 2 ({promoted.decision_id}, promoted) was changed" in tampered(
        lambda found: found[1]["payload"].update(epoch=9)
    )
    assert "record 1 is missing before record 2" in tampered(lambda records: records.pop(0))
    promoted.in_the_log("DELETE FROM decision_records")


@pytest.mark.parametrize("name", [MARKDOWN, JSON])
def test_a_tampered_document_is_detected_and_named(promoted: Promoted, name: str) -> None:
    promoted.overwrite(name, promoted.stored(name).replace("ana", "eve"))
    said = promoted.found_out()
    places = [f"run {promoted.test.experiment_run_id}", *map(str, promoted.test.models)]
    assert [
        f"{promoted.place(name)} was changed" in line and place in line for line, place in zip(said, places, strict=False)
    ] == [True] * 3
    assert len(said) == (3 if name == MARKDOWN else len(said))


def test_a_tampered_document_whose_tags_were_made_to_fit_is_detected_by_its_records(promoted: Promoted) -> None:
    body = json.loads(promoted.stored(JSON))
    body["verdict"]["metrics"]["candidate"]["recall"] = 0.99
    promoted.registry.log_document(promoted.test, promoted.place(JSON), json.dumps(body))
    said = promoted.found_out()
    assert f"{promoted.place(JSON)}: verdict was changed: its record tells otherwise." in said
    assert any(line.startswith(f"{promoted.place(JSON)}: metrics is recorded as") for line in said)


def test_a_document_of_which_nothing_is_noted_or_that_is_gone_is_named(promoted: Promoted) -> None:
    candidate, run_id = promoted.test.candidate, promoted.test.experiment_run_id
    promoted.client.delete_model_version_tag(candidate.name, candidate.version, f"sha256.{promoted.place(MARKDOWN)}")
    assert promoted.found_out() == [f"{promoted.place(MARKDOWN)} is not noted by {candidate}: the tag with its SHA-256 is gone."]
    get_artifact_repository(promoted.client.get_run(run_id).info.artifact_uri or "").delete_artifacts(promoted.place(JSON))
    assert any(line.startswith(f"{promoted.place(JSON)} cannot be compared:") for line in promoted.found_out())


def test_a_document_on_disk_is_compared_with_what_mlflow_notes(
    promoted: Promoted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / JSON
    file.write_text(promoted.stored(JSON))
    assert promoted.verify(str(file))[0] == 0
    file.write_text(promoted.stored(JSON) + "\n")
    code, text = promoted.verify(str(file))
    assert (code, text.splitlines()[0].partition(" was changed")[0]) == (1, str(file))
    with monkeypatch.context() as alone:
        alone.delenv("MLFLOW_TRACKING_URI")
        assert "Not compared: the digest in MLflow's tags" in promoted.verify(str(file))[1]
    promoted.overwrite(JSON, "{}")


def test_a_tampered_document_of_an_emergency_is_named_with_its_decision(promoted: Promoted) -> None:
    about = {"decision_id": promoted.decision_id, "actor": "chiara", "reason": "wrong alerts", "at": NOW.isoformat()}
    revert = promoted.log.append_record(RecordKind.EMERGENCY_REVERT, "revert-1", about)
    assert [line.partition(" cannot be compared")[0] for line in promoted.found_out()] == [
        f"decisions/revert-1/{MARKDOWN}",
        f"decisions/revert-1/{JSON}",
    ]
    promoted.store_documents(revert)
    assert promoted.verify()[0] == 0
    promoted.client.log_text(promoted.test.experiment_run_id, "# Nothing happened", f"decisions/revert-1/{MARKDOWN}")
    said = promoted.found_out()
    assert len(said) == 3
    assert all(line.startswith(f"decisions/revert-1/{MARKDOWN} was changed: its SHA-256 is") for line in said)


def test_a_decision_that_is_not_carried_out_yet_has_no_document_to_compare(promoted: Promoted) -> None:
    later = promoted.ask(2).decision_id
    assert promoted.verify(later) == (0, f"{later}: every verdict follows from its evidence and policy, and the hashes agree.\n")
    promoted.overwrite(MARKDOWN, "")


def test_a_tampered_artifact_in_the_archive_is_detected_and_named(promoted: Promoted) -> None:
    s3, baseline = boto3.client("s3"), promoted.test.baseline
    key = f"{baseline.name}/1/files/MLmodel"
    s3.put_object(Bucket="archive", Key=key, Body=s3.get_object(Bucket="archive", Key=key)["Body"].read() + b"#")
    [line] = promoted.found_out()
    assert line.startswith(f"The archive of {baseline} is not as record 2 ({promoted.decision_id}, promoted) tells:")
    assert "MLmodel is not what was archived" in line


def test_a_manifest_of_the_archive_that_was_made_to_fit_is_detected_and_named(promoted: Promoted) -> None:
    s3, baseline = boto3.client("s3"), promoted.test.baseline
    key = f"{baseline.name}/1/manifest.json"
    text = s3.get_object(Bucket="archive", Key=key)["Body"].read()
    s3.put_object(Bucket="archive", Key=key, Body=text + b"\n")
    [line] = promoted.found_out()
    assert line.startswith(f"s3://archive/{baseline.name}/1/manifest.json was changed: its SHA-256 is ")
    assert f"record 2 ({promoted.decision_id}, promoted) notes" in line
