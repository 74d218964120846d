"""`fraud-ab start` on the embedded systems: bad inputs, failures at every stage, starts that must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.states import Cancelled
from pydantic import TypeAdapter

from flows.domain.ab_test import ABTest
from flows.domain.errors import OutsideSystemError
from flows.domain.serving_state import OPERATION, ServingChange, ServingState, describe_serving
from flows.start_ab_test import FINALIZE
from flows.watch import poll
from slackbot.prefect_gateway import PrefectGateway
from tests.integration.idle_world import Cli, Idle, unfinished_runs
from tests.integration.production_world import POLICY

pytest_plugins = ("tests.integration.production_world", "tests.integration.idle_world")
SHADOW = "[traffic]\nbaseline = 100\ncandidate = 0\n"


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
    [run] = unfinished_runs()
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
    [run] = unfinished_runs()
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


def _another_model(idle: Idle) -> None:
    elsewhere = {"name": "fraud-v2", "implementation": "MLFLOW_SERVER", "modelUri": "file:///elsewhere"}
    idle.replace_predictors(lambda all_: [all_[0], {**all_[1], "graph": elsewhere}])


def _under_git(idle: Idle) -> None:
    annotations = {"argocd.argoproj.io/tracking-id": "fraud"}
    serving = idle.world.systems.serving
    serving.apply(serving.read(), ServingChange(why="a test", annotations=annotations))


REASONS: dict[str, tuple[Callable[[Idle], object], str]] = {
    "the candidate serves": (_exchange, "fraud-v1 0 %, fraud-v2 100 %: put all traffic on the baseline fraud-v1 first"),
    "an operation is open": (_busy, "being changed by d-1"),
    "another test goes on": (_another_test, "the test another is not finished"),
    "the candidate is in charge": (_candidate_in_charge, "the registry has the candidate in charge"),
    "nobody serves the flow": (_no_deployment, "finalize-ab-test/fraud, which `fraud-ab serve` registers: it does not exist"),
    "the predictor loads another model": (_another_model, "the predictor fraud-v2 loads file:///elsewhere, but fraud_v2"),
    "a controller would undo it": (_under_git, "Argo CD applies fraud-predictor and may undo the change"),
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
    "an initiator by name": ({"initiator": '"ana"'}, ("", ""), "initiator must be a Slack user id, such as U024BE7LH"),
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


def test_a_policy_that_bars_the_initiator_demands_to_know_who_that_is(idle: Idle, cli: Cli) -> None:
    idle.policy("initiator_may_promote = false\n" + POLICY)
    before = idle.state()
    refused(cli("start", idle.write()), "initiator_may_promote = false", 'initiator = "U…", your Slack user id, in the file')
    assert idle.state() == before
    code, out, err = cli("start", idle.write(initiator='"U0ANA"'))
    assert (code, err) == (0, "")
    assert "U0ANA" in out
    test = idle.world.state.test
    assert test is not None
    assert test.initiator == "U0ANA"
    [run] = unfinished_runs()
    assert run.parameters["test"]["initiator"] == "U0ANA"


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
    [run] = unfinished_runs()
    refused(cli("start", idle.file), "was started and has ended: fraud-predictor serves fraud-v1 100 %, fraud-v2 0 %")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    refused(cli("start", idle.file), "has ended as Cancelled", "choose another test_id")
