"""What became of the registry after an emergency or an undone promotion: their records cannot tell it yet, their documents do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.domain.decision_record import RecordKind
from flows.reports.decision_document import decision_document
from tests.document_gallery import dossiers

NOW = "fraud_v1 v3: Production (champion); fraud_v2 v1: Archived"
ASKED = "fraud_v1 v3: Production (champion); fraud_v2 v1: Staging"
PROMOTED = "fraud_v1 v3: Archived (previous); fraud_v2 v1: Production (champion)"


@pytest.mark.parametrize(("name", "before"), [("document_undone", ASKED), ("document_emergency", PROMOTED)])
def test_the_transition_is_among_the_actions(name: str, before: str) -> None:
    told = replace(dossiers()[name], registry=NOW)
    assert f"| registry | {before} | {NOW} |" in decision_document(told)
    assert "| registry |" not in decision_document(replace(told, registry=""))


def test_an_emergency_before_the_first_question_has_no_state_before() -> None:
    told = dossiers()["document_emergency"]
    alone = replace(told, decision=None, records=(told.ending,), registry=NOW)
    assert f"| registry |  | {NOW} |" in decision_document(alone)


def test_where_the_record_tells_it_only_the_record_is_believed() -> None:
    told = replace(dossiers()["document_kept"], registry="another state, later")
    assert told.ending.kind is RecordKind.BASELINE_KEPT
    assert decision_document(told).count("| registry |") == 1
    assert "another state, later" not in decision_document(told)
