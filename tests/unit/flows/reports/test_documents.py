"""The decision document and the lifecycle page: complete, parseable, and nothing that people wrote can break them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Claim, Confirmation, Decision, DecisionRequest, Links, Person
from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind
from flows.domain.evidence import Evidence
from flows.domain.lifecycle import model_lives
from flows.domain.policy import Policy, Traffic
from flows.domain.savings import Money
from flows.domain.verdict import decide_verdict
from flows.reports.decision_document import business_impact, decision_document, decision_json
from flows.reports.lifecycle_page import lifecycle_page

AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
V1, V2 = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "2", "fraud-v2")
NASTY = "ok | <!-- fraud-ab ends --> ``` [x](javascript:1)\n# Heading"
PAYLOAD: dict[str, object] = {
    "traffic": {"before": "fraud-v1 80 %, fraud-v2 20 %", "after": "fraud-v1 0 %, fraud-v2 100 %"},
    "registry": {"before": "fraud_v1 v1: Production", "after": "fraud_v1 v1: Archived (previous)"},
    "archive": {"uri": "s3://archive/fraud_v1/1", "files": 5},
}


def decision(
    *, caught: int = 880, savings: Money | None = None, reason: str = "", models: tuple[Model, Model] = (V1, V2)
) -> Decision:
    alerts = round(caught / 0.909)
    counts = Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, caught, alerts, caught))
    evidence = Evidence(counted=counts)
    verdict = replace(decide_verdict(evidence, Policy()), exposure_days=21, savings_per_month=savings)
    plan = ActionPlan(Arm.CANDIDATE, (100,), ())
    request = DecisionRequest(
        test=ABTest("t", *models, AT - timedelta(days=21), "run"),
        round=1,
        flow_run_id="run",
        verdict=verdict,
        plan=plan,
        rollback_plan=plan,
        epoch=1,
        links=Links(prefect_run="http://prefect/run/1"),
        decide_within_hours=1,
        next_look_at=None,
        evidence=evidence,
    )
    claim = Claim(Choice.CONFIRM, Person("U0ANA", "Ana"), reason, AT)
    return Decision(request, AT, AT + timedelta(hours=1), claim)


def ending(kind: RecordKind, payload: dict[str, object] | None = None) -> DecisionRecord:
    return DecisionRecord(2, kind, "t-1", AT, PAYLOAD if payload is None else payload, GENESIS, "sha256:abc")


def page(made: Decision, *records: DecisionRecord) -> dict[str, Any]:
    text = lifecycle_page(model_lives([made], records, None, AT), Traffic())
    return yaml.safe_load(text.partition("```yaml\n")[2].partition("\n```\n")[0])["model_lifecycle"]


def test_the_document_has_every_part_that_is_asked_for() -> None:
    text = decision_document(decision(reason="checked with ops"), ending(RecordKind.PROMOTED))
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["Outcome", "Evidence", "Statistical significance"]
    assert titles[3:] == ["Stability", "Validity of the evidence", "Business impact", "Actions taken", "References"]
    for part in (
        "fraud_v2 version 2 is promoted and serves 100 % of the traffic",
        "Decided by Ana (U0ANA), confirm, 2026-11-22 09:30 UTC; reason: checked with ops.",
        "| baseline | 0.8000 | 0.9091 |",
        "| candidate | 0.8800 |",
        "p = ",
        "| recall_improvement | passed |",
        "| latency | not_checked |",
        "| traffic | fraud-v1 80 %, fraud-v2 20 % | fraud-v1 0 %, fraud-v2 100 % |",
        "| archive |  | uri s3://archive/fraud_v1/1, files 5 |",
        "http://prefect/run/1",
        "record 2, sha256:abc",
    ):
        assert part in text


@pytest.mark.parametrize("kind", [kind for kind in RecordKind if kind.is_outcome or kind is RecordKind.DECIDED])
def test_each_ending_has_its_own_sentence(kind: RecordKind) -> None:
    body = json.loads(decision_json(decision(), ending(kind, {"why": "p95 140 ms"})))
    assert body["outcome"] == kind
    assert body["outcome_text"].endswith(".")
    assert "p95 140 ms" in decision_document(decision(), ending(kind, {"why": "p95 140 ms"}))


def test_the_json_holds_verdict_answer_and_record() -> None:
    made = decision(reason="yes")
    body = json.loads(decision_json(made, ending(RecordKind.PROMOTED)))
    assert body["verdict"] == made.request.verdict.to_json()
    assert body["decision"]["actor"] == {"id": "U0ANA", "name": "Ana"}
    assert body["actions"] == PAYLOAD
    assert body["record"]["hash"] == "sha256:abc"


def test_savings_are_a_number_only_when_they_are_known() -> None:
    known = business_impact(decision(savings=Money("1234.50", "-100.00", "2569.00", "EUR")), RecordKind.PROMOTED)
    assert "1,234.50 EUR (95 % interval -100.00 to 2,569.00; the interval crosses zero" in known
    assert "not quantified" in business_impact(decision(), RecordKind.PROMOTED)
    assert "goes on unchanged with fraud_v1" in business_impact(decision(), RecordKind.BASELINE_KEPT)


def test_both_who_confirmed_are_named() -> None:
    made = decision(reason="yes")
    assert made.claim is not None
    first = Confirmation(Person("U0BEN", "Ben"), "recall | holds", AT - timedelta(minutes=30))
    made = replace(made, claim=replace(made.claim, first=first))
    text = decision_document(made, ending(RecordKind.PROMOTED))
    assert (
        "First confirmed by Ben (U0BEN), 2026-11-22 09:00 UTC; reason: recall \\| holds. Decided by Ana (U0ANA), confirm" in text
    )
    body = json.loads(decision_json(made, ending(RecordKind.PROMOTED)))
    assert body["decision"]["first"]["actor"] == {"id": "U0BEN", "name": "Ben"}
    assert "First confirmed" not in decision_document(decision(), ending(RecordKind.PROMOTED))


def test_a_persons_words_cannot_break_the_document() -> None:
    text = decision_document(decision(reason=NASTY), ending(RecordKind.PROMOTED, {"why": NASTY}))
    assert "<!--" not in text
    assert "\n# Heading" not in text
    assert "```" not in text
    assert "[x](" not in text.replace("\\[x](", "")


def test_an_undecided_document_and_one_without_actions_say_so() -> None:
    text = decision_document(replace(decision(), claim=None), ending(RecordKind.DECIDED, {}))
    assert "Decided by" not in text
    assert "Decided, and not carried out yet." in text
    assert "## Actions taken\n\nNone." in text


def test_a_postponement_changes_nothing_in_production() -> None:
    made = decision()
    assert made.claim is not None
    postponed = replace(made, claim=replace(made.claim, choice=Choice.POSTPONE))
    text = decision_document(postponed, ending(RecordKind.DECIDED, {}))
    assert "The test goes on and is evaluated again; production is as it was." in text
    assert "None yet: fraud_v1 version 1 stays in charge while the test goes on." in text


def test_the_page_has_the_form_of_the_phase_document_after_a_promotion() -> None:
    found = page(decision(), ending(RecordKind.PROMOTED))
    assert list(found) == ["fraud_v1", "fraud_v2"]
    assert found["fraud_v1"]["status"] == "Archived"
    assert found["fraud_v1"]["metrics"] == {"precision": 0.9091, "recall": 0.8, "fraud_detection_rate": 0.8}
    candidate = found["fraud_v2"]
    assert candidate["status"] == "Promoted (Production)"
    assert candidate["last_updated"] == "2026-11-22"
    assert candidate["ab_test"]["duration"] == "3 weeks"
    assert candidate["ab_test"]["traffic_split"] == {"baseline": "80%", "candidate": "20%"}
    assert candidate["ab_test"]["outcome"].startswith("Promoted (Production): The candidate catches 88")
    assert candidate["ab_test"]["decided_by"] == "Ana"
    assert candidate["failure_analysis"] is None
    assert [item["status"] for item in candidate["history"]] == ["In test (Staging)", "Promoted (Production)"]


def test_a_lost_test_names_what_failed() -> None:
    found = page(decision(caught=790), ending(RecordKind.BASELINE_KEPT))
    assert found["fraud_v1"]["status"] == "Retained (Production)"
    assert found["fraud_v2"]["status"] == "Archived"
    assert "recall" in found["fraud_v2"]["failure_analysis"].lower()


def test_a_test_that_was_won_but_not_promoted_says_that_people_decided_so() -> None:
    made = decision()
    verdict = replace(
        made.request.verdict, criteria=tuple(one for one in made.request.verdict.criteria if one.status == "passed")
    )
    made = replace(made, request=replace(made.request, verdict=verdict))
    assert "All criteria were met" in page(made, ending(RecordKind.BASELINE_KEPT))["fraud_v2"]["failure_analysis"]


def test_two_versions_of_one_model_have_their_own_entries() -> None:
    models = (Model("fraud", "1", "fraud-v1"), Model("fraud", "2", "fraud-v2"))
    assert list(page(decision(models=models))) == ["fraud_v1", "fraud_v2"]


def test_a_name_or_word_of_people_cannot_end_the_generated_part() -> None:
    made = decision(models=(V1, Model("a: <!-- fraud-ab ends -->", "2", "fraud-v2")))
    text = lifecycle_page(model_lives([made], [ending(RecordKind.PROMOTED)], None, AT), Traffic())
    assert "<!--" not in text.partition("```yaml")[2].partition("```")[0]
    assert "<!--" not in text


def test_the_documentation_shows_the_page_as_it_is_written() -> None:
    documented = Path(__file__).parents[4].joinpath("docs", "model_lifecycle.md").read_text(encoding="utf-8")
    example = yaml.safe_load(documented.partition("```yaml\n")[2].partition("\n```\n")[0])["model_lifecycle"]
    for name, entry in page(decision(), ending(RecordKind.PROMOTED)).items():
        assert list(example[name]) == list(entry)
        assert list(example[name].get("ab_test", [])) == list(entry.get("ab_test", []))


@pytest.mark.parametrize(("days", "words"), [(None, "unknown"), (1, "1 day"), (7, "1 week"), (20, "20 days"), (28, "4 weeks")])
def test_durations_in_words(days: int | None, words: str) -> None:
    made = decision()
    made = replace(made, request=replace(made.request, verdict=replace(made.request.verdict, exposure_days=days)))
    assert page(made)["fraud_v2"]["ab_test"]["duration"] == words
