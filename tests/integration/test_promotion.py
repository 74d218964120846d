"""Promotion, keeping the baseline and the catch-up after an emergency, as Prefect runs against the embedded systems."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from typer.testing import CliRunner

from deployments.cli import app
from flows.documents import document_answer, document_investigation
from flows.domain.ab_test import Model
from flows.domain.decision import Choice
from flows.domain.decision_record import Investigation, RecordKind
from flows.domain.errors import OutsideSystemError, Superseded
from flows.domain.serving_state import TEST, ServingChange, ServingState, close_operation, open_operation
from flows.emergency_revert import finish_restore, revert_traffic, settle
from flows.promote_candidate import promote_candidate
from flows.reports.dossier import document_folder
from flows.rollback_to_baseline import keep_baseline, rollback_to_baseline
from flows.watch import await_arrival, poll
from tests.integration.production_world import ON_BOTH_SERVERS, WHERE, World, lines, run, shown

pytest_plugins = ("tests.integration.production_world",)
pytestmark = ON_BOTH_SERVERS


def test_a_promotion_changes_traffic_registry_archive_records_and_documents(world: World) -> None:
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    assert world.state.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert world.state.operation is None
    assert world.registry() == ["Archived (previous)", "Production (champion)"]
    assert world.systems.archive.verify(world.test.baseline).files > 3
    assert world.kinds() == [RecordKind.PROMOTED]
    payload = list(world.systems.decision_log.records(decision_id))[-1].payload
    assert payload["traffic"] == {"before": "fraud-v1 80 %, fraud-v2 20 %", "after": "fraud-v1 0 %, fraud-v2 100 %"}
    page = world.page()
    assert page[world.test.candidate.name]["status"] == "Promoted (Production)"
    assert page[world.test.baseline.name]["status"] == "Archived"
    tags = MlflowClient(world.systems.settings.mlflow_tracking_uri).get_run(world.test.experiment_run_id).data.tags
    assert tags["fraud-ab.outcome"] == "promoted"
    assert "docs/model_lifecycle.md" in tags["fraud-ab.lifecycle_page"]
    assert "docs/production_model.md" in tags["fraud-ab.production_page"]
    told = (world.repository / "docs" / "production_model.md").read_text()
    assert f"**{world.test.candidate.name} (version 1)** is the new fraud model" in told
    [summary] = world.summaries()
    assert summary.startswith("A better fraud model is in production")
    noted_everywhere(world, decision_id)
    verified = CliRunner().invoke(app, ["verify-record", decision_id])
    assert (verified.exit_code, verified.output.count("\n")) == (0, 1), verified.output
    told = lines(world, decision_id)
    assert [line.partition(":")[0] for line in told if line.startswith("traffic")] == ["traffic", "traffic"]
    assert "fraud-v1 80 %, fraud-v2 20 % → fraud-v1 50 %, fraud-v2 50 %" in " ".join(told)
    with get_client(sync_client=True) as api:
        keys = {artifact.key for artifact in api.read_artifacts(limit=200)}
    assert f"{decision_id}-traffic-candidate-100-2" in keys


def noted_everywhere(world: World, decision_id: str) -> None:
    """Both documents' SHA-256 is a tag of the run and of both model versions."""
    for name in ("decision_document.md", "decision_document.json"):
        stored = world.systems.registry.stored_document(world.test, f"{document_folder(decision_id)}/{name}")
        assert stored.sha256 == hashlib.sha256(stored.text.encode()).hexdigest()
        assert set(stored.noted.values()) == {stored.sha256}
        assert set(stored.noted) == {f"run {world.test.experiment_run_id}", *map(str, world.test.models)}


def test_executing_it_again_changes_nothing_and_says_nothing_twice(world: World) -> None:
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    state, told, records = world.state, lines(world, decision_id), world.kinds()
    assert run(promote_candidate, decision_id) == "promoted"
    assert world.is_still(state)
    assert lines(world, decision_id) == told
    assert world.kinds() == records
    assert len(world.summaries()) == 1


@pytest.mark.parametrize("fault", ["slow", "errors"])
def test_a_candidate_that_misbehaves_under_traffic_is_put_back(world: World, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr("flows.watch.SUSTAINED_SECONDS", 0.1)
    decision_id = world.decide().decision_id
    world.telemetry.p95_ms, world.telemetry.errors = (140.0, 0) if fault == "slow" else (60.0, 0)
    if fault == "errors":
        world.telemetry.on_measure = lambda: setattr(world.telemetry, "errors", 90 * (world.state.traffic["fraud-v2"] > 20))
    assert run(promote_candidate, decision_id) == "compensated"
    assert world.state.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    assert world.state.operation is None
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    assert world.kinds() == [RecordKind.COMPENSATED]
    why = str(list(world.systems.decision_log.records(decision_id))[-1].payload["why"])
    assert ("p95 140 ms" if fault == "slow" else "requests failed, usual would be") in why
    assert any("was undone" in line for line in lines(world, decision_id))
    text = world.document(decision_id)
    assert f"The promotion of {world.test.candidate} was undone" in text
    assert f" | {'; '.join(str(world.systems.registry.entry(model)) for model in world.test.models)} |" in text
    assert [text.partition(". ")[0] for text in world.summaries()] == ["A change of the fraud model was undone"]
    assert world.page()[world.test.baseline.name]["status"] == "Retained (Production)"


def test_a_registry_that_fails_after_the_shift_is_compensated_and_the_traffic_goes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = world.decide().decision_id
    real = world.systems.registry.set_in_charge
    seen: list[dict[str, int]] = []

    def refuse_the_candidate(model: Model) -> object:
        seen.append(dict(world.state.traffic))
        if model == world.test.candidate:
            raise OutsideSystemError("MLflow", "a test", retryable=False)
        return real(model)

    monkeypatch.setattr(world.systems.registry, "set_in_charge", refuse_the_candidate)
    assert run(promote_candidate, decision_id) == "compensated"
    assert seen == [{"fraud-v1": 0, "fraud-v2": 100}, {"fraud-v1": 100, "fraud-v2": 0}]
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    epoch = list(world.systems.decision_log.records(decision_id))[-1].payload["epoch"]
    followed = shown(f"{decision_id}-registry-follows-{epoch}")
    assert [after.partition(": ")[2] for _, _, after in followed] == world.registry()


def test_why_it_was_undone_outlives_a_process_that_dies_right_after_the_patch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.watch.SUSTAINED_SECONDS", 0.1)
    decision_id = world.decide().decision_id
    world.telemetry.p95_ms = 140.0
    with monkeypatch.context() as dying:
        dying.setattr("flows.promote_candidate._finish_compensation", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(BaseException):  # noqa: B017, PT011 - however Prefect reports a killed process
            run(promote_candidate, decision_id)
    assert world.kinds() == []
    assert run(promote_candidate, decision_id) == "compensated"
    assert "p95 140 ms" in str(list(world.systems.decision_log.records(decision_id))[-1].payload["why"])


def test_a_broken_artifact_stops_before_anything_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision_id, before = world.decide().decision_id, world.state

    def broken(model: Model, files: Path) -> int:
        raise OutsideSystemError("MLflow", f"trying out {model}: not a model", retryable=False)

    monkeypatch.setattr(world.systems.registry, "try_out", broken)
    with pytest.raises(OutsideSystemError, match="not a model"):
        run(promote_candidate, decision_id)
    assert world.is_still(before)
    assert world.kinds() == []
    assert any("nothing was changed" in line for line in lines(world, decision_id))


def test_an_emergency_during_the_watch_stops_the_promotion(world: World) -> None:
    decision_id = world.decide().decision_id
    world.telemetry.on_measure = lambda: world.emergency() if world.state.traffic["fraud-v2"] == 100 else None
    assert run(promote_candidate, decision_id) == "superseded"
    assert world.state.serves_alone("fraud-v1")
    assert world.registry() == ["Production (champion)", "Archived"]
    assert world.kinds() == [RecordKind.SUPERSEDED]
    assert "A newer change came first; this decision was not carried out." in world.document(decision_id)
    assert world.summaries() == []


def test_a_decision_from_before_an_emergency_promotes_nothing(world: World) -> None:
    decision_id = world.decide().decision_id
    world.emergency()
    before = world.state
    assert run(promote_candidate, decision_id) == "superseded"
    assert world.is_still(before)


def test_a_crash_after_the_shift_is_taken_over_and_the_old_process_is_fenced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id = world.decide().decision_id
    real = world.systems.registry.set_in_charge

    def die(model: Model) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(world.systems.registry, "set_in_charge", die)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - however Prefect reports a killed process
        run(promote_candidate, decision_id)
    crashed = world.state
    assert (crashed.operation, crashed.traffic["fraud-v2"]) == (decision_id, 100)
    monkeypatch.setattr(world.systems.registry, "set_in_charge", real)
    assert run(promote_candidate, decision_id) == "promoted"
    with pytest.raises(Superseded):
        close_operation(world.state, decision_id, crashed.epoch)
    assert world.kinds() == [RecordKind.PROMOTED]


def test_a_crash_after_the_closing_patch_still_records_the_promotion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision_id = world.decide().decision_id
    with monkeypatch.context() as dying:
        dying.setattr(world.systems.decision_log, "append_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(BaseException):  # noqa: B017, PT011 - however Prefect reports a killed process
            run(promote_candidate, decision_id)
    assert world.kinds() == []
    assert run(promote_candidate, decision_id) == "promoted"
    assert world.kinds() == [RecordKind.PROMOTED]


def test_a_lost_reply_of_the_closing_patch_is_no_reason_to_put_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision_id = world.decide().decision_id
    real = world.systems.serving.apply

    def lose_the_reply(state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        after = real(state, change, dry_run=dry_run)
        if change.why.endswith("is accepted"):
            raise OutsideSystemError("Kubernetes", "a test", retryable=False)
        return after

    monkeypatch.setattr(world.systems.serving, "apply", lose_the_reply)
    assert run(promote_candidate, decision_id) == "promoted"
    assert world.state.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    assert world.kinds() == [RecordKind.PROMOTED]


def test_keeping_the_baseline_archives_the_candidate(world: World) -> None:
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert world.state.serves_alone("fraud-v1")
    assert world.state.operation is None
    assert world.registry() == ["Production (champion)", "Archived"]
    assert world.systems.archive.verify(world.test.candidate).files > 3
    assert world.kinds() == [RecordKind.BASELINE_KEPT]
    assert world.page()[world.test.candidate.name]["status"] == "Archived"
    assert "Decided by Ana (U0ANA), force rollback" in world.document(decision_id)
    assert [text.partition(". ")[0] for text in world.summaries()] == ["The fraud model stays as it is"]


def test_what_an_investigation_finds_is_in_the_document_and_on_the_page(world: World) -> None:
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert "Not investigated when this was written." in world.document(decision_id)
    found = Investigation(("Amounts have drifted.",), ({"hypothesis": "feature_drift", "said": "KS 0.31"},), "runs:/r/report.md")
    record = world.systems.decision_log.append_record(RecordKind.INVESTIGATED, decision_id, found.to_payload())

    def document(identifier: str) -> str:
        document_investigation(identifier, record.hash)
        return "done"

    run(document, decision_id)
    assert "- Amounts have drifted." in world.document(decision_id)
    assert world.page()[world.test.candidate.name]["failure_analysis"] == "Amounts have drifted."
    noted_everywhere(world, decision_id)
    assert world.kinds() == [RecordKind.BASELINE_KEPT, RecordKind.INVESTIGATED]
    assert len(world.summaries()) == 1


def test_a_postponed_test_is_documented_and_goes_on_while_that_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    decision_id = world.decide(Choice.POSTPONE, until=datetime.now(UTC) + timedelta(days=1)).decision_id

    def document(identifier: str) -> str:
        document_answer(identifier)
        return "goes on"

    def down(*_: object) -> str:
        raise OutsideSystemError("MLflow", "a test", retryable=False)

    with monkeypatch.context() as failing:
        failing.setattr(world.systems.registry, "log_document", down)
        assert run(document, decision_id) == "goes on"
    assert not [line for line in lines(world, decision_id) if line.startswith("decision document")]
    assert run(document, decision_id) == "goes on"
    assert len([line for line in lines(world, decision_id) if line.startswith("decision document")]) == 1
    text = world.document(decision_id)
    assert "Postponed. The test goes on and is evaluated again on" in text
    assert "Decided by Ana (U0ANA), postpone" in text
    assert world.page()[world.test.candidate.name]["status"] == "In test (Staging)"
    assert world.state.traffic == {"fraud-v1": 80, "fraud-v2": 20}


def test_keeping_the_baseline_after_an_emergency_finishes_what_is_left(world: World) -> None:
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    world.emergency()
    epoch = world.state.epoch
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert world.state.epoch == epoch
    assert world.registry() == ["Production (champion)", "Archived"]


def test_a_candidate_whose_artifacts_are_broken_does_not_keep_the_operation_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Model, folder: Path) -> Path:
        raise OutsideSystemError("MLflow", f"downloading {model}", retryable=False)

    monkeypatch.setattr(world.systems.registry, "artifact_files", broken)
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert world.state.operation is None
    assert "downloading" in str(list(world.systems.decision_log.records(decision_id))[-1].payload["archive"])


def test_the_catch_up_after_an_emergency_records_it_once_and_lets_the_registry_follow(world: World) -> None:
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    world.emergency("revert-9")
    for _ in range(2):  # a late second run does no harm
        after = rollback_to_baseline("revert-9", "U0CHI", "wrong alerts")
        assert [entry.partition(": ")[2] for entry in after] == ["Production (champion)", "Archived"]
    assert world.state.unrecorded == ()
    assert world.kinds() == [RecordKind.PROMOTED, RecordKind.EMERGENCY_REVERT]
    [record] = world.systems.decision_log.records("revert-9")
    assert (record.payload["decision_id"], record.payload["reason"]) == (decision_id, "wrong alerts")
    assert world.page()[world.test.baseline.name]["status"] == "Restored (Production)"
    assert sum("emergency revert by" in line for line in lines(world, decision_id)) == 1
    assert record.payload["before"] == "fraud-v1 0 %, fraud-v2 100 %"
    text = world.document("revert-9")
    assert "Reverted by U0CHI," in text
    assert f" | {'; '.join(str(world.systems.registry.entry(model)) for model in world.test.models)} |" in text
    assert f"The test's latest decision before it ({decision_id}): Decided by Ana" in text
    noted_everywhere(world, "revert-9")
    assert [line for line in lines(world, decision_id) if "decision document of the emergency revert" in line]
    titles = ["A better fraud model is in production", "The previous fraud model is back"]
    assert [text.partition(". ")[0] for text in world.summaries()] == titles
    assert shown(f"{decision_id}-revert-revert-9") == [
        ("traffic", "fraud-v1 0 %, fraud-v2 100 %", "fraud-v1 100 %, fraud-v2 0 %")
    ]
    assert [what for what, _, _ in shown("revert-revert-9-lifecycle")] == ["lifecycle page"]


def test_before_any_decision_the_catch_up_knows_the_models_by_the_deployments_test(world: World) -> None:
    other = replace(world.test, test_id="another-test")
    replace(world, test=other).decide()
    world.emergency("revert-3")
    rollback_to_baseline("revert-3", "U0CHI", "")
    assert world.registry() == ["Production (champion)", "Archived"]
    [record] = world.systems.decision_log.records("revert-3")
    assert record.payload["test_id"] == world.test.test_id
    assert "decision_id" not in record.payload, "the latest decision is about another test"
    assert "No question about this test had been asked yet" in world.document("revert-3")


def test_on_a_deployment_that_names_no_test_the_catch_up_leaves_the_registry(world: World) -> None:
    annotations = {TEST: None}
    world.systems.serving.apply(world.state, ServingChange(why="a test", annotations=annotations))
    world.emergency("revert-4")
    assert rollback_to_baseline("revert-4", "U0CHI", "") == []
    assert world.registry() == ["Production (champion)", "Staging (challenger)"]
    assert world.kinds() == [RecordKind.EMERGENCY_REVERT]
    assert any("does not say which test" in message["text"] for message in world.slack.messages("C0FRAUD"))


def test_an_emergency_restores_a_removed_baseline_and_the_second_patch_switches(world: World) -> None:
    api = world.kept["api"]
    body = api.get_namespaced_custom_object(*WHERE, "fraud-predictor")
    body["spec"]["predictors"] = [{**body["spec"]["predictors"][1], "traffic": 100}]
    api.replace_namespaced_custom_object(*WHERE, "fraud-predictor", body)
    outcome = revert_traffic(world.systems.serving, revert_id="r", actor="U0CHI", reason="", at=datetime.now(UTC))
    assert outcome.pending_restore
    assert world.state.traffic == {"fraud-v1": 0, "fraud-v2": 100}
    rollback_to_baseline("r", "U0CHI", "")
    assert world.state.serves_alone("fraud-v1")
    assert finish_restore(world.systems.serving) is None


@pytest.fixture
def broken_candidate(world: World) -> Iterator[None]:
    """Its pods fail, so that Seldon would hold up every change; what it was routed before goes on reaching it."""
    operator = world.kubernetes.operator
    wait_until_routed(world, {"fraud-v1": 80, "fraud-v2": 20})
    operator.fail_predictor("fraud-v2")
    assert poll(lambda: not world.systems.serving.readiness().is_up("fraud-v2"), 10)
    yield
    operator.heal_predictor("fraud-v2")


def wait_until_routed(world: World, wanted: dict[str, int]) -> None:
    assert poll(lambda: world.systems.serving.readiness().routed == wanted, 10), world.systems.serving.readiness()


@pytest.mark.usefixtures("broken_candidate")
def test_an_emergency_gets_past_a_candidate_whose_pods_are_broken(world: World) -> None:
    decision_id = world.decide().decision_id
    world.emergency("revert-5")
    rollback_to_baseline("revert-5", "U0CHI", "it is broken")
    assert {world.kubernetes.route(f"card-{number}") for number in range(500)} == {"fraud-v1"}
    assert world.state.traffic == {"fraud-v1": 100}
    said = lines(world, decision_id)
    assert any("the predictor fraud-v2 is gone from the SeldonDeployment" in line for line in said)
    assert "the router sends all traffic to fraud-v1" in said


@pytest.mark.usefixtures("broken_candidate")
def test_a_lost_candidate_whose_pods_are_broken_does_not_keep_the_baseline_waiting(world: World) -> None:
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert {world.kubernetes.route(f"card-{number}") for number in range(500)} == {"fraud-v1"}
    assert world.kinds() == [RecordKind.BASELINE_KEPT]
    assert any("the predictor fraud-v2 is gone" in line for line in lines(world, decision_id))


@pytest.mark.usefixtures("broken_candidate")
def test_a_restored_baseline_takes_over_from_a_candidate_whose_pods_are_broken(world: World) -> None:
    api = world.kept["api"]
    body = api.get_namespaced_custom_object(*WHERE, "fraud-predictor")
    body["spec"]["predictors"] = [{**body["spec"]["predictors"][1], "traffic": 100}]
    api.replace_namespaced_custom_object(*WHERE, "fraud-predictor", body)
    assert revert_traffic(world.systems.serving, revert_id="r", actor="U", reason="", at=datetime.now(UTC)).pending_restore
    arrival = await_arrival(world.systems.serving, 30)
    assert (arrival.baseline, arrival.is_there, arrival.removed) == ("fraud-v1", True, ("fraud-v2",))
    assert world.kubernetes.route("card-1") == "fraud-v1"


def test_a_candidate_that_is_only_being_deployed_stays(world: World) -> None:
    operator = world.kubernetes.operator
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    wait_until_routed(world, {"fraud-v1": 100, "fraud-v2": 0})
    operator.fail_predictor("fraud-v2")
    try:
        assert poll(lambda: not world.systems.serving.readiness().is_up("fraud-v2"), 10)
        settle(world.systems.serving)
        assert world.state.traffic == {"fraud-v1": 100, "fraud-v2": 0}
    finally:
        operator.heal_predictor("fraud-v2")


def test_the_same_press_twice_is_one_revert_and_a_lost_race_is_decided_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, raced = world.systems.serving.apply, []

    def race(state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        if not raced:
            raced.append(1)
            real(state, open_operation(state, "another", state.epoch))
        return real(state, change, dry_run=dry_run)

    monkeypatch.setattr(world.systems.serving, "apply", race)
    world.emergency("same")
    first = world.state
    assert first.serves_alone("fraud-v1")
    assert first.operation is None
    world.emergency("same")
    assert world.state == first


def test_an_emergency_gives_up_with_one_clear_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> ServingState:
        raise OutsideSystemError("Kubernetes", "reading", retryable=True)

    monkeypatch.setattr(world.systems.serving, "read", down)
    with pytest.raises(OutsideSystemError, match=r"tried for 0.2 s"):
        revert_traffic(world.systems.serving, revert_id="r", actor="U", reason="", at=datetime.now(UTC), deadline_seconds=0.2)
