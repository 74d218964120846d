"""Records as JSON that can be verified without the decision log: the decision document's, and an export of the whole chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flows.domain.decision_record import DecisionRecord
from flows.domain.evidence import plain
from flows.reports.dossier import business_impact, outcome_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flows.reports.dossier import Dossier

JSON_NAME = "decision_document.json"
DOCUMENT_SCHEMA, EXPORT_SCHEMA = 2, 1


def document_json(dossier: Dossier) -> str:
    """Everything in the decision document, with the records behind it as they are in the log."""
    decision, found = dossier.decision, dossier.investigation
    request = decision.request if decision else None
    body = {
        "schema": DOCUMENT_SCHEMA,
        "decision_id": dossier.ending.decision_id,
        "test": plain(dossier.test),
        "outcome": str(dossier.ending.kind),
        "outcome_text": outcome_sentence(dossier),
        "verdict": request.verdict.to_json() if request else None,
        "evidence": plain(request.evidence) if request else None,
        "policy": request.policy.model_dump(mode="json") if request and request.policy else None,
        "decision": plain(dossier.claim) if dossier.claim else None,
        "business_impact": business_impact(dossier),
        "failure_analysis": found.to_payload() if found else None,
        "actions": dossier.ending.payload,
        "record": dossier.ending.sequence,
        "records": [record.to_json() for record in dossier.records or (dossier.ending,)],
    }
    return _text(body)


def export_json(records: Iterable[DecisionRecord]) -> str:
    """All records in the order of the chain."""
    return _text({"schema": EXPORT_SCHEMA, "records": [record.to_json() for record in records]})


def read_records(body: Mapping[str, Any]) -> list[DecisionRecord]:
    """The records of a document or an export.

    Raises:
        KeyError, ValueError, TypeError: it is neither.
    """
    return [DecisionRecord.from_json(record) for record in body["records"]]


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
