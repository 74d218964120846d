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
from flows.domain.decision_record import GENESIS, DecisionRecord, Investigation, RecordKind
from flows.domain.evidence import Evidence
from flows.domain.lifecycle import model_lives
from flows.domain.policy import Policy, Traffic
from flows.domain.savings import Money
from flows.domain.verdict import VerdictKind, decide_verdict
from flows.reports.decision_document import decision_document
from flows.reports.dossier import Dossier, business_impact
from flows.reports.lifecycle_page import lifecycle_page
from flows.reports.record_json import document_json, export_json, read_records

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


def dossier(made: Decision, kind: RecordKind, payload: dict[str, object] | None = None, *records: DecisionRecord) -> Dossier:
    told = ending(kind, payload)
    return Dossier(made.request.test, made, told, (*records, told))


def document(made: Decision, kind: RecordKind, payload: dict[str, object] | None = None, *records: DecisionRecord) -> str:
    return decision_document(dossier(made, kind, payload, *records))


def answered(choice: Choice, verdict: VerdictKind = VerdictKind.PROMOTE, **claim: Any) -> Decision:
    made = decision()
    assert made.claim is not None
    request = replace(made.request, verdict=replace(made.request.verdict, verdict=verdict))
    return replace(made, request=request, claim=replace(made.claim, choice=choice, **claim))


def page_text(made: Decision, *records: DecisionRecord) -> str:
    return lifecycle_page(model_lives([made], records, None, AT), Policy())


def page(made: Decision, *records: DecisionRecord) -> dict[str, Any]:
    text = page_text(made, *records)
    return yaml.safe_load(text.partition("```yaml\n")[2].partition("\n```\n")[0])["model_lifecycle"]


def test_the_document_has_every_part_that_is_asked_for() -> None:
    text = document(decision(reason="checked with ops"), RecordKind.PROMOTED)
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["Outcome", "Evidence", "Statistical significance"]
    assert titles[3:] == ["Stability", "Validity of the evidence", "Business impact", "Actions taken", "References"]
    for part in (
        "fraud_v2 version 2 is promoted and serves 100 % of the traffic",
        "Decided by Ana (U0ANA), confirm, 2026-11-22 09:30 UTC; reason: checked with ops.",
        "Verdict of the rules: **PROMOTE**, round 1 over 21 days of exposure.",
        "| fraud_v1 (baseline) | 0.8000 | 0.9091 |",
        "| fraud_v2 (candidate) | 0.8800 |",
        "p = ",
        "| recall improvement | passed |",
        "| latency | not checked |",
        "| traffic | fraud-v1 80 %, fraud-v2 20 % | fraud-v1 0 %, fraud-v2 100 % |",
        "| archive |  | s3://archive/fraud_v1/1, 5 files |",
        "| dashboards and alerts follow fraud_v2; its latency, errors, traffic and flag rate are watched for 24 h",
        "<http://prefect/run/1>",
        "| 2 | promoted | 2026-11-22 09:30 UTC | sha256:abc |",
    ):
        assert part in text


OUTCOMES = {
    "promoted": (
        decision(),
        RecordKind.PROMOTED,
        "fraud_v2 version 2 is promoted and serves 100 %",
        "fraud_v2 catches 88.0 % of the fraud that it sees",
    ),
    "kept": (decision(caught=790), RecordKind.BASELINE_KEPT, "fraud_v1 version 1 is retained", "goes on unchanged with fraud_v1"),
    "postponed": (
        answered(Choice.POSTPONE, due_at=AT + timedelta(days=3)),
        RecordKind.DECIDED,
        "Postponed. The test goes on and is evaluated again on 2026-11-25 09:30 UTC; production is as it was.",
        "None yet: fraud_v1 version 1 stays in charge while the test goes on.",
    ),
    "postponed for frauds": (
        answered(Choice.POSTPONE, due_at=AT + timedelta(days=3), wanted_frauds=2500),
        RecordKind.DECIDED,
        "evaluated again when 2,500 frauds are seen, at the latest on 2026-11-25",
        "None yet",
    ),
    "extended": (
        answered(Choice.CONFIRM, VerdictKind.INCONCLUSIVE),
        RecordKind.DECIDED,
        "Extended. The test goes on and is evaluated again; production is as it was.",
        "None yet",
    ),
    "expired": (
        answered(Choice.EXPIRE, VerdictKind.INCONCLUSIVE),
        RecordKind.BASELINE_KEPT,
        "Nobody decided until 2026-11-22 10:30 UTC, so the baseline stays: silence never promotes.",
        "fraud_v2 can be tested again",
    ),
    "forced": (answered(Choice.FORCE_ROLLBACK), RecordKind.BASELINE_KEPT, "force rollback", "Why fraud_v2 is not in charge is"),
    "ended": (
        answered(Choice.CONFIRM, VerdictKind.NOT_EVALUABLE),
        RecordKind.BASELINE_KEPT,
        "is retained",
        "fraud_v2 can be tested again.",
    ),
    "compensated": (
        decision(),
        RecordKind.COMPENSATED,
        "The promotion of fraud_v2 version 2 was undone",
        "Why fraud_v2 is not in charge is investigated before it",
    ),
    "superseded": (decision(), RecordKind.SUPERSEDED, "A newer change came first", "None by this decision"),
    "failed": (decision(), RecordKind.FAILED, "failed and is being undone", "fraud_v1"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_each_outcome_is_told_with_its_evidence_impact_and_reason(name: str) -> None:
    made, kind, outcome, impact = OUTCOMES[name]
    text = document(made, kind, {"why": "p95 140 ms"})
    told, rest = text.split("## Evidence")
    assert outcome in told
    assert impact in rest.partition("## Business impact")[2].partition("## ")[0]
    assert "| why |  | p95 140 ms |" in text
    body = json.loads(document_json(dossier(made, kind, {"why": "p95 140 ms"})))
    assert (body["outcome"], body["business_impact"][:4]) == (kind, business_impact(dossier(made, kind))[:4])


def test_every_outcome_and_answer_has_its_sentence() -> None:
    kinds = {kind for _, kind, _, _ in OUTCOMES.values()} | {RecordKind.EMERGENCY_REVERT}
    assert kinds == {kind for kind in RecordKind if kind.is_outcome or kind is RecordKind.DECIDED}


REVERT: dict[str, object] = {
    "actor": "U0CHI",
    "reason": "losses | rise",
    "at": "2026-11-23T08:00:00+00:00",
    "before": "fraud-v2 100 %",
}


def test_an_emergency_has_a_document_with_who_why_and_the_decision_before_it() -> None:
    text = document(decision(), RecordKind.EMERGENCY_REVERT, REVERT)
    assert "fraud_v1 version 1 was put back in an emergency and serves 100 % of the traffic." in text
    assert (
        "Reverted by U0CHI, 2026-11-23 08:00 UTC; reason: losses \\| rise. The test's latest decision before it (t-1): Dec"
        in text
    )
    assert "| traffic | fraud-v2 100 % | fraud-v1 100 % |" in text
    assert "| monitoring | both models | dashboards and alerts follow fraud_v1 |" in text


def test_an_emergency_before_the_first_question_says_that_no_evidence_stands_behind_it() -> None:
    told = ending(RecordKind.EMERGENCY_REVERT, {})
    alone = Dossier(decision().request.test, None, told)
    text = decision_document(alone)
    assert "Reverted by somebody, at an unknown time; no reason was given." in text
    assert "## Evidence\n\nNo question about this test had been asked yet" in text
    assert "| traffic | not known | fraud-v1 100 % |" in text
    assert "fraud_v2 can be tested again." in text
    assert "Failure analysis" not in text
    body = json.loads(document_json(alone))
    assert (body["verdict"], body["evidence"], body["decision"]) == (None, None, None)
    assert [one["kind"] for one in body["records"]] == ["emergency_revert"]


def test_the_json_holds_verdict_answer_and_the_records_as_they_are_in_the_log() -> None:
    made, before = decision(reason="yes"), replace(ending(RecordKind.DECIDED, {"choice": "confirm"}), sequence=1)
    body = json.loads(document_json(dossier(made, RecordKind.PROMOTED, None, before)))
    assert body["verdict"] == made.request.verdict.to_json()
    assert body["decision"]["actor"] == {"id": "U0ANA", "name": "Ana"}
    assert body["actions"] == PAYLOAD
    assert body["record"] == 2
    assert read_records(body) == [before, ending(RecordKind.PROMOTED)]
    assert read_records(json.loads(export_json([before]))) == [before]


def test_savings_are_a_number_only_when_they_are_known() -> None:
    known = business_impact(dossier(decision(savings=Money("1234.50", "-100.00", "2569.00", "EUR")), RecordKind.PROMOTED))
    assert "1,234 EUR (95 % interval -100 to 2,569; the interval crosses zero" in known
    unknown = decision()
    metrics = replace(unknown.request.verdict.metrics.candidate, recall=None)
    verdict = replace(unknown.request.verdict, metrics=replace(unknown.request.verdict.metrics, candidate=metrics))
    unknown = replace(unknown, request=replace(unknown.request, verdict=verdict))
    assert business_impact(dossier(unknown, RecordKind.PROMOTED)).startswith("Recall changes by +10.0 %")
    assert "not quantified" in business_impact(dossier(decision(), RecordKind.PROMOTED))
    assert "goes on unchanged with fraud_v1" in business_impact(dossier(decision(), RecordKind.BASELINE_KEPT))


def test_both_who_confirmed_are_named() -> None:
    first = Confirmation(Person("U0BEN", "Ben"), "recall | holds", AT - timedelta(minutes=30))
    made = answered(Choice.CONFIRM, first=first)
    text = document(made, RecordKind.PROMOTED)
    assert (
        "First confirmed by Ben (U0BEN), 2026-11-22 09:00 UTC; reason: recall \\| holds. Decided by Ana (U0ANA), confirm" in text
    )
    body = json.loads(document_json(dossier(made, RecordKind.PROMOTED)))
    assert body["decision"]["first"]["actor"] == {"id": "U0BEN", "name": "Ben"}
    assert "First confirmed" not in document(decision(), RecordKind.PROMOTED)
    assert "No second person confirmed until" in document(answered(Choice.EXPIRE, first=first), RecordKind.BASELINE_KEPT)


def test_a_persons_words_cannot_break_the_document() -> None:
    text = document(decision(reason=NASTY), RecordKind.PROMOTED, {"why": NASTY})
    assert "<!--" not in text
    assert "\n# Heading" not in text
    assert "```" not in text
    assert "[x](" not in text.replace("\\[x](", "")


def test_an_address_that_is_none_is_no_link() -> None:
    made = decision()
    made = replace(made, request=replace(made.request, links=Links(report="javascript:alert(1)", dashboard="https://a b>c")))
    text = document(made, RecordKind.PROMOTED)
    assert "- Report: javascript:alert(1)\n" in text
    assert "- Dashboard: https://a b>c\n" in text


def test_an_undecided_document_and_one_without_actions_say_so() -> None:
    text = document(replace(decision(), claim=None), RecordKind.DECIDED, {})
    assert "Decided by" not in text
    assert "Decided, and not carried out yet." in text
    assert "## Actions taken\n\nNone." in text


def test_what_came_first_is_in_a_document_of_what_was_overtaken() -> None:
    text = document(decision(), RecordKind.SUPERSEDED, {"why": "changed since", "now": "fraud-v1 80 %, fraud-v2 20 %"})
    assert "| traffic | fraud-v1 80 %, fraud-v2 20 % | left as it is |\n| why |  | changed since |" in text


def test_an_archive_that_failed_is_an_action_too() -> None:
    text = document(decision(), RecordKind.BASELINE_KEPT, {"archive": {"failed": "downloading fraud_v2"}})
    assert "| archive |  | failed: downloading fraud_v2 |" in text


def test_numbers_that_cannot_be_judged_count_for_no_criterion() -> None:
    text = document(answered(Choice.CONFIRM, VerdictKind.NOT_EVALUABLE), RecordKind.BASELINE_KEPT)
    assert "The numbers cannot be judged, so no criterion counts." in text
    assert "no criterion counts" not in document(decision(), RecordKind.PROMOTED)


FOUND = Investigation(
    ("`fraud_v2` lost because amounts | have drifted.", "Ruled out: overfitting."),
    (
        {
            "hypothesis": "feature_drift",
            "status": "supported",
            "said": "KS 0.31 of amount",
            "next_step": "Retrain on current data.",
        },
        {"hypothesis": "overfitting", "status": "not_supported", "said": "The losses agree.", "next_step": ""},
    ),
    "https://mlflow.example/report",
)


def investigated() -> DecisionRecord:
    return replace(ending(RecordKind.INVESTIGATED, FOUND.to_payload()), sequence=3)


def test_a_lost_test_says_what_is_looked_at_until_it_was_investigated_and_then_what_was_found() -> None:
    lost = decision(caught=790)
    plan = document(lost, RecordKind.BASELINE_KEPT).partition("## Failure analysis\n\n")[2].partition("\n\n## ")[0]
    assert plan.startswith("Not investigated when this was written. An investigation looks at data (drift of every feature")
    assert "Failure analysis" not in document(decision(), RecordKind.PROMOTED)
    told = ending(RecordKind.BASELINE_KEPT)
    made = Dossier(lost.request.test, lost, told, (told, investigated()))
    text = decision_document(made)
    assert "- 'fraud_v2' lost because amounts \\| have drifted." in text
    assert "| feature drift | supported | KS 0.31 of amount | Retrain on current data. |" in text
    assert "Report: <https://mlflow.example/report>" in text
    assert json.loads(document_json(made))["failure_analysis"] == FOUND.to_payload()


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


def test_an_investigation_is_the_pages_failure_analysis_and_its_recommendation() -> None:
    text = page_text(decision(caught=790), ending(RecordKind.BASELINE_KEPT), investigated())
    found = yaml.safe_load(text.partition("```yaml\n")[2].partition("\n```\n")[0])["model_lifecycle"]
    assert found["fraud_v2"]["failure_analysis"] == FOUND.summary[0]
    assert "| feature drift | supported | KS 0.31 of amount | Retrain on current data. |" in text
    assert "- **fraud_v2** version 2: Retrain on current data." in text
    empty = replace(investigated(), payload=Investigation(("Nothing was found.",)).to_payload())
    assert "proposes nothing more" in page_text(decision(caught=790), ending(RecordKind.BASELINE_KEPT), empty)
    before = page_text(decision(caught=790), ending(RecordKind.BASELINE_KEPT))
    assert "### fraud_v2 version 2\n\nrecall" in before
    assert "find the cause first" in before
    assert "Not investigated: `/fraud-investigate t-1` in Slack looks for the cause." in before


def test_the_tests_are_a_table_for_people_with_the_split_that_each_was_decided_by() -> None:
    made = decision()
    own = replace(made, request=replace(made.request, policy=Policy(traffic=Traffic(baseline=90, candidate=10))))
    row = "| t | fraud_v1 → fraud_v2 | 3 weeks from 2026-11-01 | 90 / 10 % | 0.800 → 0.880 | 0.909 → 0.909 |"
    assert f"{row} Promoted (Production) | Ana |" in page_text(own, ending(RecordKind.PROMOTED))
    assert f"{row.replace('90 / 10', '80 / 20')} In test (Staging) | not yet |" in page_text(replace(made, claim=None))


def test_after_a_promotion_the_page_has_the_monitoring_plan_of_its_policy() -> None:
    made = decision()
    assert "Monitoring plan" not in page_text(made, ending(RecordKind.BASELINE_KEPT))
    plan = page_text(made, ending(RecordKind.PROMOTED)).partition("## Monitoring plan")[2]
    assert "stay those of the test (0.880, 0.909, 0.880): nothing counts them anew" in plan, "the metrics end with the test"
    for part in (
        "first 24 hours",
        "limit 100 ms",
        "a button to revert",
        "30 days",
        "0.880, 0.909, 0.880",
        "/fraud-rollback",
        "stays",
    ):
        assert part in plan
    policy = Policy(bake_hours=48, auto_revert=True, retire_after_hours=72)
    own = replace(made, request=replace(made.request, policy=policy))
    plan = page_text(own, ending(RecordKind.PROMOTED)).partition("## Monitoring plan")[2]
    for part in ("first 48 hours", "reverted at once", "removed after 72 h"):
        assert part in plan


def test_a_model_that_became_the_baseline_keeps_the_trial_that_it_won() -> None:
    second = decision(models=(V2, Model("fraud_v3", "3", "fraud-v3")))
    second = replace(
        second, request=replace(second.request, test=replace(second.request.test, test_id="u")), created_at=AT + timedelta(1)
    )
    promoted = ending(RecordKind.PROMOTED, {**PAYLOAD, "epoch": 2})
    again = replace(ending(RecordKind.PROMOTED, {**PAYLOAD, "epoch": 5}), decision_id="u-1", sequence=3)
    text = lifecycle_page(model_lives([decision(), second], [promoted, again], None, AT), Policy())
    found = yaml.safe_load(text.partition("```yaml\n")[2].partition("\n```\n")[0])["model_lifecycle"]
    assert found["fraud_v2"]["status"] == "Archived"
    assert found["fraud_v2"]["ab_test"]["outcome"].startswith("Promoted (Production): ")
    assert found["fraud_v2"]["failure_analysis"] is None
    assert text.count("| Promoted (Production) | Ana |") == 2


def test_two_versions_of_one_model_have_their_own_entries() -> None:
    models = (Model("fraud", "1", "fraud-v1"), Model("fraud", "2", "fraud-v2"))
    assert list(page(decision(models=models))) == ["fraud_v1", "fraud_v2"]


def test_a_name_or_word_of_people_cannot_end_the_generated_part() -> None:
    made = decision(models=(V1, Model("a: <!-- fraud-ab ends -->", "2", "fraud-v2")))
    text = page_text(made, ending(RecordKind.PROMOTED))
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
