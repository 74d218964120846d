"""`fraud-ab status` on the embedded systems, with each of them down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.sandbox.processes import free_port
from flows.documents import note_files
from tests.integration.idle_world import Cli, Idle

pytest_plugins = ("tests.integration.production_world", "tests.integration.idle_world")


def status(cli: Cli) -> tuple[int, dict[str, Any]]:
    code, out, _ = cli("status", "--json")
    return code, json.loads(out)


def test_status_shows_what_is_live(idle: Idle, cli: Cli) -> None:
    assert cli("start", idle.write())[0] == 0
    idle.world.test = idle.world.state.test or idle.world.test
    code, found = status(cli)
    assert code == 0
    shown = [(one["name"], one["traffic"], one["model"]) for one in found["serving"]["predictors"]]
    assert shown == [(m.predictor, share, str(m)) for m, share in zip(idle.world.test.models, (80, 20), strict=True)]
    assert (found["serving"]["epoch"], found["serving"]["rollback point"]) == (1, "fraud-v1")
    assert found["registry"]["candidate"].endswith("Staging (challenger)")
    assert found["first look"]["state"] == "Scheduled"
    assert found["decisions"] == {"pending": [], "last record": None}
    decided = idle.world.decide()
    note_files(idle.world.systems.decision_log, f"decisions/{decided.decision_id}", {"decision_document.md": "# Postponed"})
    idle.world.emergency()
    code, out, _ = cli("status")
    assert code == 0
    for words in ("models/fraud-predictor", "fraud-v1", "100 %", f"decided ({decided.decision_id})", "emergency revert by U0CHI"):
        assert words in out


def test_status_of_a_deployment_without_a_test(idle: Idle, cli: Cli) -> None:
    code, found = status(cli)
    assert (code, found["serving"]["test"], found["registry"]) == (0, None, {})
    assert found["first look"] == {"state": "no test is known to look for"}
    assert "none was started" in cli("status")[1]


@contextmanager
def broken(idle: Idle, part: str, how: str, folder: Path) -> Iterator[None]:
    """One system is behind a closed port, or nothing says where it is."""
    closed = f"127.0.0.1:{free_port()}"
    if part == "first look":
        with temporary_settings({PREFECT_API_URL: f"http://{closed}/api" if how == "down" else None}):
            yield
        return
    elsewhere = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    elsewhere["clusters"][0]["cluster"]["server"] = f"https://{closed}"
    (folder / "elsewhere").write_text(json.dumps(elsewhere))
    variable, value = {
        "serving": ("KUBECONFIG", str(folder / "elsewhere")),
        "decisions": ("FRAUD_AB_DECISION_LOG_URL", f"postgresql+psycopg://nobody@{closed}/log"),
        "registry": ("MLFLOW_TRACKING_URI", f"http://{closed}"),
    }[part]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(variable, value if how == "down" else "")
        yield


@pytest.mark.parametrize("part", ["serving", "decisions", "registry", "first look"])
@pytest.mark.parametrize("how", ["down", "not set"])
def test_a_system_that_cannot_be_read_is_one_line_and_the_rest_is_shown(
    idle: Idle, cli: Cli, tmp_path: Path, part: str, how: str
) -> None:
    assert cli("start", idle.write())[0] == 0
    idle.world.decide()
    with broken(idle, part, how, tmp_path):
        code, found = status(cli)
        table = cli("status")[1]
    assert code == (1 if part == "serving" else 0)
    unread = {name: read["cannot be read"] for name, read in found.items() if "cannot be read" in read}
    assert list(unread) == [part]
    assert "\n" not in unread[part]
    assert table.count("cannot be read") == 1
