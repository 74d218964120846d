"""What the SeldonDeployment serves and says about itself, and the only changes that may be made to it.

The SeldonDeployment carries the truth about itself in annotations. Every change is one atomic patch that tests the
object's version, so each function here reads one version and returns the whole change, or raises `Superseded` when the
state says that somebody else decided since.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.errors import Superseded

EPOCH = "fraud-ab/epoch"
OPERATION = "fraud-ab/operation"
OUTCOME = "fraud-ab/outcome"
UNDONE_BECAUSE = "fraud-ab/undone-because"
REVERT_TO = "fraud-ab/revert-to"
INTENT = "fraud-ab/intent"
UNRECORDED = "fraud-ab/unrecorded"
REVERTED = "fraud-ab/reverted"
TEST = "fraud-ab/test"
CANDIDATE = "fraud-ab/candidate"
GITOPS = "fraud-ab/gitops"


@dataclass(frozen=True, slots=True)
class Predictor:
    """One predictor; `traffic` in per cent, a shadow's traffic is outside the sum; `spec` is Seldon's, verbatim."""

    name: str
    traffic: int
    shadow: bool = False
    spec: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class ServingState:
    """One version of the SeldonDeployment. `resource_version` and `epoch` are the fence of every change.

    `owners`: controllers that write this object from a repository (Argo CD, Flux) and may undo what is changed here.
    """

    name: str
    namespace: str
    resource_version: str
    generation: int
    predictors: tuple[Predictor, ...]
    annotations: Mapping[str, str]
    owners: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        return int(self.annotations.get(EPOCH, "0"))

    @property
    def operation(self) -> str | None:
        """The decision that is changing the deployment now."""
        return self.annotations.get(OPERATION) or None

    @property
    def outcome(self) -> str | None:
        """`<decision>:<accepted|compensated>@<epoch>` of the last finished operation."""
        return self.annotations.get(OUTCOME) or None

    @property
    def undone_because(self) -> str:
        """Why the last finished operation was compensated; empty when it was accepted."""
        return self.annotations.get(UNDONE_BECAUSE, "")

    @property
    def intent(self) -> str | None:
        return self.annotations.get(INTENT) or None

    @property
    def unrecorded(self) -> tuple[Mapping[str, str], ...]:
        """Emergency reverts that no decision record tells of yet: who, when, why, from what."""
        return tuple(json.loads(self.annotations.get(UNRECORDED, "[]")))

    @property
    def reverted(self) -> Mapping[str, str]:
        """The emergency reverts of the last hour, recorded or not: when (ISO 8601) by id."""
        return json.loads(self.annotations.get(REVERTED, "{}"))

    @property
    def revert_to(self) -> Mapping[str, object] | None:
        """The rollback point: the baseline's predictor with its spec, written when the test started."""
        text = self.annotations.get(REVERT_TO)
        return json.loads(text) if text else None

    @property
    def undone_by(self) -> tuple[str, ...]:
        """The owners that nobody has told to leave the traffic alone (annotation `fraud-ab/gitops: ignored`)."""
        return () if self.annotations.get(GITOPS) == "ignored" else self.owners

    def is_as_tested(self, name: str) -> bool:
        """Whether this predictor serves what it served when the test started: its graph and containers, not its size."""
        noted = [json.loads(self.annotations[key]) for key in (REVERT_TO, CANDIDATE) if key in self.annotations]
        spec = next((one["spec"] for one in noted if one["predictor"] == name), None)
        predictor = self.predictor(name)
        return predictor is not None and spec is not None and all(predictor.spec.get(key) == spec.get(key) for key in _SERVED)

    @property
    def test(self) -> ABTest | None:
        """The test that was started last on this deployment: whose models an emergency is about, decided or not."""
        text = self.annotations.get(TEST)
        if not text:
            return None
        found: dict[str, Any] = json.loads(text)
        baseline, candidate = (Model(**found.pop(arm)) for arm in Arm)
        started_at = datetime.fromisoformat(found.pop("started_at"))
        return ABTest(baseline=baseline, candidate=candidate, started_at=started_at, **found)

    @property
    def traffic(self) -> Mapping[str, int]:
        """Per cent of live traffic by predictor name, shadows left out."""
        return {predictor.name: predictor.traffic for predictor in self.predictors if not predictor.shadow}

    def predictor(self, name: str) -> Predictor | None:
        return next((predictor for predictor in self.predictors if predictor.name == name), None)

    def serves_alone(self, name: str) -> bool:
        """Whether all live traffic goes to this predictor."""
        return self.traffic.get(name) == 100 and sum(self.traffic.values()) == 100

    def is_shadow(self, name: str) -> bool:
        """Whether this predictor gets a copy of the traffic and answers nobody."""
        predictor = self.predictor(name)
        return predictor is not None and predictor.shadow


@dataclass(frozen=True, slots=True)
class ServingChange:
    """One atomic patch: new traffic by predictor name, annotations (None removes one), predictors to restore at weight 0 and
    predictors to remove, by their names. A shadow that `traffic` names becomes a live predictor."""

    why: str
    annotations: Mapping[str, str | None]
    traffic: Mapping[str, int] | None = None
    restore: tuple[Mapping[str, object], ...] = ()
    remove: tuple[str, ...] = ()


def describe_serving(state: ServingState) -> str:
    """`fraud-v1 100 %, fraud-v2 shadow`."""
    return ", ".join(f"{one.name} shadow" if one.shadow else f"{one.name} {one.traffic} %" for one in state.predictors)


def _all_traffic_to(state: ServingState, name: str) -> dict[str, int]:
    return only_these(state, {name: 100})


def only_these(state: ServingState, traffic: Mapping[str, int]) -> dict[str, int]:
    """This traffic, in per cent by name, and none for any other predictor.

    A shadow becomes an idle live predictor: after a decision or a revert nothing is copied to it any more, and it counts in no
    metrics.
    """
    return {predictor.name: traffic.get(predictor.name, 0) for predictor in state.predictors}


_SERVED = ("graph", "componentSpecs")
REPEATED_WITHIN = timedelta(hours=1)
"""For how long a revert's id is remembered: a signature of Slack is believed for five minutes."""


def model_uri(spec: object) -> str:
    """Where a predictor with this spec has its model from; empty where its graph does not say."""
    graph: Any = spec.get("graph") if isinstance(spec, dict) else None
    return str(graph.get("modelUri") or "") if isinstance(graph, dict) else ""


def finished_outcome(state: ServingState, decision_id: str) -> str | None:
    """`accepted` or `compensated` when this decision's operation already ended in this state, else None."""
    if state.outcome and state.outcome.startswith(f"{decision_id}:"):
        return state.outcome.removeprefix(f"{decision_id}:").partition("@")[0]
    return None


def outcome_epoch(state: ServingState) -> int | None:
    """The epoch at which the last operation ended; None before the first end of one."""
    return int(state.outcome.rpartition("@")[2]) if state.outcome else None


def accepted_decision(state: ServingState) -> str | None:
    """The decision whose accepted operation is the last thing that happened here; None when something newer did or is open."""
    accepted = f":accepted@{state.epoch}"
    if state.operation or state.intent or not state.outcome or not state.outcome.endswith(accepted):
        return None
    return state.outcome.removesuffix(accepted)


def start_test(state: ServingState, test: ABTest, traffic: Mapping[str, int]) -> ServingChange:
    """Open a test: write the rollback point, the split and which models it is about in one patch.

    Raises:
        Superseded: an operation is open; a new test waits for its end.
    """
    if state.operation or state.intent:
        raise Superseded(
            f"{state.name} is being changed by {state.operation or state.intent}: start the test when that has ended"
        )
    baseline = test.baseline.predictor
    predictor, candidate = state.predictor(baseline), state.predictor(test.candidate.predictor)
    if predictor is None:
        raise Superseded(f"{state.name} has no predictor {baseline}: deploy the baseline before the test starts")
    if candidate is None:
        raise Superseded(f"{state.name} has no predictor {test.candidate.predictor}: deploy the candidate before the test starts")
    return ServingChange(
        why=f"test starts with {baseline} as the baseline",
        traffic=traffic,
        annotations={
            EPOCH: str(state.epoch + 1),
            REVERT_TO: json.dumps({"predictor": baseline, "spec": dict(predictor.spec)}, sort_keys=True),
            CANDIDATE: json.dumps({"predictor": candidate.name, "spec": dict(candidate.spec)}, sort_keys=True),
            TEST: json.dumps(asdict(test), default=str, sort_keys=True),
            OUTCOME: None,
            UNDONE_BECAUSE: None,
        },
    )


def open_operation(state: ServingState, decision_id: str, decided_at_epoch: int) -> ServingChange:
    """Begin to carry out a decision, or take it over after a crash; raises the epoch in either case.

    Args:
        decided_at_epoch: of the question; for another attempt, of the compensation that ended the one before.

    Raises:
        Superseded: the deployment changed since the decision was asked for, or another decision is changing it.
    """
    if state.operation is None and state.epoch != decided_at_epoch:
        raise Superseded(
            f"{state.name} is at epoch {state.epoch}, but {decision_id} was decided at epoch {decided_at_epoch}: "
            "somebody changed it since, so this decision no longer applies"
        )
    if state.operation not in (None, decision_id) or state.intent:
        raise Superseded(f"{state.name} is being changed by {state.operation or state.intent}: {decision_id} no longer applies")
    annotations: dict[str, str | None] = {EPOCH: str(state.epoch + 1), OPERATION: decision_id}
    if finished_outcome(state, decision_id):
        annotations |= {OUTCOME: None, UNDONE_BECAUSE: None}  # of the attempt before this one
    return ServingChange(why=f"{decision_id} begins", annotations=annotations)


def require_operation(state: ServingState, decision_id: str, epoch: int) -> None:
    """The fence: raises `Superseded` unless the open operation is this decision's at this epoch."""
    if state.operation != decision_id or state.epoch != epoch:
        raise Superseded(
            f"{decision_id} was superseded: {state.name} is now at epoch {state.epoch}"
            + (f", changed by {state.operation}" if state.operation else ", with no operation open")
        )


def shift_traffic(state: ServingState, decision_id: str, epoch: int, traffic: Mapping[str, int]) -> ServingChange:
    """Move live traffic within an open operation.

    Args:
        traffic: per cent by predictor name; predictors not named get 0, and a shadow becomes a live one.

    Raises:
        Superseded: the operation is no longer this decision's at this epoch, or a predictor that is to serve is gone.
    """
    require_operation(state, decision_id, epoch)
    gone = [name for name, share in traffic.items() if share and state.predictor(name) is None]
    if gone:
        raise Superseded(f"{state.name} has no predictor {gone[0]} any more, which was to serve {traffic[gone[0]]} %")
    return ServingChange(why=f"{decision_id} shifts traffic", traffic=only_these(state, traffic), annotations={})


def close_operation(state: ServingState, decision_id: str, epoch: int) -> ServingChange:
    """Accept the operation: outcome written, epoch raised, operation cleared. Raises `Superseded` as `shift_traffic` does."""
    require_operation(state, decision_id, epoch)
    return ServingChange(
        why=f"{decision_id} is accepted",
        annotations={
            EPOCH: str(epoch + 1),
            OPERATION: None,
            OUTCOME: f"{decision_id}:accepted@{epoch + 1}",
            UNDONE_BECAUSE: None,
        },
    )


def compensate_operation(state: ServingState, decision_id: str, epoch: int, why: str) -> ServingChange:
    """All traffic back to the rollback point and the operation closed, in one patch that also says why: what makes it may die
    before it can say so elsewhere. Raises as `shift_traffic` does."""
    require_operation(state, decision_id, epoch)
    baseline, restore, is_pending = _rollback_point(state)
    return ServingChange(
        why=f"{decision_id} is compensated",
        traffic=None if is_pending else _all_traffic_to(state, baseline),
        restore=restore,
        annotations={
            EPOCH: str(epoch + 1),
            OPERATION: None,
            OUTCOME: f"{decision_id}:compensated@{epoch + 1}",
            UNDONE_BECAUSE: why,
            INTENT: _revert(baseline) if is_pending else None,
        },
    )


def emergency_revert(state: ServingState, *, revert_id: str, actor: str, reason: str, at: datetime) -> ServingChange:
    """All traffic to the rollback point at once; takes no lock and supersedes whatever operation is open.

    It always writes, also when the weights are right already, so that a running promotion sees the raised epoch and stops. Its id
    stays on the deployment, so that the same press delivered again, recorded by then or not, does nothing.
    Is the baseline's predictor gone, it is restored at weight 0 with `intent` set; `finish_revert` switches when it is ready.

    Raises:
        Superseded: the deployment has no rollback point, so nothing says what to revert to.
    """
    baseline, restore, is_pending = _rollback_point(state)
    entry = {"id": revert_id, "actor": actor, "reason": reason, "at": at.isoformat(), "epoch": str(state.epoch + 1)}
    entry["before"] = describe_serving(state)
    lately = {one: moment for one, moment in state.reverted.items() if at - datetime.fromisoformat(moment) < REPEATED_WITHIN}
    return ServingChange(
        why=f"emergency revert by {actor}",
        traffic=None if is_pending else _all_traffic_to(state, baseline),
        restore=restore,
        annotations={
            EPOCH: str(state.epoch + 1),
            OPERATION: None,
            INTENT: _revert(baseline) if is_pending else None,
            UNRECORDED: json.dumps([*state.unrecorded, entry], sort_keys=True),
            REVERTED: json.dumps(lately | {revert_id: entry["at"]}, sort_keys=True),
        },
    )


def finish_revert(state: ServingState) -> ServingChange | None:
    """The second patch of a revert whose predictor had to be restored; None when no revert is open."""
    if state.intent is None:
        return None
    baseline = state.intent.removeprefix(_revert(""))
    return ServingChange(
        why=f"revert to {baseline} ends",
        traffic=_all_traffic_to(state, baseline),
        annotations={EPOCH: str(state.epoch + 1), INTENT: None},
    )


def clear_the_way(state: ServingState, routed: Mapping[str, int] | None, not_ready: Collection[str]) -> ServingChange | None:
    """Remove the predictors that keep a change towards the rollback point from arriving; None when none does.

    Seldon moves the router only when every predictor is ready. So a candidate whose pods are broken, which may be the very reason
    for a revert, goes on receiving the traffic that the spec no longer gives it, until its predictor is gone.

    Args:
        routed: per cent by predictor as the router sends them now; None where that cannot be seen, so that nothing is removed.
        not_ready: predictors whose pods are not all available.
    """
    baseline = str((state.revert_to or {}).get("predictor", ""))
    if routed is None or state.intent or not state.serves_alone(baseline) or baseline in not_ready:
        return None
    if not sum(share for name, share in routed.items() if name != baseline):
        return None
    blocking = tuple(one.name for one in state.predictors if one.name in not_ready)
    if not blocking:
        return None
    return ServingChange(why=f"{', '.join(blocking)} keeps the revert from arriving", annotations={}, remove=blocking)


def retire_baseline(state: ServingState, decision_id: str) -> ServingChange | None:
    """Remove the predictor of the baseline that a promotion has replaced; None when it is gone already.

    The rollback point stays, so that an emergency can still restore it. `outcome` moves along with the epoch: it is still this
    decision that is in charge.

    Raises:
        Superseded: the promotion is not the last change, something is open, or the baseline has traffic.
    """
    baseline = str((state.revert_to or {}).get("predictor", ""))
    if not baseline or accepted_decision(state) != decision_id:
        raise Superseded(f"{state.name} has changed since {decision_id} (epoch {state.epoch}): its baseline is not retired")
    predictor = state.predictor(baseline)
    if predictor is None:
        return None
    if predictor.traffic or predictor.shadow:
        role = "is a shadow" if predictor.shadow else f"has {predictor.traffic} % of the traffic"
        raise Superseded(f"{baseline} still {role} in {state.name}: it is not retired")
    return ServingChange(
        why=f"{baseline} is retired after {decision_id}",
        annotations={EPOCH: str(state.epoch + 1), OUTCOME: f"{decision_id}:accepted@{state.epoch + 1}"},
        remove=(baseline,),
    )


def acknowledge_recorded(state: ServingState, revert_ids: frozenset[str]) -> ServingChange | None:
    """Take entries that are now in the decision records off `unrecorded`; None when there is nothing to take off."""
    left = [dict(entry) for entry in state.unrecorded if entry["id"] not in revert_ids]
    if len(left) == len(state.unrecorded):
        return None
    return ServingChange(
        why="emergency reverts are recorded", annotations={UNRECORDED: json.dumps(left, sort_keys=True) if left else None}
    )


def _revert(baseline: str) -> str:
    return f"revert:{baseline}"


def _rollback_point(state: ServingState) -> tuple[str, tuple[Mapping[str, object], ...], bool]:
    """The baseline's predictor name, its spec when the predictor is gone, and whether it still has to start (now or already)."""
    point = state.revert_to
    if point is None:
        raise Superseded(
            f"{state.name} carries no rollback point ({REVERT_TO}): set the traffic by hand, "
            "`kubectl edit seldondeployment`, and start the next test with fraud-ab"
        )
    baseline = str(point["predictor"])
    if state.predictor(baseline) is not None:
        return baseline, (), state.intent == _revert(baseline)
    spec = point["spec"]
    if not isinstance(spec, dict):
        raise Superseded(f"{state.name}: the rollback point names {baseline} without its spec")
    return baseline, ({**spec, "name": baseline, "traffic": 0},), True
