"""Hostile requests to the app's HTTP endpoint: `make fuzz-slack` (QUICK=1: fewer; SEED=: others).

The app is `fraud-ab bot --http` in a process of its own. Nothing of what is sent may be answered with a 5xx, and
nothing may change the decision log, the SeldonDeployment or what the channel shows. At the end one honest request shows that a
change would be seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.slack_requests import Genuine, Requests, Sent, genuine_payloads
from slackbot.identifiers import View
from tests.slack_world import CHANNEL, SlackSite, wait_until

if TYPE_CHECKING:
    from deployments.sandbox.processes import Child
    from flows.domain.decision import Decision

ALLOWED, NOBODY = "U0ANA", "U0BEN"
POLICY = f'promoters = ["{ALLOWED}", "S0PROMOTERS"]\nrollbackers = ["{ALLOWED}"]\n'
REQUESTS, QUICK_REQUESTS = 10_000, 1_000
LOOK_EVERY = 100
ANSWER_SECONDS, STOP_SECONDS = 30.0, 60.0
SERVER_ERROR = 500


@dataclass
class Tally:
    """Answers by what was wrong with the request; `changes`: what changed, and what had been sent before that was seen."""

    answers: dict[str, Counter[int]] = field(default_factory=dict[str, Counter[int]])
    server_errors: list[str] = field(default_factory=list[str])
    unanswered: list[str] = field(default_factory=list[str])
    changes: list[str] = field(default_factory=list[str])

    @property
    def requests(self) -> int:
        return sum(answers.total() for answers in self.answers.values())


class Connection:
    """Sends one request at a time, over one connection as long as the app keeps it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=ANSWER_SECONDS)

    def send(self, sent: Sent) -> int:
        """The status; 0 when the connection was closed without an answer."""
        headers = {name: value.encode("latin-1") for name, value in sent.headers.items()}
        try:
            return self._reply(sent, headers)
        except http.client.RemoteDisconnected:  # an idle connection that was closed meanwhile: once more, on a new one
            return self._reply(sent, headers)

    def _reply(self, sent: Sent, headers: dict[str, bytes]) -> int:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough, and may have said why
            self._connection.request(sent.method, sent.path, body=sent.body, headers=headers)
        try:
            with self._connection.getresponse() as response:
                response.read()
                return response.status
        except (ConnectionResetError, http.client.ResponseNotReady):
            self._connection.close()
            return 0


def state_of(site: SlackSite) -> str:
    """A digest of everything that a press may change for others: log, records, deployment, channel."""
    deployment = site.deployment()
    state = [
        [repr(one) for one in site.log.decisions()],
        [record.hash for record in site.log.records()],
        deployment["spec"],
        deployment["metadata"]["annotations"],
        [(one["ts"], one["text"], one.get("blocks")) for one in site.slack.messages(CHANNEL)],
        [(one["ts"], one["text"]) for posted in site.slack.messages(CHANNEL) for one in site.slack.thread(posted["ts"])],
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def bombard(site: SlackSite, requests: Requests, count: int) -> Tally:
    """Send `count` requests and look after every hundred; a change is told with the kinds sent since the last look."""
    url = site.slack.request_url or ""
    tally, connection, before = Tally(), Connection(url), state_of(site)
    stream = itertools.islice(requests, count)
    while chunk := list(itertools.islice(stream, LOOK_EVERY)):
        for sent in chunk:
            status = connection.send(sent)
            tally.answers.setdefault(sent.kind, Counter())[status] += 1
            if status >= SERVER_ERROR:
                tally.server_errors.append(f"{status} to {sent.kind}: {sent.headers.get('Content-Type')} {sent.body[:300]!r}")
            if status == 0 and sent.kind != "too large":
                tally.unanswered.append(f"{sent.kind}: {sent.body[:300]!r}")
        before = note_change(tally, before, state_of(site), f"among {', '.join(sorted({sent.kind for sent in chunk}))}")
        if not tally.requests % 2000:
            Console(stderr=True).print(f"{tally.requests} of {count} requests", highlight=False)
    return tally


def note_change(tally: Tally, before: str, after: str, when: str) -> str:
    if after != before:
        tally.changes.append(f"something changed {when}")
    return after


def stop(bot: Child) -> None:
    """Told to end, it first finishes whatever it has acknowledged."""
    bot.process.send_signal(signal.SIGTERM)
    if bot.process.wait(STOP_SECONDS):
        raise RuntimeError(f"the app ended with {bot.process.returncode}:\n{bot.log.read_text()[-2000:]}")


def changes_something(site: SlackSite, confirmation: Genuine, requests: Requests) -> bool:
    """Whether the honest submission of somebody who may is seen in the state: else nothing was measured."""
    before, bot = state_of(site), site.start_http_bot()
    sent = requests.signed("honest", confirmation.body(), confirmation.content_type)
    status = Connection(site.slack.request_url or "").send(sent)
    stop(bot)
    return status == http.client.OK and state_of(site) != before


def report(console: Console, tally: Tally) -> None:
    table = Table("what is wrong with it", "requests", "answers", title="Hostile requests")
    for kind, answers in sorted(tally.answers.items()):
        told = ", ".join(f"{count} × {status or 'cut off'}" for status, count in sorted(answers.items()))
        table.add_row(kind, str(answers.total()), told)
    console.print(table)
    for line in (*tally.server_errors, *tally.unanswered, *tally.changes):
        console.print(f"BAD {line}", markup=False, highlight=False)


def prepare(site: SlackSite) -> tuple[Child, Decision, list[Genuine], list[Genuine]]:
    """A posted question, and everything that the two can send about it."""
    bot, decision = site.start_http_bot(), site.ask()
    wait_until(lambda: site.posted(decision), "the question in Slack")
    allowed, refused = (genuine_payloads(site.slack, decision, user, CHANNEL) for user in (ALLOWED, NOBODY))
    return bot, decision, allowed, refused


def main() -> None:
    began, is_quick, seed = time.monotonic(), os.environ.get("QUICK") == "1", int(os.environ.get("SEED", "1"))
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="fuzz-slack-") as folder, SlackSite(Path(folder), POLICY) as site:
        bot, _, allowed, refused = prepare(site)
        requests = Requests(site.slack.signing_secret, allowed, refused, seed=seed)
        at_rest = state_of(site)
        tally = bombard(site, requests, QUICK_REQUESTS if is_quick else REQUESTS)
        stop(bot)
        if not tally.changes:
            note_change(tally, at_rest, state_of(site), "while the app finished what it had acknowledged")
        report(console, tally)
        confirmation = next(one for one in allowed if (one.payload.get("view") or {}).get("callback_id") == View.CONFIRM)
        if not tally.changes and not changes_something(site, confirmation, requests):
            raise RuntimeError("the honest request changed nothing: what is measured here would not have been seen")
    result = {
        "requests": tally.requests,
        "server_errors": len(tally.server_errors),
        "state_changes": len(tally.changes),
        "unanswered": len(tally.unanswered),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
    }
    console.print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
