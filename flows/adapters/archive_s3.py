"""Artifacts of models in S3 or MinIO: `<model>/<version>/files/…` and a manifest that is written last.

An ETag is no checksum, so each object carries its own SHA-256, and an archive counts only when the manifest is there and every
file, read back, matches it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from flows.domain.errors import OutsideSystemError
from flows.ports import ArchiveReceipt

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from flows.domain.ab_test import Model

CHUNK_BYTES = 1 << 20
CONNECT_SECONDS, READ_SECONDS = 5, 30
MISSING = {"404", "NoSuchKey", "NotFound"}
PASSING = {"429", "500", "502", "503", "504", "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"}


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One line of the manifest."""

    path: str
    size_bytes: int
    sha256: str


class S3Archive:
    """A bucket; address and credentials come from the `AWS_*` variables."""

    def __init__(self, bucket: str) -> None:
        import boto3
        from botocore.config import Config

        retries: Any = {"max_attempts": 3, "mode": "standard"}
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
        self._bucket = bucket
        self._client: Any = boto3.client("s3", config=config)

    def store(self, model: Model, folder: Path) -> ArchiveReceipt:
        """Copy what is missing, write the manifest, verify.

        Raises:
            OutsideSystemError: not retryable when the model was archived before with other content: somebody changed it since.
        """
        files = [_describe(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        if not files:
            raise OutsideSystemError("S3", f"archiving {model}: it has no artifacts", retryable=False)
        manifest = _manifest(model, files)
        with _talking(f"archiving {model} in bucket {self._bucket}"):
            kept = self._get(_key(model, "manifest.json"))
            if kept is not None and kept != manifest:
                raise OutsideSystemError(
                    "S3", f"archiving {model}: {self._uri(model)} already holds other artifacts of this version", retryable=False
                )
            for file in files:
                self._upload(_key(model, "files", file.path), folder / file.path, file)
            self._client.put_object(Bucket=self._bucket, Key=_key(model, "manifest.json"), Body=manifest)
        return self.verify(model)

    def verify(self, model: Model) -> ArchiveReceipt:
        """Read every file back and compare it with the manifest."""
        with _talking(f"verifying the archive of {model}"):
            files, digest = self._read_manifest(model)
            for file in files:
                self._check(model, file, _sha256(self._stream(_key(model, "files", file.path))))
        return ArchiveReceipt(self._uri(model), len(files), sum(file.size_bytes for file in files), digest)

    def manifest(self, model: Model) -> dict[str, str]:
        with _talking(f"reading the manifest of {model}"):
            return {file.path: file.sha256 for file in self._read_manifest(model)[0]}

    def restore(self, model: Model, folder: Path) -> Path:
        """Download into `folder`; a file that does not match the manifest raises and never gets its name."""
        with _talking(f"restoring {model}"):
            for file in self._read_manifest(model)[0]:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f"{target.name}.partial")
                with partial.open("wb") as stream:
                    digest = _sha256(_written(self._stream(_key(model, "files", file.path)), stream))
                self._check(model, file, digest)
                partial.replace(target)
        return folder

    def put_back(self, model: Model, uri: str) -> int:
        """Copy what is missing at an s3:// address, then compare all of it with the manifest. Returns how many were missing.

        Raises:
            OutsideSystemError: not retryable when the archive is not whole, or something else lies at that address: nothing is
                overwritten.
        """
        bucket, prefix = _place(uri)
        with _talking(f"putting {model} back to {uri}"), tempfile.TemporaryDirectory(prefix="restore-") as name:
            files = self._read_manifest(model)[0]
            places = {file: "/".join(filter(None, (prefix, file.path))) for file in files}
            missing = [file for file in files if self._head(places[file], bucket) is None]
            folder = self.restore(model, Path(name)) if missing else Path(name)
            for file in missing:
                more = {"Metadata": {"sha256": file.sha256}}
                self._client.upload_file(str(folder / file.path), bucket, places[file], ExtraArgs=more)
            for file in files:
                found = _sha256(self._stream(places[file], bucket))
                if found != file.sha256:
                    doing = f"putting {model} back to {uri}: {file.path} is there with other content (SHA-256 {found})"
                    raise OutsideSystemError("S3", doing, retryable=False)
        return len(missing)

    def digests(self, uri: str) -> dict[str, str]:
        """As `Archive.digests`.

        Raises:
            OutsideSystemError: not retryable when this account may not read there.
        """
        bucket, prefix = _place(uri)
        with _talking(f"reading {uri}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
            keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
            return {key.removeprefix(prefix).lstrip("/"): _sha256(self._stream(key, bucket)) for key in keys}

    def _uri(self, model: Model) -> str:
        return f"s3://{self._bucket}/{_key(model)}"

    def _upload(self, key: str, path: Path, file: ArchivedFile) -> None:
        head = self._head(key)
        if head and head["Metadata"].get("sha256") == file.sha256 and head["ContentLength"] == file.size_bytes:
            return
        self._client.upload_file(str(path), self._bucket, key, ExtraArgs={"Metadata": {"sha256": file.sha256}})

    def _head(self, key: str, bucket: str = "") -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return self._client.head_object(Bucket=bucket or self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in MISSING:
                return None
            raise

    def _get(self, key: str) -> bytes | None:
        return b"".join(self._stream(key)) if self._head(key) else None

    def _stream(self, key: str, bucket: str = "") -> Iterator[bytes]:
        yield from self._client.get_object(Bucket=bucket or self._bucket, Key=key)["Body"].iter_chunks(CHUNK_BYTES)

    def _read_manifest(self, model: Model) -> tuple[list[ArchivedFile], str]:
        text = self._get(_key(model, "manifest.json"))
        if text is None:
            raise OutsideSystemError(
                "S3", f"reading {self._uri(model)}: it has no manifest, so it is not complete", retryable=False
            )
        files = [ArchivedFile(**line) for line in json.loads(text)["files"]]
        if any(PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts for file in files):
            raise OutsideSystemError("S3", f"reading {self._uri(model)}: its manifest names files outside of it", retryable=False)
        return files, hashlib.sha256(text).hexdigest()

    def _check(self, model: Model, file: ArchivedFile, sha256: str) -> None:
        if sha256 != file.sha256:
            raise OutsideSystemError(
                "S3", f"reading {self._uri(model)}: {file.path} is not what was archived (SHA-256 {sha256})", retryable=False
            )


def _place(uri: str) -> tuple[str, str]:
    """Bucket and prefix of an s3:// address."""
    bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
    return bucket, prefix


def _key(model: Model, *parts: str) -> str:
    return "/".join((model.name, model.version, *parts))


def _describe(folder: Path, path: Path) -> ArchivedFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ArchivedFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)


def _manifest(model: Model, files: list[ArchivedFile]) -> bytes:
    lines = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files]
    return json.dumps({"schema": 1, "model": model.name, "version": model.version, "files": lines}, indent=1).encode()


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _written(chunks: Iterable[bytes], stream: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        stream.write(chunk)
        yield chunk


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _talking(doing: str) -> Generator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        raise OutsideSystemError("S3", f"{doing}: {error}", retryable=_code(error) in PASSING) from error
    except NoCredentialsError as error:
        raise OutsideSystemError("S3", f"{doing}: no credentials, set the AWS_* variables", retryable=False) from error
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__cause__ or error.__context__  # an upload hides the server's answer
        retryable = not isinstance(cause, ClientError) or _code(cause) in PASSING
        raise OutsideSystemError("S3", f"{doing}: {error}", retryable=retryable) from error
