"""The pictures of an investigation: none of them holds the report up."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.frame_table import FrameTable
from flows.domain.ab_test import Arm
from flows.domain.drift import Severity, feature_drifts
from flows.domain.errors import OutsideSystemError
from flows.domain.findings import Finding, FindingStatus, Hypothesis
from flows.domain.model_findings import ModelFacts
from flows.domain.verdict import VerdictKind
from flows.investigation_report import NOT_DRAWN, draw_pictures
from flows.reports.drift_chart import drift_chart
from flows.reports.drift_words import describe_drift
from flows.reports.root_cause_report import (
    DRIFT_CHART,
    FINDINGS_CHART,
    LOSS_CHART,
    PICTURES_IN_WORDS,
    RECALL_CHART,
    RootCause,
    root_cause_report,
)
from tests.gallery import decision

if TYPE_CHECKING:
    from numpy.typing import NDArray

AMOUNTS = FrameTable(pd.DataFrame({"amount": np.arange(1000.0)}))
MORE = FrameTable(pd.DataFrame({"amount": np.arange(1000.0) * 2}))
DRIFT = Finding(
    Hypothesis.FEATURE_DRIFT,
    FindingStatus.SUPPORTED,
    "amount drifted",
    explained_recall=0.05,
    severity=Severity.SEVERE,
    feature="amount",
)
SEGMENTS = Finding(
    Hypothesis.SEGMENTS,
    FindingStatus.SUPPORTED,
    "it loses at night",
    numbers={"segments": {"hour from 0 to 6": 0.03, "hour from 6 to 12": 0.01, "hour from 12 to 18": -0.02}},
)
SCORES = Finding(
    Hypothesis.CALIBRATION,
    FindingStatus.NOT_SUPPORTED,
    "as before",
    numbers={"scores": {"holdout": [0.9, 0.06, 0.04], "production": [0.92, 0.05, 0.03]}},
)
FACTS = ModelFacts("fraud_v2", training_loss=((0, 0.5), (1, 0.3), (2, 0.2)), validation_loss=((0, 0.5), (2, 0.6)))
FOUND = RootCause(decision(VerdictKind.KEEP_BASELINE), (DRIFT,), {Arm.BASELINE: FACTS, Arm.CANDIDATE: FACTS})


@dataclass(frozen=True, slots=True)
class GoneTable(FrameTable):
    """Its database is away."""

    def column(self, name: str) -> NDArray[Any]:
        raise OutsideSystemError("PostgreSQL", f"reading {name}", retryable=True)


def test_everything_that_can_be_drawn_is() -> None:
    pictures, missing = draw_pictures(replace(FOUND, findings=(DRIFT, SEGMENTS, SCORES)), AMOUNTS, MORE)
    assert set(pictures) == set(PICTURES_IN_WORDS)
    assert all(base64.b64decode(png).startswith(b"\x89PNG") for png in pictures.values())
    assert missing == {}
    text = root_cause_report(replace(FOUND, pictures=frozenset(pictures)))
    assert [name for name in PICTURES_IN_WORDS if f"]({name})" not in text] == []


def test_the_picture_of_a_feature_that_drifted_says_so() -> None:
    one, two = AMOUNTS.column("amount"), MORE.column("amount")
    [drift] = feature_drifts([("amount", one, two)])
    assert describe_drift(drift).startswith("larger: median")
    assert base64.b64decode(draw_pictures(FOUND, AMOUNTS, MORE)[0][DRIFT_CHART]) == drift_chart(drift, one, two)


def test_a_database_that_is_away_costs_one_picture_and_is_named() -> None:
    pictures, missing = draw_pictures(FOUND, AMOUNTS, GoneTable(MORE.frame))
    assert set(pictures) == {FINDINGS_CHART, RECALL_CHART, LOSS_CHART}
    assert missing == {NOT_DRAWN: "PostgreSQL failed while reading amount (worth another try)"}


def test_without_tables_a_suspect_or_curves_nothing_is_missing() -> None:
    assert set(draw_pictures(FOUND, None, MORE)[0]) == {FINDINGS_CHART, RECALL_CHART, LOSS_CHART}
    nowhere = replace(SEGMENTS, numbers={"segments": {"hour from 0 to 6": -0.01}})
    for findings in ((), (nowhere, replace(SCORES, numbers={}))):
        assert draw_pictures(replace(FOUND, findings=findings, making={}), AMOUNTS, MORE)[0].keys() == {RECALL_CHART}
    request = FOUND.decision.request
    metrics = request.verdict.metrics
    unknown = replace(metrics, candidate=replace(metrics.candidate, recall=None))
    unmeasured = replace(FOUND.decision, request=replace(request, verdict=replace(request.verdict, metrics=unknown)))
    assert draw_pictures(replace(FOUND, decision=unmeasured, findings=(), making={}), AMOUNTS, MORE) == ({}, {})
