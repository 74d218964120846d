"""The documents that people read outside of Slack, one of each kind, of the same decisions that tests/gallery.py shows.

Times and numbers are fixed, so that the same code gives the same pictures.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.frame_table import FrameTable
from flows.decision_json import claim_to_json
from flows.domain.ab_test import Arm
from flows.domain.counts import Overlap
from flows.domain.data_findings import Labels, Restoration, Suspects, find_feature_drift, find_label_drift, find_scaling
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import GENESIS, DecisionRecord, Investigation, RecordKind, record_hash
from flows.domain.drift import feature_drifts
from flows.domain.findings import Hypothesis, not_testable, rank_findings
from flows.domain.lifecycle import model_lives
from flows.domain.model_findings import (
    ModelFacts,
    Scored,
    find_calibration,
    find_model_changes,
    find_overfitting,
    sum_scores,
)
from flows.domain.recalls import Caught, Replayed
from flows.domain.segment_findings import Band, find_segments
from flows.domain.verdict import VerdictKind
from flows.investigation_report import draw_pictures
from flows.reports.charts import recall_and_precision_chart
from flows.reports.decision_document import CHART_NAME, decision_document
from flows.reports.dossier import Dossier
from flows.reports.lifecycle_page import lifecycle_page
from flows.reports.production_model import production_model_page
from flows.reports.root_cause_report import RootCause, root_cause_report
from tests.gallery import BASELINE, CANDIDATE, NOW, POLICY, TEST_RUN, decision

FOUND = Investigation(
    (
        "fraud_v2 lost because the amounts in production are no longer those that it was trained on.",
        "It would catch about 6.1 of the 8.2 points of recall that it lost if the amounts were as in training.",
        "Ruled out: overfitting, another artifact than the registered one, a change of scaling.",
    ),
    (
        {
            "hypothesis": "feature_drift",
            "status": "supported",
            "said": "amount: KS distance 0.31 between training and production, median 41.20 → 88.70.",
            "next_step": "Retrain on rows from the last three months.",
        },
        {
            "hypothesis": "calibration",
            "status": "supported",
            "said": "Scores above 0.9 are right in 71 % of the cases, 88 % were promised.",
            "next_step": "Calibrate on matured production labels.",
        },
        {
            "hypothesis": "label_drift",
            "status": "not_testable",
            "said": "The holdout carries no event_time; bring it to compare the weeks.",
            "next_step": "",
        },
        {
            "hypothesis": "overfitting",
            "status": "not_supported",
            "said": "Training and validation losses stay together until the last epoch.",
            "next_step": "",
        },
    ),
    "https://mlflow.example/#/experiments/1/runs/1/artifacts/investigations/fraud-2026-01-1/report.html",
)


@dataclass(frozen=True, slots=True)
class Written:
    """A document in Markdown with the pictures that it shows, PNG by name; `title`: of one that is stored as a web page too."""

    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    title: str = ""

    @property
    def digest(self) -> str:
        """Changes when anything that is written changes; the pictures' own bytes are those of their library too."""
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"


def chain(decided: Decision, *told: tuple[RecordKind, Mapping[str, Any]]) -> tuple[DecisionRecord, ...]:
    """The records of an answered decision as the log would have them: the answer, then what came of it."""
    records: list[DecisionRecord] = []
    for number, (kind, payload) in enumerate([(RecordKind.DECIDED, claim_to_json(decided)), *told], start=41):
        link: dict[str, Any] = {
            "sequence": number,
            "kind": kind,
            "decision_id": decided.decision_id,
            "at": NOW - timedelta(minutes=53 - number),
            "payload": dict(payload),
            "previous_hash": records[-1].hash if records else GENESIS,
        }
        records.append(DecisionRecord(**link, hash=record_hash(**link)))
    return tuple(records)


def _change(before: str, after: str, registry: str, archived: str) -> dict[str, Any]:
    digest = "9f2c4a7be01d83655fa3c1d0e4b7a6925d1f08e3c6b4a2917d5e30f8c1b6a472"
    return {
        "epoch": 6,
        "traffic": {"before": before, "after": after},
        "registry": {"before": "fraud_v1 v3: Production (champion); fraud_v2 v1: Staging", "after": registry},
        "archive": {"uri": f"s3://fraud-ab-archive/{archived}", "files": 6, "size_bytes": 48213, "manifest_sha256": digest},
    }


_SPLIT = "fraud-v1 80 %, fraud-v2 20 %"
_PROMOTED = _change(
    _SPLIT,
    "fraud-v1 0 %, fraud-v2 100 %",
    "fraud_v1 v3: Archived (previous); fraud_v2 v1: Production (champion)",
    "fraud_v1/3",
)
_KEPT = _change(_SPLIT, "fraud-v1 100 %, fraud-v2 0 %", "fraud_v1 v3: Production (champion); fraud_v2 v1: Archived", "fraud_v2/1")
_REVERT = {"id": "revert-7", "actor": "chiara (U0CHI)", "reason": "customers are blocked or complain"}


def dossiers() -> dict[str, Dossier]:
    """By the name of the picture; each outcome once."""
    won, lost = decision(VerdictKind.PROMOTE, Choice.CONFIRM), decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM)
    silent, forced = decision(VerdictKind.PROMOTE, Choice.EXPIRE), decision(VerdictKind.PROMOTE, Choice.FORCE_ROLLBACK)
    undone = {
        "epoch": 6,
        "traffic": _KEPT["traffic"],
        "why": "fraud_v2 version 1 at 50 %: p95 140 ms is above 100 ms (12,400 requests)",
    }
    reverted = {**_REVERT, "at": NOW.isoformat(), "before": "fraud-v1 0 %, fraud-v2 100 %", "decision_id": won.decision_id}
    superseded = {"why": "fraud-predictor changed since", "now": _SPLIT, "epoch": 7}
    return {
        "document_promoted": _dossier(won, (RecordKind.PROMOTED, _PROMOTED)),
        "document_kept": _dossier(lost, (RecordKind.BASELINE_KEPT, _KEPT), (RecordKind.INVESTIGATED, FOUND.to_payload())),
        "document_extended": _dossier(decision(VerdictKind.INCONCLUSIVE, Choice.CONFIRM)),
        "document_postponed": _dossier(decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE)),
        "document_ended": _dossier(decision(VerdictKind.NOT_EVALUABLE, Choice.CONFIRM), (RecordKind.BASELINE_KEPT, _KEPT)),
        "document_expired": _dossier(silent, (RecordKind.BASELINE_KEPT, _KEPT)),
        "document_forced": _dossier(forced, (RecordKind.BASELINE_KEPT, _KEPT)),
        "document_undone": replace(_dossier(won, (RecordKind.COMPENSATED, undone)), registry=_KEPT["registry"]["after"]),
        "document_superseded": _dossier(won, (RecordKind.SUPERSEDED, superseded)),
        "document_emergency": replace(_emergency(won, reverted), registry=_KEPT["registry"]["after"]),
    }


def _dossier(decided: Decision, *told: tuple[RecordKind, Mapping[str, Any]]) -> Dossier:
    records = chain(decided, *told)
    ending = [record for record in records if record.kind is not RecordKind.INVESTIGATED][-1]
    return Dossier(decided.request.test, decided, ending, records)


def _emergency(decided: Decision, reverted: Mapping[str, Any]) -> Dossier:
    *before, last = chain(decided, (RecordKind.PROMOTED, _PROMOTED), (RecordKind.EMERGENCY_REVERT, reverted))
    revert = replace(last, decision_id="revert-7")
    revert = replace(revert, hash=revert.recomputed_hash)
    return Dossier(decided.request.test, decided, revert, (*before, revert))


def document_gallery() -> dict[str, Written]:
    """Everything, by the name of its picture."""
    told = dossiers()
    written = {name: Written(decision_document(one), _chart(one)) for name, one in told.items()}
    written["root_cause_report"] = _root_cause()
    for name, one in (("promoted", told["document_promoted"]), ("kept", told["document_kept"])):
        in_charge = CANDIDATE if name == "promoted" else BASELINE
        lives = model_lives([one.decision] if one.decision else [], one.records, in_charge, NOW)
        written[f"lifecycle_page_{name}"] = Written(f"# Model lifecycle\n\n{lifecycle_page(lives, POLICY)}\n")
        written[f"production_model_{name}"] = Written(f"# The fraud model\n\n{production_model_page(lives)}\n")
    return written


def _chart(dossier: Dossier) -> dict[str, bytes]:
    chart = recall_and_precision_chart(dossier.decision.request) if dossier.decision else None
    return {CHART_NAME: chart} if chart else {}


AMOUNTS = np.sort(np.random.default_rng(7).lognormal(3.7, 0.8, 20_000))
MORE = AMOUNTS * 1.7
SEGMENTS = {"from 0 to 6": (300, 74, 21, 105), "from 6 to 18": (800, 40, 40, 120), "from 18 to 24": (410, 30, 12, 48)}
"""Frauds that both models caught, the baseline alone, the candidate alone, and neither."""


def root_cause() -> RootCause:
    """What an investigation of the lost test has found: the rules' own findings on invented tables."""
    test = TEST_RUN
    offline = {"train_recall": 0.871, "train_precision": 0.921, "holdout_recall": 0.868, "holdout_precision": 0.913}
    counted = {"train_frauds": 14_200, "train_alerts": 13_429, "holdout_frauds": 3_100, "holdout_alerts": 2_947}
    one = ModelFacts(
        str(test.baseline),
        ("amount", "hour", "speed"),
        {"max_leaf_nodes": 31, "learning_rate": 0.1, "threshold": 0.62},
        trained_on=(NOW - timedelta(days=420), NOW - timedelta(days=240)),
    )
    two = replace(
        one,
        name=str(test.candidate),
        parameters={"max_leaf_nodes": 255, "learning_rate": 0.1, "threshold": 0.58},
        offline={**offline, **counted},
        trained_on=(NOW - timedelta(days=300), NOW - timedelta(days=120)),
        training_loss=tuple((step, 0.35 * 0.97**step + 0.05) for step in range(60)),
        validation_loss=tuple((step, 0.33 * 0.96**step + 0.09 + 0.0001 * step) for step in range(60)),
    )
    draws = np.random.default_rng(8)
    drifts = feature_drifts([("amount", AMOUNTS, MORE), ("hour", AMOUNTS % 24, AMOUNTS[::-1] % 24)])
    replayed = Restoration(Replayed(1900, gained=141, lost=25), "With training's distribution on production's frauds")
    promised, production = Caught(3_100, 2_691), Caught(2_000, 1_624)
    findings = rank_findings(
        [
            find_feature_drift(drifts, Suspects(drifts[:1], (), (), {}), replayed),
            find_label_drift(Labels(((50_000, 500),) * 4), Labels(((50_000, 700),) * 4)),
            find_overfitting(two, Caught(14_200, 12_368), promised, production, 0.061),
            find_scaling(drifts[1:], Suspects((), (), (), {}), replayed),
            find_model_changes(one, two, NOW),
            find_segments([Band("hour", f"hour {when}", Overlap(*told)) for when, told in SEGMENTS.items()]),
            find_calibration(*(_scored(draws, height) for height in (6, 5))),
            not_testable(Hypothesis.ARTIFACT, "S3 failed while reading s3://models/fraud_v2/1 (worth another try)."),
        ]
    )
    weeks = tuple(
        (f"{NOW - timedelta(days=51 - 7 * week):%Y-%m-%d}", {"amount": 0.08 + 0.09 * week, "hour": 0.01}) for week in range(4)
    )
    return RootCause(
        decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM),
        findings,
        {Arm.BASELINE: one, Arm.CANDIDATE: two},
        weeks=weeks,
        missing={"Evidently's drift report": "Evidently failed while drawing the report."},
        links={"MLflow run": "https://mlflow.example/#/experiments/1/runs/1"},
    )


def _scored(draws: np.random.Generator, height: float) -> Scored:
    is_fraud = draws.random(20_000) < 0.012
    return sum_scores(np.where(is_fraud, draws.beta(height, 3, 20_000), draws.beta(0.2, 20, 20_000)), is_fraud)


def _root_cause() -> Written:
    found = root_cause()
    one, two = (FrameTable(pd.DataFrame({"amount": values})) for values in (AMOUNTS, MORE))
    pictures = {name: base64.b64decode(png) for name, png in draw_pictures(found, one, two)[0].items()}
    text = root_cause_report(replace(found, pictures=frozenset(pictures)))
    return Written(text, pictures, f"Root cause {found.decision.decision_id}")
