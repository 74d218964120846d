"""The candidate's files as an investigation compares them: with what they were when the test began, each part by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from mlflow import MlflowClient

from deployments.sandbox.processes import free_port
from flows.diagnosis import diagnose
from flows.domain.ab_test import Arm, Model
from flows.domain.errors import OutsideSystemError
from flows.domain.findings import FindingStatus, Hypothesis
from flows.domain.pipeline_findings import find_artifact
from flows.investigation_material import FILES, Gathering, compare_files
from flows.preflight import digest_of, file_digests, note_artifacts
from tests.integration.production_world import World

pytest_plugins = ("tests.integration.production_world",)

PLACE = "s3://models/x"


@pytest.fixture
def in_s3(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The candidate's predictor loads it from where it is registered."""
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
    candidate, storage = world.test.candidate, boto3.client("s3")
    files = world.systems.registry.artifact_files(candidate, tmp_path / "files")
    storage.create_bucket(Bucket="models")
    for path in (path for path in files.rglob("*") if path.is_file()):
        storage.upload_file(str(path), "models", f"x/{path.relative_to(files).as_posix()}")
    version = MlflowClient().create_model_version(candidate.name, PLACE).version
    world.test = replace(world.test, candidate=Model(candidate.name, str(version), candidate.predictor))
    return world


def damage() -> None:
    boto3.client("s3").put_object(Bucket="models", Key="x/MLmodel", Body=b"changed")


def archive(world: World, folder: Path) -> None:
    """As after a loss: a copy of what the registry has by then."""
    world.systems.archive.store(world.test.candidate, world.systems.registry.artifact_files(world.test.candidate, folder))


def differing(found: dict[str, Any]) -> set[str]:
    wanted, artifact = found["manifest"], found["artifact"]
    return {path for path in wanted.keys() | artifact.keys() if wanted.get(path) != artifact.get(path)}


def load_from(world: World, address: str) -> None:
    """Without an address from an image of its own."""
    parts: dict[str, object] = {"graph": {"name": "fraud-v2", "implementation": "MLFLOW_SERVER", "modelUri": address}}
    if not address:
        containers = [{"name": "fraud-v2", "image": "models/fraud:2"}]
        parts = {"graph": {"name": "fraud-v2"}, "componentSpecs": [{"spec": {"containers": containers}}]}
    world.patch([{"op": "add", "path": f"/spec/predictors/1/{part}", "value": value} for part, value in parts.items()])


def test_damage_since_the_start_is_found_though_the_archive_has_it_too(in_s3: World, tmp_path: Path) -> None:
    note_artifacts(in_s3.test)
    intact = compare_files(in_s3.test)
    assert (differing(intact), intact["missing"]) == (set(), {})
    assert intact["registered"] == intact["served"] == PLACE
    damage()
    archive(in_s3, tmp_path / "archived")
    found = compare_files(in_s3.test)
    assert differing(found) == {"MLmodel"}
    finding = find_artifact(found["manifest"], found["artifact"], None)
    assert finding.is_supported
    assert finding.said.startswith("MLmodel ")


def test_files_too_many_to_be_noted_one_by_one_are_compared_by_their_digest(in_s3: World, tmp_path: Path) -> None:
    files = file_digests(in_s3.systems.registry.artifact_files(in_s3.test.candidate, tmp_path / "now"))
    for noted in ({}, {f"a/{number:03}": "0" * 64 for number in range(100)}):
        in_s3.systems.registry.note_artifacts(in_s3.test.candidate, digest_of(files), noted)
        found = compare_files(in_s3.test)
        assert found["manifest"] == found["artifact"] == files
    damage()
    [said] = differing(compare_files(in_s3.test))
    assert "only a common digest was noted" in said


def test_where_nothing_was_noted_a_copy_is_not_compared_with_its_source(in_s3: World, tmp_path: Path) -> None:
    archive(in_s3, tmp_path / "archived")
    found = compare_files(in_s3.test)
    assert (found["manifest"], found["artifact"].keys() >= {"MLmodel"}) == (None, True)
    assert "Nobody noted what the files of" in found["missing"]["manifest"]
    MlflowClient().set_model_version_tag(in_s3.test.candidate.name, in_s3.test.candidate.version, "fraud-ab.artifacts", "[oh")
    assert compare_files(in_s3.test) == found


def test_where_nothing_was_noted_another_place_is_compared_with_the_archive(in_s3: World, tmp_path: Path) -> None:
    archive(in_s3, tmp_path / "archived")
    boto3.client("s3").put_object(Bucket="models", Key="y/MLmodel", Body=b"changed")
    load_from(in_s3, "s3://models/y/")
    found = compare_files(in_s3.test)
    assert differing(found) == found["manifest"].keys()
    assert (found["registered"], found["served"], found["missing"]) == (PLACE, "s3://models/y", {})


def test_of_an_emptied_place_every_file_is_missing(in_s3: World) -> None:
    note_artifacts(in_s3.test)
    storage = boto3.client("s3")
    for item in storage.list_objects_v2(Bucket="models")["Contents"]:
        storage.delete_object(Bucket="models", Key=item["Key"])
    found = compare_files(in_s3.test)
    assert found["artifact"] == {}
    finding = find_artifact(found["manifest"], found["artifact"], None)
    assert finding.is_supported
    assert finding.said.count("is missing") == len(found["manifest"]) > 1


@pytest.mark.parametrize(("address", "said"), [("gs://models/x", "gs://models/x"), ("", "its image")])
def test_a_place_that_cannot_be_read_is_said_and_not_called_intact(in_s3: World, address: str, said: str) -> None:
    note_artifacts(in_s3.test)
    load_from(in_s3, address)
    found = compare_files(in_s3.test)
    assert (found["artifact"], found["served"], found["registered"]) == (None, None, PLACE)
    assert f"loads ({said}) cannot be read" in found["missing"]["artifact"]
    assert f"loads {said}: whether that is the same cannot be seen" in found["missing"]["served_version"]


def test_a_predictor_that_is_gone_is_said(in_s3: World) -> None:
    note_artifacts(in_s3.test)
    full = {"op": "replace", "path": "/spec/predictors/0/traffic", "value": 100}
    in_s3.patch([full, {"op": "remove", "path": "/spec/predictors/1"}])
    found = compare_files(in_s3.test)
    assert (found["artifact"], found["served"]) == (None, None)
    assert found["missing"] == dict.fromkeys(
        ("artifact", "served_version"), "fraud-predictor has no predictor fraud-v2 any more."
    )
    assert found["manifest"]


def s3_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    world.systems.__dict__.pop("archive", None)


def kubernetes_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.systems.serving, "read", failing("Kubernetes"))


def mlflow_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.systems.registry, "provenance", failing("MLflow"))


def failing(system: str) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OutsideSystemError(system, "reading", retryable=True)

    return fail


@pytest.mark.parametrize(
    ("away", "system", "lost"),
    [
        (s3_away, "S3", {"artifact"}),
        (kubernetes_away, "Kubernetes", {"artifact", "served_version"}),
        (mlflow_away, "MLflow", {"manifest", "registered_version"}),
    ],
)
def test_what_is_away_takes_only_its_own_facts_with_it(
    in_s3: World,
    monkeypatch: pytest.MonkeyPatch,
    away: Callable[[World, pytest.MonkeyPatch], None],
    system: str,
    lost: set[str],
) -> None:
    note_artifacts(in_s3.test)
    away(in_s3, monkeypatch)
    found = compare_files(in_s3.test)
    keys = {"registered_version": "registered", "served_version": "served"}
    assert {name for name in FILES if found[keys.get(name, name)] is None} == lost == found["missing"].keys()
    assert all(f"{system} failed while" in why for why in found["missing"].values())


def test_both_models_tell_their_features_when_nothing_is_known_of_their_making(world: World) -> None:
    with Gathering(world.decide()) as gathering:
        material = gathering.material(dict.fromkeys(Arm, "MLflow failed."), "S3 failed.")
    assert material.baseline is not None
    assert material.candidate is not None
    assert material.baseline.features == material.candidate.features == ("amount",)
    assert {material.missing[name] for name in FILES} == {"S3 failed."}
    found = {finding.hypothesis: finding for finding in diagnose(material)}
    for hypothesis, why in (
        (Hypothesis.MODEL_CHANGES, "MLflow failed."),
        (Hypothesis.ARTIFACT, "S3 failed."),
        (Hypothesis.SERVED_VERSION, "S3 failed."),
    ):
        assert found[hypothesis].status is FindingStatus.NOT_TESTABLE
        assert found[hypothesis].said.startswith(why)


def test_a_model_that_cannot_be_loaded_is_the_reason_for_flags_and_scores(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.systems.registry, "artifact_files", failing("MLflow"))
    with Gathering(world.decide()) as gathering:
        material = gathering.material(dict.fromkeys(Arm, "MLflow failed."), "S3 failed.")
    assert material.baseline is material.candidate is None
    assert len({material.missing[name] for name in ("flags", "scores", "baseline_flags")}) == 1
