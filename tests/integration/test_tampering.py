"""Whoever changes a record, a document or an archive afterwards is found out by `fraud-ab verify-record`, which names it.

What is tampered with is in tampering_world.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from typer.testing import CliRunner

from deployments.cli import app
from flows.domain.decision_record import RecordKind
from flows.domain.evidence import plain
from flows.reports.decision_document import decision_document
from flows.reports.dossier import Dossier, document_folder, investigation_folder
from flows.reports.record_json import document_json
from tests.gallery import NOW
from tests.integration.tampering_world import JSON, MARKDOWN, Promoted

pytest_plugins = ("tests.integration.tampering_world",)


def test_a_tampered_record_is_detected_and_named(promoted: Promoted) -> None:
    promoted.in_the_log("UPDATE decision_records SET payload = replace(payload, 'ana', 'eve') WHERE sequence = 1")
    said = promoted.found_out()
    assert said[0].startswith(f"record 1 ({promoted.decision_id}, decided) was changed after it was written")
    assert any("The table decisions says" in line and "actor" in line for line in said)


def test_a_tampered_record_whose_hash_was_made_to_fit_is_detected_and_named(promoted: Promoted) -> None:
    _, record, _ = promoted.log.records()
    payload: dict[str, Any] = {**record.payload, "traffic": {"before": "x", "after": "y"}}
    forged = replace(record, payload=payload)
    stored = json.dumps(payload, sort_keys=True, ensure_ascii=False).replace("'", "''")
    promoted.in_the_log(f"UPDATE decision_records SET payload = '{stored}', hash = '{forged.recomputed_hash}' WHERE sequence = 2")
    after, line = promoted.found_out()
    named = f"record 2 ({promoted.decision_id}, promoted)"
    assert after.startswith(f"{named} was replaced: {promoted.documented()} was written after another one")
    assert line.startswith(f"{named} was written")
    assert line.endswith("is not in the log: it was removed or replaced.")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "request = json_set(request, '$.verdict.metrics.candidate.recall', 0.99)",
            "request.verdict.metrics.candidate.recall is 0.99, but",
        ),
        ("deadline = created_at", "deadline is"),
        ("first_actor_id = 'U0EVE', first_actor_name = 'eve', first_reason = '', first_confirmed_at = created_at", "first_conf"),
        (
            "status = 'pending', choice = NULL, claimed_at = NULL",
            "it is not answered, but",
        ),
    ],
)
def test_a_question_or_answer_that_was_changed_in_the_table_is_detected_and_named(
    promoted: Promoted, statement: str, told: str
) -> None:
    promoted.in_the_log(f"UPDATE decisions SET {statement} WHERE decision_id = '{promoted.decision_id}'")
    said = promoted.found_out()
    assert any(line.startswith(f"The table decisions says of {promoted.decision_id} that {told}") for line in said), said
    assert all(f"record 1 ({promoted.decision_id}, decided)" in line for line in said)


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
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence >= 2")
    markdown, json_, line = promoted.found_out()
    assert markdown == f"{promoted.place(MARKDOWN)} is in no record: nothing but MLflow's tags tells its SHA-256."
    assert json_.startswith(f"{promoted.place(JSON)} is in no record")
    assert line.startswith(f"record 2 ({promoted.decision_id}, promoted) was written")
    assert "is not in the log: it was removed or replaced." in line


def test_a_record_that_was_removed_at_the_end_is_detected_and_named_by_an_earlier_export(
    promoted: Promoted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "records.json"
    told = CliRunner().invoke(app, ["export-records", str(export)]).output
    assert f"3 records; the latest is {promoted.documented()}, sha256:" in told
    assert promoted.verify("", "--against", str(export))[0] == 0
    assert promoted.verify(str(export))[0] == 0
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence >= 2")
    with monkeypatch.context() as alone:
        alone.delenv("MLFLOW_TRACKING_URI")
        assert promoted.verify()[0] == 0, "the log by itself cannot show it"
        said = promoted.found_out("--against", str(export))
    gone = [f"record 2 ({promoted.decision_id}, promoted)", promoted.documented()]
    assert [line.partition(" was written")[0] for line in said] == gone


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
    places = [f"run {promoted.test.experiment_run_id}", *map(str, promoted.test.models), promoted.documented()]
    assert [
        f"{promoted.place(name)} was changed" in line and place in line for line, place in zip(said, places, strict=False)
    ] == [True] * 4
    assert len(said) == (4 if name == MARKDOWN else len(said))


def test_a_tampered_document_whose_tags_were_made_to_fit_is_detected_by_its_records(promoted: Promoted) -> None:
    body = json.loads(promoted.stored(JSON))
    body["verdict"]["metrics"]["candidate"]["recall"] = 0.99
    promoted.store(f"decisions/{promoted.decision_id}", {JSON: json.dumps(body)}, is_noted=False)
    said = promoted.found_out()
    assert f"{promoted.place(JSON)}: verdict was changed: its record tells otherwise." in said
    assert any(line.startswith(f"{promoted.place(JSON)}: metrics is recorded as") for line in said)


def test_a_tampered_text_whose_tags_were_made_to_fit_is_detected_by_the_record_of_its_digest(promoted: Promoted) -> None:
    text = promoted.stored(MARKDOWN).replace("ana", "eve")
    promoted.store(f"decisions/{promoted.decision_id}", {MARKDOWN: text}, is_noted=False)
    [line] = promoted.found_out()
    assert line.startswith(f"{promoted.place(MARKDOWN)} was changed: its SHA-256 is ")
    assert f"{promoted.documented()} notes" in line


def test_a_document_that_was_written_again_is_compared_with_the_last_record(promoted: Promoted) -> None:
    before = promoted.stored(MARKDOWN)
    promoted.store(f"decisions/{promoted.decision_id}", {MARKDOWN: before + "More was found.\n"})
    assert promoted.verify()[0] == 0
    promoted.store(f"decisions/{promoted.decision_id}", {MARKDOWN: before}, is_noted=False)
    [line] = promoted.found_out()
    assert f"{promoted.documented(number=4)} notes" in line


def test_a_tampered_report_or_chart_of_an_investigation_is_detected_and_named(promoted: Promoted) -> None:
    folder = investigation_folder(promoted.decision_id)
    promoted.store(folder, {"findings.png": b"a chart", "root_cause.html": "<p>Amounts have drifted.</p>"})
    assert promoted.verify()[0] == 0
    promoted.store(folder, {"findings.png": b"another", "root_cause.html": "<p>Nothing was found.</p>"}, is_noted=False)
    said = promoted.found_out()
    assert [line.partition(" was changed")[0] for line in said] == [f"{folder}/findings.png", f"{folder}/root_cause.html"]
    assert all(f"record 4 ({folder}, documented) notes" in line for line in said)


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
        code, text = promoted.verify(str(file))
        assert (code, text.count("\n"), f"{promoted.documented()} notes" in text) == (1, 1, True)
        alone.delenv("FRAUD_AB_DECISION_LOG_URL")
        told = "Not compared: the digest in MLflow's tags (MLFLOW_TRACKING_URI); the digest in the log's records"
        assert told in promoted.verify(str(file))[1]
    promoted.in_the_log("DELETE FROM decision_records WHERE sequence = 3")
    assert f"{file} is in no record of the log" in promoted.verify(str(file))[1]


def test_a_tampered_document_of_an_emergency_is_named_with_its_decision(promoted: Promoted) -> None:
    about = {"decision_id": promoted.decision_id, "actor": "chiara", "reason": "wrong alerts", "at": NOW.isoformat()}
    revert = promoted.log.append_record(RecordKind.EMERGENCY_REVERT, "revert-1", about)
    assert [line.partition(" cannot be compared")[0] for line in promoted.found_out()] == [
        f"decisions/revert-1/{MARKDOWN}",
        f"decisions/revert-1/{JSON}",
    ]
    promoted.store_documents(revert)
    assert promoted.verify()[0] == 0
    assert promoted.verify("revert-1") == (
        0,
        "revert-1: every verdict follows from its evidence and policy, and the hashes agree.\n",
    )
    promoted.client.log_text(promoted.test.experiment_run_id, "# Nothing happened", f"decisions/revert-1/{MARKDOWN}")
    said = promoted.found_out()
    assert len(said) == 4
    assert all(line.startswith(f"decisions/revert-1/{MARKDOWN} was changed: its SHA-256 is") for line in said)
    assert promoted.documented("revert-1", 5) in said[3]
    code, text = promoted.verify("revert-1")
    assert (code, text.splitlines()) == (1, said)


def test_an_emergency_before_the_tests_first_question_is_verified_too(promoted: Promoted) -> None:
    for revert_id, about in (("revert-1", {"test_id": promoted.test.test_id, "test": plain(promoted.test)}), ("revert-2", {})):
        revert = promoted.log.append_record(RecordKind.EMERGENCY_REVERT, revert_id, {"actor": "chiara", **about})
        if about:
            dossier = Dossier(promoted.test, None, revert, (revert,))
            promoted.store(document_folder(revert_id), {MARKDOWN: decision_document(dossier), JSON: document_json(dossier)})
    assert promoted.verify("revert-1")[0] == promoted.verify("decisions/revert-1")[0] == 0
    code, text = promoted.verify("revert-2")
    assert (code, text.splitlines()[1]) == (0, "Not compared: documents (the deployment was in no test, so there are none).")
    promoted.store(document_folder("revert-1"), {MARKDOWN: "# Nothing happened"}, is_noted=False)
    code, text = promoted.verify("revert-1")
    assert (code, text.count("\n"), promoted.documented("revert-1", 5) in text) == (1, 1, True)
    promoted.overwrite(MARKDOWN, "")


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
