"""What a listener works with: who may, the one claim of a decision, and an answer to the person in every case."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slack_sdk.webhook import WebhookClient

from flows.domain.decision import Person
from flows.domain.errors import (
    AlreadyDecided,
    ConfirmationRefused,
    EvidenceChanged,
    FraudABError,
    NotAuthorized,
    OutsideSystemError,
    PostponementRefused,
    UnknownDecision,
)
from slackbot import authorization
from slackbot.follow_ups import FollowUps
from slackbot.messages import wording
from slackbot.messages.block_kit import SlackMessage, escape
from slackbot.metrics import Outcome, PressMetrics
from slackbot.payloads import AskedQuestion, AskedRollback, Origin, PayloadInvalid, Question, Submission
from slackbot.publisher import TIMEOUT_SECONDS, Publisher, passing_troubles, slack_errors, tls
from slackbot.repeats import Answers

if TYPE_CHECKING:
    from datetime import datetime

    from slack_sdk import WebClient

    from flows.domain.decision import Choice, Decision
    from flows.domain.policy import Policy
    from flows.ports import DecisionLog
    from slackbot.authorization import Permission
    from slackbot.directory import Directory
    from slackbot.emergency import Emergency
    from slackbot.prefect_gateway import PrefectGateway
    from slackbot.redrawing import Redrawer

logger = logging.getLogger(__name__)

REFUSALS = (
    NotAuthorized,
    AlreadyDecided,
    EvidenceChanged,
    ConfirmationRefused,
    PostponementRefused,
    UnknownDecision,
    PayloadInvalid,
)
"""What a person is told as it is: nothing went wrong, but their press does not count."""


@dataclass(frozen=True, slots=True)
class Presser:
    """Who acted, and where they read the answer."""

    person: Person
    channel: str
    response_url: str = ""

    @classmethod
    def of(cls, origin: Origin) -> Presser:
        return cls(_person(origin), origin.channel.id, origin.response_url)

    @classmethod
    def of_modal(cls, submission: Submission, asked: AskedQuestion | AskedRollback) -> Presser:
        return cls(_person(submission), asked.channel)


def _person(origin: Origin | Submission) -> Person:
    user = origin.user
    return Person(id=user.id, name=user.name or user.username or user.id)


@dataclass(frozen=True, slots=True)
class Bot:
    """Everything that the listeners may touch. `nudge` asks the reconciler to deliver at once; `read` reads a decision, once for
    all who ask at the same time; `note` says what became of the press that is being worked on."""

    client: WebClient
    policy: Policy
    decision_log: DecisionLog
    publisher: Publisher
    directory: Directory
    emergency: Emergency
    gateway: PrefectGateway
    nudge: Callable[[], None]
    redrawer: Redrawer
    read: Callable[[str], Decision]
    metrics: PressMetrics = field(default_factory=PressMetrics)
    answers: Answers = field(default_factory=Answers)
    follow_ups: FollowUps = field(default_factory=FollowUps)
    note: Callable[[Outcome], None] = lambda _: None

    def require(self, permission: Permission, person: Person) -> None:
        """Raises `NotAuthorized`."""
        wanted = (*self.policy.promoters, *self.policy.rollbackers)
        is_named = person.id in authorization.allowed_ids(permission, self.policy)
        groups = {} if is_named else self.directory.groups(one for one in wanted if authorization.is_group(one))
        authorization.require(permission, person.id, self.policy, groups)

    def pending(self, question: Question) -> Decision:
        """The decision, if it still waits for an answer and on the evidence that the person saw.

        Raises:
            AlreadyDecided, EvidenceChanged, UnknownDecision
        """
        decision = self.read(question.decision_id)
        if decision.claim is not None:
            raise AlreadyDecided(f"{question.decision_id} is decided", decision)
        if decision.request.verdict.evidence_digest != question.evidence:
            raise EvidenceChanged(f"the evidence of {question.decision_id} is not the one in the message")
        return decision

    def claim(
        self,
        presser: Presser,
        question: Question,
        choice: Choice,
        reason: str,
        *,
        until: datetime | None = None,
        wanted_frauds: int | None = None,
    ) -> Decision:
        """The only effect of a press: one atomic answer. Delivering it to the flow is the reconciler's work.

        Returns:
            the decision; still pending when it was the first of two confirmations.

        Raises:
            AlreadyDecided, EvidenceChanged, ConfirmationRefused, PostponementRefused, UnknownDecision
        """
        decision = self.decision_log.claim(
            question.decision_id,
            evidence_digest=question.evidence,
            choice=choice,
            actor=presser.person,
            reason=reason,
            postponed_until=until,
            wanted_frauds=wanted_frauds,
        )
        if decision.is_pending:
            self.note(Outcome.CONFIRMED_FIRST)
        else:
            self.nudge()
            self.note(Outcome.CLAIMED)
        done = "confirmed_first" if decision.is_pending else "claimed"
        logger.info("%s decision_id=%s choice=%s actor=%s", done, question.decision_id, choice, presser.person.id)
        self.redrawer.redraw(question.decision_id)
        return decision

    def ask_second_person(self, decision: Decision) -> None:
        """A line in the thread: a redrawn message rings nobody's phone. Where Slack fails it is said later."""
        text = wording.ask_second_person(decision, self.policy.promoters)
        try:
            self.publisher.thread_line(decision.decision_id, "second-person", text)
        except FraudABError as error:
            logger.warning("second_person_not_asked decision_id=%s error=%s", decision.decision_id, error)

    def explain(self, error: FraudABError, presser: Presser, decision_id: str = "") -> str:
        """Why a press does not count, for the person; logged, and the message redrawn where it was out of date."""
        self.note(Outcome.REFUSED)
        logger.info("refused decision_id=%s actor=%s error=%s", decision_id, presser.person.id, type(error).__name__)
        match error:
            case NotAuthorized():
                return str(error)  # its ids are shown as mentions
            case AlreadyDecided():
                self.redrawer.redraw(decision_id)
                return wording.already_decided(self.read(decision_id))
            case EvidenceChanged():
                self.redrawer.redraw(decision_id, for_certain=True)
                return wording.EVIDENCE_CHANGED
            case _:
                return f"{escape(str(error))}. {wording.NOTHING_CHANGED}"

    def tell(self, presser: Presser, message: str | SlackMessage) -> None:
        """Answer one person, and never fail: what they asked for must not depend on it."""
        try:
            self._tell(presser, SlackMessage(message) if isinstance(message, str) else message)
        except OutsideSystemError as error:
            logger.warning("not_told actor=%s error=%s", presser.person.id, error)

    def _tell(self, presser: Presser, message: SlackMessage) -> None:
        """In the channel, else at the address that Slack gave for this press, else directly."""
        text, blocks, user = message.text, list(message.blocks) or None, presser.person.id
        try:
            with slack_errors("answering"):
                self.client.chat_postEphemeral(channel=presser.channel, user=user, text=text, blocks=blocks)
        except OutsideSystemError:  # the app is not in that channel, or Slack has trouble
            with slack_errors("answering"):
                if not presser.response_url:
                    self.client.chat_postMessage(channel=user, text=text, blocks=blocks)
                    return
                webhook = WebhookClient(
                    presser.response_url, timeout=TIMEOUT_SECONDS, ssl=tls(), retry_handlers=passing_troubles()
                )
                webhook.send(text=text, blocks=blocks, response_type="ephemeral", replace_original=False)

    def open_modal(self, trigger_id: str, view: dict[str, object]) -> None:
        with slack_errors("opening a modal"):
            self.client.views_open(trigger_id=trigger_id, view=view)
