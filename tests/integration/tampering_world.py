"""A promotion that was recorded and documented, to be tampered with.

The decision log, MLflow and the archive in S3 (over HTTP) are filled as a promotion fills them; that it leaves them so is tested
in test_promotion.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import boto3
import mlflow
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from deployments.cli import app
from flows.adapters.archive_s3 import S3Archive
from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.registry_mlflow import MlflowRegistry
from flows.documents import note_files
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
        self.store(document_folder(ending.decision_id), {MARKDOWN: decision_document(dossier), JSON: document_json(dossier)})

    def store(self, folder: str, files: dict[str, str | bytes], *, is_noted: bool = True) -> None:
        """With the tags in MLflow; `is_noted`: and with the record."""
        for name, content in files.items():
            if isinstance(content, bytes):
                self.registry.log_picture(self.test, f"{folder}/{name}", content)
            else:
                self.registry.log_document(self.test, f"{folder}/{name}", content)
        if is_noted:
            note_files(self.log, folder, files)

    def documented(self, decision_id: str = "", number: int = 3) -> str:
        """The record that tells of a decision's documents, in words."""
        return f"record {number} (decisions/{decision_id or self.decision_id}, documented)"

    def stored(self, name: str) -> str:
        return self.registry.stored_document(self.test, self.place(name)).text

    def overwrite(self, name: str, text: str) -> None:
        self.client.log_text(self.test.experiment_run_id, text, self.place(name))

    def place(self, name: str) -> str:
        return f"decisions/{self.decision_id}/{name}"


@pytest.fixture(scope="module")
def mlflow_and_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
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
    mlflow_and_s3: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Promoted]:
    uri, experiment, s3 = mlflow_and_s3
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
