"""The life of each model as the decision records tell it, and which model is in charge of what is served."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from flows.domain.ab_test import ABTest, Arm
from flows.domain.action_plan import Stage
from flows.domain.decision_record import Investigation, RecordKind, latest_investigation
from flows.domain.serving_state import outcome_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from flows.domain.ab_test import Model
    from flows.domain.decision import Decision
    from flows.domain.decision_record import DecisionRecord
    from flows.domain.serving_state import ServingState
    from flows.domain.verdict import ModelMetrics


class LifecycleStatus(StrEnum):
    """Where a model stands, in the words of the lifecycle page."""

    IN_CHARGE = "In charge (Production)"
    IN_TEST = "In test (Staging)"
    PROMOTED = "Promoted (Production)"
    RETAINED = "Retained (Production)"
    RESTORED = "Restored (Production)"
    ARCHIVED = "Archived"

    @property
    def is_in_production(self) -> bool:
        return self not in (LifecycleStatus.IN_TEST, LifecycleStatus.ARCHIVED)


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a model's status: when (UTC), to what, and the decision or revert behind it."""

    at: datetime
    status: LifecycleStatus
    because: str


@dataclass(frozen=True, slots=True)
class ModelLife:
    """One model version with its changes of status, oldest first.

    `decision`: the last one that was made about it, as the baseline or the candidate (`arm`). `trial`: the last one about it as a
    candidate; None for a model that never was one. `investigation`: what was found out about its loss in that.
    """

    model: Model
    arm: Arm
    decision: Decision
    history: tuple[Transition, ...]
    trial: Decision | None = None
    investigation: Investigation | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it was tried and is not in charge, nor waiting for another try that nobody doubts."""
        is_out = self.status is LifecycleStatus.ARCHIVED or self.investigation is not None
        return self.arm is Arm.CANDIDATE and self.status is not LifecycleStatus.PROMOTED and is_out

    @property
    def metrics(self) -> ModelMetrics:
        """Its own, by the latest verdict about it."""
        both = self.decision.request.verdict.metrics
        return both.candidate if self.arm is Arm.CANDIDATE else both.baseline

    @property
    def status(self) -> LifecycleStatus:
        return self.history[-1].status

    @property
    def last_updated(self) -> datetime:
        return self.history[-1].at


_ENDS: Mapping[RecordKind, tuple[LifecycleStatus, LifecycleStatus]] = {
    RecordKind.PROMOTED: (LifecycleStatus.ARCHIVED, LifecycleStatus.PROMOTED),
    RecordKind.BASELINE_KEPT: (LifecycleStatus.RETAINED, LifecycleStatus.ARCHIVED),
    RecordKind.COMPENSATED: (LifecycleStatus.RETAINED, LifecycleStatus.IN_TEST),
    RecordKind.EMERGENCY_REVERT: (LifecycleStatus.RESTORED, LifecycleStatus.ARCHIVED),
}


def arm_in_charge(state: ServingState, test: ABTest) -> Arm | None:
    """Whose model is in charge of what is served: the one that serves alone, in a split the rollback point's.

    Returns:
        None while an operation or a revert is open, and when neither of the test's models is meant.
    """
    if state.operation or state.intent:
        return None
    point = (state.revert_to or {}).get("predictor")
    alone = [arm for arm in Arm if state.serves_alone(test.model(arm).predictor)]
    return next(iter(alone or [arm for arm in Arm if test.model(arm).predictor == point]), None)


def stages_by_serving(state: ServingState, test: ABTest) -> Mapping[Arm, Stage] | None:
    """Where both models belong in the registry by what is served: the registry follows the traffic, never the other way round.

    Returns:
        None while nobody can tell: an operation or a revert is open, or what serves is not what the test started with.
    """
    arm = arm_in_charge(state, test)
    if arm is None or not state.is_as_tested(test.model(arm).predictor):
        return None
    other = state.predictor(test.model(arm.other).predictor)
    is_on_trial = other is not None and (other.shadow or other.traffic > 0)
    # after a compensation the promotion may be tried again
    is_undone = ":compensated@" in (state.outcome or "") and outcome_epoch(state) == state.epoch
    return {arm: Stage.PRODUCTION, arm.other: Stage.STAGING if is_on_trial or is_undone else Stage.ARCHIVED}


def model_lives(
    decisions: Iterable[Decision], records: Iterable[DecisionRecord], in_charge: Model | None, at: datetime
) -> tuple[ModelLife, ...]:
    """Every model that was ever tested, in the order of their first test.

    Args:
        decisions: in any order.
        records: in the order of the chain; an emergency's names its decision in its payload. Those that tell of the deployment
            carry its epoch, since a change that came first may be recorded late.
        in_charge: the model that serves now, None when unknown; it has the last word over the records, which may lag behind.
        at: the time (UTC) of a change that only `in_charge` shows.
    """
    known = {decision.decision_id: decision for decision in sorted(decisions, key=lambda one: one.created_at)}
    told = tuple(records)
    lives: dict[Model, ModelLife] = {}
    for decision in known.values():
        _begin_test(lives, decision)
    endings = (record for record in told if record.kind in _ENDS)
    for record in sorted(endings, key=lambda one: int(str(one.payload.get("epoch", 0)))):
        decision = known.get(str(record.payload.get("decision_id", record.decision_id)))
        if decision is not None:
            for arm, status in zip(Arm, _ENDS[record.kind], strict=True):
                _enter(lives, decision, arm, Transition(record.at, status, f"{record.kind} ({record.decision_id})"))
    return tuple(_as_served(_investigated(life, told, known), in_charge, at) for life in lives.values())


def _begin_test(lives: dict[Model, ModelLife], decision: Decision) -> None:
    test = decision.request.test
    for arm, status in zip(Arm, (LifecycleStatus.IN_CHARGE, LifecycleStatus.IN_TEST), strict=True):
        life = lives.get(test.model(arm))
        if life is None:
            _enter(lives, decision, arm, Transition(test.started_at, status, f"test {test.test_id} began"))
        elif life.decision.request.test.test_id == test.test_id:  # a later round knows more
            _know(lives, life.model, arm, decision, life.history)


def _enter(lives: dict[Model, ModelLife], decision: Decision, arm: Arm, transition: Transition) -> None:
    model = decision.request.test.model(arm)
    history = lives[model].history if model in lives else ()
    _know(lives, model, arm, decision, (*history, transition))


def _know(lives: dict[Model, ModelLife], model: Model, arm: Arm, decision: Decision, history: tuple[Transition, ...]) -> None:
    before = lives[model].trial if model in lives else None
    lives[model] = ModelLife(model, arm, decision, history, decision if arm is Arm.CANDIDATE else before)


def _investigated(life: ModelLife, records: Iterable[DecisionRecord], known: Mapping[str, Decision]) -> ModelLife:
    """With the latest investigation of any decision in which this model was the candidate."""
    tested = {one for one, decision in known.items() if decision.request.test.candidate == life.model}
    return replace(life, investigation=latest_investigation(record for record in records if record.decision_id in tested))


def _as_served(life: ModelLife, in_charge: Model | None, at: datetime) -> ModelLife:
    if in_charge is None or life.status.is_in_production == (life.model == in_charge):
        return life
    status = LifecycleStatus.RESTORED if life.model == in_charge else LifecycleStatus.ARCHIVED
    return replace(life, history=(*life.history, Transition(at, status, "what serves now")))
