"""Before anything of production is changed: is the candidate what was tested, and will the change be accepted and last?"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from flows.domain.errors import OutsideSystemError, PreflightFailed
from flows.domain.serving_state import GITOPS, describe_serving, model_uri
from flows.production_steps import opening_of
from flows.steps import step
from flows.telling import tell
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.serving_state import ServingState
    from flows.ports import Archive, Provenance


@step("Check the candidate before anything is changed")
def check_candidate(decision_id: str, attempt: int) -> int:
    """The artifact is the tested one, loads and predicts; the deployment is as tested and accepts the opening patch.

    Args:
        attempt: a new number for each execution that has not begun to change anything, so that each looks for itself.

    Returns:
        the rows predicted.

    Raises:
        PreflightFailed: all that is in the way.
        Superseded: the deployment changed since the decision was asked for.
    """
    decision, state = systems().decision_log.read(decision_id), systems().serving.read()
    test = decision.request.test
    opening = opening_of(state, decision)  # an outdated decision is told as that, not as a list of differences
    with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
        files = systems().registry.artifact_files(test.candidate, Path(folder))
        rows = systems().registry.try_out(test.candidate, files)
        provenance = systems().registry.provenance(test.candidate)
        identity = mistaken_identity(test.candidate, state, files, provenance)
        loaded = compare_loaded(test.candidate, state, files, provenance.source, systems().archive)
    forbidden = [
        f"this account may not {what}: apply k8s/base/promoter-role.yaml" for what in systems().serving.missing_permissions()
    ]
    if problems := [*obstacles(state, test), *identity, *loaded.problems, *forbidden]:
        raise PreflightFailed(problems)
    systems().serving.apply(state, opening, dry_run=True)
    text = f"{test.candidate} loads and predicts; {loaded.said}; {state.name} accepts the change (dry run)"
    tell(decision_id, f"checked-{attempt}", text)
    return rows


def obstacles(state: ServingState, test: ABTest) -> list[str]:
    """Where the deployment is not as the test left it, and who would undo a change of it; in words, empty when all is well."""
    found: list[str] = []
    point = (state.revert_to or {}).get("predictor")
    if point != test.baseline.predictor:
        found.append(f"{state.name} has {point or 'nothing'} as its rollback point, not {test.baseline.predictor}")
    for model in test.models:
        if state.predictor(model.predictor) is None:
            found.append(f"{state.name} has no predictor {model.predictor}, it serves {describe_serving(state)}")
        elif not state.is_as_tested(model.predictor):
            found.append(
                f"the predictor {model.predictor} is not what the test started with: deploy that again, or start a new test"
            )
    if state.undone_by:
        owners = " and ".join(state.undone_by)
        found.append(
            f"{owners} applies {state.name} and may undo the change: let it ignore the predictors, "
            f"then annotate the SeldonDeployment with {GITOPS}=ignored"
        )
    return found


def mistaken_identity(model: Model, state: ServingState, files: Path, provenance: Provenance) -> list[str]:
    """Where test, registry, artifacts and predictor do not mean the same model; in words.

    Args:
        files: the downloaded artifacts.
    """
    found: list[str] = []
    if provenance.noted_sha256 and provenance.noted_sha256 != digest_of(file_digests(files)):
        found.append(f"the artifacts of {model} are not those that the test began with: somebody changed them")
    logged_by = _logged_by(files)
    if logged_by and provenance.run_id and logged_by != provenance.run_id:
        found.append(f"{model} is registered from run {provenance.run_id}, but its artifacts were logged by run {logged_by}")
    predictor = state.predictor(model.predictor)
    loads = model_uri(predictor.spec) if predictor else ""
    scheme = loads.partition("://")[0]
    if loads and provenance.source.startswith(f"{scheme}://") and loads.rstrip("/") != provenance.source.rstrip("/"):
        found.append(f"the predictor {model.predictor} loads {loads}, but {model} is at {provenance.source}")
    return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """Whether a predictor loads the registered model: `problems`, empty when it does or nobody can see; `said` tells which."""

    said: str
    problems: tuple[str, ...] = ()


def compare_loaded(model: Model, state: ServingState, files: Path, source: str, archive: Archive) -> Loaded:
    """Compare the registered artifacts, file by file, with what lies where the model's predictor has its own from.

    Args:
        files: the downloaded artifacts of the registered version.
        source: where the registry has them.

    Raises:
        OutsideSystemError: retryable, the storage does not answer.
    """
    predictor = state.predictor(model.predictor)
    loads = model_uri(predictor.spec) if predictor else ""
    if loads and loads.rstrip("/") == source.rstrip("/"):
        return Loaded(f"its predictor loads it from where it is registered ({loads})")
    if not loads.startswith("s3://"):
        return Loaded(f"not compared with what its predictor loads ({loads or 'its image'}): only s3:// addresses can be read")
    try:
        found = archive.digests(loads)
    except OutsideSystemError as error:
        if error.retryable:
            raise
        return Loaded(f"not compared with what its predictor loads: {error}")
    if not found:
        return Loaded(f"not compared with what its predictor loads: nothing is left at {loads}")
    registered = file_digests(files)
    others = sorted(path for path, digest in registered.items() if found.get(path) != digest)
    if not others:
        return Loaded(f"its {len(registered)} files are those that its predictor loads from {loads} (SHA-256)")
    doing = f"the predictor {model.predictor} loads {loads}, where {', '.join(others[:3])}"
    return Loaded(doing, (f"{doing} {'is' if len(others) == 1 else 'are'} not what {model} has in the registry",))


def digest_of(files: Mapping[str, str]) -> str:
    """One digest of all files, by their SHA-256 by path."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(files.items(), key=lambda file: file[0].split("/")):  # folder by folder
        digest.update(f"{path}\0{sha256}\n".encode())
    return digest.hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by path below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in found}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def note_artifacts(test: ABTest) -> None:
    """When a test starts: keep the digests of both models' artifacts, so that a promotion is of what was tested, and damage is
    found."""
    for model in test.models:
        with tempfile.TemporaryDirectory(prefix="model-") as folder:
            files = file_digests(systems().registry.artifact_files(model, Path(folder)))
        systems().registry.note_artifacts(model, digest_of(files), files)


def _logged_by(files: Path) -> str:
    """The run that logged these artifacts by their own description; empty where they have none."""
    description = files / "MLmodel"
    found = yaml.safe_load(description.read_text(encoding="utf-8")) if description.is_file() else None
    return str(found.get("run_id") or "") if isinstance(found, dict) else ""
