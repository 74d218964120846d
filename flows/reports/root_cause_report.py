"""Why the candidate lost: the report for people, in Markdown, and its ten lines for the thread."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.criteria import CriterionName, CriterionStatus
from flows.domain.findings import Finding, FindingStatus, Hypothesis, is_ranked_by_recall
from flows.domain.guardrails import percent
from flows.domain.model_findings import logged_share
from flows.reports.markdown import address, bullets, harmless, section, table, words
from flows.reports.root_cause_tables import drift_by_week, offline_and_production, ruled_out, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.domain.decision import Decision, DecisionRequest
    from flows.domain.model_findings import ModelFacts

FINDINGS_CHART, DRIFT_CHART, SEGMENTS_CHART = "findings.png", "drift.png", "segments.png"
RECALL_CHART, LOSS_CHART, SCORES_CHART = "recall.png", "losses.png", "scores.png"
"""Beside the report."""
PICTURES_IN_WORDS: Mapping[str, str] = {
    FINDINGS_CHART: "How many points of recall each cause explains.",
    DRIFT_CHART: "The most suspect feature: its values in training and in production.",
    SEGMENTS_CHART: "Where the candidate loses most to the baseline.",
    RECALL_CHART: "Recall in training, on the holdout and in production, with 95 % intervals.",
    LOSS_CHART: "The candidate's losses on training and validation rows, by step of the training.",
    SCORES_CHART: "How the candidate's scores are spread on the holdout and in production.",
}
_NAMED_IN_SUMMARY = 3
_STATISTICS = re.compile(r" \((?:KS|total variation|PSI|one-sided|[pq] =)[^()]*\)|; p = [^();]*(?=\))")
_BY_WEEK = "Distance of each week of production from the whole training: 0 is as in training, 1 has nothing in common with it."
_TITLES: Mapping[Hypothesis, str] = {
    Hypothesis.ARTIFACT: "The model's files are not those that were registered",
    Hypothesis.SERVED_VERSION: "The served answers are not the registered model's",
    Hypothesis.SERVING_SKEW: "Features arrive broken at the candidate",
    Hypothesis.SCALING: "Features arrive in another scale than in training",
    Hypothesis.FEATURE_DRIFT: "The data have drifted since training",
    Hypothesis.HOLDOUT: "The holdout is not like production",
    Hypothesis.OVERFITTING: "The candidate is overfitted",
    Hypothesis.LABEL_DRIFT: "Fraud is more or less frequent than in training",
    Hypothesis.WEAKER_MODEL: "The candidate is the weaker model",
    Hypothesis.SEGMENTS: "The candidate loses in certain segments",
    Hypothesis.CALIBRATION: "The candidate's scores no longer mean what they did",
    Hypothesis.PRECISION: "The candidate's precision is not what the rule allows",
    Hypothesis.LATENCY: "The candidate answers too slowly",
    Hypothesis.ERRORS: "The candidate fails too often",
    Hypothesis.MODEL_CHANGES: "What changed between the models",
}


@dataclass(frozen=True, slots=True)
class RootCause:
    """What a report tells of.

    `findings`: ranked. `making`: of both models; empty when it is not known. `frauds`: how many are in the tables of `train` and
    `holdout`. `weeks`: of production, in order: the day on which each begins, and by feature its distance (0..1) from training.
    `pictures`: names of those stored beside the report. `missing`: other parts that failed, with the reason. `links`: addresses
    by what is there, such as the run and the window's panels.
    """

    decision: Decision
    findings: Sequence[Finding]
    making: Mapping[Arm, ModelFacts] = field(default_factory=dict[Arm, "ModelFacts"])
    frauds: Mapping[str, int] = field(default_factory=dict[str, int])
    weeks: Sequence[tuple[str, Mapping[str, float]]] = ()
    pictures: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    links: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def supported(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_supported]

    @property
    def offline(self) -> Mapping[str, float]:
        """Metrics by name that the candidate's run promised."""
        return self.making[Arm.CANDIDATE].offline if Arm.CANDIDATE in self.making else {}

    @property
    def counted(self) -> Mapping[str, float]:
        """The same, with the frauds of the tables where the run did not log of how many its recalls are."""
        unlogged = {part: frauds for part, frauds in self.frauds.items() if not logged_share(self.offline, part)[1]}
        return dict(self.offline) | {f"{part}_frauds": float(frauds) for part, frauds in unlogged.items()}

    @property
    def lost_recall(self) -> float | None:
        """Points of recall (0..1) between what the holdout promised and what was measured."""
        (promised, _), measured = logged_share(self.offline, "holdout"), self.decision.request.verdict.metrics.candidate.recall
        return promised - measured if promised is not None and measured is not None else None


def title_of(hypothesis: Hypothesis) -> str:
    """What a finding claims, as a headline."""
    return _TITLES[hypothesis]


def report_summary(cause: RootCause) -> tuple[str, ...]:
    """At most ten lines: what was expected and happened, the causes found with what each explains, and what to do."""
    supported, request = cause.supported, cause.decision.request
    lines = [
        f"Why {request.test.candidate} did not win: {_headline(supported)}.",
        f"Expected: {_promised(cause.offline)}. Measured: {_measured(request)}.",
    ]
    lines += [] if supported else filter(None, [_not_enough(request)])
    lines += [f"Cause {place}: {_in_short(finding)}" for place, finding in enumerate(supported[:_NAMED_IN_SUMMARY], 1)]
    if len(supported) > _NAMED_IN_SUMMARY:
        lines.append(f"{len(supported) - _NAMED_IN_SUMMARY} more in the report.")
    untested = ", ".join(filter(None, [_names(cause.findings, FindingStatus.NOT_TESTABLE), *cause.missing]))
    if untested:
        lines.append(f"Could not be tested: {untested}.")
    lines.append(f"Ruled out: {', '.join(words(one.hypothesis) for one in _ruled_out(cause)) or 'nothing'}.")
    steps = next_steps(cause.findings)
    return (*lines, f"Next: {steps[0]}" if steps else "Next: nothing follows from what was found.")


def next_steps(findings: Iterable[Finding]) -> list[str]:
    """What the findings ask for, in their order, each once."""
    return list(dict.fromkeys(finding.next_step for finding in findings if finding.is_supported and finding.next_step))


def root_cause_report(cause: RootCause) -> str:
    """The whole report in Markdown."""
    request, supported = cause.decision.request, cause.supported
    sections = [
        f"# Why {harmless(request.test.candidate)} did not win: {harmless(cause.decision.decision_id)}",
        section("In short", [bullets(report_summary(cause))]),
        section("What was expected", [_expected(cause.offline)]),
        section("What happened", [*map(harmless, request.verdict.reasons), _criteria(request)]),
        section(
            "Offline against production",
            [*_offline_against_production(cause), *_pictures(cause, RECALL_CHART, LOSS_CHART, SCORES_CHART)],
        ),
        # before the findings: after one of them, a picture would seem to be about that
        section(
            "Findings",
            [
                _order(cause.findings),
                *_pictures(cause, FINDINGS_CHART, DRIFT_CHART, SEGMENTS_CHART),
                *map(_finding, supported),
            ],
        ),
        _section("Drift by week", drift_by_week(cause.weeks), _BY_WEEK),
        _section("The models side by side", side_by_side(request.test, cause.making, cause.decision.created_at)),
        section("What could not be tested", [_untested(cause)]),
        section("What was ruled out", [ruled_out([(title_of(one.hypothesis), one) for one in _ruled_out(cause)])]),
        section("Next steps", [bullets(next_steps(cause.findings)) or "Nothing follows from what was found."]),
        section("References", [_references(cause)]),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _section(title: str, text: str, *more: str) -> str:
    """One that is left out where there is nothing to tell."""
    return section(title, [text, *more]) if text else ""


def _headline(supported: Sequence[Finding]) -> str:
    if not supported:
        return "no cause was found in what could be tested"
    title = title_of(supported[0].hypothesis)
    return title[0].lower() + title[1:]


def _not_enough(request: DecisionRequest) -> str:
    """Of a candidate that is better than the baseline, and by less than the rule asks: nothing is wrong with it; else empty."""
    judged = next((one for one in request.verdict.criteria if one.name is CriterionName.RECALL_IMPROVEMENT), None)
    if judged is None or judged.observed is None or judged.status is not CriterionStatus.FAILED or judged.observed <= 0:
        return ""
    asked = f"the rule asks for {percent(judged.threshold)} more"
    return f"It catches {percent(judged.observed)} more frauds than the baseline, and {asked}: better, and not by enough."


def _promised(offline: Mapping[str, float]) -> str:
    recall, _ = logged_share(offline, "holdout")
    return "its run logged no recall on the holdout" if recall is None else f"recall {percent(recall)} on the holdout"


def _measured(request: DecisionRequest) -> str:
    one, two = request.verdict.metrics.baseline.recall, request.verdict.metrics.candidate.recall
    if one is None or two is None:
        return "recall unknown"
    return f"recall {percent(two)} in production, {request.test.baseline.name} {percent(one)}"


def _in_short(finding: Finding) -> str:
    explained = finding.explained_recall
    points = f" (explains {100 * explained:.1f} points of recall)" if explained else ""
    return f"{title_of(finding.hypothesis)}{points}: {without_statistics(finding.said)}"


def without_statistics(said: str) -> str:
    """What a finding says, for who reads no statistics: distances, p- and q-values stand in brackets and are left out.

    Example:
        >>> without_statistics("kind drifted (total variation 0.31, PSI 0.67), and so did hour (p = 2e-05).")
        'kind drifted, and so did hour.'
    """
    return _STATISTICS.sub("", said)


def _offline_against_production(cause: RootCause) -> list[str]:
    request = cause.decision.request
    return offline_and_production(request.test, cause.counted, request.verdict.metrics)


def _ruled_out(cause: RootCause) -> list[Finding]:
    """What changed between the models is laid side by side, and is no cause that could be ruled out."""
    ruled = (one for one in cause.findings if one.status is FindingStatus.NOT_SUPPORTED)
    return [one for one in ruled if one.hypothesis is not Hypothesis.MODEL_CHANGES]


def _names(findings: Iterable[Finding], status: FindingStatus) -> str:
    return ", ".join(words(finding.hypothesis) for finding in findings if finding.status is status)


def _expected(offline: Mapping[str, float]) -> str:
    if not offline:
        return "The candidate's run logged no offline metrics."
    return table([["offline metric", "value"], *([words(name), _metric(value)] for name, value in sorted(offline.items()))])


def _metric(value: float) -> str:
    """Shares have digits, counts have none."""
    return f"{value:,.0f}" if value > 1 and float(value).is_integer() else f"{value:.4f}"


def _criteria(request: DecisionRequest) -> str:
    failed = [one for one in request.verdict.criteria if one.status is CriterionStatus.FAILED]
    return table([["criterion not met", "why"], *([words(one.name), one.reason] for one in failed)]) if failed else ""


def _order(findings: Sequence[Finding]) -> str:
    """By what they are ranked, said, since the two orders mean different things."""
    if not any(finding.is_supported for finding in findings):
        return "None of the causes is supported by what could be tested."
    if findings[0].is_undermining:
        return "The first one undermines the test itself: another model than the candidate was measured. Mend that first."
    if is_ranked_by_recall(findings):
        return "Ranked by the points of recall that each explains; those of which nobody can tell it follow by severity."
    return "Ranked by severity: how much recall each explains cannot be told."


def _finding(finding: Finding) -> str:
    explained = finding.explained_recall
    facts = [f"hypothesis: {words(finding.hypothesis)}, {finding.severity}"]
    if finding.effect is not None:
        facts.append(f"{finding.effect[0]}: {finding.effect[1]:.4g}")
    cannot = "how much recall it explains cannot be told"
    facts.append(cannot if explained is None else f"explains {100 * explained:.1f} points of recall")
    if finding.next_step:
        facts.append(f"next step: {finding.next_step}")
    return "\n\n".join([f"### {title_of(finding.hypothesis)}", harmless(finding.said), bullets(facts)])


def _pictures(cause: RootCause, *names: str) -> list[str]:
    return [f"![{PICTURES_IN_WORDS[name]}]({name})" for name in names if name in cause.pictures]


def _untested(cause: RootCause) -> str:
    rows = [[title_of(one.hypothesis), one.said] for one in cause.findings if one.status is FindingStatus.NOT_TESTABLE]
    rows += [[what, why] for what, why in cause.missing.items()]
    return table([["", "why"], *rows]) if rows else "Nothing."


def _references(cause: RootCause) -> str:
    verdict = cause.decision.request.verdict
    lines = [f"- {harmless(what)}: {address(url)}" for what, url in cause.links.items() if url]
    return "\n".join([*lines, f"- evidence {verdict.evidence_digest}", f"- policy {verdict.policy_digest}"])
