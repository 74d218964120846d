"""What an answer leads to, when it is due, and which postponements are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import (
    Choice,
    Claim,
    Confirmation,
    Decision,
    DecisionRequest,
    Links,
    NextStep,
    Person,
    due_after,
    next_step,
    refuse_another_attempt,
    refuse_confirmation,
    refuse_postponement,
)
from flows.domain.errors import ConfirmationRefused, PostponementRefused, PromotionUndone
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import VerdictKind, decide_verdict

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LATER, NEXT_LOOK, HORIZON = NOW + timedelta(hours=4), NOW + timedelta(days=7), NOW + timedelta(days=14)


def request(kind: VerdictKind = VerdictKind.PROMOTE) -> DecisionRequest:
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(100, 80, 90, 82), ModelCounts(100, 86, 95, 86)))
    models = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
    return DecisionRequest(
        test=ABTest("autumn", *models, NOW - timedelta(days=60), "experiment"),
        round=3,
        flow_run_id="run",
        verdict=replace(decide_verdict(evidence, Policy()), verdict=kind),
        plan=ActionPlan(Arm.CANDIDATE, (100,), ()),
        rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
        epoch=7,
        links=Links(),
        decide_within_hours=72,
        next_look_at=NEXT_LOOK,
        horizon_at=HORIZON,
        postponements_left=1,
        evidence=evidence,
    )


def test_only_a_confirmed_promote_verdict_promotes() -> None:
    promoting = [pair for pair in product(VerdictKind, Choice) if next_step(*pair) is NextStep.PROMOTE_CANDIDATE]
    assert promoting == [(VerdictKind.PROMOTE, Choice.CONFIRM)]


@pytest.mark.parametrize("kind", VerdictKind)
@pytest.mark.parametrize("choice", [Choice.EXPIRE, Choice.FORCE_ROLLBACK])
def test_silence_and_a_forced_rollback_keep_the_baseline_whatever_the_verdict(kind: VerdictKind, choice: Choice) -> None:
    assert next_step(kind, choice) is NextStep.KEEP_BASELINE


@pytest.mark.parametrize(
    ("kind", "follows"),
    [
        (VerdictKind.KEEP_BASELINE, NextStep.KEEP_BASELINE),
        (VerdictKind.NOT_EVALUABLE, NextStep.KEEP_BASELINE),
        (VerdictKind.INCONCLUSIVE, NextStep.EVALUATE_AGAIN),
    ],
)
def test_a_confirmation_follows_the_verdict(kind: VerdictKind, follows: NextStep) -> None:
    assert next_step(kind, Choice.CONFIRM) is follows


@pytest.mark.parametrize("kind", VerdictKind)
def test_a_postponement_always_evaluates_again_at_its_own_time(kind: VerdictKind) -> None:
    assert next_step(kind, Choice.POSTPONE) is NextStep.EVALUATE_AGAIN
    assert due_after(request(kind), Choice.POSTPONE, LATER) == LATER


def test_an_extension_is_due_at_the_next_look_and_everything_else_at_once() -> None:
    assert due_after(request(VerdictKind.INCONCLUSIVE), Choice.CONFIRM, None) == NEXT_LOOK
    assert due_after(request(), Choice.CONFIRM, LATER) is None
    assert due_after(request(), Choice.EXPIRE, None) is None


def test_an_answer_that_does_not_exist_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        next_step(VerdictKind.PROMOTE, "maybe")  # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError):
        next_step("MAYBE", Choice.CONFIRM)  # pyright: ignore[reportArgumentType]


def test_a_decision_is_due_when_there_is_an_answer_and_its_time_has_come() -> None:
    decision = Decision(request(), created_at=NOW, deadline=NOW + timedelta(hours=72))
    assert decision.is_pending
    assert not decision.is_due(NOW)
    at_once = replace(decision, claim=Claim(Choice.CONFIRM, Person("U1", "Alice"), "", NOW))
    assert not at_once.is_pending
    assert at_once.is_due(NOW)
    postponed = replace(decision, claim=Claim(Choice.POSTPONE, Person("U1", "Alice"), "", NOW, due_at=LATER))
    assert not postponed.is_due(LATER - timedelta(microseconds=1))
    assert postponed.is_due(LATER)


def test_ids_and_keys_name_test_and_round() -> None:
    decision = Decision(request(), created_at=NOW, deadline=NOW)
    assert decision.decision_id == "autumn-3"
    assert decision.pause_key_prefix == "decision-3-"


INITIATOR, OTHER = "U0ANA", "U0BEN"
STRICT = Policy(initiator_may_promote=False)


def asked(policy: Policy | None, kind: VerdictKind = VerdictKind.PROMOTE, *, initiator: str = "", first: str = "") -> Decision:
    of = request(kind)
    confirmed = Confirmation(Person(first, "first"), "", NOW) if first else None
    changed = replace(of, policy=policy, test=replace(of.test, initiator=initiator))
    return Decision(changed, NOW, NOW + timedelta(hours=72), first_confirmation=confirmed)


def test_who_started_a_test_may_promote_its_candidate_unless_the_policy_says_no() -> None:
    for policy in (None, Policy()):
        refuse_confirmation(asked(policy, initiator=INITIATOR), INITIATOR)
        refuse_confirmation(asked(policy), INITIATOR)
    with pytest.raises(ConfirmationRefused, match=r"You started this test, .* You can ask somebody else"):
        refuse_confirmation(asked(STRICT, initiator=INITIATOR), INITIATOR)
    refuse_confirmation(asked(STRICT, initiator=INITIATOR), OTHER)


def test_where_the_initiator_is_barred_and_not_known_nobody_promotes() -> None:
    with pytest.raises(ConfirmationRefused, match=r"who started this one is not known\. You can postpone it or force a rollback"):
        refuse_confirmation(asked(STRICT), OTHER)


def test_nobody_is_two_people() -> None:
    two = Policy(two_person=True)
    refuse_confirmation(asked(two), OTHER)
    refuse_confirmation(asked(two, first=INITIATOR), OTHER)
    with pytest.raises(ConfirmationRefused, match=r"confirmed this already, at 2026-11-01 12:00 UTC, .* a second person"):
        refuse_confirmation(asked(two, first=OTHER), OTHER)


@pytest.mark.parametrize("kind", VerdictKind)
def test_the_rules_are_about_promotions_alone(kind: VerdictKind) -> None:
    """Keeping the baseline and extending the test are open to one person, whoever it is."""
    both = asked(Policy(two_person=True, initiator_may_promote=False), kind, initiator=INITIATOR).request
    promotes = kind is VerdictKind.PROMOTE
    assert (both.needs_two_people, both.bars_initiator) == (promotes, promotes)
    if not promotes:
        refuse_confirmation(asked(both.policy, kind, initiator=INITIATOR), INITIATOR)
    assert not asked(Policy(), kind).request.needs_two_people


def test_a_postponement_until_the_horizon_is_allowed() -> None:
    refuse_postponement(request(), LATER, NOW)
    refuse_postponement(request(), HORIZON, NOW)
    refuse_postponement(replace(request(), horizon_at=None), HORIZON + timedelta(days=99), NOW)


@pytest.mark.parametrize(
    ("changes", "until", "why"),
    [
        ({"horizon_at": NOW}, LATER, "last look"),
        ({"postponements_left": 0}, LATER, "max_postponements"),
        ({}, None, "time in the future"),
        ({}, NOW, "time in the future"),
        ({}, HORIZON + timedelta(seconds=1), "2026-11-15 12:00 UTC"),
    ],
)
def test_other_postponements_are_refused_with_the_reason(changes: dict[str, object], until: datetime | None, why: str) -> None:
    with pytest.raises(PostponementRefused, match=why):
        refuse_postponement(replace(request(), **changes), until, NOW)


def test_waiting_for_frauds_that_are_seen_already_is_refused_with_how_many_there_are() -> None:
    assert request().frauds_seen == 200, "those of both arms"
    refuse_postponement(request(), HORIZON, NOW, wanted_frauds=201)
    with pytest.raises(PostponementRefused, match=r"200 frauds are seen already \(the evidence has 200\)"):
        refuse_postponement(request(), HORIZON, NOW, wanted_frauds=200)
    unknown = replace(request(), evidence=None)
    assert unknown.frauds_seen is None
    refuse_postponement(unknown, HORIZON, NOW, wanted_frauds=1)
    with pytest.raises(PostponementRefused, match="time in the future"):
        refuse_postponement(unknown, None, NOW, wanted_frauds=1)


def undone(**changes: object) -> Decision:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    return Decision(replace(request(), **changes), at, at + timedelta(hours=10))  # pyright: ignore[reportArgumentType]


def test_a_promotion_that_was_undone_may_be_tried_again_while_everything_holds() -> None:
    one = undone(policy=Policy())
    refuse_another_attempt(one, one.request.round, Policy().digest, one.deadline - timedelta(seconds=1))
    refuse_another_attempt(undone(policy=None, evidence=None), one.request.round, "sha256:other", one.created_at)


@pytest.mark.parametrize(
    ("changes", "rounds", "policy_digest", "hours", "why"),
    [
        ({}, 0, Policy().digest, 10, "the time to decide ended at 2026-11-20 10:00 UTC"),
        ({}, 1, Policy().digest, 1, "has been asked about since"),
        ({"evidence": Evidence(missing=("labels",))}, 0, Policy().digest, 1, "its evidence is not what was confirmed"),
        ({}, 0, "sha256:other", 1, "the policy was changed since"),
    ],
)
def test_otherwise_it_says_why_not(changes: dict[str, object], rounds: int, policy_digest: str, hours: int, why: str) -> None:
    one = undone(**{"policy": Policy(), **changes})
    with pytest.raises(PromotionUndone, match=why):
        refuse_another_attempt(one, one.request.round + rounds, policy_digest, one.created_at + timedelta(hours=hours))
