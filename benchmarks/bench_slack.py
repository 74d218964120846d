"""How soon the app acknowledges what people press: `make bench-slack` (QUICK=1: shorter).

The app is `fraud-ab bot` over Socket Mode in a process of its own; Slack's stand-in takes the time from sending a press until its
acknowledgement has come back. First people press *Confirm…* at a steady rate, whether or not earlier presses are answered. Then a
hundred press at once, and submit at once, on one decision.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from deployments.sandbox.processes import free_port
from deployments.sandbox.slack import SandboxUser
from deployments.sandbox.slack.people import DEFAULT_USERS
from slackbot.identifiers import Action
from tests.slack_world import SlackSite, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.sandbox.slack.delivery import Outcome
    from flows.domain.decision import Decision

CROWD = [SandboxUser(f"U0CROWD{number}", f"person{number}", f"Person {number}") for number in range(100)]
POLICY = f"promoters = {json.dumps([user.id for user in CROWD])}\n"
RATES = (1, 10, 50, 100)
SECONDS, QUICK_SECONDS = 20.0, 2.0
ANSWER_SECONDS = 60.0


def at_rate(press: Callable[[str], Outcome], per_second: int, seconds: float) -> list[Outcome]:
    """Presses at fixed moments, each by the next person; none waits for the answer to another one."""
    count, pause, begin = max(round(per_second * seconds), 2), threading.Event(), time.monotonic()

    def at_its_moment(number: int) -> Outcome:
        pause.wait(max(begin + number / per_second - time.monotonic(), 0))
        return press(CROWD[number % len(CROWD)].id)

    with ThreadPoolExecutor(len(CROWD)) as pool:
        return list(pool.map(at_its_moment, range(count)))


def at_once(act: Callable[[str], Outcome]) -> list[Outcome]:
    """Everybody at the same moment."""
    barrier = threading.Barrier(len(CROWD))

    def together(user: str) -> Outcome:
        barrier.wait()
        return act(user)

    with ThreadPoolExecutor(len(CROWD)) as pool:
        return list(pool.map(together, [user.id for user in CROWD]))


def told_who_won(site: SlackSite, decision: Decision) -> int:
    """How many people have been told who decided; the winner needs no word."""
    return sum(site.told_who_decided(user.id, decision) for user in CROWD)


def percentile(outcomes: list[Outcome], share: float) -> float:
    """Of the acknowledged ones, in ms; what was not acknowledged is counted apart."""
    times = sorted(one.ack_ms for one in outcomes if one.acked)
    return round(statistics.quantiles(times, n=1000, method="inclusive")[round(share * 1000) - 1], 1)


def presses_done(port: int) -> Counter[str]:
    """How many presses the app has finished with, by what became of them, as it tells Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_SECONDS) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    done: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples if sample.name == "fraud_ab_bot_presses_total"):
        done[sample.labels["outcome"]] += round(sample.value)
    return done


@dataclass(frozen=True)
class Measured:
    """Acknowledgements by what was done; `too_late`: who was told that the modal could not be opened within three seconds."""

    outcomes: dict[str, list[Outcome]]
    too_late: int
    claims: int
    told: int


def measure(site: SlackSite, seconds: float) -> Measured:
    port = free_port()
    site.start_bot(FRAUD_AB_BOT_METRICS_PORT=str(port)).wait_until(f"http://127.0.0.1:{port}/readyz", seconds=ANSWER_SECONDS)
    decision, found = site.ask(), dict[str, list["Outcome"]]()
    wait_until(lambda: site.posted(decision), "the question in Slack")

    def press(user: str) -> Outcome:
        return site.slack.press(user, Action.CONFIRM)

    def all_done() -> bool:
        return presses_done(port).total() == sum(one.acked for outcomes in found.values() for one in outcomes)

    found["warming up"] = at_rate(press, 10, 1)
    for rate in RATES:
        found[f"{rate} a second"] = at_rate(press, rate, seconds)
        wait_until(all_done, "the end of what these presses have begun", ANSWER_SECONDS)
    found["100 press at once"] = at_once(press)
    wait_until(all_done, "the end of what these presses have begun", ANSWER_SECONDS)
    found["100 submit at once"] = at_once(site.slack.submit)
    wait_until(lambda: told_who_won(site, decision) >= len(CROWD) - 1, "99 who are told", ANSWER_SECONDS)
    del found["warming up"]
    return Measured(
        found, presses_done(port)["failed"], len(site.log.records(decision.decision_id)), told_who_won(site, decision)
    )


def show(console: Console, found: dict[str, list[Outcome]]) -> None:
    table = Table("presses", "count", "p50 ms", "p99 ms", "longest ms", "not acknowledged", title="Acknowledgements in Slack")
    for what, outcomes in found.items():
        missed = sum(not one.acked for one in outcomes)
        p50, p99, longest = percentile(outcomes, 0.5), percentile(outcomes, 0.99), max(one.ack_ms for one in outcomes)
        table.add_row(what, str(len(outcomes)), f"{p50:g}", f"{p99:g}", f"{longest:g}", str(missed))
    console.print(table)


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    with (
        tempfile.TemporaryDirectory(prefix="bench-slack-") as folder,
        SlackSite(Path(folder), POLICY, users=(*DEFAULT_USERS, *CROWD)) as site,
    ):
        measured = measure(site, QUICK_SECONDS if is_quick else SECONDS)
    console = Console(width=120)
    found = measured.outcomes
    show(console, found)
    submitted = found["100 submit at once"]
    console.print(f"{measured.claims} claim, {measured.told} told who won, {measured.too_late} too late for their modal.")
    console.print("presses, ack_p50_ms and ack_p99_ms of the result: 100 submit at once.")
    result = {
        "presses": len(submitted),
        "claims": measured.claims,
        "ack_p50_ms": percentile(submitted, 0.5),
        "ack_p99_ms": percentile(submitted, 0.99),
        "told": measured.told,
        "too_late": measured.too_late,
        "not_acknowledged": sum(not one.acked for outcomes in found.values() for one in outcomes),
        "ack_p99_ms_by_rate": {str(rate): percentile(found[f"{rate} a second"], 0.99) for rate in RATES},
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
    }
    console.print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
