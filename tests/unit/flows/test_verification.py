"""What a verification compares: each document with the records in it, and the answer in the table with its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flows.decision_json import claim_from_json, claim_to_json
from flows.domain.decision import Choice, Claim, Confirmation, Decision
from flows.domain.decision_record import DecisionRecord, RecordKind
from flows.domain.evidence import plain
from flows.domain.verdict import VerdictKind
from flows.reports.dossier import Dossier
from flows.reports.record_json import document_json
from flows.verification import answer_problems, document_problems
from tests.document_gallery import chain, dossiers
from tests.gallery import ANA, CHIARA, NOW, decision

Json = dict[str, Any]
DOSSIERS = dossiers()


def body(name: str) -> Json:
    return json.loads(document_json(DOSSIERS[name]))


@pytest.mark.parametrize("name", DOSSIERS)
def test_a_document_as_it_was_written_is_what_its_records_give(name: str) -> None:
    assert document_problems("file", body(name)) == []


def _set(*path: str, to: Any) -> Callable[[Json], None]:
    def change(told: Json) -> None:
        for key in path[:-1]:
            told = told[key]
        assert told[path[-1]] != to
        told[path[-1]] = to

    return change


CHANGES: dict[str, Callable[[Json], None]] = {
    "decision": _set("decision", "actor", "name", to="eve"),
    "test": _set("test", "candidate", "version", to="9"),
    "failure_analysis": _set("failure_analysis", "summary", to=["Nothing was found."]),
    "outcome_text": _set("outcome_text", to="fraud_v2 was promoted."),
    "business_impact": _set("business_impact", to="None."),
    "outcome": _set("outcome", to="promoted"),
    "actions": _set("actions", "traffic", "after", to="fraud-v2 100 %"),
    "policy": _set("policy", "bake_hours", to=1.0),
    "decision_id": _set("decision_id", to="other-1"),
    "added": lambda told: told.update(added="more"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_each_field_of_a_document_that_was_changed_is_named(field: str) -> None:
    told = body("document_kept")
    CHANGES[field](told)
    assert any(line.startswith(f"file: {field} was changed") for line in document_problems("file", told))


def test_the_sentences_of_another_version_are_not_blamed_where_the_digest_tells() -> None:
    told = body("document_kept")
    CHANGES["business_impact"](told)
    assert document_problems("file", told, is_noted=True) == []
    CHANGES["decision"](told)
    assert document_problems("file", told, is_noted=True) == ["file: decision was changed: its record tells otherwise."]


def test_a_document_of_another_version_is_none_that_can_be_compared() -> None:
    with pytest.raises(ValueError, match="schema 1, not 2"):
        document_problems("file", body("document_kept") | {"schema": 1})


def emergency(decided: Decision | None, **told: object) -> Json:
    """A revert before anybody has answered the test's first question."""
    [_, record] = chain(decision(VerdictKind.PROMOTE, Choice.CONFIRM), (RecordKind.EMERGENCY_REVERT, {"actor": "chiara", **told}))
    test = decision(VerdictKind.PROMOTE).request.test
    return json.loads(document_json(Dossier(test, decided, record, (record,))))


def test_an_emergency_before_an_answer_is_compared_with_what_its_record_tells() -> None:
    test = plain(decision(VerdictKind.PROMOTE).request.test)
    before = emergency(None, test=test)
    assert document_problems("file", before) == []
    before["test"] = {**before["test"], "test_id": "other"}
    assert document_problems("file", before) == ["file: test was changed: its record tells otherwise."]
    asked = emergency(decision(VerdictKind.PROMOTE), test=test)
    assert document_problems("file", asked) == []
    asked["outcome_text"] = "Nothing happened."
    assert [line.partition(" was")[0] for line in document_problems("file", asked)] == ["file: outcome_text"]


# ---- the table


def recorded(decided: Decision) -> DecisionRecord:
    [record] = chain(decided)
    return record


def two_people() -> Decision:
    made = decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    first = Confirmation(CHIARA, "holds", NOW - timedelta(minutes=30))
    return replace(made, claim=replace(_claim(made), first=first), first_confirmation=first)


def _claim(made: Decision) -> Claim:
    assert made.claim is not None
    return made.claim


def waiting(due_at: datetime) -> Decision:
    made = decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE)
    return replace(made, claim=replace(_claim(made), due_at=due_at, wanted_frauds=9000))


def test_what_a_record_tells_of_an_answer_is_read_back_as_it_was() -> None:
    for made in (two_people(), waiting(NOW)):
        assert claim_from_json(json.loads(json.dumps(claim_to_json(made)))) == made


def _asked_otherwise(made: Decision) -> Decision:
    verdict = made.request.verdict
    metrics = replace(verdict.metrics, candidate=replace(verdict.metrics.candidate, recall=0.99))
    return replace(made, request=replace(made.request, verdict=replace(verdict, metrics=metrics)))


IN_THE_TABLE: dict[str, Callable[[Decision], Decision]] = {
    "request.verdict.metrics.candidate.recall is 0.99": _asked_otherwise,
    "deadline": lambda made: replace(made, deadline=NOW),
    "asked_at": lambda made: replace(made, created_at=NOW),
    "actor.id": lambda made: replace(made, claim=replace(_claim(made), actor=CHIARA)),
    "first_confirmation": lambda made: replace(made, claim=replace(_claim(made), first=None)),
    "first_confirmation.actor.id": lambda made: replace(made, claim=replace(_claim(made), first=Confirmation(ANA, "holds", NOW))),
    "it is not answered": lambda made: replace(made, claim=None),
}


@pytest.mark.parametrize("field", IN_THE_TABLE)
def test_each_part_of_the_table_that_the_record_tells_otherwise_is_named(field: str) -> None:
    made = two_people()
    record = recorded(made)
    assert answer_problems(made.decision_id, made, [record]) == []
    said = answer_problems(made.decision_id, IN_THE_TABLE[field](made), [record])
    assert any(line.startswith(f"The table decisions says of {made.decision_id} that {field}") for line in said), said
    assert all(str(record) in line for line in said)


def test_another_run_that_waits_and_frauds_that_are_seen_earlier_are_no_tampering() -> None:
    made = waiting(NOW)
    record = recorded(made)
    taken_over = replace(made, request=replace(made.request, flow_run_id="another"))
    assert answer_problems(made.decision_id, taken_over, [record]) == []
    woken, late = waiting(NOW - timedelta(hours=5)), waiting(NOW + timedelta(hours=5))
    assert answer_problems(made.decision_id, woken, [record]) == []
    [line] = answer_problems(made.decision_id, late, [record])
    assert "due_at" in line
    document = json.loads(document_json(Dossier(woken.request.test, woken, record, (record,))))
    assert document_problems("file", document) == []
