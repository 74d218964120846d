"""The whole product on the embedded stack: real Prefect, MLflow, PostgreSQL, S3 over HTTP; buttons pressed as people press them.

The tests of this module follow one story in order: asked, refused, resumed by hand, confirmed by two at once, promoted; then a
second test is confirmed in the page by a real browser, and `/fraud-rollback` is typed there.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from prefect.context import refresh_global_settings_context
from prometheus_client.parser import text_string_to_metric_families

from deployments.sandbox.demo_person import ANA
from deployments.sandbox.installed_test import InstalledTest, install_test, wait_until_ready
from deployments.sandbox.processes import ROOT, START_SECONDS, free_port
from deployments.sandbox.simulator import simulate_test
from deployments.sandbox.slack import SandboxSlack
from deployments.sandbox.stack import EmbeddedStack
from flows.domain.action_plan import Stage
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import RecordKind, chain_problems
from flows.domain.verdict import VerdictKind
from flows.start_ab_test import start_ab_test
from flows.wiring import Systems
from slackbot.identifiers import Action
from slackbot.publisher import message_key
from tests.slack_world import all_at_once

T = TypeVar("T")
BEN, CHIARA = "U0BEN", "U0CHI"
CHANNEL = "C0FRAUD"
POLICY = 'watch_minutes = 0.05\npromoters = ["U0ANA", "U0CHI"]\nrollbackers = ["U0CHI"]\n'


@dataclass
class Story:
    stack: EmbeddedStack
    slack: SandboxSlack
    systems: Systems
    world: InstalledTest
    run_id: str

    def until(self, ask: Callable[[], T | None], seconds: float = 90.0) -> T:
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < deadline:
            answer = ask()
            if answer:
                return answer
            self.stack.require_alive()
            pause.wait(0.2)
        raise TimeoutError("the story did not go on; logs are in " + str(self.stack.folder))

    def decision(self) -> Decision | None:
        found = self.systems.decision_log.decisions(self.world.test.test_id)
        return found[0] if found and self.systems.outbox.find(message_key(found[0].decision_id)) else None

    def prefect(self, path: str, body: dict[str, object] | None = None) -> httpx.Response:
        url = f"{self.stack.prefect_url}/api/{path}"
        return httpx.post(url, json=body, timeout=20) if body is not None else httpx.get(url, timeout=20)

    def pause_key(self) -> str | None:
        state = self.prefect(f"flow_runs/{self.run_id}").json()["state"]
        return state["state_details"].get("pause_key") if state["type"] == "PAUSED" else None

    def message(self) -> dict[str, object]:
        posted = self.systems.outbox.find(message_key(f"{self.world.test.test_id}-1"))
        assert posted is not None
        return next(message for message in self.slack.messages(CHANNEL) if message["ts"] == posted.ts)

    def scraped(self, name: str) -> list[tuple[dict[str, str], float]]:
        """A metric as `fraud-ab serve` tells it to Prometheus."""
        answer = httpx.get(f"http://127.0.0.1:{self.stack.environment['FRAUD_AB_METRICS_PORT']}/metrics", timeout=10)
        samples = (one for family in text_string_to_metric_families(answer.text) for one in family.samples)
        return [(sample.labels, sample.value) for sample in samples if sample.name == name]

    def traffic(self) -> dict[str, int]:
        return dict(self.systems.serving.read().traffic)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("policy")
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    patch.setenv("FRAUD_AB_POLICY_FILE", str(folder / "policy.toml"))
    stack = EmbeddedStack()
    try:
        stack.start()
        stack.environment["FRAUD_AB_METRICS_PORT"] = str(free_port())
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        refresh_global_settings_context()  # Prefect reads the environment once per process, and another test may have come first
        stack.start_product()
        assert stack.slack is not None
        from flows.settings import Settings, load_settings

        systems = Systems(load_settings(Settings))
        world = install_test(simulate_test("win", 7, cache=ROOT / ".cache" / "simulator"), systems, stack)
        world.start_live_traffic()
        yield Story(stack, stack.slack, systems, world, world.start_flow())
        world.stop()
    finally:
        stack.stop()
        patch.undo()
        refresh_global_settings_context()


def test_the_verdict_is_asked_once_and_changes_nothing_yet(story: Story) -> None:
    decision = story.until(story.decision, 120)
    assert decision.request.verdict.kind is VerdictKind.PROMOTE
    assert decision.is_pending
    assert len([message for message in story.slack.messages(CHANNEL) if Action.CONFIRM in str(message)]) == 1
    assert story.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


def test_prometheus_is_told_who_is_in_charge_and_what_the_verdict_says(story: Story) -> None:
    [(labels, _)] = story.scraped("fraud_ab_model_in_charge")
    assert (labels["model_name"], labels["arm"]) == (story.world.test.baseline.name, "baseline")
    decision = story.decision()
    assert decision is not None
    told = {labels["arm"]: value for labels, value in story.scraped("recall_at_production")}
    assert told["candidate"] == decision.request.verdict.metrics.candidate.recall


def test_an_unauthorised_press_is_refused_and_changes_nothing(story: Story) -> None:
    assert story.slack.press(BEN, Action.CONFIRM).acked
    refusal = story.slack.wait_for(lambda: story.slack.ephemerals(BEN))[-1]
    assert "nothing has changed" in refusal["text"].lower()
    assert story.slack.open_view(BEN) is None
    decision = story.decision()
    assert decision is not None
    assert decision.is_pending
    assert story.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


def test_a_resume_from_the_prefect_ui_without_a_decision_suspends_again_under_a_fresh_key(story: Story) -> None:
    first_key = story.until(story.pause_key)
    answer = {"run_input": {"decision_id": f"{story.world.test.test_id}-1"}}
    # Prefect answers 503 while its SQLite is locked; a person presses again
    story.until(lambda: story.prefect(f"flow_runs/{story.run_id}/resume", answer).is_success)
    second_key = story.until(lambda: key if (key := story.pause_key()) and key != first_key else None)
    assert second_key.startswith("decision-1-")
    decision = story.decision()
    assert decision is not None
    assert decision.is_pending
    assert len([message for message in story.slack.messages(CHANNEL) if Action.CONFIRM in str(message)]) == 1
    assert story.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


def test_of_two_simultaneous_answers_one_counts_and_the_other_is_told_who_decided(story: Story) -> None:
    story.stack.child("prefect").end()  # no answer may depend on it
    for person in (ANA, CHIARA):
        assert story.slack.press(person, Action.CONFIRM).acked
        story.slack.wait_for(lambda person=person: story.slack.open_view(person))
    outcomes = all_at_once(story.slack.submit, (ANA, CHIARA))
    story.slack.wait_for(lambda: Action.CONFIRM not in str(story.message()), seconds=30)
    decision = story.decision()
    assert decision is not None
    assert decision.claim is not None
    assert decision.claim.choice is Choice.CONFIRM
    winner = decision.claim.actor.id
    loser = CHIARA if winner == ANA else ANA
    assert all(outcome.acked for outcome in outcomes)
    # beaten before its submission was looked at: told in the modal; beaten afterwards: told in the channel
    told = story.slack.wait_for(
        lambda: [one for one in map(str, [*story.slack.ephemerals(loser), story.slack.open_view(loser)]) if f"<@{winner}>" in one]
    )
    assert len(told) == 1
    assert story.slack.open_view(winner) is None
    if story.slack.open_view(loser) is not None:
        story.slack.close_modal(loser)
    decided = [record for record in story.systems.decision_log.records(decision.decision_id) if record.kind is RecordKind.DECIDED]
    assert len(decided) == 1


def test_approved_but_the_run_never_continued(story: Story) -> None:
    """People complain of that in such tools (Archon#2529). Here Prefect was away when it was approved, and the run goes on."""
    decision = story.decision()
    assert decision is not None
    assert (decision.is_pending, decision.consumed_at) == (False, None)
    server = story.stack.child("prefect")
    server.start_again()
    server.wait_until(f"{story.stack.prefect_url}/api/health", seconds=START_SECONDS)
    assert story.until(story.world.flow_ended, 180) == "Completed"
    assert story.systems.decision_log.read(decision.decision_id).consumed_at is not None


def test_the_confirmed_candidate_takes_all_traffic_and_everything_is_written_down(story: Story) -> None:
    systems, test = story.systems, story.world.test
    assert story.traffic() == {"fraud-v1": 0, "fraud-v2": 100}
    state = systems.serving.read()
    assert state.operation is None
    assert state.outcome is not None
    assert ":accepted@" in state.outcome
    assert systems.registry.entry(test.candidate).stage is Stage.PRODUCTION
    assert systems.registry.entry(test.baseline).stage is Stage.ARCHIVED
    assert systems.archive.verify(test.baseline).files > 0
    kinds = [record.kind for record in systems.decision_log.records(f"{test.test_id}-1")]
    assert kinds == [RecordKind.DECIDED, RecordKind.PROMOTED]
    assert chain_problems([*systems.decision_log.records()]) == ()
    page = Path(systems.settings.lifecycle_repository) / "docs" / "model_lifecycle.md"
    assert "Promoted (Production)" in page.read_text(encoding="utf-8")
    assert [labels["model_name"] for labels, _ in story.scraped("fraud_ab_model_in_charge")] == [test.candidate.name]
    assert story.scraped("fraud_ab_undelivered_decision_age_seconds") == [({}, 0)]


def test_every_effect_happened_once_and_shows_in_thread_and_prefect(story: Story) -> None:
    replies = story.slack.thread(str(story.message()["ts"]))
    [chart] = [file for reply in replies for file in reply.get("files") or []]
    assert chart["alt_txt"].startswith("Recall: fraud_v1")
    lines = [reply["text"] for reply in replies if reply["text"]]
    assert len(lines) == len(set(lines))
    assert len(lines) >= 5
    runs = story.prefect("task_runs/filter", {"flow_runs": {"id": {"any_": [story.run_id]}}, "limit": 200}).json()
    ran = [run["name"].rsplit("-", 1)[0] for run in runs if run["state_type"] == "COMPLETED" and run["state_name"] != "Cached"]
    ran = [name for name in ran if name != "read the answer"]  # reading is repeated on purpose, at each wake
    assert len(ran) == len(set(ran)), f"a step ran twice: {sorted(ran)}"
    artifacts = story.prefect("artifacts/filter", {"flow_runs": {"id": {"any_": [story.run_id]}}, "limit": 200}).json()
    assert any("fraud-v2 100 %" in str(artifact["data"]) for artifact in artifacts)


def test_thread_lines_echoed_to_the_channel(story: Story) -> None:
    """People complain of that in such tools (sentry#97472): only failures and rollbacks are for everybody."""
    shown = [message for message in story.slack.messages(CHANNEL) if message.get("subtype") == "thread_broadcast"]
    assert shown == []
    assert len(story.slack.thread(str(story.message()["ts"]))) >= 5


def test_a_stale_press_after_the_decision_does_nothing(story: Story) -> None:
    """The buttons are gone from the message; a press that was on its way is answered with who decided."""
    assert Action.CONFIRM not in str(story.message())
    records = len(list(story.systems.decision_log.records()))
    for person in (ANA, CHIARA):
        if story.slack.open_view(person) is not None:
            story.slack.submit(person)
    assert len(list(story.systems.decision_log.records())) == records
    assert story.traffic() == {"fraud-v1": 0, "fraud-v2": 100}


def test_fraud_rollback_now_puts_the_baseline_back_and_the_registry_follows(story: Story) -> None:
    assert story.slack.slash(CHIARA, "/fraud-rollback now too many false alarms").acked
    story.until(lambda: story.traffic() == {"fraud-v1": 100, "fraud-v2": 0}, 10)
    test, registry = story.world.test, story.systems.registry
    story.until(lambda: registry.entry(test.baseline).stage is Stage.PRODUCTION, 60)
    story.until(lambda: registry.entry(test.candidate).stage is not Stage.PRODUCTION, 30)
    story.until(lambda: not story.systems.serving.read().unrecorded, 30)
    kinds = [record.kind for record in story.systems.decision_log.records()]
    assert kinds.count(RecordKind.EMERGENCY_REVERT) == 1


def open_second_test(story: Story) -> None:
    """Another test of the same two models on the same feedback, from the baseline in charge."""
    for model, stage in zip(story.world.test.models, (Stage.PRODUCTION, Stage.STAGING), strict=True):
        story.systems.registry.set_stage(model, stage)
    story.world.test = replace(story.world.test, test_id=f"second-{uuid.uuid4().hex[:6]}")
    start_ab_test(story.systems.serving, story.world.test, story.systems.policy)
    wait_until_ready(story.systems.serving)


def test_a_person_confirms_in_the_page_and_prefect_shows_the_run(story: Story, chromium: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    open_second_test(story)
    story.run_id = story.world.start_flow()
    decision = story.until(story.decision, 90)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1300, "height": 1100})  # Prefect lists only what is in view
        page.goto(story.slack.url)
        buttons = page.locator(f'[data-action-id="{Action.CONFIRM}"]')
        expect(buttons).to_have_count(1, timeout=10_000)
        buttons.click()
        page.locator("[data-modal-submit]").click()
        expect(buttons).to_have_count(0, timeout=20_000)
        decided = page.locator("article", has_text="Promote the candidate")
        expect(decided.filter(has_text="Ana Costa").first).to_be_visible(timeout=20_000)
        story.until(story.world.flow_ended, 120)
        assert story.traffic() == {"fraud-v1": 0, "fraud-v2": 100}
        page.goto(f"{story.stack.prefect_url}/runs/flow-run/{story.run_id}")
        expect(page.get_by_text(story.world.test.test_id).first).to_be_visible(timeout=20_000)
        expect(page.get_by_text("Shift traffic").first).to_be_visible(timeout=20_000)
        page.get_by_text("Artifacts", exact=True).last.click()
        expect(page.get_by_text(f"{decision.decision_id}-traffic-candidate-100").first).to_be_visible(timeout=20_000)
        browser.close()
    claim = story.systems.decision_log.read(decision.decision_id).claim
    assert claim is not None
    assert claim.actor.id == ANA
