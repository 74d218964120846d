"""An investigation while MLflow fails: what cannot be read is not testable, and what cannot be stored waits for a *Retry*.

The whole product runs as real processes on the embedded stack; requests to MLflow go wrong on their way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from mlflow import MlflowClient

from benchmarks.process_world import ProcessWorld, Story, process_world
from deployments.sandbox.fault_proxy import Mishap
from flows import investigate_candidate as flow_module
from flows.deployment_names import INVESTIGATE
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind, latest_investigation
from flows.investigate_candidate import investigate_candidate
from flows.wiring import systems
from slackbot.prefect_gateway import PrefectGateway
from slackbot.publisher import message_key
from tests.feedback_tables import feedback_frame

pytestmark = pytest.mark.timeout(600)  # a dozen processes start one after another

SECONDS = 240.0


@dataclass
class WayToMlflow:
    """Requests that contain `fails` meet a fault; with `breaks` so does every request after the first of them."""

    fails: str = ""
    breaks: bool = False
    is_broken: bool = False

    def meets(self, line: str) -> Mishap | None:
        is_hit = bool(self.fails) and self.fails in line
        self.is_broken |= is_hit and self.breaks
        return Mishap.REFUSED if is_hit or self.is_broken else None

    def mend(self) -> None:
        self.fails, self.breaks, self.is_broken = "", False, False


@pytest.fixture(scope="module")
def way() -> WayToMlflow:
    return WayToMlflow()


@pytest.fixture(scope="module")
def world(way: WayToMlflow) -> Iterator[ProcessWorld]:
    """A candidate whose one feature is zeroed since its test began, so that it catches nothing."""
    with process_world(way.meets) as running:
        running.let(candidate_win=False)
        folder = running.stack.features
        assert folder is not None
        feedback_frame(seed=2).to_parquet(folder / "training.parquet")
        feedback_frame(seed=3).assign(amount=0.0).to_parquet(folder / "production.parquet")
        systems.cache_clear()
        yield running
        systems.cache_clear()


@pytest.fixture(autouse=True)
def _mended(way: WayToMlflow) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    yield
    way.mend()


def investigation_of(world: ProcessWorld, story: Story) -> Story:
    """The run that a lost test has started."""
    [run] = world.until(lambda: PrefectGateway().runs_with(INVESTIGATE, "decision_id", story.decision_id), "the investigation")
    return replace(story, run_id=run.url.rsplit("/", 1)[-1])


def await_run(world: ProcessWorld, story: Story, state: str) -> None:
    world.until(lambda: world.run_state(story) == state, f"the run to be {state}", SECONDS)


def outcomes(world: ProcessWorld, story: Story) -> list[RecordKind]:
    return [kind for kind in world.kinds(story) if kind is not RecordKind.DOCUMENTED]


def report(world: ProcessWorld, story: Story) -> str:
    name = f"investigations/{story.decision_id}/root_cause.md"
    return world.systems.registry.stored_document(story.test, name).text


def test_a_report_that_mlflow_does_not_take_is_stored_by_a_retry_and_nothing_is_told_twice(
    world: ProcessWorld, way: WayToMlflow
) -> None:
    way.fails, way.breaks = "/root_cause.md", True
    story = world.new_story()
    world.press(story, Choice.CONFIRM)
    investigation = investigation_of(world, story)
    await_run(world, investigation, "Failed")
    assert "MLflow failed while storing" in world.run_message(investigation)
    assert outcomes(world, story) == [RecordKind.DECIDED, RecordKind.BASELINE_KEPT, RecordKind.INVESTIGATED]
    before = Counter(filter(None, world.thread(story)))
    for said in ("did not win", "root-cause report, in Prefect because MLflow does not take it"):
        assert sum(said in line for line in before.elements()) == 1, "cause and report are told all the same"

    way.mend()
    world.retry_in_prefect(investigation, force=True)
    await_run(world, investigation, "Completed")
    assert outcomes(world, story) == [
        RecordKind.DECIDED,
        RecordKind.BASELINE_KEPT,
        RecordKind.INVESTIGATED,
        RecordKind.INVESTIGATED,
    ]
    found = latest_investigation(world.systems.decision_log.records(story.decision_id))
    assert found is not None
    assert "root_cause.md" in found.report, "the newest record leads to MLflow"
    added = Counter(filter(None, world.thread(story))) - before
    parts = ("decision document (baseline kept)", "lifecycle page", "root-cause report")
    assert [len([line for line in added.elements() if part in line]) for part in parts] == [1, 1, 1]
    assert added.total() == len(parts)
    assert report(world, story).startswith(f"# Why {story.test.candidate.name}")


def test_what_mlflow_does_not_tell_of_the_models_is_not_testable_and_the_rest_is(
    world: ProcessWorld, way: WayToMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = world.new_story()
    world.until(lambda: world.systems.outbox.find(message_key(story.decision_id)), "the question")
    for step in ("read_facts", "compare_artifacts"):  # their pauses are the same as those of every step
        monkeypatch.setattr(flow_module, step, getattr(flow_module, step).with_options(retries=0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    way.fails = "model-versions/get"
    summary = investigate_candidate(story.decision_id)

    way.mend()
    found = latest_investigation(world.systems.decision_log.records(story.decision_id))
    assert found is not None
    by_name = {str(one["hypothesis"]): one for one in found.findings}
    assert "features arrive broken at the candidate" in summary[0]
    assert (by_name["serving_skew"]["status"], by_name["serving_skew"]["explained_recall"]) == ("supported", None)
    [untested] = [line for line in summary if line.startswith("Could not be tested: ")]
    for name in ("artifact", "model_changes"):
        assert by_name[name]["status"] == "not_testable"
        assert "MLflow failed while" in str(by_name[name]["said"])
        assert name.replace("_", " ") in untested
    assert "MLflow failed while" in report(world, story).partition("## What could not be tested")[2].partition("\n## ")[0]


def test_what_mlflow_does_not_tell_of_the_baseline_costs_its_own_facts_only(
    world: ProcessWorld, way: WayToMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, client = world.new_story(), MlflowClient()
    world.until(lambda: world.systems.outbox.find(message_key(story.decision_id)), "the question")
    baseline, candidate = story.test.models
    client.log_param(client.get_model_version(candidate.name, candidate.version).run_id, "leaves", 15)
    monkeypatch.setattr(flow_module, "read_facts", flow_module.read_facts.with_options(retries=0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    way.fails = f"model-versions/get?name={baseline.name}"
    investigate_candidate(story.decision_id)

    way.mend()
    text = report(world, story)
    assert "| leaves | not readable | 15 |  |" in text
    assert f"MLflow failed while reading {baseline}" in text.partition("## What could not be tested")[2].partition("\n## ")[0]
