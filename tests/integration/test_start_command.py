"""`fraud-ab start` and `fraud-ab status` on the embedded systems: bad inputs, failures at every stage, systems that are down."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled
from prefect.types.entrypoint import EntrypointType
from pydantic import TypeAdapter

from deployments.cli import main
from deployments.sandbox.stack import free_port
from flows.domain.ab_test import ABTest
from flows.domain.action_plan import Stage, describe_serving
from flows.domain.errors import OutsideSystemError
from flows.domain.serving_state import OPERATION, ServingChange, ServingState
from flows.finalize_ab_test import finalize_ab_test
from flows.start_ab_test import FINALIZE
from flows.watch import poll
from flows.wiring import systems
from slackbot.prefect_gateway import PrefectGateway
from tests.integration.production_world import POLICY, WHERE, World

pytest_plugins = ("tests.integration.production_world",)
SHADOW = "[traffic]\nbaseline = 100\ncandidate = 0\n"
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
    for run in _runs():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(), force=True)


def _runs() -> list[FlowRun]:
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


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, ""), (out, err)
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_start_is_the_split_the_registry_and_the_run_of_its_first_look(idle: Idle, cli: Cli) -> None:
    code, out, err = cli("start", idle.write())
    assert (code, err) == (0, "")
    world, state = idle.world, idle.world.state
    assert state.traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert state.revert_to is not None
    assert state.revert_to["predictor"] == "fraud-v1"
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    test = state.test
    assert test is not None
    assert (test.test_id, test.models) == (world.test.test_id, world.test.models)
    assert datetime.now(UTC) - test.started_at < timedelta(minutes=1)
    [run] = _runs()
    assert run.parameters["test"]["experiment_run_id"] == test.experiment_run_id
    assert run.expected_start_time == test.started_at + timedelta(days=14 + 30, hours=1)
    tags = MlflowClient(world.systems.settings.mlflow_tracking_uri).get_run(test.experiment_run_id).data.tags
    assert tags["fraud-ab.test"] == test.test_id
    assert tags["fraud-ab.candidate"] == f"{test.candidate.name}/1"
    assert "fraud-v1 80 %, fraud-v2 20 %" in out
    assert f"{run.expected_start_time:%Y-%m-%d %H:%M} UTC, Scheduled: http" in out
    assert str(run.id) in out


def test_a_second_start_changes_nothing_and_says_so(idle: Idle, cli: Cli) -> None:
    assert cli("start", idle.write())[0] == 0
    before = idle.state()
    code, out, err = cli("start", idle.file)
    assert (code, err) == (0, "")
    assert "is started already" in out
    assert "first look" in out
    assert idle.state() == before


def test_a_dry_run_shows_the_plan_and_changes_nothing(idle: Idle, cli: Cli) -> None:
    before = idle.state()
    code, out, err = cli("start", idle.write(), "--dry-run")
    assert (code, err) == (0, "")
    assert "fraud-v1 100 %, fraud-v2 0 % → fraud-v1 80 %, fraud-v2 20 %" in out
    assert "exposure day 14, and 30 days until its labels have matured" in out
    assert "fraud-v1 with its spec" in out
    assert idle.state() == before


def test_a_shadow_test_keeps_the_baseline_alone_and_needs_prometheus(
    idle: Idle, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle.replace_predictors(lambda all_: [all_[0], {**all_[1], "traffic": 100, "shadow": True}])
    refused(cli("start", idle.write()), "fraud-v2 is a shadow and serves nobody", "set [traffic] baseline = 100, candidate = 0")
    idle.policy(POLICY + SHADOW)
    refused(cli("start", idle.file), "is in Prometheus alone: set FRAUD_AB_PROMETHEUS_URL")
    idle.policy("required_telemetry = []\n" + POLICY + SHADOW)
    code, out, _ = cli("start", idle.file)
    assert code == 0
    assert describe_serving(idle.world.state) == "fraud-v1 100 %, fraud-v2 shadow"
    assert "fraud-v2 scores a copy of all traffic and answers nobody" in out
    assert "is started already" in cli("start", idle.file)[1]


STAGES = ["the run in MLflow", "the patch", "the patch's reply", "the registry", "the schedule", "the schedule's reply"]


@pytest.mark.parametrize("stage", STAGES)
def test_after_a_failure_at_any_stage_the_same_command_ends_in_the_same_state(
    idle: Idle, cli: Cli, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    kept = idle.world.systems
    places: dict[str, tuple[object, str]] = {
        "the run in MLflow": (kept.registry, "open_test_run"),
        "the patch": (kept.serving, "apply"),
        "the registry": (kept.registry, "set_stage"),
        "the schedule": (PrefectGateway, "start_run"),
    }
    place, name = places[stage.removesuffix("'s reply")]
    real = getattr(place, name)

    def fail(*given: Any, **options: Any) -> object:
        if options.get("dry_run"):
            return real(*given, **options)
        if stage.endswith("reply"):
            real(*given, **options)
        raise OutsideSystemError("a test", stage, retryable=True)

    with monkeypatch.context() as failing:
        failing.setattr(place, name, fail)
        code, out, err = cli("start", idle.write())
    assert (code, out) == (1, "")
    assert stage in err
    assert "repeat the command" in err
    code, out, err = cli("start", idle.file)
    assert (code, err) == (0, "")
    assert idle.world.state.traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert idle.world.state.epoch == 1, "the patch was made once"
    assert idle.world.registry() == ["Production (champion)", "Staging (challenger)"]
    [run] = _runs()
    assert idle.world.state.test is not None
    assert run.parameters["test"]["experiment_run_id"] == idle.world.state.test.experiment_run_id


def _exchange(idle: Idle) -> None:
    idle.replace_predictors(lambda all_: [{**all_[0], "traffic": 0}, {**all_[1], "traffic": 100}])


def _busy(idle: Idle) -> None:
    serving = idle.world.systems.serving
    serving.apply(serving.read(), ServingChange(why="a test", annotations={OPERATION: "d-1"}))


def _another_test(idle: Idle) -> None:
    another = replace(idle.world.test, test_id="another")
    parameters = {"test": TypeAdapter(ABTest).dump_python(another, mode="json")}
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(FINALIZE)
        client.create_flow_run_from_deployment(found.id, parameters=parameters)


def _candidate_in_charge(idle: Idle) -> None:
    idle.world.systems.registry.set_in_charge(idle.world.test.candidate)


def _no_deployment(idle: Idle) -> None:
    with get_client(sync_client=True) as client:
        client.delete_deployment(client.read_deployment_by_name(FINALIZE).id)


def _asked_before(idle: Idle) -> None:
    idle.world.decide()


REASONS: dict[str, tuple[Callable[[Idle], object], str]] = {
    "the candidate serves": (_exchange, "fraud-v1 0 %, fraud-v2 100 %: put all traffic on the baseline fraud-v1 first"),
    "an operation is open": (_busy, "being changed by d-1"),
    "another test goes on": (_another_test, "the test another is not finished"),
    "the candidate is in charge": (_candidate_in_charge, "the registry has the candidate in charge"),
    "nobody serves the flow": (_no_deployment, "finalize-ab-test/fraud, which `fraud-ab serve` registers: it does not exist"),
    "it was asked before": (_asked_before, "was asked already: choose another test_id"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_speaks_against_a_start_is_one_sentence_and_nothing_is_changed(idle: Idle, cli: Cli, reason: str) -> None:
    prepare, words = REASONS[reason]
    idle.write()
    prepare(idle)
    before = idle.state()
    refused(cli("start", idle.file), words)
    assert idle.state() == before


FILES: dict[str, tuple[dict[str, str], tuple[str, str], str]] = {
    "an unknown version": ({}, ("version = 1", "version = 77"), "version 77"),
    "an unknown predictor": ({}, ('"fraud-v2"', '"fraud-v9"'), "fraud-predictor has no predictor fraud-v9"),
    "the baseline's predictor twice": ({}, ('"fraud-v2"', '"fraud-v1"'), "baseline and candidate name the same predictor"),
    "no candidate": ({}, ("[candidate]", "[challenger]"), "candidate is missing; challenger is no setting of a test"),
    "no TOML": ({}, ("[baseline]", "[baseline"), "not valid TOML"),
    "a test id with spaces": ({"test_id": '"My Test"'}, ("", ""), "test_id must be at most 63 lower-case letters"),
    "an unknown run": ({"experiment_run": '"0123"'}, ("", ""), "reading run 0123"),
    "a start to come": ({"started_at": "2100-01-01"}, ("", ""), "started_at 2100-01-01 00:00 UTC is to come"),
    "a start long ago": ({"started_at": "2026-01-01"}, ("", ""), "is past, but fraud-v2 gets no traffic yet"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_one_sentence_and_nothing_is_changed(idle: Idle, cli: Cli, case: str) -> None:
    changes, (old, new), words = FILES[case]
    text = idle.write(**changes).read_text()
    idle.file.write_text(text.replace(old, new) if old else text)
    before = idle.state()
    refused(cli("start", idle.file), words)
    assert idle.state() == before


def test_a_file_that_is_not_there_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    refused(cli("start", tmp_path / "none.toml"), "none.toml: it cannot be read: No such file")


def test_a_candidate_whose_pods_are_not_ready_starts_no_test(idle: Idle, cli: Cli) -> None:
    idle.world.kubernetes.operator.fail_predictor("fraud-v2")
    try:
        assert poll(lambda: not idle.world.systems.serving.readiness().is_up("fraud-v2"), 10)
        refused(cli("start", idle.write()), "the pods of fraud-v2 are not ready")
    finally:
        idle.world.kubernetes.operator.heal_predictor("fraud-v2")


def test_somebody_who_changes_the_deployment_meanwhile_is_not_overridden(
    idle: Idle, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = idle.world.systems.serving
    real = serving.apply

    def race(state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        if not dry_run:
            real(serving.read(), ServingChange(why="a race", annotations={"somebody": "else"}))
        return real(state, change, dry_run=dry_run)

    monkeypatch.setattr(serving, "apply", race)
    code, _, err = cli("start", idle.write())
    assert code == 1
    assert "somebody else changed it" in err
    assert idle.world.state.test is None


def test_a_test_that_was_reverted_is_not_started_again(idle: Idle, cli: Cli) -> None:
    assert cli("start", idle.write())[0] == 0
    idle.world.emergency()
    [run] = _runs()
    refused(cli("start", idle.file), "was started and has ended: fraud-predictor serves fraud-v1 100 %, fraud-v2 0 %")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    refused(cli("start", idle.file), "has ended as Cancelled", "choose another test_id")


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
    idle.world.emergency()
    code, out, _ = cli("status")
    assert code == 0
    for words in ("models/fraud-predictor", "fraud-v1", "100 %", f"decided ({decided.decision_id})", "emergency revert by U0CHI"):
        assert words in out


def test_status_of_a_deployment_without_a_test(idle: Idle, cli: Cli) -> None:
    code, found = status(cli)
    assert (code, found["serving"]["test"], found["registry"], found["first look"]) == (0, None, {}, {})
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
