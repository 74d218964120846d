"""The manifest of a team that keeps it in git follows a promotion, a kept baseline, an undone promotion and an emergency."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flows.domain.decision import Choice
from flows.domain.errors import SettingsInvalid
from flows.promote_candidate import promote_candidate
from flows.rollback_to_baseline import keep_baseline, rollback_to_baseline
from flows.watch import poll
from tests.integration.production_world import World, lines, run, shown

pytest_plugins = ("tests.integration.production_world",)

FILE = "clusters/prod/fraud.yaml"
MANIFEST = """\
# Fraud models: ask #fraud before you change anything.
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata:
  name: fraud-predictor
  namespace: models
spec:
  predictors:
  - name: fraud-v1
    traffic: 80    # while the test runs
    graph: {name: fraud-v1, implementation: MLFLOW_SERVER, modelUri: "s3://models/x"}
  - name: fraud-v2
    traffic: 20
    graph: {name: fraud-v2, implementation: MLFLOW_SERVER, modelUri: "s3://models/x"}
"""


@dataclass(frozen=True)
class ManifestRepository:
    """A bare repository, as a team's server has it."""

    folder: Path

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", self.folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    @property
    def text(self) -> str:
        return self.git("show", f"main:{FILE}")

    @property
    def traffic(self) -> dict[str, int]:
        return {one["name"]: one["traffic"] for one in yaml.safe_load(self.text)["spec"]["predictors"]}

    def subjects(self) -> list[str]:
        return self.git("log", "--format=%s", "main").splitlines()


def fill(folder: Path, text: str) -> None:
    """Commit the manifest to a new bare repository."""
    tree = folder.parent / "tree"
    (tree / FILE).parent.mkdir(parents=True)
    (tree / FILE).write_text(text)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (
        ["git", "init", "--quiet", "--initial-branch=main", tree],
        ["git", "-C", tree, "add", "."],
        ["git", "-C", tree, *identity, "commit", "--quiet", "-m", "begin"],
        ["git", "clone", "--quiet", "--bare", tree, folder],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.fixture
def manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ManifestRepository:
    found = ManifestRepository(tmp_path / "manifests.git")
    fill(found.folder, MANIFEST)
    monkeypatch.setenv("FRAUD_AB_MANIFEST_REPOSITORY", found.folder.as_uri())
    monkeypatch.setenv("FRAUD_AB_MANIFEST_PATH", FILE)
    return found


def test_a_promotion_is_committed_with_every_comment_and_only_once(manifests: ManifestRepository, world: World) -> None:
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    wanted = MANIFEST.replace("traffic: 80 ", "traffic: 0 ").replace("traffic: 20", "traffic: 100")
    assert manifests.text == wanted
    assert manifests.subjects() == [f"Traffic after {decision_id}", "begin"]
    told = [line for line in lines(world, decision_id) if line.startswith("manifest: ")]
    assert len(told) == 1
    assert told[0].endswith(f":{FILE}`"), "an address that people copy is whole"
    assert run(promote_candidate, decision_id) == "promoted"
    assert len(manifests.subjects()) == 2
    assert [line for line in lines(world, decision_id) if line.startswith("manifest: ")] == told


def test_a_kept_baseline_and_an_undone_promotion_are_committed(
    manifests: ManifestRepository, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.watch.SUSTAINED_SECONDS", 0.1)
    world.telemetry.p95_ms = 140.0
    assert run(promote_candidate, world.decide().decision_id) == "compensated"
    assert manifests.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    world.telemetry.p95_ms = 60.0
    assert run(keep_baseline, world.decide(Choice.FORCE_ROLLBACK).decision_id) == "baseline_kept"
    assert manifests.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert len(manifests.subjects()) == 2, "the second one found it said already"


def test_an_emergency_is_committed_by_its_catch_up(manifests: ManifestRepository, world: World) -> None:
    world.emergency()
    rollback_to_baseline("revert-1", "U0CHI", "wrong alerts")
    assert manifests.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert manifests.subjects()[0] == "Traffic after revert-1"
    [(path, before, after)] = shown("revert-1-manifest-0")
    assert (path, before, after.partition(";")[0]) == (
        FILE,
        "traffic: 80    # while the test runs; traffic: 20",
        "traffic: 100    # while the test runs",
    )
    assert world.state.unrecorded == ()


def test_a_late_run_writes_what_serves_now(manifests: ManifestRepository, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision_id, edit = world.decide().decision_id, world.systems.manifests
    assert edit is not None
    real, reverted = edit.edit, list[str]()

    def be_late(path: str, *rest: object) -> str:
        if not reverted:
            reverted.append(path)
            world.emergency()
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(edit, "edit", be_late)
    assert run(promote_candidate, decision_id) == "promoted"
    assert world.state.serves_alone("fraud-v1")
    assert manifests.traffic == {"fraud-v1": 100, "fraud-v2": 0}


def test_a_manifest_that_cannot_be_edited_is_told_and_undoes_nothing(
    manifests: ManifestRepository, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(world.systems.settings.__dict__, "manifest_path", "README.md")
    decision_id = world.decide().decision_id
    with pytest.raises(SettingsInvalid, match=r"README\.md: it must hold SeldonDeployment models/fraud-predictor once"):
        run(promote_candidate, decision_id)
    assert world.state.serves_alone("fraud-v2")
    assert [str(kind) for kind in world.kinds()] == ["promoted"]
    assert manifests.subjects() == ["begin"]


def test_without_the_setting_there_is_no_such_step(world: World) -> None:
    assert world.systems.manifests is None
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    assert not [line for line in lines(world, decision_id) if line.startswith("manifest")]
    assert poll(lambda: world.state.operation is None, 5)
