"""The app while something around it fails: Kubernetes, the database, Slack and its replies, a Slack that can do less."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deployments.sandbox.faults import Fault
from deployments.sandbox.kubernetes import SandboxKubernetes
from flows.domain.decision import Choice
from flows.domain.errors import OutsideSystemError
from flows.domain.verdict import VerdictKind
from slackbot.identifiers import Action
from slackbot.late_messages import LateMessages
from slackbot.messages.block_kit import section
from tests.e2e.app_in_process import ANA, BEN, CHI, ONCE, World, claim_directly, confirm, serving_app
from tests.slack_world import CHANNEL, WHERE, deploy, question

pytest_plugins = ("tests.e2e.app_in_process",)


@pytest.fixture
def broken_database(world: World) -> Iterator[Callable[[], None]]:
    """Call it to lose the table of decisions until the test ends."""

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(world.database)) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    yield lambda: rename("decisions", "elsewhere")
    rename("elsewhere", "decisions")


@ONCE
def test_kubernetes_down_is_said_with_what_to_do_by_hand(world: World) -> None:
    world.kubernetes.faults.plan(Fault.SERVER_ERROR, times=1000)
    started = time.monotonic()
    assert world.slack.slash(CHI, "/fraud-rollback now").acked
    world.told(CHI, "Kubernetes is slow to answer", "kubectl -n models edit sdep fraud-predictor")
    assert time.monotonic() - started < 5
    world.told(CHI, "Kubernetes did not do it", "fraud-ab rollback --reason")
    world.kubernetes.faults.reset()
    assert world.traffic() == {"fraud-v1": 80, "fraud-v2": 20}


@ONCE
def test_without_the_database_a_forced_rollback_still_moves_the_traffic(
    world: World, broken_database: Callable[[], None]
) -> None:
    world.ask()
    world.slack.press(CHI, Action.FORCE_ROLLBACK)
    world.wait(lambda: world.slack.open_view(CHI))
    broken_database()
    assert world.slack.submit(CHI).acked
    world.told(CHI, "Rolled back: fraud-v1 gets all traffic")
    world.told(CHI, "Still to be done", "is not answered")
    assert world.traffic() == {"fraud-v1": 100, "fraud-v2": 0}


def test_without_the_database_a_confirmation_says_that_it_did_not_work(world: World, broken_database: Callable[[], None]) -> None:
    world.ask()
    broken_database()
    assert world.slack.press(ANA, Action.CONFIRM).acked
    assert "Reference" in world.told(ANA, "That did not work", "the decision log failed")


@ONCE
def test_an_answer_reaches_a_person_where_the_app_is_not(world: World) -> None:
    world.slack.faults.plan(Fault.SERVER_ERROR, times=100, of="chat.postEphemeral")
    assert world.slack.slash(BEN, "/fraud-rollback help").acked
    world.told(BEN, "opens a form")


@ONCE
def test_a_lost_reply_posts_no_second_message(world: World) -> None:
    request = question(VerdictKind.PROMOTE, f"ab-{uuid.uuid4().hex[:8]}")
    decision = world.bot.decision_log.open(request)
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.publish_decision(decision.decision_id)
    first = world.bot.publisher.publish_decision(decision.decision_id)
    assert world.bot.publisher.publish_decision(decision.decision_id) == first
    assert len(world.slack.messages(CHANNEL)) == 1
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.thread_line(decision.decision_id, "step", "archived")
    for _ in range(2):
        world.bot.publisher.thread_line(decision.decision_id, "step", "archived")
    assert [one["text"] for one in world.slack.thread(first.ts)] == ["archived"]
    assert len(world.slack.messages(CHANNEL)) == 1  # not echoed to the channel


@ONCE
def test_a_picture_is_uploaded_once_below_the_message_also_after_a_lost_reply(world: World) -> None:
    decision = world.ask()
    world.slack.faults.plan(Fault.LOST_AFTER, of="files.completeUploadExternal")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.thread_picture(decision.decision_id, "chart", b"a picture", "recall by day")
    for _ in range(2):
        posted = world.bot.publisher.thread_picture(decision.decision_id, "chart", b"a picture", "recall by day")
    [line] = world.slack.thread(world.message()["ts"])
    assert [(file["id"], file["alt_txt"]) for file in line["files"]] == [(posted.ts, "recall by day")]
    assert len(world.slack.messages(CHANNEL)) == 1


@ONCE
def test_a_summary_in_another_channel_whose_answer_was_lost_is_found_there_and_not_posted_again(world: World) -> None:
    world.slack.faults.plan(Fault.LOST_AFTER, of="chat.postMessage")
    with pytest.raises(OutsideSystemError):
        world.bot.publisher.announce("summary-2", "a better model", channel="C0BUSINESS")
    for _ in range(2):
        posted = world.bot.publisher.announce("summary-2", "a better model", channel="C0BUSINESS")
    assert posted.channel == "C0BUSINESS"
    assert [one["ts"] for one in world.slack.messages("C0BUSINESS") if one["text"] == "a better model"] == [posted.ts]
    assert world.slack.messages(CHANNEL) == []


@ONCE
def test_an_outage_of_slack_delays_messages_and_loses_none(world: World) -> None:
    decision, publisher = world.ask(), world.bot.publisher
    question_ts = str(world.message()["ts"])
    said: list[Callable[[], object]] = [
        lambda: publisher.thread_line(decision.decision_id, "shifted", "traffic is shifted"),
        lambda: publisher.thread_picture(decision.decision_id, "chart", b"png", "recall by day"),
        lambda: publisher.thread_line(decision.decision_id, "failed", "it failed", also_to_channel=True),
        lambda: publisher.announce("revert-1", "rolled back", [section("rolled *back*")]),
        lambda: publisher.announce("summary-1", "the model stays", channel="C0BUSINESS"),
        lambda: publisher.publish_decision(decision.decision_id),
    ]
    claim_directly(world, decision, Choice.FORCE_ROLLBACK)
    for method in ("chat.postMessage", "files.getUploadURLExternal", "chat.update"):
        world.slack.faults.plan(Fault.SERVER_ERROR, times=1000, of=method)
    for say in said:
        with pytest.raises(OutsideSystemError, match="Slack"):
            say()
    late = LateMessages(world.bot.decision_log, publisher)
    late.check_once()
    assert "kept messages" in late.troubles
    world.slack.faults.reset()
    for _ in range(2):
        late.check_once()
        thread = world.slack.thread(question_ts)
        lines = [line["text"].partition(" (Said late")[0] for line in thread if line["text"]]
        assert lines == ["traffic is shifted", "it failed"]
        assert [file["alt_txt"] for line in thread for file in line.get("files") or ()] == ["recall by day"]
        [announced] = [one for one in world.slack.messages(CHANNEL) if one["text"].startswith("rolled back")]
        assert "Said late, Slack was away" in str(announced["blocks"])
        [summary] = world.slack.messages("C0BUSINESS")
        assert summary["text"].startswith("the model stays (Said late")
        [redrawn] = [one for one in world.slack.messages(CHANNEL) if one["ts"] == question_ts]
        assert "actions" not in str(redrawn["blocks"])
    assert decision.decision_id not in str(late.troubles)


@pytest.mark.parametrize("is_http", [False, True])
def test_a_compatible_server_without_files_and_user_groups(
    kubernetes: tuple[SandboxKubernetes, Path], tmp_path: Path, *, is_http: bool
) -> None:
    """The message goes out without its chart, and of a group whose members nobody tells nobody may promote."""
    policy = 'promoters = ["U0ANA", "S0ONCALL"]\nrollbackers = ["S0ONCALL", "U0BEN"]\n'
    with serving_app(kubernetes, tmp_path, is_http=is_http, policy=policy, lacking=("files.", "usergroups.")) as world:
        deploy(world.api)
        try:
            decision = world.ask()
            with pytest.raises(OutsideSystemError, match="unknown_method"):
                world.bot.publisher.thread_picture(decision.decision_id, "chart", b"png", "in words")
            assert world.slack.press(CHI, Action.CONFIRM).acked
            world.told(CHI, "Slack did not tell who is in <!subteam^S0ONCALL>", "Nothing has changed")
            confirm(world, ANA)
            assert world.answered(decision).claim is not None
            assert world.slack.slash(BEN, "/fraud-rollback now wrong alerts").acked
            world.told(BEN, "fraud-v1 100 %")
        finally:
            world.api.delete_namespaced_custom_object(*WHERE, "fraud-predictor")
