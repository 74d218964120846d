"""The chart: there when there are days, the same for the same evidence, another for another, and told in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from matplotlib import image

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import ModelCounts
from flows.domain.decision import DecisionRequest, Links
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.reports.charts import chart_in_words, recall_and_precision_chart
from tests.unit.flows.domain.conftest import Builder


def request(evidence: Evidence) -> DecisionRequest:
    plan = ActionPlan(Arm.CANDIDATE, (100,), ())
    return DecisionRequest(
        test=ABTest("t", Model("v1", "1", "p1"), Model("v2", "2", "p2"), datetime(2026, 1, 1, tzinfo=UTC), "run"),
        round=1,
        flow_run_id="run",
        verdict=decide_verdict(evidence, Policy()),
        plan=plan,
        rollback_plan=plan,
        epoch=1,
        links=Links(),
        decide_within_hours=1,
        next_look_at=None,
        evidence=evidence,
    )


def test_the_same_evidence_gives_the_same_picture_and_other_days_another(tmp_path) -> None:
    build = Builder()
    evidence = build.evidence()
    drawn = recall_and_precision_chart(request(evidence))
    assert drawn is not None
    assert drawn == recall_and_precision_chart(request(evidence))
    days = build.feedback().days
    worse = replace(days[3], candidate=ModelCounts(356, 10, 320, 10))
    other = recall_and_precision_chart(request(build.evidence(feedback=build.feedback(days=(*days[:3], worse, *days[4:])))))
    assert other is not None
    pictures = []
    for name, png in (("one", drawn), ("other", other)):
        (tmp_path / name).write_bytes(png)
        pictures.append(image.imread(tmp_path / name, format="png"))
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).max() > 0.5


def test_a_day_without_frauds_or_alerts_leaves_a_gap() -> None:
    build = Builder()
    days = build.feedback().days
    empty = replace(days[0], baseline=ModelCounts(0, 0, 0, 0), candidate=ModelCounts(0, 0, 0, 0), frauds=None)
    nothing = tuple(replace(empty, day=day) for day in range(3))
    assert recall_and_precision_chart(request(build.evidence(feedback=build.feedback(days=nothing)))) is not None


def test_without_days_there_is_no_picture() -> None:
    build = Builder()
    assert recall_and_precision_chart(request(Evidence(counted=build.outcomes()))) is None
    assert recall_and_precision_chart(request(build.evidence(feedback=build.feedback(days=())))) is None


def test_the_words_tell_what_the_picture_shows() -> None:
    words = chart_in_words(request(Builder().evidence()))
    assert "Recall: v1 80.0 %, v2 84.0 %" in words
    assert "Precision: v1 91.0 %" in words


def test_a_day_on_which_every_fraud_was_caught_is_drawn() -> None:
    build = Builder()
    days = build.feedback().days
    caught = tuple(replace(day, candidate=ModelCounts(n, n, n, n)) for n, day in enumerate(days, start=2))
    assert recall_and_precision_chart(request(build.evidence(feedback=build.feedback(days=caught)))) is not None
