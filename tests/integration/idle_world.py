"""The embedded systems before any test, and the command line as a person runs it. A test module names it in `pytest_plugins`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled
from prefect.types.entrypoint import EntrypointType

from deployments.cli import main
from flows.domain.action_plan import Stage
from flows.finalize_ab_test import finalize_ab_test
from flows.watch import poll
from flows.wiring import systems
from tests.integration.production_world import WHERE, World

Cli = Callable[..., tuple[int, str, str]]


@dataclass
class Idle:
    """The world before any test: all traffic on the baseline, the candidate known to nobody but the registry."""

    world: World
    file: Path

    def write(self, **changes: str) -> Path:
        """The test's file; a value None leaves its line out."""
        test = self.world.test
        lines = {"test_id": f'"{test.test_id}"', **changes}
        models = [f'name = "{m.name}"\nversion = {m.version}\npredictor = "{m.predictor}"' for m in test.models]
        top = "\n".join(f"{key} = {value}" for key, value in lines.items())
        self.file.write_text(f"{top}\n[baseline]\n{models[0]}\n[candidate]\n{models[1]}\n")
        return self.file

    def replace_predictors(self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        api = self.world.kept["api"]
        body: Any = api.get_namespaced_custom_object(*WHERE, "fraud-predictor")
        body["spec"]["predictors"] = change(body["spec"]["predictors"])
        body["metadata"].pop("annotations", None)
        api.replace_namespaced_custom_object(*WHERE, "fraud-predictor", body)
        assert poll(lambda: self.world.systems.serving.readiness().is_done, 10)

    def policy(self, text: str) -> None:
        Path(str(self.world.systems.settings.policy_file)).write_text(text)
        systems().__dict__.pop("policy", None)

    def state(self) -> dict[str, Any]:
        """Everything that a start may change."""
        kept = self.world.systems
        with get_client(sync_client=True) as client:
            mine = [run for run in client.read_flow_runs() if self.world.test.test_id in str(run.parameters)]
        runs = MlflowClient(kept.settings.mlflow_tracking_uri).search_experiments()
        return {"serving": kept.serving.read(), "registry": self.world.registry(), "runs": mine, "experiments": len(runs)}


@pytest.fixture
def idle(world: World, tmp_path: Path) -> Iterator[Idle]:
    found = Idle(world, tmp_path / "test.toml")
    found.replace_predictors(lambda all_: [{**all_[0], "traffic": 100}, {**all_[1], "traffic": 0}])
    world.systems.registry.set_stage(world.test.candidate, Stage.NONE)
    # registered as `fraud-ab serve` does it, with nobody there to execute its runs
    finalize_ab_test.to_deployment(name="fraud", entrypoint_type=EntrypointType.MODULE_PATH).apply()
    yield found
    for run in unfinished_runs():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(), force=True)


def unfinished_runs() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if "test" in run.parameters and run.state and not run.state.is_final()]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command as a person runs it: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fraud-ab", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
