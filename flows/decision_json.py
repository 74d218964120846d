"""A decision's question and answer as JSON, strictly: what is read back is equal to what was written, or it is refused."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer, PlainValidator

from flows.domain.ab_test import ABTest
from flows.domain.action_plan import ActionPlan
from flows.domain.decision import Choice, Claim, Confirmation, Decision, DecisionRequest, Links, Person
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


def _read_by(kind: type[Verdict] | type[Evidence]) -> PlainValidator:
    return PlainValidator(lambda value: value if isinstance(value, kind) else kind.from_json(value))


# Their own schemas: the verdict's is the published one that `evaluate --json` prints.
_VerdictJson = Annotated[Verdict, _read_by(Verdict), PlainSerializer(Verdict.to_json)]
_EvidenceJson = Annotated[Evidence, _read_by(Evidence), PlainSerializer(Evidence.to_json)]


class _StoredRequest(BaseModel):
    """Schema 1 of a stored question."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    test: ABTest
    round: int
    flow_run_id: str
    verdict: _VerdictJson
    plan: ActionPlan
    rollback_plan: ActionPlan
    epoch: int
    links: Links
    decide_within_hours: float
    next_look_at: AwareDatetime | None
    horizon_at: AwareDatetime | None
    postponements_left: int
    evidence: _EvidenceJson | None
    policy: Policy | None


def request_to_json(request: DecisionRequest) -> str:
    return _StoredRequest(**_fields(request)).model_dump_json()


@lru_cache(maxsize=64)
def request_from_json(text: str) -> DecisionRequest:
    """What was asked; a question never changes, and reading one takes longer than everything else that a press asks for."""
    stored = _StoredRequest.model_validate_json(text)
    return DecisionRequest(**{field.name: getattr(stored, field.name) for field in dataclasses.fields(DecisionRequest)})


def claim_to_json(decision: Decision) -> dict[str, object]:
    """The payload of the record of an answered decision: everything that was asked, and the answer."""
    claim = decision.claim
    if claim is None:
        raise ValueError(f"{decision.decision_id} has no answer to record")
    return {
        "request": json.loads(request_to_json(decision.request)),
        "choice": str(claim.choice),
        "actor": {"id": claim.actor.id, "name": claim.actor.name},
        "reason": claim.reason,
        "asked_at": decision.created_at.isoformat(),
        "deadline": decision.deadline.isoformat(),
        "claimed_at": claim.claimed_at.isoformat(),
        "due_at": _iso(claim.due_at),
        "wanted_frauds": claim.wanted_frauds,
        "first_confirmation": _confirmation(claim.first) if claim.first else None,
    }


def claim_from_json(payload: Mapping[str, Any]) -> Decision:
    """The answered decision of which `claim_to_json` made a record's payload.

    Raises:
        KeyError, ValueError, TypeError: it is of another version.
    """
    first, due_at = payload["first_confirmation"], payload["due_at"]
    claim = Claim(
        choice=Choice(payload["choice"]),
        actor=Person(**payload["actor"]),
        reason=payload["reason"],
        claimed_at=datetime.fromisoformat(payload["claimed_at"]),
        due_at=datetime.fromisoformat(due_at) if due_at else None,
        wanted_frauds=payload["wanted_frauds"],
        first=_confirmation_of(first) if first else None,
    )
    return Decision(
        request=request_from_json(json.dumps(payload["request"])),
        created_at=datetime.fromisoformat(payload["asked_at"]),
        deadline=datetime.fromisoformat(payload["deadline"]),
        claim=claim,
        first_confirmation=claim.first,
    )


def first_confirmation_to_json(decision: Decision) -> dict[str, object]:
    """The payload of the record of a first confirmation: whose it is, and on which evidence and policy."""
    first, verdict = decision.first_confirmation, decision.request.verdict
    if first is None:
        raise ValueError(f"{decision.decision_id} has no first confirmation to record")
    return {**_confirmation(first), "evidence_digest": verdict.evidence_digest, "policy_digest": verdict.policy_digest}


def _confirmation(first: Confirmation) -> dict[str, object]:
    return {
        "actor": {"id": first.actor.id, "name": first.actor.name},
        "reason": first.reason,
        "confirmed_at": first.confirmed_at.isoformat(),
    }


def _confirmation_of(told: Mapping[str, Any]) -> Confirmation:
    return Confirmation(Person(**told["actor"]), told["reason"], datetime.fromisoformat(told["confirmed_at"]))


def _fields(request: DecisionRequest) -> dict[str, Any]:
    return {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
