"""What is documented is tested: settings and commands are in the docs, and the docs name nothing else."""

import re
from datetime import UTC, datetime
from pathlib import Path

import typer.main

from deployments.cli import app
from flows.settings import Settings, variable_of
from slackbot.metrics import LogState, Outcome, PressMetrics, log_metrics, pending_metrics
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


def test_every_metric_and_outcome_of_the_app_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "install_kubernetes.md").read_text(encoding="utf-8")
    nothing = LogState(datetime(2026, 1, 1, tzinfo=UTC))
    families = [*PressMetrics().registry.collect(), *log_metrics(nothing), *pending_metrics(nothing)]
    told = {family.name for family in families} - {"fraud_ab_pending_decision_age_seconds"}  # "with the age of the oldest"
    assert len(told) == 4
    assert {name for name in told if f"`{name}" not in text} == set()
    assert [outcome for outcome in Outcome if outcome not in text] == []


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"| `fraud-ab {name}" not in readme] == []


def test_the_first_success_is_in_the_readmes_first_40_lines() -> None:
    head = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "make demo" in head
