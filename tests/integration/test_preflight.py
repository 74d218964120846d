"""Everything that must keep a promotion from beginning, each in a sentence, and nothing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from flows.domain.ab_test import Model
from flows.domain.errors import PreflightFailed
from flows.domain.serving_state import GITOPS
from flows.ports import Provenance
from flows.preflight import Loaded, compare_loaded, digest_of, file_digests, mistaken_identity, note_artifacts
from flows.promote_candidate import promote_candidate
from tests.integration.production_world import World, lines, run

pytest_plugins = ("tests.integration.production_world",)


def other_graph(world: World) -> None:
    graph = {"name": "fraud-v2", "implementation": "MLFLOW_SERVER", "modelUri": "s3://models/other"}
    world.patch([{"op": "replace", "path": "/spec/predictors/1/graph", "value": graph}])


def no_candidate(world: World) -> None:
    world.patch(
        [{"op": "replace", "path": "/spec/predictors/0/traffic", "value": 100}, {"op": "remove", "path": "/spec/predictors/1"}]
    )


def other_rollback_point(world: World) -> None:
    world.patch([{"op": "replace", "path": "/metadata/annotations/fraud-ab~1revert-to", "value": '{"predictor": "fraud-v0"}'}])


def argo(world: World) -> None:
    value = "fraud:machinelearning.seldon.io/SeldonDeployment:models/fraud-predictor"
    world.patch([{"op": "add", "path": "/metadata/annotations/argocd.argoproj.io~1tracking-id", "value": value}])


def flux(world: World) -> None:
    world.patch([{"op": "add", "path": "/metadata/labels", "value": {"kustomize.toolkit.fluxcd.io/name": "fraud"}}])


def changed_artifacts(world: World) -> None:
    note_artifacts(world.test)
    world.systems.registry.note_artifacts(world.test.candidate, "0" * 64, {})


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (other_graph, "predictor fraud-v2 is not what the test started with"),
        (no_candidate, "no predictor fraud-v2"),
        (other_rollback_point, "has fraud-v0 as its rollback point, not fraud-v1"),
        (argo, "Argo CD applies fraud-predictor and may undo the change"),
        (flux, "Flux applies fraud-predictor and may undo the change"),
        (changed_artifacts, "are not those that the test began with"),
    ],
)
def test_a_promotion_does_not_begin(world: World, prepare: Callable[[World], None], why: str) -> None:
    decision_id = world.decide().decision_id
    prepare(world)
    before, registry = world.state, world.registry()
    with pytest.raises(PreflightFailed, match=why):
        run(promote_candidate, decision_id)
    assert world.is_still(before)
    assert (world.registry(), world.kinds()) == (registry, [])
    assert any("nothing was changed" in line and why in line for line in lines(world, decision_id))


def test_an_owner_that_was_told_to_ignore_the_predictors_is_no_obstacle(world: World) -> None:
    decision_id = world.decide().decision_id
    argo(world)
    world.patch([{"op": "add", "path": f"/metadata/annotations/{GITOPS.replace('/', '~1')}", "value": "ignored"}])
    note_artifacts(world.test)
    assert run(promote_candidate, decision_id) == "promoted"


def test_an_account_without_the_permission_is_told_which(world: World) -> None:
    from flows.adapters.serving_seldon import SeldonServing

    restricted = world.kubernetes.promoter
    serving = SeldonServing(kubeconfig=restricted, namespace="models", name="fraud-predictor")
    assert serving.missing_permissions() == ()
    elsewhere = SeldonServing(kubeconfig=restricted, namespace="models", name="somebody-elses")
    assert elsewhere.missing_permissions() == (
        "get seldondeployments.machinelearning.seldon.io somebody-elses",
        "patch seldondeployments.machinelearning.seldon.io somebody-elses",
        "get virtualservices.networking.istio.io somebody-elses-http",
    )


def test_what_the_registry_the_artifacts_and_the_predictor_mean_must_be_one_model(world: World, tmp_path: Path) -> None:
    model, state = world.test.candidate, world.state
    files = world.systems.registry.artifact_files(model, tmp_path)
    found = world.systems.registry.provenance(model)
    assert mistaken_identity(model, state, files, found) == []
    logged_by = mistaken_identity(model, state, files, Provenance("another-run", found.source, ""))
    assert [sentence for sentence in logged_by if "logged by run" in sentence] == logged_by
    assert len(logged_by) == 1
    loads = mistaken_identity(model, state, files, Provenance("", "s3://models/y", ""))
    assert loads == [f"the predictor fraud-v2 loads s3://models/x, but {model} is at s3://models/y"]
    assert mistaken_identity(model, state, files, Provenance("", "s3://models/x/", "")) == []
    (tmp_path / "bare").mkdir()
    assert mistaken_identity(Model("x", "1", "absent"), state, tmp_path / "bare", Provenance("r", "s3://x", "")) == []


def test_the_files_that_the_predictor_loads_are_compared_with_the_registered_ones(world: World, tmp_path: Path) -> None:
    model, source = world.test.candidate, world.systems.registry.provenance(world.test.candidate).source
    files = world.systems.registry.artifact_files(model, tmp_path / "registered")

    def compare(uri: str = "s3://models/x") -> Loaded:
        graph = {"name": "fraud-v2", "implementation": "MLFLOW_SERVER", "modelUri": uri}
        predictors = (replace(world.state.predictors[1], spec={"graph": graph}),)
        return compare_loaded(model, replace(world.state, predictors=predictors), files, source, world.systems.archive)

    assert "NoSuchBucket" in compare().said
    storage = boto3.resource("s3").create_bucket(Bucket="models")
    assert compare().said.endswith("nothing is left at s3://models/x")
    storage.put_object(Key="x-other/MLmodel", Body=b"of another model")
    paths = [path for path in files.rglob("*") if path.is_file()]
    for path in paths:
        storage.put_object(Key=f"x/{path.relative_to(files).as_posix()}", Body=path.read_bytes())
    assert compare() == Loaded(f"its {len(paths)} files are those that its predictor loads from s3://models/x (SHA-256)")
    assert compare(source) == Loaded(f"its predictor loads it from where it is registered ({source})")
    assert compare("gs://models/x").problems == compare("").problems == ()
    storage.put_object(Key="x/MLmodel", Body=b"changed")
    problem = f"the predictor fraud-v2 loads s3://models/x, where MLmodel is not what {model} has in the registry"
    assert compare().problems == (problem,)
    decision_id, before = world.decide().decision_id, world.state
    with pytest.raises(PreflightFailed, match="where MLmodel is not what"):
        run(promote_candidate, decision_id)
    assert world.is_still(before)


def test_the_digest_of_artifacts_is_of_their_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "model.bin").write_bytes(b"weights")
        (tmp_path / name / "data.txt").write_bytes(b"sorts before data/ as text, and after it as a path")
    one, two = file_digests(tmp_path / "a"), file_digests(tmp_path / "b")
    assert digest_of(one) == digest_of(two) == digest_of(dict(reversed(two.items())))
    noted_before = "e2f3839e6d8114e58eb417bc464ba9bf4c111f3d48fc03bfe31f010862cae310"  # by tests that still run
    assert digest_of(one) == noted_before
    (tmp_path / "b" / "data" / "model.bin").write_bytes(b"weighty")
    assert digest_of(one) != digest_of(file_digests(tmp_path / "b"))
    shutil.move(tmp_path / "a" / "data", tmp_path / "a" / "moved")
    assert digest_of(one) != digest_of(file_digests(tmp_path / "a"))


def test_another_obstacle_is_told_and_the_same_one_not_again(world: World) -> None:
    decision_id = world.decide().decision_id
    argo(world)
    for _ in range(2):
        with pytest.raises(PreflightFailed, match="Argo CD"):
            run(promote_candidate, decision_id)
    other_graph(world)
    with pytest.raises(PreflightFailed, match="not what the test started with"):
        run(promote_candidate, decision_id)
    said = [line for line in lines(world, decision_id) if "nothing was changed" in line]
    assert ["not what the test started with" in line for line in said] == [False, True]
