"""The catch-up of an emergency is started, and again when it fails; Prefect's server is real, and nobody executes the runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed, Failed
from prefect.types.entrypoint import EntrypointType
from typer.testing import CliRunner

from deployments import serve
from deployments.cli import app
from flows.documents import document_investigation
from flows.domain.decision_record import Investigation, RecordKind
from flows.domain.errors import OutsideSystemError
from flows.domain.serving_state import acknowledge_recorded
from flows.investigate_candidate import investigate_candidate
from flows.production_steps import change_serving
from flows.rollback_to_baseline import rollback_to_baseline, see_it_arrive
from flows.watch import Arrival
from slackbot.prefect_gateway import KnownRun, PrefectGateway
from tests.integration.production_world import run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tests.integration.production_world import World

pytest_plugins = ("tests.integration.production_world",)


@pytest.fixture
def noted(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """An emergency that no record tells of yet; and a pause that is over at once."""
    rollback_to_baseline.to_deployment("fraud", entrypoint_type=EntrypointType.MODULE_PATH).apply()
    monkeypatch.setattr(serve, "FIRST_PAUSE", timedelta(0))
    world.emergency(f"revert-{world.test.test_id}")
    return world


def runs(world: World) -> list[FlowRun]:
    """The newest first."""
    serve.catch_up(PrefectGateway())
    with get_client(sync_client=True) as api:
        found = api.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    return [one for one in found if one.parameters.get("revert_id") == f"revert-{world.test.test_id}"]


def test_it_is_started_once_and_anew_whenever_it_has_failed(noted: World) -> None:
    [first] = runs(noted)
    assert len(runs(noted)) == 1, "it has not ended"
    with get_client(sync_client=True) as api:
        api.set_flow_run_state(first.id, Failed(), force=True)
        second, *_ = runs(noted)
        assert second.id != first.id
        assert len(runs(noted)) == 2
        api.set_flow_run_state(second.id, Crashed(), force=True)
    assert len(runs(noted)) == 3


def test_between_two_there_is_a_pause(noted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    [first] = runs(noted)
    monkeypatch.setattr(serve, "FIRST_PAUSE", timedelta(seconds=30))
    with get_client(sync_client=True) as api:
        api.set_flow_run_state(first.id, Failed(), force=True)
    assert len(runs(noted)) == 1


def test_the_pauses_grow_to_an_hour_and_no_further() -> None:
    began = datetime(2026, 11, 28, tzinfo=UTC)
    ended = KnownRun("", "Failed", is_over=True, since=began, starts_at=began)
    pauses = [(serve.patience_ends(ended, tried=tried) - began).total_seconds() for tried in (1, 2, 3, 8, 1000)]
    assert pauses == [30, 60, 120, 3600, 3600]


def test_one_that_has_not_ended_is_not_waited_for_for_ever(noted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(runs(noted)) == 1
    monkeypatch.setattr(serve, "LONGEST_PAUSE", timedelta(0))
    assert len(runs(noted)) == 2


def test_a_revert_that_does_not_arrive_stays_noted_until_it_has(noted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    revert_id = noted.state.unrecorded[0]["id"]

    def told(words: str) -> int:
        return sum(words in str(message["text"]) for message in noted.slack.messages("C0FRAUD"))

    with monkeypatch.context() as stuck:
        stuck.setattr(see_it_arrive, "retries", 0)
        stuck.setattr("flows.rollback_to_baseline.await_arrival", lambda _: Arrival("fraud-v1", is_there=False, removed=()))
        with pytest.raises(OutsideSystemError, match="the router"):
            rollback_to_baseline(revert_id, "ana", "too many false alarms")
    assert told("does not send all traffic to fraud-v1 yet") == 1
    assert [entry["id"] for entry in noted.state.unrecorded] == [revert_id]
    assert [one.state_name for one in runs(noted)].count("Scheduled") == 1, "it is tried again"
    rollback_to_baseline(revert_id, "ana", "too many false alarms")
    assert told("the router sends all traffic to fraud-v1") == 1
    assert noted.state.unrecorded == ()


def test_why_a_candidate_had_to_be_taken_out_is_looked_into_once(world: World) -> None:
    investigate_candidate.to_deployment("fraud", entrypoint_type=EntrypointType.MODULE_PATH).apply()

    def taken_out(revert_id: str) -> list[dict[str, object]]:
        world.emergency(revert_id)
        rollback_to_baseline(revert_id, "ana", "too many false alarms")
        with get_client(sync_client=True) as api:
            found = [one.parameters for one in api.read_flow_runs()]
        return [told for told in found if str(told.get("decision_id", "")).startswith(world.test.test_id)]

    assert taken_out("revert-a") == [], "no question was asked, so that there is no evidence to look into"
    decision_id = world.decide().decision_id
    assert taken_out("revert-b") == [{"decision_id": decision_id}]
    assert taken_out("revert-c") == [{"decision_id": decision_id}]


def test_what_an_investigation_finds_is_in_the_emergencys_document_too(world: World) -> None:
    decision_id = world.decide().decision_id
    world.emergency("revert-d")
    rollback_to_baseline("revert-d", "ana", "too many false alarms")
    assert "Not investigated when this was written." in world.document("revert-d")
    found = Investigation(("Amounts have drifted.",))
    kept = world.systems.decision_log.append_record(RecordKind.INVESTIGATED, decision_id, found.to_payload())

    def document(identifier: str) -> str:
        document_investigation(identifier, kept.hash)
        return "done"

    run(document, decision_id)
    assert "- Amounts have drifted." in world.document("revert-d")
    verified = CliRunner().invoke(app, ["verify-record", "revert-d"])
    assert verified.exit_code == 0, verified.output


def test_what_is_recorded_needs_none(noted: World) -> None:
    ids = frozenset(entry["id"] for entry in noted.state.unrecorded)
    change_serving(lambda state: acknowledge_recorded(state, ids))
    assert runs(noted) == []
