"""The model registry in MLflow: by stages, by aliases, or both.

MLflow has no compare-and-set, and `archive_existing_versions` reaches versions of the same registered model only, so the other
model is always archived by a call of its own, and every change is read back with `get_model_version` (a search shows no aliases).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from contextlib import contextmanager
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from flows.domain.action_plan import RegistryEntry, Stage
from flows.domain.errors import OutsideSystemError
from flows.ports import LoadedModel, Provenance, StoredDocument
from flows.settings import RegistryMode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.model_findings import ModelFacts

P = ParamSpec("P")
R = TypeVar("R")
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ALIAS_OF = {Stage.PRODUCTION: CHAMPION, Stage.STAGING: CHALLENGER}
STAGE_TAG, TEST_TAG = "fraud-ab.stage", "fraud-ab.test"
ARTIFACTS_TAG, FILES_TAG, DIGEST_TAG = "fraud-ab.artifacts_sha256", "fraud-ab.artifacts", "sha256"
TAG_CHARACTERS = 5_000  # older registries take no longer value; some forty files
REQUEST_SECONDS, REQUEST_RETRIES, DOWNLOAD_SECONDS = "20", "2", "300"


class MlflowRegistry:
    """The registry behind a tracking URI. The limits in seconds apply unless MLflow's own variables say otherwise."""

    def __init__(self, tracking_uri: str, mode: RegistryMode) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", REQUEST_RETRIES)
        os.environ.setdefault("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", DOWNLOAD_SECONDS)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        self._client: MlflowClient = MlflowClient(tracking_uri, registry_uri=tracking_uri)
        self._uri = tracking_uri
        self._mode = mode

    def entry(self, model: Model) -> RegistryEntry:
        return self._entry(model, self._version(model))

    def set_in_charge(self, model: Model) -> RegistryEntry:
        """Production and `champion`; other versions of the same registered model are archived by MLflow itself."""
        return self._mark(model, Stage.PRODUCTION, alias=CHAMPION)

    def set_archived(self, model: Model, *, previous: bool) -> RegistryEntry:
        return self._mark(model, Stage.ARCHIVED, alias=PREVIOUS if previous else None)

    def set_stage(self, model: Model, stage: Stage) -> RegistryEntry:
        return self._mark(model, stage, alias=ALIAS_OF.get(stage))

    def artifact_files(self, model: Model, folder: Path) -> Path:
        from mlflow.artifacts import download_artifacts

        with _talking(f"downloading {model}"):
            source = self._client.get_model_version_download_uri(model.name, model.version)
            downloaded = download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self._uri)
            return folder.__class__(downloaded)

    def provenance(self, model: Model) -> Provenance:
        version = self._version(model)
        with _talking(f"looking for the files of {model}"):
            source = str(self._client.get_model_version_download_uri(model.name, model.version))
        return Provenance(
            version.run_id or "", source, version.tags.get(ARTIFACTS_TAG, ""), _noted_files(version.tags.get(FILES_TAG, ""))
        )

    def note_artifacts(self, model: Model, sha256: str, files: Mapping[str, str]) -> None:
        text = json.dumps(files)
        noted = {ARTIFACTS_TAG: sha256, FILES_TAG: text if len(text) <= TAG_CHARACTERS else ""}
        with _talking(f"tagging {model}"):
            for tag, value in noted.items():
                self._client.set_model_version_tag(model.name, model.version, tag, value)

    def try_out(self, model: Model, files: Path) -> int:
        """Load downloaded artifacts and predict on the input example that was logged with them; returns the rows predicted."""
        import mlflow.pyfunc
        from mlflow.models import Model as LoggedModel

        doing = f"trying out {model}"
        try:
            example = LoggedModel.load(str(files)).load_input_example(str(files))
            if example is None:
                raise OutsideSystemError(
                    "MLflow", f"{doing}: it was logged without input_example; log it with one", retryable=False
                )
            # its warnings compare the model's requirements with every package here, for seconds; what serves it is another image
            loaded = mlflow.pyfunc.load_model(str(files), suppress_warnings=True)
            return len(loaded.predict(example))
        except OutsideSystemError:
            raise
        except Exception as error:
            # a model's own code may raise anything when it is loaded
            raise OutsideSystemError("MLflow", f"{doing}: {_first_line(error)}", retryable=False) from error

    def making(self, model: Model) -> ModelFacts:
        from flows.adapters.model_mlflow import read_making

        version = self._version(model)
        if not version.run_id:
            raise OutsideSystemError("MLflow", f"reading how {model} was made: it is registered without a run", retryable=False)
        with _talking(f"reading how {model} was made"):
            return read_making(self._client, str(model), version.run_id, self._uri)

    def load(self, model: Model, files: Path) -> LoadedModel:
        from flows.adapters.model_mlflow import load_model

        threshold = cache(lambda: self._threshold(model))
        loaded = _guarded(f"loading {model}", partial(load_model, files, threshold))()
        asking = f"asking {model}"
        scores = _guarded(asking, loaded.scores) if loaded.scores else None
        return LoadedModel(loaded.features, _guarded(asking, loaded.flags), scores)

    def log_document(self, test: ABTest, name: str, text: str) -> str:
        run, tag, digest = test.experiment_run_id, f"{DIGEST_TAG}.{name}", hashlib.sha256(text.encode()).hexdigest()
        with _talking(f"storing {name} on run {run}"):
            self._client.log_text(run, text, name)
            self._client.set_tag(run, tag, digest)
            for model in test.models:
                self._client.set_model_version_tag(model.name, model.version, tag, digest)
        return f"runs:/{run}/{name}"

    def stored_document(self, test: ABTest, name: str) -> StoredDocument:
        from mlflow.artifacts import download_artifacts

        run, tag = test.experiment_run_id, f"{DIGEST_TAG}.{name}"
        with _talking(f"reading {name} of run {run}"), tempfile.TemporaryDirectory() as folder:
            file = download_artifacts(run_id=run, artifact_path=name, dst_path=folder, tracking_uri=self._uri)
            content = Path(file).read_bytes()
            noted = {f"run {run}": self._client.get_run(run).data.tags.get(tag, "")}
        noted |= {str(model): self._version(model).tags.get(tag, "") for model in test.models}
        return StoredDocument(content.decode(errors="replace"), hashlib.sha256(content).hexdigest(), noted)

    def log_picture(self, test: ABTest, name: str, png: bytes) -> None:
        folder, _, file_name = name.rpartition("/")
        with _talking(f"storing {name} on run {test.experiment_run_id}"), tempfile.TemporaryDirectory() as place:
            file = Path(place) / file_name
            file.write_bytes(png)
            self._client.log_artifact(test.experiment_run_id, str(file), folder)

    def tag_test(self, test: ABTest, tags: Mapping[str, str]) -> None:
        with _talking(f"tagging run {test.experiment_run_id}"):
            for key, value in tags.items():
                self._client.set_tag(test.experiment_run_id, key, value)

    def open_test_run(self, test_id: str, experiment: str, facts: Mapping[str, str]) -> str:
        """Found again by its tag; two callers at the same moment may leave one run that nobody uses."""
        with _talking(f"opening a run for {test_id} in the experiment {experiment}"):
            known = self._client.get_experiment_by_name(experiment)
            place = str(known.experiment_id) if known else self._client.create_experiment(experiment)
            found = self._client.search_runs([place], f"tags.`{TEST_TAG}` = '{test_id}'", max_results=1)
            if found:
                return str(found[0].info.run_id)
            return str(self._client.create_run(place, tags={TEST_TAG: test_id, **facts}, run_name=test_id).info.run_id)

    def require_run(self, run_id: str) -> None:
        with _talking(f"reading run {run_id}"):
            self._client.get_run(run_id)

    def run_url(self, test: ABTest, document: str = "") -> str:
        if not self._uri.startswith(("http://", "https://")):
            return ""
        with _talking(f"reading run {test.experiment_run_id}"):
            experiment = self._client.get_run(test.experiment_run_id).info.experiment_id
        run = f"{self._uri.rstrip('/')}/#/experiments/{experiment}/runs/{test.experiment_run_id}"
        return f"{run}/artifacts/{document}" if document else run

    def _threshold(self, model: Model) -> float | None:
        from flows.adapters.model_mlflow import read_threshold

        run = self._version(model).run_id
        if not run:
            return None
        with _talking(f"reading the threshold of {model}"):
            return read_threshold(self._client.get_run(run).data.params)

    def _version(self, model: Model) -> ModelVersion:
        with _talking(f"reading {model}"):
            return self._client.get_model_version(model.name, model.version)

    def _entry(self, model: Model, version: ModelVersion) -> RegistryEntry:
        return RegistryEntry(model.name, str(version.version), self._stage(version), tuple(sorted(version.aliases)))

    def _stage(self, version: ModelVersion) -> Stage:
        if self._mode is not RegistryMode.ALIASES:
            return Stage(version.current_stage)
        if CHAMPION in version.aliases:
            return Stage.PRODUCTION
        kept = Stage(version.tags.get(STAGE_TAG, Stage.NONE))
        return Stage.NONE if kept is Stage.PRODUCTION else kept

    def _mark(self, model: Model, stage: Stage, *, alias: str | None) -> RegistryEntry:
        """Set stage and alias where they differ, then read back; another answer than the wanted one is worth another try."""
        version = self._version(model)
        with _talking(f"setting {model} to {stage}"):
            has_moved = self._mode is not RegistryMode.ALIASES and self._transition(version, stage)
            has_moved |= self._mode is not RegistryMode.STAGES and self._move_aliases(version, stage, alias)
        entry = self.entry(model) if has_moved else self._entry(model, version)
        lacks_alias = alias is not None and self._mode is not RegistryMode.STAGES and alias not in entry.aliases
        if entry.stage is not stage or lacks_alias:
            raise OutsideSystemError("MLflow", f"setting {model} to {stage}: it reads {entry}", retryable=True)
        return entry

    def _transition(self, version: ModelVersion, stage: Stage) -> bool:
        """Returns whether anything had to be changed."""
        if version.current_stage == stage:
            return False
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*transition_model_version_stage.*", category=FutureWarning)
            self._client.transition_model_version_stage(
                version.name, str(version.version), stage, archive_existing_versions=stage is Stage.PRODUCTION
            )
        return True

    def _move_aliases(self, version: ModelVersion, stage: Stage, alias: str | None) -> bool:
        """Returns whether anything had to be changed."""
        name, number = version.name, str(version.version)
        others = [other for other in (CHAMPION, PREVIOUS, CHALLENGER) if other != alias and other in version.aliases]
        is_tagged = version.tags.get(STAGE_TAG) == stage
        has_alias = alias is None or alias in version.aliases
        if not is_tagged:
            self._client.set_model_version_tag(name, number, STAGE_TAG, str(stage))
        if alias and not has_alias:
            self._client.set_registered_model_alias(name, alias, number)
        for other in others:
            self._client.delete_registered_model_alias(name, other)
        return bool(others) or not (is_tagged and has_alias)


def _noted_files(text: str) -> dict[str, str]:
    """What a tag tells; empty where nobody can read it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _guarded(doing: str, ask: Callable[P, R]) -> Callable[P, R]:
    """A model's own code may raise anything."""

    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return ask(*args, **kwargs)
        except OutsideSystemError:
            raise
        except Exception as error:
            raise OutsideSystemError("MLflow", f"{doing}: {_first_line(error)}", retryable=False) from error

    return guarded


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


@contextmanager
def _talking(doing: str) -> Generator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        is_passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)
        raise OutsideSystemError("MLflow", f"{doing}: {_first_line(error)}", retryable=is_passing) from error
    except OSError as error:  # requests' errors are OSErrors
        raise OutsideSystemError("MLflow", f"{doing}: {_first_line(error)}", retryable=True) from error
