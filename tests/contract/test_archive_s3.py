"""The archive against an S3 server over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from flows.adapters.archive_s3 import S3Archive
from flows.domain.ab_test import Model
from flows.domain.errors import OutsideSystemError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "archive"
MODEL = Model("fraud_v1", "3", "fraud-v1")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "data").mkdir(parents=True)
    (root / "MLmodel").write_text("flavors: {}\n")
    (root / "data" / "weights.bin").write_bytes(bytes(range(256)) * 9000)
    (root / "empty").touch()
    return root


def keys(bucket: Any) -> set[str]:
    return {item["Key"] for item in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_an_archive_comes_back_as_it_went_in(bucket: Any, folder: Path, tmp_path: Path) -> None:
    receipt = S3Archive(BUCKET).store(MODEL, folder)
    assert (receipt.uri, receipt.files) == ("s3://archive/fraud_v1/3", 3)
    assert receipt.size_bytes == 256 * 9000 + 12
    back = S3Archive(BUCKET).restore(MODEL, tmp_path / "back")
    restored = {path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()}
    assert restored == {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert S3Archive(BUCKET).verify(MODEL) == receipt


def test_a_second_run_copies_only_what_is_missing(bucket: Any, folder: Path) -> None:
    first = S3Archive(BUCKET).store(MODEL, folder)
    bucket.delete_object(Bucket=BUCKET, Key="fraud_v1/3/files/MLmodel")
    kept = bucket.head_object(Bucket=BUCKET, Key="fraud_v1/3/files/data/weights.bin")["LastModified"]
    uploads: list[str] = []
    archive = S3Archive(BUCKET)
    archive._client.meta.events.register("before-call.s3.PutObject", lambda params, **_: uploads.append(params["url_path"]))
    assert archive.store(MODEL, folder) == first
    assert [one.rsplit("/", 1)[-1] for one in uploads] == ["MLmodel", "manifest.json"]
    assert bucket.head_object(Bucket=BUCKET, Key="fraud_v1/3/files/data/weights.bin")["LastModified"] == kept


def test_without_its_manifest_an_archive_is_not_complete(bucket: Any, folder: Path) -> None:
    S3Archive(BUCKET).store(MODEL, folder)
    bucket.delete_object(Bucket=BUCKET, Key="fraud_v1/3/manifest.json")
    with pytest.raises(OutsideSystemError, match="no manifest"):
        S3Archive(BUCKET).verify(MODEL)
    S3Archive(BUCKET).store(MODEL, folder)
    assert "fraud_v1/3/manifest.json" in keys(bucket)


@pytest.mark.parametrize("keep_metadata", [True, False])
def test_a_changed_file_is_found_and_never_restored(bucket: Any, folder: Path, tmp_path: Path, *, keep_metadata: bool) -> None:
    S3Archive(BUCKET).store(MODEL, folder)
    key = "fraud_v1/3/files/MLmodel"
    metadata = bucket.head_object(Bucket=BUCKET, Key=key)["Metadata"] if keep_metadata else {}
    bucket.put_object(Bucket=BUCKET, Key=key, Body=b"flavors: []\n", Metadata=metadata)
    for attempt in (S3Archive(BUCKET).verify, lambda model: S3Archive(BUCKET).restore(model, tmp_path / "back")):
        with pytest.raises(OutsideSystemError, match="MLmodel is not what was archived") as tampered:
            attempt(MODEL)
        assert not tampered.value.retryable
    assert not (tmp_path / "back" / "MLmodel").exists()


def test_artifacts_that_changed_since_they_were_archived_are_not_overwritten(bucket: Any, folder: Path) -> None:
    archive = S3Archive(BUCKET)
    before = archive.store(MODEL, folder)
    (folder / "MLmodel").write_text("flavors: {evil: 1}\n")
    with pytest.raises(OutsideSystemError, match="already holds other artifacts"):
        archive.store(MODEL, folder)
    assert archive.verify(MODEL) == before


def test_a_manifest_cannot_lead_out_of_the_folder(bucket: Any, folder: Path, tmp_path: Path) -> None:
    S3Archive(BUCKET).store(MODEL, folder)
    manifest = {"files": [{"path": "../outside", "size_bytes": 1, "sha256": "0"}]}
    bucket.put_object(Bucket=BUCKET, Key="fraud_v1/3/manifest.json", Body=json.dumps(manifest))
    with pytest.raises(OutsideSystemError, match="outside of it"):
        S3Archive(BUCKET).restore(MODEL, tmp_path / "back")


def test_an_empty_model_a_missing_bucket_and_a_silent_server_are_told_apart(
    bucket: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(OutsideSystemError, match="no artifacts"):
        S3Archive(BUCKET).store(MODEL, tmp_path / "nothing")
    with pytest.raises(OutsideSystemError, match="NoSuchBucket") as missing:
        S3Archive("elsewhere").store(MODEL, folder)
    assert not missing.value.retryable
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OutsideSystemError) as silent:
        S3Archive(BUCKET).verify(MODEL)
    assert silent.value.retryable


@pytest.fixture
def place(bucket: Any) -> Iterator[str]:
    """A bucket of a model server, beside the archive."""
    bucket.create_bucket(Bucket="served")
    yield "s3://served/models/v1"
    for item in bucket.list_objects_v2(Bucket="served").get("Contents", []):
        bucket.delete_object(Bucket="served", Key=item["Key"])
    bucket.delete_bucket(Bucket="served")


def served(bucket: Any) -> dict[str, bytes]:
    found = bucket.list_objects_v2(Bucket="served").get("Contents", [])
    return {item["Key"]: bucket.get_object(Bucket="served", Key=item["Key"])["Body"].read() for item in found}


def test_what_is_missing_where_a_model_is_served_from_is_put_back_and_the_rest_left(
    bucket: Any, place: str, folder: Path
) -> None:
    archive = S3Archive(BUCKET)
    archive.store(MODEL, folder)
    bucket.put_object(Bucket="served", Key="models/v1/another", Body=b"not of this model")
    assert archive.put_back(MODEL, place) == 3
    whole = served(bucket)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert whole[f"models/v1/{path.relative_to(folder).as_posix()}"] == path.read_bytes()
    bucket.delete_object(Bucket="served", Key="models/v1/data/weights.bin")
    assert archive.put_back(MODEL, f"{place}/") == 1
    assert served(bucket) == whole
    assert archive.put_back(MODEL, place) == 0


def test_what_lies_there_with_other_content_is_said_and_not_overwritten(bucket: Any, place: str, folder: Path) -> None:
    archive = S3Archive(BUCKET)
    archive.store(MODEL, folder)
    bucket.put_object(Bucket="served", Key="models/v1/MLmodel", Body=b"other")
    with pytest.raises(OutsideSystemError, match="MLmodel is there with other content") as failed:
        archive.put_back(MODEL, place)
    assert not failed.value.retryable
    assert served(bucket)["models/v1/MLmodel"] == b"other"


def test_a_damaged_archive_puts_nothing_back(bucket: Any, place: str, folder: Path) -> None:
    archive = S3Archive(BUCKET)
    archive.store(MODEL, folder)
    bucket.put_object(Bucket=BUCKET, Key="fraud_v1/3/files/MLmodel", Body=b"tampered with")
    with pytest.raises(OutsideSystemError, match="not what was archived"):
        archive.put_back(MODEL, place)
    assert served(bucket) == {}


def test_a_whole_bucket_can_be_the_place(bucket: Any, place: str, folder: Path) -> None:
    archive = S3Archive(BUCKET)
    archive.store(MODEL, folder)
    assert archive.put_back(MODEL, "s3://served") == 3
    assert "MLmodel" in served(bucket)
