"""A decision's question and answer as JSON, strictly: what is read back is equal to what was written, or it is refused."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer, PlainValidator

from flows.domain.ab_test import ABTest
from flows.domain.action_plan import ActionPlan
from flows.domain.decision import DecisionRequest, Links
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from flows.domain.decision import Confirmation, Decision


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


def _fields(request: DecisionRequest) -> dict[str, Any]:
    return {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
