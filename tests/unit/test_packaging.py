"""What a newcomer installs: pinned, checked by hash, without addresses, importable; and our packages are ours."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-uv.txt"])
def test_requirements_are_pinned_hashed_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "index-url" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert entries
    assert [entry for entry in entries if "==" not in entry.splitlines()[0] or "--hash=sha256:" not in entry] == []


def test_every_dependency_earns_its_place_in_the_docs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["sandbox"], *project["dependency-groups"]["dev"]]
    documented = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    names = [re.match(r"[a-zA-Z0-9-]+", line).group() for line in wanted]  # type: ignore[union-attr]
    assert [name for name in names if f"| {name} |" not in documented] == []


def test_the_packages_are_this_checkouts() -> None:
    for name in ("flows", "slackbot", "deployments"):
        module = importlib.import_module(name)
        assert Path(str(module.__file__)).is_relative_to(ROOT)


def test_the_project_cannot_be_uploaded_by_mistake() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]


@pytest.mark.parametrize(
    "module",
    [
        "evidently",
        "mlflow",
        "kubernetes",
        "boto3",
        "slack_bolt",
        "flows.finalize_ab_test",
        "flows.rollback_to_baseline",
        "flows.check_running_test",
        "flows.remind_pending_decision",
        "slackbot.app",
        "deployments.cli",
        "deployments.serve",
    ],
)
def test_every_entry_point_imports(module: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
