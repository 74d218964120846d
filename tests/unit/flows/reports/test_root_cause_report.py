"""The root-cause report: what was found, in order, and what was not looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import numpy as np
import pytest
from matplotlib import image

from flows.domain.ab_test import Arm
from flows.domain.counts import Overlap, RequestBucket
from flows.domain.criteria import CriterionStatus, check_stability
from flows.domain.data_findings import Labels, Restoration, Suspects, find_feature_drift, find_label_drift
from flows.domain.drift import Severity, feature_drifts
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable, rank_findings
from flows.domain.holdout_findings import Likeness, find_holdout
from flows.domain.model_findings import ModelFacts, Scored, find_calibration, find_model_changes
from flows.domain.pipeline_findings import find_errors, find_latency
from flows.domain.policy import Policy
from flows.domain.recalls import Caught, Replayed
from flows.domain.segment_findings import Band, find_segments
from flows.domain.verdict import VerdictKind
from flows.reports.findings_chart import findings_chart
from flows.reports.loss_chart import loss_chart
from flows.reports.root_cause_report import (
    DRIFT_CHART,
    FINDINGS_CHART,
    LOSS_CHART,
    RootCause,
    next_steps,
    report_summary,
    root_cause_report,
    title_of,
    without_statistics,
)
from flows.reports.web_page import web_page
from tests.gallery import NOW, decision
from tests.unit.flows.domain.conftest import Builder

SKEW = Finding(
    Hypothesis.SERVING_SKEW,
    FindingStatus.SUPPORTED,
    "In production speed is zero in 100 % of the rows",
    ("KS distance of speed", 0.9),
    0.083,
    Severity.SEVERE,
    "Repair speed in the serving path.",
)
FITTED = Finding(
    Hypothesis.OVERFITTING, FindingStatus.SUPPORTED, "losses diverge", severity=Severity.MILD, next_step="Regularise."
)
RULED_OUT = Finding(Hypothesis.SCALING, FindingStatus.NOT_SUPPORTED, "all in the same unit")
UNTESTED = not_testable(Hypothesis.CALIBRATION, "Give a model with scores.")


def making(**offline: float) -> dict[Arm, ModelFacts]:
    window = NOW - timedelta(days=200), NOW - timedelta(days=100)
    one = ModelFacts("fraud_v1", ("amount", "hour"), {"leaves": 31, "rate": 0.1}, trained_on=window)
    return {
        Arm.BASELINE: one,
        Arm.CANDIDATE: replace(one, name="fraud_v2", parameters={"leaves": 255, "rate": 0.1}, offline=offline),
    }


def cause(*findings: Finding, offline: Mapping[str, float] | None = None, **more: object) -> RootCause:
    lost = decision(VerdictKind.KEEP_BASELINE)
    promised = {"holdout_recall": 0.85} if offline is None else offline
    return replace(RootCause(lost, rank_findings(findings), making(**promised)), **more)  # type: ignore[arg-type]


def part(text: str, title: str) -> str:
    return text.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


def test_the_summary_is_ten_lines_at_most_with_the_gravest_first() -> None:
    many = [
        replace(FITTED, hypothesis=one, severity=Severity.SEVERE)
        for one in Hypothesis
        if one not in (SKEW.hypothesis, Hypothesis.CALIBRATION)
    ]
    lines = report_summary(cause(SKEW, UNTESTED, *many, missing={"Evidently's drift report": "not installed"}))
    assert len(lines) <= 10
    assert "features arrive broken" not in lines[0], "what undermines the test comes first"
    lines = report_summary(cause(FITTED, RULED_OUT, SKEW, UNTESTED, missing={"Evidently's drift report": "not installed"}))
    assert lines[0].endswith("features arrive broken at the candidate.")
    assert "recall 85.0 % on the holdout" in lines[1]
    assert lines[2].startswith("Cause 1: Features arrive broken at the candidate (explains 8.3 points of recall): In production")
    assert lines[3].startswith("Cause 2: The candidate is overfitted: ")
    assert "Could not be tested: calibration, Evidently's drift report." in lines
    assert "Ruled out: scaling." in lines
    assert lines[-1] == "Next: Repair speed in the serving path."


def test_without_a_cause_nothing_is_claimed() -> None:
    lines = report_summary(cause(RULED_OUT, UNTESTED, offline={}))
    assert "no cause was found in what could be tested" in lines[0]
    assert "its run logged no recall on the holdout" in lines[1]
    assert lines[-1] == "Next: nothing follows from what was found."
    text = root_cause_report(cause(RULED_OUT, UNTESTED, offline={}))
    assert "None of the causes is supported by what could be tested." in text
    assert "The candidate's run logged no offline metrics." in text


@pytest.mark.parametrize(
    ("observed", "status", "is_said"),
    [
        (0.021, CriterionStatus.FAILED, 1),
        (-0.02, CriterionStatus.FAILED, 0),
        (0.06, CriterionStatus.PASSED, 0),
        (None, CriterionStatus.FAILED, 0),
    ],
)
def test_a_candidate_that_is_better_by_less_than_the_rule_asks_reads_so(
    observed: float | None, status: CriterionStatus, is_said: int
) -> None:
    found = cause(RULED_OUT)
    verdict = found.decision.request.verdict
    recall, *others = verdict.criteria
    judged = (replace(recall, observed=observed, status=status, threshold=0.05), *others)
    request = replace(found.decision.request, verdict=replace(verdict, criteria=judged))
    text = "\n".join(report_summary(replace(found, decision=replace(found.decision, request=request))))
    sentence = "It catches 2.1 % more frauds than the baseline, and the rule asks for 5.0 % more: better, and not by enough."
    assert (sentence in text) == bool(is_said)


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ((SKEW, FITTED), "Ranked by the points of recall that each explains"),
        ((FITTED,), "Ranked by severity: how much recall each explains cannot be told."),
        (
            (replace(FITTED, hypothesis=Hypothesis.ARTIFACT, severity=Severity.SEVERE), SKEW),
            "The first one undermines the test itself",
        ),
    ],
)
def test_the_report_says_by_what_it_is_ranked(findings: tuple[Finding, ...], said: str) -> None:
    assert said in root_cause_report(cause(*findings))


def test_the_report_has_everything_in_its_place() -> None:
    found = cause(
        SKEW, FITTED, RULED_OUT, UNTESTED,
        pictures=frozenset({FINDINGS_CHART}), links={"Prefect run": "https://prefect.example/1"}, missing={"x": "y <b>"},
    )  # fmt: skip
    text = root_cause_report(found)
    headings = ("In short", "What was expected", "What happened", "Offline against production", "Findings")
    more = ("The models side by side", "What could not be tested", "What was ruled out", "Next steps", "References")
    order = ["# Why", *(f"## {heading}" for heading in (*headings, *more))]
    order[6:6] = ["](findings.png)", "### Features arrive", "### The candidate is overfitted"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "drift.png" not in text
    assert "y &lt;b>" in text, "nothing foreign is obeyed"
    assert "<https://prefect.example/1>" in text


DRIFTED = feature_drifts([("amount", np.arange(4000.0), np.arange(4000.0) * 1.6)])
COSTLY = Restoration(Replayed(1000, gained=90, lost=10), "With training's distribution on production's frauds")


def with_statistics() -> list[Finding]:
    """Every finding whose words have distances, p- or q-values, as the rules make it."""
    slow = Builder().telemetry(candidate=RequestBucket(20_000, 9_000, 20_000, 5_000), candidate_p95_ms=180)
    latency, errors = check_stability(slow, Policy(), is_final=True)
    weeks = Labels(((10_000, 100),) * 4), Labels(((10_000, 400),) * 4)
    unlike = [Likeness("frauds", DRIFTED[0], 0.0, 0.0)]
    return [
        find_feature_drift(DRIFTED, Suspects(DRIFTED, (), (), {}), COSTLY),
        find_holdout(Caught(4000, 3600), Caught(8000, 6000), unlike, None, 0.0),
        find_label_drift(*weeks),
        find_calibration(Scored(10_000, 300.0, 200.0, 300), Scored(10_000, 300.0, 200.0, 600)),
        find_segments(
            [Band("amount", "small amounts", Overlap(500, 200, 20, 80)), Band("amount", "others", Overlap(700, 20, 20, 60))]
        ),
        find_latency(latency),
        find_errors(errors),
    ]


def test_the_thread_says_what_changed_without_statistics_and_the_report_with_them() -> None:
    statistics = re.compile(r"KS|PSI|\b[pq] = |distance")
    for finding in with_statistics():
        assert finding.is_supported, finding
        assert statistics.search(finding.said), finding
        found = cause(finding)
        told = "\n".join(report_summary(found))
        assert not statistics.search(told), told
        assert "()" not in told
        assert statistics.search(part(root_cause_report(found), "Findings"))
    assert without_statistics("kind drifted (total variation 0.31, PSI 0.67).") == "kind drifted."
    drift = cause(with_statistics()[0])
    said = "Cause 1: The data have drifted since training (explains 8.0 points of recall): amount drifted from a median of "
    assert report_summary(drift)[2].startswith(said)


def test_offline_stands_beside_production_with_intervals_where_the_counts_are_known() -> None:
    logged = {"train_recall": 0.9, "holdout_recall": 0.85, "holdout_frauds": 1000.0, "holdout_precision": 0.91}
    text = part(root_cause_report(cause(SKEW, offline=logged)), "Offline against production")
    assert "|  | training | holdout | fraud_v2 in production | fraud_v1 in production |" in text
    assert "| recall | 90.0 % | 85.0 % (82.7 to 87.1 %) | 81.2 % (79.4 to 82.9 %) | 80.0 % (79.1 to 80.9 %) |" in text
    assert "| precision | not logged | 91.0 % | 96.7 % (95.8 to 97.5 %) | 97.0 % (96.6 to 97.4 %) |" in text
    assert "From holdout to production the recall changes by -3.8 points (-6.5 to -0.9)." in text
    assert "the precision changes by +5.7 points." in text
    counted = {"holdout_recall": 0.85}
    text = root_cause_report(cause(SKEW, offline=counted, frauds={"train": 9, "holdout": 1000}))
    assert "| recall | not logged | 85.0 % (82.7 to 87.1 %) | 81.2 %" in text, "the table tells what the run did not log"
    assert "frauds" not in part(text, "What was expected")


@pytest.mark.parametrize("odd", [85.0, float("nan"), float("inf")])
def test_a_logged_share_or_count_that_can_be_none_stands_nowhere(odd: float) -> None:
    found = cause(SKEW, offline={"holdout_recall": odd, "holdout_precision": odd, "holdout_alerts": odd, "train_frauds": odd})
    assert found.lost_recall is None
    assert "its run logged no recall on the holdout" in report_summary(found)[1]
    text = part(root_cause_report(found), "Offline against production")
    assert "| recall | not logged | not logged | 81.2 %" in text
    assert "| precision | not logged | not logged | 96.7 %" in text
    assert "From holdout" not in text
    counted = cause(SKEW, offline={"holdout_recall": 0.85, "holdout_frauds": float("nan")}, frauds={"holdout": 1000})
    assert "85.0 % (82.7 to 87.1 %)" in root_cause_report(counted), "the table tells it"


def test_a_recall_that_nobody_can_know_is_unknown() -> None:
    found = cause(SKEW)
    metrics = found.decision.request.verdict.metrics
    unknown = replace(metrics.candidate, recall=None, false_negatives=None)
    request = found.decision.request
    request = replace(request, verdict=replace(request.verdict, metrics=replace(metrics, candidate=unknown)))
    text = part(
        root_cause_report(replace(found, decision=replace(found.decision, request=request))), "Offline against production"
    )
    assert "| recall | not logged | 85.0 % | unknown | 80.0 %" in text
    assert "the recall changes" not in text


def test_both_models_stand_side_by_side_and_are_not_ruled_out() -> None:
    one, two = making().values()
    changed = find_model_changes(one, two, NOW)
    found = cause(SKEW, RULED_OUT, changed)
    text = root_cause_report(found)
    rows = part(text, "The models side by side").splitlines()
    assert rows[0] == "|  | fraud_v1 version 3 | fraud_v2 version 1 |  |"
    assert rows[2] == "| leaves | 31 | 255 | changed |", "what differs comes first"
    assert "| rate | 0.1 | 0.1 |  |" in rows
    assert any(row.startswith("| training window | 2025-08-28 to 2025-12-06 |") for row in rows)
    assert title_of(Hypothesis.MODEL_CHANGES) not in part(text, "What was ruled out")
    assert "Ruled out: scaling." in report_summary(found)
    assert "side by side" not in root_cause_report(cause(SKEW, making={}))


def test_where_one_models_run_cannot_be_read_the_other_one_is_still_shown() -> None:
    text = root_cause_report(cause(SKEW, making={Arm.CANDIDATE: making()[Arm.CANDIDATE]}))
    assert "| leaves | not readable | 255 |  |" in part(text, "The models side by side").splitlines()


def test_what_was_ruled_out_has_its_effect_and_its_numbers() -> None:
    numbers = {"gaps": {"holdout": 0.012, "production": 0.02}, "loss_rise": 0.001, "is_kept": True, "shapes": ["scale"]}
    fitted = Finding(Hypothesis.OVERFITTING, FindingStatus.NOT_SUPPORTED, "no gap", ("gap of recall", 0.02), numbers=numbers)
    text = part(root_cause_report(cause(fitted, RULED_OUT)), "What was ruled out")
    row = "| no gap | gap of recall: 0.02 | gaps holdout 0.012; gaps production 0.02; loss rise 0.001 |"
    assert f"| The candidate is overfitted {row}" in text
    assert "| all in the same unit |  |  |" in text
    many = replace(fitted, numbers={f"n{number}": number for number in range(12)})
    assert "n7 7; 4 more in the record |" in root_cause_report(cause(many))


def test_the_weeks_are_there_where_there_are_several() -> None:
    weeks = (("2026-02-02", {"amount": 0.021, "hour": 0.01}), ("2026-02-09", {"amount": 0.312}))
    text = part(root_cause_report(cause(SKEW, weeks=weeks)), "Drift by week")
    assert text.splitlines()[:4:2] == ["| week from | 2026-02-02 | 2026-02-09 |", "| amount | 0.02 | 0.31 |"]
    assert "| hour | 0.01 | – |" in text
    assert "Drift by week" not in root_cause_report(cause(SKEW, weeks=weeks[:1]))


def test_the_losses_are_a_picture_where_they_were_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    falling, rising_again, staying = (tuple(enumerate(losses)) for losses in ((0.5, 0.3, 0.1), (0.5, 0.3, 0.4), (0.5, 0.3, 0.3)))
    assert loss_chart((), ()) is None
    assert loss_chart(falling[:1], rising_again[:1]) is None
    rising = loss_chart(falling, rising_again)
    assert rising is not None
    assert rising == loss_chart(falling, rising_again)
    assert rising != loss_chart(falling, staying)
    assert rising != loss_chart(tuple((2 * step, loss) for step, loss in falling), rising_again), "each is drawn at its steps"
    assert loss_chart((), falling) is not None
    with monkeypatch.context() as patient:
        patient.setattr("flows.reports.loss_chart.LOSS_RISE", 9.0)
        assert rising != loss_chart(falling, rising_again), "where it begins to rise is marked"
    assert f"]({LOSS_CHART})" in root_cause_report(cause(SKEW, pictures=frozenset({LOSS_CHART})))


def test_each_step_is_named_once_in_the_order_of_the_findings() -> None:
    again = replace(FITTED, hypothesis=Hypothesis.HOLDOUT, next_step=SKEW.next_step)
    assert next_steps([SKEW, again, FITTED, replace(RULED_OUT, next_step="never")]) == [SKEW.next_step, FITTED.next_step]


def test_every_hypothesis_has_a_headline() -> None:
    assert len({title_of(one) for one in Hypothesis}) == len(Hypothesis)


def test_the_chart_shows_what_can_be_told_and_is_the_same_for_the_same_findings() -> None:
    assert findings_chart([FITTED, RULED_OUT], 0.1) is None
    png = findings_chart([SKEW, FITTED], 0.1)
    assert png is not None
    assert png == findings_chart([SKEW, FITTED], 0.1)
    assert png != findings_chart([SKEW, FITTED], None)
    assert image.imread(BytesIO(png)).shape[1] == 990


def test_the_page_needs_nothing_else_and_obeys_no_foreign_html() -> None:
    page = web_page(
        "# A\n\n<script>alert(1)</script>\n\n| a |\n| --- |\n| b |\n\n![x](findings.png)", "A & B", {"findings.png": b"png"}
    )
    assert "<script>" not in page
    assert "<title>A &amp; B</title>" in page
    assert "<td>b</td>" in page
    assert 'src="data:image/png;base64,cG5n"' in page


def test_the_pictures_come_before_the_findings() -> None:
    text = root_cause_report(replace(cause(SKEW, FITTED), pictures=frozenset({FINDINGS_CHART, DRIFT_CHART})))
    places = [text.index(part) for part in ("## Findings", f"]({FINDINGS_CHART})", f"]({DRIFT_CHART})", "### ")]
    assert places == sorted(places)
    assert "![" not in root_cause_report(cause(SKEW, FITTED))
