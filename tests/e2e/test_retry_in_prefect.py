"""The Retry button of Prefect's page after a promotion that failed: what was decided goes on, and nobody is asked again.

The whole product runs as real processes on the embedded stack; the button is the call that Prefect's page makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from benchmarks.process_checks import broken_invariants
from benchmarks.process_world import ProcessWorld, Story, process_world
from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind
from slackbot.identifiers import Action
from slackbot.publisher import message_key

pytestmark = pytest.mark.timeout(600)  # a dozen processes start one after another

CHANNEL = "C0FRAUD"
SLOW_MS = 400.0
SECONDS = 180.0


@pytest.fixture(scope="module")
def world() -> Iterator[ProcessWorld]:
    with process_world() as running:
        yield running


def await_run(world: ProcessWorld, story: Story, state: str) -> None:
    world.until(lambda: world.run_state(story) == state, f"the run to be {state}", SECONDS)


def questions(world: ProcessWorld, story: Story) -> int:
    """Messages of this test that are, or were, a question."""
    payloads = [(message.get("metadata") or {}).get("event_payload") or {} for message in world.slack.messages(CHANNEL)]
    question = re.compile(re.escape(message_key(story.test.test_id)) + r"-\d+")
    return sum(question.fullmatch(str(payload.get("key"))) is not None for payload in payloads)


def said(world: ProcessWorld, story: Story, words: str) -> str:
    """What the channel was told about this test's run, the first time with these words."""
    texts = [str(message["text"]) for message in world.slack.messages(CHANNEL)]
    return next((text for text in texts if story.test.test_id in text and words in text), "")


def test_a_promotion_that_could_not_begin_goes_on_after_a_retry_without_asking_again(world: ProcessWorld) -> None:
    artifact = next((world.stack.folder / "mlflow-artifacts").rglob("MLmodel"))
    broken = artifact.rename(artifact.with_suffix(".broken"))
    story = world.new_story()
    world.press(story, Choice.CONFIRM)
    await_run(world, story, "Failed")
    assert "nothing was changed" in " ".join(world.thread(story))
    assert world.state().traffic == {"fraud-v1": 80, "fraud-v2": 20}
    assert world.state().operation is None
    assert "tried again by itself" in world.slack.wait_for(lambda: said(world, story, "has failed"))
    # the first time that is at once, and then after pauses, for which a person who has mended it need not wait
    world.until(lambda: world.executions(story) > 1 and world.run_state(story) == "Failed", "the run to fail again", SECONDS)
    broken.rename(artifact)
    world.retry_in_prefect(story, force=False)
    await_run(world, story, "Completed")
    assert world.kinds(story) == [RecordKind.DECIDED, RecordKind.PROMOTED]
    assert questions(world, story) == 1
    assert broken_invariants(world, story) == []


def outcomes(world: ProcessWorld, story: Story) -> list[RecordKind]:
    """Without the investigation, which is done beside it."""
    return [kind for kind in world.kinds(story) if kind is not RecordKind.INVESTIGATED]


def test_a_promotion_that_was_undone_is_tried_again_under_the_same_decision_while_that_still_holds(world: ProcessWorld) -> None:
    story = world.new_story()
    world.slow_down(SLOW_MS)
    world.press(story, Choice.CONFIRM)
    await_run(world, story, "Failed")
    assert "undone" in world.run_message(story)
    assert "above 100 ms" in world.run_message(story)
    assert "nothing more is done until it is retried" in world.slack.wait_for(lambda: said(world, story, "has failed"))
    assert world.state().serves_alone("fraud-v1")
    assert broken_invariants(world, story) == []

    world.slow_down(0)
    world.set_watch(0.01)  # another policy than the one that was decided under
    world.retry_in_prefect(story, force=True)
    world.until(lambda: "the policy was changed since" in world.run_message(story), "the refusal to try again", SECONDS)
    assert outcomes(world, story) == [RecordKind.DECIDED, RecordKind.COMPENSATED]
    assert world.state().serves_alone("fraud-v1")

    world.set_watch(0)
    world.retry_in_prefect(story, force=True)
    await_run(world, story, "Completed")
    assert outcomes(world, story) == [RecordKind.DECIDED, RecordKind.COMPENSATED, RecordKind.PROMOTED]
    assert questions(world, story) == 1
    assert Action.CONFIRM not in str(world.slack.messages(CHANNEL)[-1])
    assert broken_invariants(world, story) == []
