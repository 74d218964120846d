"""What is documented is tested: settings and commands are in the docs, and the docs name nothing else."""

import re
from pathlib import Path

import typer.main

from deployments.cli import app
from flows.settings import Settings, variable_of
from slackbot.settings import BotSettings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_in_the_docs_and_no_other() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    settings = {variable_of(name, Settings) for name in Settings.model_fields}
    assert {name for name in settings if f"| `{name}` |" not in text} == set()
    of_the_app = {variable_of(name, BotSettings) for name in BotSettings.model_fields}
    assert {name for name in of_the_app if f"| `{name}` |" not in text} == set()
    ours = set(re.findall(r"\| `(FRAUD_AB_[A-Z_]+)` \|", text))
    assert ours <= settings | of_the_app


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"| `fraud-ab {name}" not in readme] == []


def test_the_first_success_is_in_the_readmes_first_40_lines() -> None:
    head = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "make demo" in head
