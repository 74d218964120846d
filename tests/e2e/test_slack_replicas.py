"""Several processes of the app, restarts, deliveries that come twice: one decision, one message, no press without an answer."""

from __future__ import annotations

import json
import random
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployments.sandbox.processes import Child, free_port
from deployments.sandbox.slack import NothingThere, SandboxUser
from deployments.sandbox.slack.delivery import Outcome
from deployments.sandbox.slack.people import DEFAULT_USERS
from flows.domain.decision import Choice, Decision, Person
from flows.domain.decision_record import RecordKind
from slackbot.identifiers import Action
from tests.slack_world import CHANNEL, SlackSite, all_at_once, text_of, wait_until

ANA, BEN, CHI = "U0ANA", "U0BEN", "U0CHI"
TEAM = [SandboxUser(f"U0TEAM{number}", f"team{number}", f"Team {number}") for number in range(100)]
POLICY = f'promoters = {json.dumps([user.id for user in TEAM])}\nrollbackers = ["{CHI}"]\n'
RESTARTS = 20
SECONDS = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SlackSite]:
    with SlackSite(tmp_path, POLICY, users=(*DEFAULT_USERS, *TEAM)) as site:
        yield site


def connected(site: SlackSite, count: int) -> None:
    wait_until(lambda: site.slack.sockets.count == count, f"{count} connections")


def posted(site: SlackSite) -> Decision:
    decision = site.ask()
    wait_until(lambda: site.posted(decision), "the question in Slack")
    return decision


def is_redrawn(site: SlackSite, decision: Decision) -> bool:
    """Whether its one message has lost its buttons."""
    [message] = site.posted(decision)
    return not any(block["type"] == "actions" for block in message["blocks"])


def test_three_apps_post_once_and_of_thirty_who_press_one_decides(site: SlackSite) -> None:
    decision = site.ask()  # before any of them: each finds it unposted when it starts
    bots = [site.start_bot() for _ in range(3)]
    connected(site, 3)
    wait_until(lambda: site.posted(decision), "the question in Slack")
    users = [user.id for user in TEAM[:30]]
    with ThreadPoolExecutor(1) as pool:
        pressing = pool.submit(all_at_once, lambda user: site.slack.press(user, Action.CONFIRM), users)
        bots[0].lose()  # in the middle of it
        assert all(outcome.acked for outcome in pressing.result())  # what it left lying was delivered to the others
    connected(site, 2)
    for user in users:
        if not site.slack.open_view(user):  # acknowledged by the one that died before it could open anything: once more
            assert site.slack.press(user, Action.CONFIRM).acked
    site.slack.wait_for(lambda: all(site.slack.open_view(user) for user in users), seconds=SECONDS)
    assert all(outcome.acked for outcome in all_at_once(site.slack.submit, users))
    wait_until(lambda: sum(site.told_who_decided(user, decision) for user in users) == len(users) - 1, "29 who are told")
    wait_until(lambda: is_redrawn(site, decision), "the message without buttons")
    assert [record.kind for record in site.log.records(decision.decision_id)] == [RecordKind.DECIDED]
    assert len(site.slack.messages(CHANNEL)) == 1


def test_a_hundred_at_once_make_one_claim_and_ninety_nine_are_told(site: SlackSite) -> None:
    site.start_bot()
    decision, users = posted(site), [user.id for user in TEAM]
    connected(site, 1)
    assert all(outcome.acked for outcome in all_at_once(lambda user: site.slack.press(user, Action.CONFIRM), users))
    site.let_everybody_open(users, Action.CONFIRM)
    assert all(outcome.acked for outcome in all_at_once(site.slack.submit, users))
    wait_until(lambda: sum(site.told_who_decided(user, decision) for user in users) == len(users) - 1, "99 who are told")
    wait_until(lambda: is_redrawn(site, decision), "the message without buttons")
    claim = site.log.read(decision.decision_id).claim
    assert claim is not None
    assert not site.told_who_decided(claim.actor.id, decision)
    assert [record.kind for record in site.log.records(decision.decision_id)] == [RecordKind.DECIDED]
    assert len(site.slack.messages(CHANNEL)) == 1


def test_killed_and_started_twenty_times_during_a_decision_nothing_is_lost_or_done_twice(site: SlackSite) -> None:
    """People also press while nobody is there; whoever is not answered is told so by Slack, and presses again."""
    decision, moments = site.ask(), random.Random(1)
    bot = site.start_bot()
    wait_until(lambda: site.posted(decision), "the question in Slack")
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(4) as pool:
        for number in range(RESTARTS):
            user, pause = TEAM[number].id, threading.Event()

            def is_answered(user: str = user) -> bool:
                return bool(site.slack.open_view(user) or site.slack.ephemerals(user))

            connected(site, 1)
            try:
                assert site.slack.press(user, Action.CONFIRM).acked  # the button of before the restart
            except NothingThere:
                assert site.slack.slash(user, "/fraud-status").acked  # decided, and the buttons are gone
            site.slack.wait_for(is_answered, seconds=SECONDS)
            racing = [pool.submit(site.slack.slash, BEN, "/fraud-rollback help") for _ in range(3)]
            if number >= RESTARTS // 2 and site.slack.open_view(user):
                racing.append(pool.submit(site.slack.submit, user))
            pause.wait(moments.uniform(0, 0.05))
            bot.lose()
            outcomes += [one.result() for one in racing]
            outcomes.append(site.slack.slash(BEN, "/fraud-rollback help"))
            bot.start_again()
    connected(site, 1)
    assert {outcome.error for outcome in outcomes} <= {None, "operation_timeout", "dispatch_failed"}
    assert {outcome.acked for outcome in outcomes} == {True, False}  # both have happened
    last = TEAM[-1].id
    if site.log.read(decision.decision_id).is_pending:  # its submission met no app: the message has its buttons, so press again
        assert site.slack.press(last, Action.CONFIRM).acked
        site.slack.wait_for(lambda: site.slack.open_view(last), seconds=SECONDS)
        assert site.slack.submit(last).acked
    wait_until(lambda: is_redrawn(site, decision), "the message without buttons")
    assert [record.kind for record in site.log.records(decision.decision_id)] == [RecordKind.DECIDED]
    assert len(site.slack.messages(CHANNEL)) == 1


def test_an_answer_whose_app_died_before_it_could_show_it_is_shown_by_the_next(site: SlackSite) -> None:
    """Prefect does not take the answer, so no flow redraws the message; who reads it must not see buttons."""
    bot, decision = site.start_bot(), posted(site)
    bot.lose()
    digest, ana = decision.request.verdict.evidence_digest, Person(ANA, "Ana")
    site.log.claim(decision.decision_id, evidence_digest=digest, choice=Choice.CONFIRM, actor=ana, reason="recall is better")
    assert not is_redrawn(site, decision)
    bot.start_again()
    wait_until(lambda: is_redrawn(site, decision), "the message without buttons")


@pytest.mark.parametrize("way_in", ["socket mode", "signed http"])
def test_told_to_stop_it_finishes_whatever_it_has_acknowledged(site: SlackSite, way_in: str) -> None:
    if way_in == "socket mode":
        bot = site.start_bot()
        connected(site, 1)
    else:
        bot = site.start_http_bot()
    posted(site)
    enough = threading.Semaphore(0)

    def press_until_it_is_gone(_: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while not outcomes or outcomes[-1].acked:
            outcomes.append(site.slack.press(BEN, Action.CONFIRM))
            enough.release()
        return outcomes

    with ThreadPoolExecutor(16) as pool:
        pressing = [pool.submit(press_until_it_is_gone, number) for number in range(16)]
        for _ in range(60):
            assert enough.acquire(timeout=SECONDS)
        bot.process.send_signal(signal.SIGTERM)
        outcomes = [outcome for one in pressing for outcome in one.result()]
    assert bot.process.wait(SECONDS) == 0
    acknowledged = sum(outcome.acked for outcome in outcomes)
    assert acknowledged >= 60
    refused = [one for one in site.slack.ephemerals(BEN) if "You cannot answer the verdict" in one["text"]]
    assert len(refused) == acknowledged  # each of them was told
    assert "Traceback" not in bot.log.read_text()


class Tap:
    """Keeps what Slack delivers, to deliver it again as Slack or somebody who has captured it would."""

    def __init__(self, site: SlackSite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: list[tuple[Any, Any]] = []
        self._deliver = site.slack._deliveries.deliver
        monkeypatch.setattr(site.slack._deliveries, "deliver", self._keep)

    def _keep(self, kind: Any, payload: Any) -> Outcome:
        self.kept.append((kind, payload))
        return self._deliver(kind, payload)

    def again(self) -> Outcome:
        return self._deliver(*self.kept[-1])


@pytest.fixture
def two_apps(site: SlackSite) -> list[tuple[Child, str, int]]:
    """Each with its address and the port of its metrics; Slack calls the first."""
    found: list[tuple[Child, str, int]] = []
    for _ in range(2):
        port = free_port()
        bot = site.start_http_bot(FRAUD_AB_BOT_METRICS_PORT=str(port))
        found.append((bot, site.slack.request_url or "", port))
    site.slack.request_url = found[0][1]
    return found


def repeated(port: int, kind: str) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return f'fraud_ab_bot_presses_total{{kind="{kind}",outcome="repeated"}} 1.0' in reply.read().decode()


def test_a_rollback_that_is_delivered_again_rolls_nothing_back(
    site: SlackSite, two_apps: list[tuple[Child, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after its record was made and another decision has put the candidate in charge, and by an app that never saw it."""
    (_, _, metrics), (_, other, _) = two_apps
    tap = Tap(site, monkeypatch)
    assert site.slack.slash(CHI, "/fraud-rollback now losses").acked
    last_word = "Still to be done"  # Prefect is down
    site.slack.wait_for(lambda: any(last_word in text_of(one) for one in site.slack.ephemerals(CHI)), seconds=SECONDS)
    assert site.traffic() == {"fraud-v1": 100, "fraud-v2": 0}
    told = len(site.slack.ephemerals(CHI))
    site.change(
        {"op": "remove", "path": "/metadata/annotations/fraud-ab~1unrecorded"},
        {"op": "replace", "path": "/spec/predictors/0/traffic", "value": 0},
        {"op": "replace", "path": "/spec/predictors/1/traffic", "value": 100},
    )
    before = site.deployment()["metadata"]["resourceVersion"]
    assert tap.again().acked
    wait_until(lambda: repeated(metrics, "/fraud-rollback"), "the repetition counted")
    assert len(site.slack.ephemerals(CHI)) == told
    site.slack.request_url = other
    assert tap.again().acked
    site.slack.wait_for(lambda: len(site.slack.ephemerals(CHI)) > told, seconds=SECONDS)
    assert "Nothing was reverted" in text_of(site.slack.ephemerals(CHI)[-1])
    assert "was carried out" in text_of(site.slack.ephemerals(CHI)[-1])
    assert site.deployment()["metadata"]["resourceVersion"] == before
    assert site.slack.slash(CHI, "/fraud-rollback now").acked  # a new one counts
    wait_until(lambda: site.traffic() == {"fraud-v1": 100, "fraud-v2": 0}, "the second revert")


def test_a_submission_that_is_delivered_again_is_answered_the_same_way(
    site: SlackSite, two_apps: list[tuple[Child, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decision, winner, late = posted(site), TEAM[0].id, TEAM[1].id
    for user in (winner, late):
        assert site.slack.press(user, Action.CONFIRM).acked
        site.slack.wait_for(lambda user=user: site.slack.open_view(user), seconds=SECONDS)
    tap = Tap(site, monkeypatch)
    assert site.slack.submit(winner).acked
    wait_until(lambda: is_redrawn(site, decision), "the message without buttons")
    again = tap.again()
    assert (again.acked, again.answer) == (True, None)  # the modal closes: no error is shown for what was done
    site.slack.submit(late)
    first = tap.kept[-1]
    assert "decided before" in str(tap.again().answer)
    site.slack.request_url = two_apps[1][1]
    assert "decided before" in str(tap.again().answer)
    assert tap.kept[-1] is first
    assert [record.kind for record in site.log.records(decision.decision_id)] == [RecordKind.DECIDED]
    assert site.slack.ephemerals(winner) == []
