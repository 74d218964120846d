"""What a person is asked, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from flows.domain.ab_test import ABTest
from flows.domain.action_plan import ActionPlan
from flows.domain.errors import ConfirmationRefused, PostponementRefused, PromotionUndone
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import Verdict, VerdictKind


class Choice(StrEnum):
    """What can be answered. Expiry is silence: it keeps the baseline."""

    CONFIRM = "confirm"
    POSTPONE = "postpone"
    FORCE_ROLLBACK = "force_rollback"
    EXPIRE = "expire"


class NextStep(StrEnum):
    """What the flow does after an answer."""

    PROMOTE_CANDIDATE = "promote_candidate"
    KEEP_BASELINE = "keep_baseline"
    EVALUATE_AGAIN = "evaluate_again"


@dataclass(frozen=True, slots=True)
class Person:
    """Who answered: a Slack user id (or `cli:<login>`, `expiry`) and the name shown."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The first of the two confirmations that a promotion needs under `two_person`; alone it changes nothing."""

    actor: Person
    reason: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """The one answer that a decision has.

    Attributes:
        due_at: when to evaluate again (postponed or extended), at the latest where `wanted_frauds` is given; else None.
        wanted_frauds: postponed until the evidence rests on so many labelled frauds; None: until `due_at`.
        first: the confirmation before this answer, where two are needed; it counts for nothing unless this is the second.
    """

    choice: Choice
    actor: Person
    reason: str
    claimed_at: datetime
    due_at: datetime | None = None
    wanted_frauds: int | None = None
    first: Confirmation | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """Where a person can look closer; empty strings are left out of messages."""

    prefect_run: str = ""
    mlflow_run: str = ""
    dashboard: str = ""
    report: str = ""


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """One question to a person: round `round` of a test (from 1), with everything shown to them.

    Attributes:
        epoch: the deployment's epoch when the question was asked; a promotion tests it.
        next_look_at: when the next planned look is due (wall clock), None when there is none.
        decide_within_hours: after that the default applies: the baseline stays.
        horizon_at: when the last planned look is due (wall clock): nothing is postponed beyond it; None when unknown.
        postponements_left: how often people may still postpone in this test, this round included.
        evidence, policy: what the verdict was made from and by, so that it can be recomputed from the record.
    """

    test: ABTest
    round: int
    flow_run_id: str
    verdict: Verdict
    plan: ActionPlan
    rollback_plan: ActionPlan
    epoch: int
    links: Links
    decide_within_hours: float
    next_look_at: datetime | None
    horizon_at: datetime | None = None
    postponements_left: int = 3
    evidence: Evidence | None = None
    policy: Policy | None = None

    @property
    def decision_id(self) -> str:
        return f"{self.test.test_id}-{self.round}"

    @property
    def frauds_seen(self) -> int | None:
        """The labelled frauds that the comparison rests on: in pairs those that both models scored, in a split those of both."""
        return self.evidence.outcomes.compared_frauds if self.evidence is not None else None

    @property
    def needs_two_people(self) -> bool:
        """Whether a confirmation promotes, and the policy that was asked by lets nobody do that alone."""
        return self.verdict.kind is VerdictKind.PROMOTE and self.policy is not None and self.policy.two_person

    @property
    def bars_initiator(self) -> bool:
        """Whether a confirmation promotes, and the policy that was asked by does not let the test's initiator do that."""
        return self.verdict.kind is VerdictKind.PROMOTE and self.policy is not None and not self.policy.initiator_may_promote


@dataclass(frozen=True, slots=True)
class Decision:
    """A request as the decision log has it; `claim` is None while it is pending, maybe with a first confirmation."""

    request: DecisionRequest
    created_at: datetime
    deadline: datetime
    claim: Claim | None = None
    first_confirmation: Confirmation | None = None
    consumed_at: datetime | None = None

    @property
    def decision_id(self) -> str:
        return self.request.decision_id

    @property
    def is_pending(self) -> bool:
        return self.claim is None

    @property
    def pause_key_prefix(self) -> str:
        """What the keys begin with under which the flow run waits for this answer."""
        return f"decision-{self.request.round}-"

    def is_due(self, now: datetime) -> bool:
        """Whether the flow may act on the answer: there is one, and it is not postponed beyond now."""
        return self.claim is not None and (self.claim.due_at is None or self.claim.due_at <= now)


def next_step(verdict: VerdictKind, choice: Choice) -> NextStep:
    """What follows from an answer to a verdict. There is no way to promote against a verdict."""
    match choice:
        case Choice.POSTPONE:
            return NextStep.EVALUATE_AGAIN
        case Choice.FORCE_ROLLBACK | Choice.EXPIRE:
            return NextStep.KEEP_BASELINE
        case Choice.CONFIRM:
            return _confirmed(verdict)
    assert_never(choice)


def _confirmed(verdict: VerdictKind) -> NextStep:
    match verdict:
        case VerdictKind.PROMOTE:
            return NextStep.PROMOTE_CANDIDATE
        case VerdictKind.KEEP_BASELINE | VerdictKind.NOT_EVALUABLE:
            return NextStep.KEEP_BASELINE
        case VerdictKind.INCONCLUSIVE:
            return NextStep.EVALUATE_AGAIN
    assert_never(verdict)


def due_after(decision: DecisionRequest, choice: Choice, postponed_until: datetime | None) -> datetime | None:
    """When the flow wakes to evaluate again after this answer; None when the answer ends the question."""
    if next_step(decision.verdict.kind, choice) is not NextStep.EVALUATE_AGAIN:
        return None
    return postponed_until if choice is Choice.POSTPONE else decision.next_look_at


def refuse_confirmation(decision: Decision, person_id: str) -> None:
    """Check who confirms: where the policy says so not whoever started the test, and nobody is two people.

    Only a confirmation that promotes is checked; everything towards safety is open to one person.

    Raises:
        ConfirmationRefused: the sentences say why and what can be done instead.
    """
    request, first = decision.request, decision.first_confirmation
    if request.bars_initiator and not request.test.initiator:
        raise ConfirmationRefused(
            "This promotion cannot be confirmed: the policy does not let whoever started a test promote its candidate, and who "
            "started this one is not known. You can postpone it or force a rollback, and name the initiator of the next test"
        )
    if request.bars_initiator and request.test.initiator == person_id:
        raise ConfirmationRefused(
            "You started this test, and the policy does not let its initiator promote the candidate. "
            "You can ask somebody else who may, or postpone it, or force a rollback"
        )
    if first is not None and first.actor.id == person_id:
        raise ConfirmationRefused(
            f"You have confirmed this already, at {first.confirmed_at:%Y-%m-%d %H:%M} UTC, and that is kept; a second person has "
            "to confirm before the candidate is promoted. You can ask somebody else who may, or force a rollback"
        )


def refuse_postponement(
    request: DecisionRequest, until: datetime | None, now: datetime, wanted_frauds: int | None = None
) -> None:
    """Check a postponement: into the future, not past the last look, and no more often than the policy allows.

    Args:
        until: when to evaluate again (UTC).
        now: the decision log's clock.
        wanted_frauds: of a postponement until so many are seen, at the latest `until`.

    Raises:
        PostponementRefused: it is not allowed; the sentence says why and what can be done instead.
    """
    if request.horizon_at is not None and request.horizon_at <= now:
        raise PostponementRefused("this was the test's last look, so it cannot be postponed: confirm, or force a rollback")
    if request.postponements_left <= 0:
        raise PostponementRefused(
            "the test was postponed as often as the policy allows (max_postponements): confirm, or force a rollback"
        )
    seen = request.frauds_seen
    if wanted_frauds is not None and seen is not None and seen >= wanted_frauds:
        raise PostponementRefused(
            f"{wanted_frauds:,} frauds are seen already (the evidence has {seen:,}): choose more, or a time"
        )
    if until is None or until <= now:
        raise PostponementRefused("a postponement needs a time in the future: choose a later one")
    if request.horizon_at is not None and until > request.horizon_at:
        raise PostponementRefused(
            f"the test's last look is due at {request.horizon_at:%Y-%m-%d %H:%M} UTC: choose a time until then"
        )


def refuse_another_attempt(decision: Decision, latest_round: int, policy_digest: str, now: datetime) -> None:
    """Check that a confirmed promotion which was undone may be tried again without asking again.

    Args:
        latest_round: of the decision's test.
        policy_digest: of the policy in force.
        now: the decision log's clock.

    Raises:
        PromotionUndone: what it was confirmed on no longer holds; the sentence says what.
    """
    request, evidence, policy = decision.request, decision.request.evidence, decision.request.policy
    if now >= decision.deadline:
        why = f"the time to decide ended at {decision.deadline:%Y-%m-%d %H:%M} UTC"
    elif latest_round != request.round:
        why = f"round {latest_round} of the test has been asked about since"
    elif evidence is not None and evidence.digest != request.verdict.evidence_digest:
        why = "its evidence is not what was confirmed"
    elif policy is not None and policy.digest != policy_digest:
        why = "the policy was changed since"
    else:
        return
    raise PromotionUndone(
        f"{decision.decision_id} was undone and cannot be tried again: {why}. Start a new test, or its next round"
    )
