"""The manifest, the identifiers and the routes name the same things."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import slackbot
from slackbot import routes
from slackbot.identifiers import HOME_OPENED, Action, Command, View

FOLDER = Path(next(iter(slackbot.__path__)))
MANIFEST: dict[str, Any] = yaml.safe_load((FOLDER / "manifest.yaml").read_text(encoding="utf-8"))
SCOPES = {
    "files_upload_v2": "files:write",
    "chat_postMessage": "chat:write",
    "chat_postEphemeral": "chat:write",
    "chat_update": "chat:write",
    "chat_getPermalink": None,
    "views_publish": None,
    "conversations_history": "channels:history",
    "conversations_replies": "groups:history",
    "users_info": "users:read",
    "usergroups_users_list": "usergroups:read",
    "views_open": None,
    "auth_test": None,
}


def test_every_identifier_has_a_listener() -> None:
    assert set(routes.PRESSES) == set(Action)
    assert set(routes.SUBMISSIONS) == set(View)
    assert set(routes.COMMANDS) == set(Command)


def test_the_manifest_has_every_command_and_no_other() -> None:
    assert {item["command"] for item in MANIFEST["features"]["slash_commands"]} == set(Command)


def test_the_manifest_grants_what_is_called_and_no_more() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.py"))
    called = set(re.findall(r"\b(?:client|_client|_posting)\.([a-z]+_[A-Za-z0-9_]+)\(", source))
    called &= {
        name
        for name in called
        if name.split("_")[0] in ("chat", "conversations", "users", "usergroups", "views", "auth", "files")
    }
    assert called <= set(SCOPES), "a new method: add its scope here and in the manifest"
    needed = {SCOPES[name] for name in called} - {None}
    assert set(MANIFEST["oauth_config"]["scopes"]["bot"]) == needed | {"commands", "metadata.message:read"}


def test_the_manifest_subscribes_to_the_home_and_to_nothing_else() -> None:
    assert MANIFEST["settings"]["event_subscriptions"]["bot_events"] == [HOME_OPENED]
    assert MANIFEST["features"]["app_home"]["home_tab_enabled"] is True


def test_interactivity_and_socket_mode_are_on() -> None:
    assert MANIFEST["settings"]["interactivity"]["is_enabled"] is True
    assert MANIFEST["settings"]["socket_mode_enabled"] is True
