"""What an investigation tells, word for word, and where its report is while MLflow does not take it."""

from __future__ import annotations

from uuid import UUID

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId

from flows.domain.ab_test import ABTest
from flows.domain.decision_record import Investigation, RecordKind
from flows.investigate_candidate import investigate_candidate
from slackbot.messages.block_kit import escape
from tests.integration.investigations import investigation, retry_in_prefect
from tests.integration.production_world import World, lines

pytest_plugins = ("tests.integration.production_world",)


def shown_in_prefect(address: str) -> str:
    """The artifact that a report's address names."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(id=ArtifactFilterId(any_=[UUID(address.rpartition("/")[2])]))
        [artifact] = client.read_artifacts(artifact_filter=wanted)  # of all, it gives the first 200
    return str(artifact.data)


def test_a_report_that_mlflow_does_not_take_is_in_prefect_and_a_retry_stores_it(world: World) -> None:
    run_id, decision_id = world.test.experiment_run_id, world.decide().decision_id
    MlflowClient().delete_run(run_id)
    failed = investigate_candidate(decision_id, return_state=True)
    assert failed.is_failed()
    first = investigation(world, decision_id)
    report = shown_in_prefect(first.report)
    assert report.startswith(f"# Why {world.test.candidate} did not win: {decision_id}")
    assert "Set FRAUD_AB_TRAINING_DATA" in report
    assert "](findings.png)" not in report
    assert "runs/" not in first.report, "an artifact has a page of its own"
    said = "root-cause report, in Prefect because MLflow does not take it; retry this run when it does"
    assert f"<{first.report}|{said}>" in lines(world, decision_id)
    failures = [one["text"] for one in world.slack.messages("C0FRAUD") if "has failed" in one["text"]]
    assert [text for text in failures if f"investigate-candidate for {decision_id} has failed" in text]

    MlflowClient().restore_run(run_id)
    summary = retry_in_prefect(failed, decision_id)
    again = investigation(world, decision_id)
    assert again == Investigation(tuple(summary), first.findings, f"runs:/{run_id}/investigations/{decision_id}/root_cause.md")
    assert world.kinds() == [RecordKind.INVESTIGATED, RecordKind.INVESTIGATED]
    told = lines(world, decision_id)
    assert sum(line.startswith("Why ") for line in told) == 1, "what was found is told once"
    assert f"root-cause report: `{again.report}`" in told


def test_the_thread_has_lines_and_addresses_that_are_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def address(test: ABTest, document: str = "") -> str:
        return f"https://mlflow.example/#/experiments/1/runs/{test.experiment_run_id}/artifacts/{document}"

    monkeypatch.setattr(world.systems.registry, "run_url", address)
    decision_id = world.decide().decision_id
    summary = investigate_candidate(decision_id)
    told = lines(world, decision_id)
    assert told[0] == "\n".join(escape(line) for line in summary)
    assert len(told[0].split("\n")) == len(summary) > 3
    page = address(world.test, f"investigations/{decision_id}/root_cause.html")
    assert told[1] == f"<{page}|root-cause report>"
    [lifecycle] = [line for line in told if line.startswith("lifecycle page: ")]
    assert lifecycle.startswith(f"lifecycle page: `{world.repository}@")
    assert lifecycle.endswith(":docs/model_lifecycle.md`")
