"""Rules, alerts and dashboards: by Prometheus' own promtool, and by the shape that Grafana and the operator expect."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "k8s" / "monitoring"
SHARED = Path(os.environ.get("FRAUD_AB_SHARED", ROOT.parent / "shared")) / "kubernetes" / "promql"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
GRID_WIDTH = 24


def groups() -> list[Any]:
    return yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]


def rules() -> Iterator[Any]:
    for group in groups():
        yield from group["rules"]


def promtool(folder: Path, *arguments: str) -> str:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("needs promtool")
    done = subprocess.run([binary, *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where promtool finds the rules as a plain file."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups()}))
    return tmp_path


def expressions(dashboard: Path) -> list[str]:
    """Every query of a dashboard, with its variable filled in."""
    found = json.loads(dashboard.read_text())
    asked = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    asked += [one["expr"] for one in found["annotations"]["list"]]
    return [text.replace("$deployment", "fraud-predictor") for text in asked]


def test_the_rules_are_valid_and_the_recorded_numbers_are_the_proven_ones(folder: Path) -> None:
    assert f"{len(list(rules()))} rules found" in promtool(folder, "check", "rules", "rules.yml")
    if not SHARED.exists():
        pytest.skip(f"needs the tested queries of {SHARED} (FRAUD_AB_SHARED)")
    assert groups()[0] == yaml.safe_load((SHARED / "rules.yml").read_text())["groups"][0]
    shutil.copy(SHARED / "test.yml", folder)
    promtool(folder, "test", "rules", "test.yml")


def test_every_alert_fires_when_it_should_and_at_no_other_time(folder: Path) -> None:
    text = (Path(__file__).parent / "alerts_test.yml").read_text()
    (folder / "alerts.yml").write_text(text.replace("[RULES]", "[rules.yml]"))
    promtool(folder, "test", "rules", "alerts.yml")
    tested = set(re.findall(r"\bFraud\w+", text))
    assert {rule["alert"] for rule in rules() if "alert" in rule} <= tested


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert {"summary", "runbook"} == rule["annotations"].keys()
            assert rule["for"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_can_parse_every_query_of_a_dashboard(dashboard: Path, tmp_path: Path) -> None:
    asked = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(expressions(dashboard))]
    assert len(asked) > 5
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": dashboard.stem, "rules": asked}]}))
    promtool(tmp_path, "check", "rules", "queries.yml")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_names_no_model_and_asks_the_chosen_prometheus(dashboard: Path) -> None:
    text = dashboard.read_text()
    found: Any = json.loads(text)
    assert found["uid"] == dashboard.stem
    assert not re.search(r"fraud[-_]v\d", text), "after the next promotion it would be wrong"
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert {name["name"] for name in found["templating"]["list"]} == {"datasource", "deployment"}
    for panel in found["panels"]:
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_on_another(dashboard: Path) -> None:
    panels = json.loads(dashboard.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < GRID_WIDTH
        taken |= cells


def test_the_dashboard_of_the_model_in_charge_joins_every_query_on_it() -> None:
    asked = expressions(MONITORING / "dashboards" / "fraud-model-in-charge.json")
    assert all("fraud_ab:model_in_charge" in text for text in asked if "fraud_ab_epoch" not in text)


def test_kustomize_makes_what_grafanas_sidecar_and_the_operator_look_for() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl to build the kustomization")
    build = ["kubectl", "kustomize", MONITORING]
    text = subprocess.run(build, check=True, capture_output=True, text=True, timeout=30).stdout
    documents = list(yaml.safe_load_all(text))
    maps = [one for one in documents if one["kind"] == "ConfigMap"]
    assert {json.loads(content)["uid"] for one in maps for content in one["data"].values()} == {path.stem for path in DASHBOARDS}
    assert all(one["metadata"]["labels"] == {"grafana_dashboard": "1"} for one in maps)
    assert {one["kind"] for one in documents} == {"ConfigMap", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
    assert {one["metadata"]["namespace"] for one in documents} == {"models"}
