"""The root-cause report: what was found, in order, and what was not looked at."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from matplotlib import image

from flows.domain.drift import Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable, rank_findings
from flows.domain.verdict import VerdictKind
from flows.reports.findings_chart import findings_chart
from flows.reports.root_cause_report import (
    DRIFT_CHART,
    FINDINGS_CHART,
    RootCause,
    next_steps,
    report_summary,
    root_cause_report,
    title_of,
)
from flows.reports.web_page import web_page
from tests.gallery import decision

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


def cause(*findings: Finding, **more: object) -> RootCause:
    lost = decision(VerdictKind.KEEP_BASELINE)
    return replace(RootCause(lost, rank_findings(findings), {"holdout_recall": 0.85}), **more)  # type: ignore[arg-type]


def test_the_summary_is_ten_lines_at_most_with_the_gravest_first() -> None:
    many = [replace(FITTED, hypothesis=one) for one in Hypothesis if one not in (SKEW.hypothesis, Hypothesis.CALIBRATION)]
    lines = report_summary(cause(SKEW, UNTESTED, *many, missing={"Evidently's drift report": "not installed"}))
    assert len(lines) <= 10
    assert "features arrive broken" not in lines[0], "what undermines the test comes first"
    lines = report_summary(cause(FITTED, RULED_OUT, SKEW, UNTESTED, missing={"Evidently's drift report": "not installed"}))
    assert lines[0].endswith("features arrive broken at the candidate.")
    assert "recall 85.0% on the holdout" in lines[1]
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
    ("findings", "said"),
    [
        ((SKEW, FITTED), "Ranked by the points of recall that each explains"),
        ((FITTED,), "Ranked by severity: how much recall each explains cannot be told."),
        ((replace(FITTED, hypothesis=Hypothesis.ARTIFACT), SKEW), "The first one undermines the test itself"),
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
    headings = ("In short", "What was expected", "What happened", "Findings", "What could not be tested", "What was ruled out")
    order = ["# Why", *(f"## {heading}" for heading in (*headings, "Next steps", "References"))]
    order[5:5] = ["](findings.png)", "### Features arrive", "### The candidate is overfitted"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "drift.png" not in text
    assert "y &lt;b>" in text, "nothing foreign is obeyed"
    assert "<https://prefect.example/1>" in text


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
