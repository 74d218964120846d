"""What is documented is tested: settings and commands are in the docs, and the docs name nothing else."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer.main
import yaml

from deployments.cli import app
from flows.settings import Settings, variable_of
from slackbot.identifiers import Command
from slackbot.messages import rollback_messages
from slackbot.metrics import LogState, Outcome, PressMetrics, log_metrics, pending_metrics
from slackbot.settings import BotSettings
from slackbot.signed_http import REQUEST_PATH
from tests.document_gallery import document_gallery
from tests.gallery import gallery
from tests.pictures import PICTURES, pictures_in_the_docs

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_in_the_docs_and_no_other() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    settings = {variable_of(name, Settings) for name in Settings.model_fields}
    assert {name for name in settings if f"| `{name}` |" not in text} == set()
    of_the_app = {variable_of(name, BotSettings) for name in BotSettings.model_fields}
    assert {name for name in of_the_app if f"| `{name}` |" not in text} == set()
    assert set(re.findall(r"\| `(FRAUD_AB_[A-Z_]+)` \|", text)) <= settings | of_the_app


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


def test_the_installation_of_the_app_names_every_setting_scope_and_event() -> None:
    text = (ROOT / "docs" / "install_slack.md").read_text(encoding="utf-8")
    manifest = yaml.safe_load((ROOT / "slackbot" / "manifest.yaml").read_text(encoding="utf-8"))
    scopes, events = manifest["oauth_config"]["scopes"]["bot"], manifest["settings"]["event_subscriptions"]["bot_events"]
    assert [scope for scope in scopes if f"\n| `{scope}` |" not in text] == []
    named = {variable_of(name, BotSettings) for name in BotSettings.model_fields} | {*events, *Command, REQUEST_PATH}
    assert [name for name in named if f"`{name}`" not in text] == []
    scopes_named = set(re.findall(r"`([a-z.]+:[a-z.]+)`", text)) - {"connections:write"}
    assert scopes_named == {scope for scope in scopes if ":" in scope}


def test_the_guide_names_every_command_form_button_and_question() -> None:
    """What people can type and press is in the guide as they see it."""
    text = (ROOT / "docs" / "slack_guide.md").read_text(encoding="utf-8")
    forms = re.findall(r"`(/[a-z-]+(?: [a-z]+)?)", rollback_messages.HELP)
    assert len(forms) == 4
    assert [form for form in (*forms, *Command) if f"`{form}`" not in text] == []
    shown = gallery()
    labels = {label for one in shown.values() for label in labels_of_buttons(one.blocks)}
    assert labels >= {"Confirm…", "Postpone…", "Force rollback…", "Revert…"}
    assert [label for label in labels if f"**{label}**" not in text] == []
    titles = [one.blocks[0]["text"]["text"] for name, one in shown.items() if name.startswith(("verdict_", "decided_"))]
    unnamed = {"decided_extended", "decided_expired"}
    assert len(set(titles)) > len(unnamed)
    assert {title for title in titles if f'"{title}"' not in text} <= {shown[name].blocks[0]["text"]["text"] for name in unnamed}
    for answer in ("You cannot answer the verdict", "Your press has changed nothing: this was decided before"):
        assert f'"{answer} …"' in text


def test_both_guides_are_in_the_readme_with_the_picture_of_a_verdict() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for wanted in ("(docs/slack_guide.md)", "(docs/install_slack.md)", "(docs/pictures/verdict_promote.png)"):
        assert wanted in readme


def test_the_pictures_are_those_that_the_docs_show_small_and_of_what_is_shown_today() -> None:
    """A picture carries the digest of what it shows; `make pictures` draws it anew."""
    shown, found = {**gallery(), **document_gallery()}, {path.stem: path for path in PICTURES.glob("*")}
    assert set(found) == pictures_in_the_docs()
    for name, path in found.items():
        picture = path.read_bytes()
        assert len(picture) < 200_000, name
        assert shown[name.removesuffix("_phone")].digest.encode() in picture, f"{name} is out of date: make pictures"


def labels_of_buttons(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [element["text"]["text"] for block in blocks if block["type"] == "actions" for element in block["elements"]]
