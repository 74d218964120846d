"""Requests for the app's HTTP endpoint, of which none may change anything: what `make fuzz-slack` sends.

A request changes something only if it is signed, fresh, whole, and from somebody who may. Each kind here lacks at least one of
these, or asks about something that is not there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from deployments.sandbox.slack.delivery import Outcome
from deployments.sandbox.slack.interactions import Interactions
from slackbot.identifiers import Action, Command, View
from slackbot.messages.modals import confirm_modal, force_rollback_modal, fraud_rollback_modal, postpone_modal
from slackbot.payloads import Alarm, AskedQuestion, AskedRollback
from slackbot.signed_http import MAX_BODY_BYTES, REQUEST_PATH

if TYPE_CHECKING:
    from deployments.sandbox.slack import SandboxSlack
    from flows.domain.decision import Decision

WINDOW_SECONDS = 300
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
CONTENT_TYPES = (
    FORM,
    JSON,
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/json; charset=utf-16",
    "",
)
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 2**70, "", " ", "x" * 5000, "\x00", "\ud800", "<!channel>", "../../etc/passwd", "{}", "[]",
    [], {}, [[]], [None], {"id": None}, {"id": "U0BEN"}, "U0BEN", "S0PROMOTERS", "'; DROP TABLE decisions; --", "é" * 99,
    "\u202e",
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One request: `kind` says what is wrong with it."""

    kind: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"
    path: str = REQUEST_PATH


@dataclass(frozen=True)
class Genuine:
    """A payload exactly as Slack would deliver it, and how: `interactive`, `slash_commands` or `events_api`."""

    kind: str
    payload: Mapping[str, Any]

    @property
    def content_type(self) -> str:
        return JSON if self.kind == "events_api" else FORM

    def body(self, payload: Mapping[str, Any] | None = None) -> bytes:
        """The bytes of this payload, or of another one in its place."""
        content = self.payload if payload is None else payload
        if self.kind == "events_api":
            return json.dumps(content).encode()
        form = content if self.kind == "slash_commands" else {"payload": json.dumps(content)}
        return urlencode({name: _text(value) for name, value in form.items()}, errors="surrogatepass").encode()


@dataclass
class _Recorder:
    """Takes the place of the way to the app, and keeps what would have been delivered."""

    kept: list[Genuine] = field(default_factory=list[Genuine])

    def deliver(self, kind: str, payload: Mapping[str, Any]) -> Outcome:
        self.kept.append(Genuine(kind, payload))
        return Outcome(acked=False, ack_ms=0.0)


def genuine_payloads(slack: SandboxSlack, decision: Decision, user: str, channel: str) -> list[Genuine]:
    """Everything that a person can send to the app about a decision whose message is posted; nothing is sent."""
    recorder = _Recorder()
    hands = Interactions(slack.workspace, recorder, verification_token="none")  # pyright: ignore[reportArgumentType]  # noqa: S106
    for action in (Action.CONFIRM, Action.POSTPONE, Action.FORCE_ROLLBACK):
        hands.press(user, action)
    recorder.kept.append(_revert_press(recorder.kept[-1], decision))
    for line in ("now", "now losses", "preview", "help", ""):
        hands.slash(user, f"{Command.FRAUD_ROLLBACK} {line}")
    hands.slash(user, Command.FRAUD_STATUS)
    asked = AskedQuestion(decision_id=decision.decision_id, evidence=decision.request.verdict.evidence_digest, channel=channel)
    for view in (
        confirm_modal(decision, asked),
        postpone_modal(decision, asked, ["4 hours"]),
        force_rollback_modal(asked),
        fraud_rollback_modal(AskedRollback(channel=channel)),
    ):
        slack.workspace.keep_view(view, user)
        hands.submit(user)
    slack.workspace.close_modal(user)
    hands.open_home(user)
    return [*recorder.kept]


def _revert_press(pressed: Genuine, decision: Decision) -> Genuine:
    """The button of a breach, as pressed where another button was."""
    button = {**pressed.payload["actions"][0], "action_id": Action.REVERT}
    button["value"] = Alarm(decision_id=decision.decision_id, cause="latency").to_json()
    return Genuine(pressed.kind, {**pressed.payload, "actions": [button]})


class Requests:
    """An endless stream, the same for the same seed but for the times in it.

    Args:
        allowed: genuine payloads of somebody who may decide and roll back.
        refused: the same of somebody who may nothing.
    """

    def __init__(self, secret: str, allowed: list[Genuine], refused: list[Genuine], *, seed: int) -> None:
        self._secret = secret
        self._allowed = allowed
        self._refused = refused
        self._random = random.Random(seed)  # noqa: S311 - a seed is wanted
        self._kinds: list[Callable[[], Sent]] = [
            self._noise,
            self._unsigned,
            self._signed_by_another,
            self._out_of_time,
            self._changed_after_signing,
            self._wrong_content_type,
            self._no_structure,
            self._too_large,
            self._nobody_who_may,
            self._nobody_and_bent,
            self._nobody_and_bent,
            self._forged,
            self._elsewhere,
        ]

    def __iter__(self) -> Iterator[Sent]:
        while True:
            yield self._random.choice(self._kinds)()

    def signed(self, kind: str, body: bytes, content_type: str, *, age_seconds: int = 0, secret: str = "") -> Sent:
        moment = str(int(time.time()) - age_seconds)
        digest = hmac.new((secret or self._secret).encode(), f"v0:{moment}:".encode() + body, hashlib.sha256).hexdigest()
        return Sent(kind, body, _headers(content_type, moment, f"v0={digest}"))

    # nothing that Slack has signed

    def _noise(self) -> Sent:
        now = str(int(time.time()))
        body = self._random.randbytes(self._random.choice((0, 1, 40, 3000)))
        return Sent("noise", body, _headers(self._random.choice(CONTENT_TYPES), now, "v0=" + "0" * 64))

    def _unsigned(self) -> Sent:
        one = self._random.choice(self._allowed)
        headers = {"Content-Type": one.content_type}
        extra: dict[str, str] = self._random.choice(
            (
                {},
                {"X-Slack-Request-Timestamp": str(int(time.time()))},
                {"X-Slack-Signature": "v0="},
                {"X-Slack-Request-Timestamp": "", "X-Slack-Signature": ""},
                {"X-Slack-Request-Timestamp": "yesterday", "X-Slack-Signature": "v0=" + "a" * 64},
                {"X-Slack-Request-Timestamp": "9" * 400, "X-Slack-Signature": "v1=\xe9"},
            )
        )
        return Sent("unsigned", one.body(), headers | extra)

    def _signed_by_another(self) -> Sent:
        one = self._random.choice(self._allowed)
        return self.signed("signed by another", one.body(), one.content_type, secret=self._random.randbytes(16).hex())

    def _out_of_time(self) -> Sent:
        one = self._random.choice(self._allowed)
        age = WINDOW_SECONDS + self._random.choice((5, 60, 3600, 10**8))
        age = self._random.choice((age, -age))
        return self.signed("out of time", one.body(), one.content_type, age_seconds=age)

    def _changed_after_signing(self) -> Sent:
        one = self._random.choice(self._allowed)
        sent = self.signed("changed after signing", one.body(), one.content_type)
        return Sent(sent.kind, self._damaged(sent.body), sent.headers)

    # signed, but not what the app can act on

    def _wrong_content_type(self) -> Sent:
        """Of somebody who may nothing: Slack's own content types are among them."""
        one = self._random.choice(self._refused)
        return self.signed("wrong content type", one.body(), self._random.choice(CONTENT_TYPES))

    def _no_structure(self) -> Sent:
        one = self._random.choice(self._refused)
        body = self._random.choice(
            (
                self._damaged(one.body()),
                b"payload=" + self._random.randbytes(30),
                b"payload=" + b"%5B" * 30_000,
                b"[" * 30_000,
                b'{"a":' * 20_000,
                b'{"type": "event_callback", "event": ' + str(10**400).encode() + b"}",
                urlencode({"payload": json.dumps(self._random.choice(ODD))}).encode(),
                json.dumps(self._random.choice(ODD)).encode(),
                b"payload=%ED%A0%80&payload=%FF",
                '{"type": "event_callback"}'.encode("utf-16"),
            )
        )
        return self.signed("no structure", body, self._random.choice((FORM, JSON)))

    def _too_large(self) -> Sent:
        if self._random.random() < 0.9:  # they are slow to send
            return self._no_structure()
        one = self._random.choice(self._allowed)
        return self.signed("too large", one.body() + b"&x=" + b"x" * MAX_BODY_BYTES, one.content_type)

    def _nobody_who_may(self) -> Sent:
        one = self._random.choice(self._refused)
        return self.signed("nobody who may", one.body(), one.content_type)

    def _nobody_and_bent(self) -> Sent:
        """What somebody who may nothing sends, with one to three places of it replaced or taken away."""
        one = self._random.choice(self._refused)
        payload: Any = json.loads(json.dumps(one.payload))
        for _ in range(self._random.randint(1, 3)):
            self._bend(payload)
        return self.signed("nobody who may, and bent", one.body(payload), one.content_type)

    def _forged(self) -> Sent:
        """From somebody who may, about what is not there: an unknown decision, other evidence, another release or team."""
        one = self._random.choice([one for one in self._allowed if _names_a_decision(one)])
        before, after = self._random.choice(FORGERIES)
        text = json.dumps(one.payload)
        forged = text.replace(before, after)
        if forged == text:
            raise ValueError(f"{before} is in no payload: the forgery changes nothing")
        return self.signed("forged", one.body(json.loads(forged)), one.content_type)

    def _elsewhere(self) -> Sent:
        one = self._random.choice(self._allowed)
        sent = self.signed("another method or path", one.body(), one.content_type)
        method, path = self._random.choice(
            (("GET", REQUEST_PATH), ("PUT", REQUEST_PATH), ("POST", "/"), ("POST", "/slack/events/../x"), ("HEAD", "/metrics"))
        )
        return Sent(sent.kind, sent.body, sent.headers, method, path)

    def _damaged(self, body: bytes) -> bytes:
        damaged = bytearray(body)
        for _ in range(self._random.randint(1, 8)):
            damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)

    def _bend(self, payload: dict[str, Any]) -> None:
        """Walk to some place inside, and replace or remove what is there."""
        place: Any = payload
        while True:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                return
            key = self._random.choice(keys)
            if isinstance(place[key], dict | list) and self._random.random() < 0.7:
                place = place[key]
                continue
            if isinstance(place, dict) and self._random.random() < 0.3:
                del place[key]
            else:
                place[key] = self._random.choice(ODD)
            return


FORGERIES = (
    ('\\"decision_id\\":\\"', '\\"decision_id\\":\\"not-'),
    ("sha256:", "sha256:0"),
    ('{\\"v\\":1,', '{\\"v\\":2,'),
    ('{\\"v\\":1,', '{\\"v\\":1,\\"more\\":1,'),
    ('"T0SANDBOX"', '"T0ANOTHER"'),
)


def _names_a_decision(one: Genuine) -> bool:
    """With its evidence: all that can be forged is in there, and a rollback by somebody who may is none."""
    view = one.payload.get("view") or {}
    return one.kind == "interactive" and view.get("callback_id") in (View.CONFIRM, View.POSTPONE)


def _headers(content_type: str, moment: str, signature: str) -> dict[str, str]:
    return {"Content-Type": content_type, "X-Slack-Request-Timestamp": moment, "X-Slack-Signature": signature}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
