"""Who starts an investigation: a lost test itself, as soon as its outcome is recorded, and a person by `fraud-ab investigate`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.types.entrypoint import EntrypointType

from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import Evidence
from flows.domain.verdict import VerdictKind, decide_verdict
from flows.investigate_candidate import investigate_candidate
from flows.rollback_to_baseline import keep_baseline
from tests.integration.idle_world import Cli
from tests.integration.production_world import ANA, World, run

pytest_plugins = ("tests.integration.production_world", "tests.integration.idle_world")


@pytest.fixture
def deployed(prefect: None) -> None:
    """Registered as `fraud-ab serve` does it, with nobody there to execute its runs."""
    investigate_candidate.to_deployment(name="fraud", entrypoint_type=EntrypointType.MODULE_PATH).apply()


def runs_for(decision_id: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [one for one in client.read_flow_runs() if one.parameters == {"decision_id": decision_id}]


def lost(world: World) -> str:
    """A confirmed decision about a candidate that its evidence refutes."""
    counts = Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 700, 770, 700))
    evidence, asked = Evidence(counted=counts), world.ask().request
    verdict = decide_verdict(evidence, world.systems.policy)
    assert verdict.kind is VerdictKind.KEEP_BASELINE
    log = world.systems.decision_log
    decision = log.open(replace(asked, round=asked.round + 1, evidence=evidence, verdict=verdict))
    digest = verdict.evidence_digest
    return log.claim(decision.decision_id, evidence_digest=digest, choice=Choice.CONFIRM, actor=ANA, reason="").decision_id


@pytest.mark.usefixtures("deployed")
def test_a_lost_test_is_investigated_once_even_while_nothing_can_be_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> str:
        raise OutsideSystemError("MLflow", "a test", retryable=False)

    decision_id = lost(world)
    with monkeypatch.context() as failing:
        failing.setattr(world.systems.registry, "log_document", away)
        with pytest.raises(OutsideSystemError):
            run(keep_baseline, decision_id)
    assert world.kinds() == [RecordKind.BASELINE_KEPT]
    [started] = runs_for(decision_id)
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert [one.id for one in runs_for(decision_id)] == [started.id]


@pytest.mark.usefixtures("deployed")
def test_a_candidate_that_somebody_took_out_is_investigated_too(world: World) -> None:
    decision_id = world.decide(Choice.FORCE_ROLLBACK).decision_id
    assert run(keep_baseline, decision_id) == "baseline_kept"
    assert len(runs_for(decision_id)) == 1


@pytest.mark.usefixtures("deployed")
def test_a_person_starts_it_by_the_decision_as_often_as_they_like(world: World, cli: Cli) -> None:
    decision_id = world.decide().decision_id
    for count in (1, 2):
        code, out, err = cli("investigate", decision_id)
        assert (code, err) == (0, "")
        found = runs_for(decision_id)
        assert len(found) == count
        assert any(str(one.id) in out for one in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-1"], "no decision is called nothing-1"),
        (["t-1", "--training=a.csv"], "give it alone"),
        (["--training=a.csv"], "name a decision, or give --training and --production"),
        ([], "name a decision, or give --training and --production"),
    ],
)
def test_what_cannot_be_started_says_why(world: World, cli: Cli, arguments: list[str], said: str) -> None:
    code, out, err = cli("investigate", *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())
