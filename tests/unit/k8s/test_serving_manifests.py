"""The four serving states as overlays, the two single files of the phase document, and the examples that were proven correct."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
K8S = ROOT / "k8s"
SHARED = Path(os.environ.get("FRAUD_AB_SHARED", ROOT.parent / "shared")) / "kubernetes" / "manifests"
STATES = {
    "split-80-20": [("fraud-v1", 80, None), ("fraud-v2", 20, None)],
    "candidate-100": [("fraud-v1", 0, None), ("fraud-v2", 100, None)],
    "baseline-100": [("fraud-v1", 100, None), ("fraud-v2", 0, None)],
    "shadow": [("fraud-v1", 100, None), ("fraud-v2", 100, True)],
}
FILES = {"fraud-v1-deployment.yaml": "baseline-100", "fraud-v2-deployment.yaml": "candidate-100"}
EXAMPLES = {
    "a-ab-80-20.yaml": "split-80-20",
    "b-100-v2.yaml": "candidate-100",
    "c-100-v1.yaml": "baseline-100",
    "d-shadow-v2.yaml": "shadow",
}


def built(overlay: str) -> Any:
    """The overlay's SeldonDeployment: the base with the overlay's one json-patch, in the base's namespace."""
    folder = K8S / "overlays" / overlay
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    base = folder / kustomization["resources"][0]
    [patch] = kustomization["patches"]
    found = jsonpatch.apply_patch(yaml.safe_load((base / "seldon-deployment.yaml").read_text()), yaml.safe_load(patch["patch"]))
    found["metadata"]["namespace"] = yaml.safe_load((base / "kustomization.yaml").read_text())["namespace"]
    return found


@pytest.mark.parametrize("overlay", STATES)
def test_each_overlay_serves_what_its_name_says(overlay: str) -> None:
    predictors = built(overlay)["spec"]["predictors"]
    assert [(one["name"], one["traffic"], one.get("shadow")) for one in predictors] == STATES[overlay]
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(STATES)


@pytest.mark.parametrize("overlay", STATES)
def test_kustomize_builds_the_same(overlay: str) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl to build overlays")
    build = ["kubectl", "kustomize", K8S / "overlays" / overlay]
    text = subprocess.run(build, check=True, capture_output=True, text=True, timeout=30).stdout
    documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
    assert documents["SeldonDeployment"] == built(overlay)
    assert documents["Role"] == yaml.safe_load((K8S / "base" / "promoter-role.yaml").read_text())


@pytest.mark.parametrize(("file", "overlay"), FILES.items())
def test_the_single_files_are_the_overlays(file: str, overlay: str) -> None:
    assert yaml.safe_load((K8S / file).read_text()) == built(overlay)
    assert {path.name for path in K8S.glob("fraud-*-deployment.yaml")} == set(FILES)


def without_addresses(deployment: Any) -> Any:
    changed = copy.deepcopy(deployment)
    for predictor in changed["spec"]["predictors"]:
        del predictor["graph"]["modelUri"]
    return changed


@pytest.mark.parametrize(("example", "overlay"), EXAMPLES.items())
def test_they_differ_from_the_proven_examples_in_the_models_addresses_alone(example: str, overlay: str) -> None:
    if not SHARED.exists():
        pytest.skip(f"needs the manifests of {SHARED} (FRAUD_AB_SHARED)")
    assert without_addresses(built(overlay)) == without_addresses(yaml.safe_load((SHARED / example).read_text()))
