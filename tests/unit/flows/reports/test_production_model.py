"""What fraud analysts read about the model in production: right in each state, and without a word of statistics."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from flows.domain.ab_test import Model
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import RecordKind
from flows.domain.lifecycle import model_lives
from flows.domain.policy import LabelBasis, Traffic
from flows.domain.verdict import VerdictKind
from flows.reports.production_model import production_model_page
from tests.document_gallery import chain, document_gallery
from tests.gallery import BASELINE, CANDIDATE, NOW, POLICY, decision

JARGON = re.compile(
    r"recall|precision|p[- ]value|signific|confiden|interval|%.*interval|alpha|hypothes|statistic|\bKS\b|p95", re.IGNORECASE
)
WON = decision(VerdictKind.PROMOTE, Choice.CONFIRM)


def page(decided: Decision, *kinds: RecordKind, in_charge: Model | None = None) -> str:
    return production_model_page(model_lives([decided], chain(decided, *((kind, {}) for kind in kinds)), in_charge, NOW))


@pytest.mark.parametrize("kinds", [[], [RecordKind.PROMOTED], [RecordKind.BASELINE_KEPT], [RecordKind.COMPENSATED]])
def test_no_word_of_statistics_is_in_it(kinds: list[RecordKind]) -> None:
    assert JARGON.search(page(WON, *kinds)) is None
    assert JARGON.search(document_gallery()["document_promoted"].text), "the pattern finds what it is for"


def test_a_promoted_model_is_told_beside_the_one_before() -> None:
    text = page(WON, RecordKind.PROMOTED, in_charge=CANDIDATE)
    for part in (
        "**fraud_v2 (version 1)** is the new fraud model, since 2026-03-16. It checks every transaction.",
        "It replaces fraud_v1 (version 3).",
        "- Of 100 frauds it catches about 85 (before: 80).",
        "- Of 100 alerts about 97 are really fraud, as before.",
        "- Of 10,000 transactions about 88 raise an alert (before: 84).",
        "/fraud-rollback",
    ):
        assert part in text
    assert "On trial" not in text


def test_a_kept_model_changes_nothing_for_its_readers() -> None:
    text = page(decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM), RecordKind.BASELINE_KEPT, in_charge=BASELINE)
    assert "**fraud_v1 (version 3)** stays the fraud model, since" in text
    assert "fraud_v2 (version 1) was tried beside it and is not used. For you nothing changes." in text
    assert "before:" not in text
    assert "may be tried again" in page(WON, RecordKind.COMPENSATED, in_charge=BASELINE)


def test_a_model_that_was_put_back_says_what_was_taken_out() -> None:
    restored = model_lives([WON], chain(WON, (RecordKind.PROMOTED, {})), BASELINE, NOW)
    text = production_model_page(restored)
    assert "**fraud_v1 (version 3)** is the fraud model again" in text
    assert "fraud_v2 (version 1) was taken out of production." in text


def test_while_a_test_runs_the_page_says_so_and_on_how_many_transactions() -> None:
    text = page(WON, in_charge=BASELINE)
    assert "**fraud_v1 (version 3)** is the fraud model.\n" in text
    assert "**fraud_v2 (version 1)** is being tried on 20 % of the transactions." in text
    shadow = replace(
        WON, request=replace(WON.request, policy=POLICY.model_copy(update={"traffic": Traffic(baseline=100, candidate=0)}))
    )
    assert "is being tried. Work on" in page(shadow, in_charge=BASELINE)


def test_nobody_in_charge_is_said_and_so_is_what_was_not_measured() -> None:
    other = Model("other", "1", "other")
    assert "At this moment nobody can say" in page(WON, in_charge=other)
    none = replace(WON.request.verdict.metrics.candidate, recall=None, precision=None)
    verdict = replace(WON.request.verdict, metrics=replace(WON.request.verdict.metrics, candidate=none))
    request = replace(WON.request, verdict=verdict, evidence=None)
    assert "How well it does was not measured." in page(replace(WON, request=request), RecordKind.PROMOTED, in_charge=CANDIDATE)


def test_the_number_of_alerts_is_told_only_where_the_evidence_knows_the_number_of_transactions() -> None:
    def told(rows: int, basis: LabelBasis = LabelBasis.ALL) -> bool:
        evidence = WON.request.evidence
        assert evidence is not None
        assert evidence.feedback is not None
        pairs = Outcomes(Design.PAIRED, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 880, 968, 880), rows=rows)
        counted = replace(evidence, feedback=replace(evidence.feedback, outcomes=pairs))
        verdict = replace(WON.request.verdict, label_basis=basis)
        request = replace(WON.request, evidence=counted, verdict=verdict)
        return "Of 10,000" in page(replace(WON, request=request), RecordKind.PROMOTED, in_charge=CANDIDATE)

    assert told(100_000)
    assert not told(0)
    assert not told(100_000, LabelBasis.FLAGGED)
