"""A manifest that people wrote keeps every character but those that say what serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.domain.errors import SettingsInvalid
from flows.domain.serving_state import Predictor, ServingState
from flows.reports.serving_manifest import manifest_as_served

ROOT = Path(__file__).resolve().parents[4]
HAND_WRITTEN = """\
# the namespace is made elsewhere
apiVersion: v1
kind: ConfigMap
metadata: {name: fraud-predictor}
data: {traffic: "80"}
---
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata:
  name: fraud-predictor   # do not rename
spec:
    predictors:
    -   name: "fraud-v1"        # in charge since spring
        graph: {name: fraud-v1, implementation: MLFLOW_SERVER, modelUri: 's3://models/v1'}
        traffic:   80           # per cent
        replicas: 3

    # the new one
    -   graph:
            name: fraud-v2
            parameters:
            - name: note
              type: STRING
              value: |
                many
                lines
        name: fraud-v2
        traffic: 20
    # the end
---
kind: Other
"""


def state(*predictors: Predictor) -> ServingState:
    return ServingState("fraud-predictor", "models", "1", 1, predictors, {})


def serving(first: int, second: int) -> ServingState:
    return state(Predictor("fraud-v1", first), Predictor("fraud-v2", second))


def lines_changed(before: str, after: str) -> list[tuple[str, str]]:
    return [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]


def predictors(text: str) -> Any:
    documents = [one for one in yaml.safe_load_all(text) if one["kind"] == "SeldonDeployment"]
    return {one["name"]: one for one in documents[0]["spec"]["predictors"]}


def edited(text: str, now: ServingState) -> str:
    return manifest_as_served(text, now, "seldon.yaml")


def test_only_the_weights_change() -> None:
    assert lines_changed(HAND_WRITTEN, edited(HAND_WRITTEN, serving(0, 100))) == [
        ("        traffic:   80           # per cent", "        traffic:   0           # per cent"),
        ("        traffic: 20", "        traffic: 100"),
    ]


def test_what_it_says_already_stays_as_it_is() -> None:
    assert edited(HAND_WRITTEN, serving(80, 20)) == HAND_WRITTEN
    windows = HAND_WRITTEN.replace("\n", "\r\n")
    assert edited(windows, serving(80, 20)) == windows
    assert edited(windows, serving(0, 100)).count("\r\n") == windows.count("\r\n")


@pytest.mark.parametrize("file", ["fraud-v1-deployment.yaml", "fraud-v2-deployment.yaml", "base/seldon-deployment.yaml"])
def test_the_shipped_manifests_can_be_edited(file: str) -> None:
    text = (ROOT / "k8s" / file).read_text()
    assert [one["traffic"] for one in predictors(edited(text, serving(35, 65))).values()] == [35, 65]
    assert len(lines_changed(text, edited(text, serving(35, 65)))) == 2


def test_a_retired_predictor_is_taken_out_with_nothing_else() -> None:
    found = edited(HAND_WRITTEN, state(Predictor("fraud-v2", 100)))
    assert predictors(found).keys() == {"fraud-v2"}
    kept = [line for line in HAND_WRITTEN.splitlines() if line in found.splitlines()]
    assert "    # the new one" in kept
    assert "    # the end" in kept
    assert "kind: Other" in kept
    found = edited(HAND_WRITTEN, state(Predictor("fraud-v1", 100)))
    assert predictors(found).keys() == {"fraud-v1"}
    assert "many" not in found


def test_a_restored_predictor_is_written_with_its_spec() -> None:
    spec = {"name": "fraud-v0", "graph": {"name": "fraud-v0", "modelUri": "s3://models/v0"}, "traffic": 0}
    now = state(Predictor("fraud-v1", 0), Predictor("fraud-v2", 0), Predictor("fraud-v0", 100, spec=spec))
    found = edited(HAND_WRITTEN, now)
    assert predictors(found)["fraud-v0"] == {**spec, "traffic": 100}
    assert found.index("- name: fraud-v0") > found.index("traffic: 0\n")
    assert list(predictors(edited(HAND_WRITTEN.removesuffix("\n    # the end\n---\nkind: Other\n"), now))) == [
        "fraud-v1",
        "fraud-v2",
        "fraud-v0",
    ]


def test_the_shadow_flag_follows() -> None:
    shadowing = state(Predictor("fraud-v1", 100), Predictor("fraud-v2", 100, shadow=True))
    found = edited(HAND_WRITTEN, shadowing)
    assert predictors(found)["fraud-v2"]["shadow"] is True
    assert "shadow" not in predictors(found)["fraud-v1"]
    assert edited(found, shadowing) == found
    ended = edited(found, serving(100, 0))
    assert predictors(ended)["fraud-v2"]["shadow"] is False


def test_a_weight_that_was_unsaid_is_said_behind_the_name() -> None:
    head = "kind: SeldonDeployment\nmetadata: {name: fraud-predictor}\nspec:\n  predictors:\n"
    text = f"{head}  - name: fraud-v1 # one\n    replicas: 2"
    assert edited(text, state(Predictor("fraud-v1", 100))) == text.replace("# one\n", "# one\n    traffic: 100\n")
    assert (
        edited(f"{head}  - name: fraud-v1", state(Predictor("fraud-v1", 100))) == f"{head}  - name: fraud-v1\n    traffic: 100\n"
    )
    flow = f"{head}  - {{name: fraud-v1, replicas: 2}}\n"
    assert "- {name: fraud-v1, traffic: 100, replicas: 2}\n" in edited(flow, state(Predictor("fraud-v1", 100)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it must hold SeldonDeployment models/fraud-predictor once"),
        (HAND_WRITTEN.replace("name: fraud-predictor   #", "name: another   #"), "it must hold"),
        (HAND_WRITTEN.replace("# do not rename", "\n  namespace: elsewhere"), "it must hold"),
        (HAND_WRITTEN + "---\n" + HAND_WRITTEN, "it must hold"),
        (HAND_WRITTEN.replace("\n        name: fraud-v2\n        traffic", "\n        traffic"), "it must hold"),
        ("kind: SeldonDeployment\nmetadata: {name: fraud-predictor}\nspec: {}\n", "it must hold"),
        ("{{ if .Values.on }}\nkind: SeldonDeployment\n{{ end }}\n", "it is no plain YAML"),
    ],
)
def test_a_file_that_does_not_hold_it_once_is_refused(text: str, why: str) -> None:
    with pytest.raises(SettingsInvalid, match=why) as refused:
        edited(text, serving(0, 100))
    assert str(refused.value).startswith("seldon.yaml: ")


def test_a_layout_that_cannot_be_edited_is_refused_and_not_guessed_at() -> None:
    text = "kind: SeldonDeployment\nmetadata: {name: fraud-predictor}\nspec: {predictors: [{name: fraud-v1}, {name: fraud-v2}]}\n"
    assert list(predictors(edited(text, serving(80, 20)))) == ["fraud-v1", "fraud-v2"]
    with pytest.raises(SettingsInvalid, match="block list"):
        edited(text, state(Predictor("fraud-v2", 100)))
