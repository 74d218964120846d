"""The import contracts hold, and each one catches a violation that is planted in a copy of the packages."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "slackbot", "deployments")
VIOLATIONS = {
    "domain-order": ("flows/domain/errors.py", "import flows.domain.policy"),
    "domain-pure": ("flows/domain/counts.py", "import logging"),
    "adapters-independent": ("flows/adapters/archive_s3.py", "import flows.adapters.registry_mlflow"),
    "adapters-below-flows": ("flows/adapters/archive_s3.py", "import flows.wiring"),
    "bot-power": ("slackbot/publisher.py", "import flows.promote_candidate"),
    "nothing-imports-deployments": ("flows/steps.py", "import deployments.serve"),
}


def contracts() -> dict[str, str]:
    """Contract id → name."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return {
        section.removeprefix("importlinter:contract:"): parser[section]["name"]
        for section in parser.sections()
        if section.startswith("importlinter:contract:")
    }


def lint(folder: Path, contract: str) -> str:
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--contract", contract],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_every_contract_has_a_planted_violation() -> None:
    assert set(contracts()) == set(VIOLATIONS)


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_planted_violation_is_caught(copy: Path, contract: str) -> None:
    file, line = VIOLATIONS[contract]
    source = copy / file
    original = source.read_text(encoding="utf-8")
    assert "1 kept, 0 broken" in lint(copy, contract)
    source.write_text(f"{original}\n{line}\n", encoding="utf-8")
    try:
        report = lint(copy, contract)
    finally:
        source.write_text(original, encoding="utf-8")
    assert "0 kept, 1 broken" in report, report


def test_a_run_s_process_does_not_import_what_few_steps_need() -> None:
    """Each of these takes a second or more, and a person who has pressed a button waits for that."""
    late = ("scipy.stats", "scipy.optimize", "mlflow", "pandas", "matplotlib", "ibis")
    program = f"import sys, flows.finalize_ab_test, deployments.serve; print([one for one in {late} if one in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.strip() == "[]"
