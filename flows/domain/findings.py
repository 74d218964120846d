"""Findings: what was found out about each reason why a candidate may have lost, and in which order people should read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flows.domain.drift import Severity


class Hypothesis(StrEnum):
    """The possible causes of a lost test, in the order in which equally grave ones are shown."""

    ARTIFACT = "artifact"
    SERVED_VERSION = "served_version"
    SERVING_SKEW = "serving_skew"
    SCALING = "scaling"
    FEATURE_DRIFT = "feature_drift"
    HOLDOUT = "holdout"
    OVERFITTING = "overfitting"
    LABEL_DRIFT = "label_drift"
    WEAKER_MODEL = "weaker_model"
    SEGMENTS = "segments"
    CALIBRATION = "calibration"
    PRECISION = "precision"
    LATENCY = "latency"
    ERRORS = "errors"
    MODEL_CHANGES = "model_changes"


class FindingStatus(StrEnum):
    """Not testable is not ruled out."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not_supported"
    NOT_TESTABLE = "not_testable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One hypothesis and what the data say about it.

    `said`: one or two sentences for people, with the numbers; of what is not testable: what is missing.
    `effect`: the size of the effect under its name, such as ("KS distance of amount", 0.21).
    `explained_recall`: points of recall (0..1) that the candidate would win back without this cause; None where nobody can tell.
    `next_step`: what to do about it; empty where nothing follows.
    `numbers`: everything that a reader may want to recompute, JSON-ready.
    `feature`: the most suspect one, whose values a picture can show; None where the hypothesis is about no single feature.
    """

    hypothesis: Hypothesis
    status: FindingStatus
    said: str
    effect: tuple[str, float] | None = None
    explained_recall: float | None = None
    severity: Severity = Severity.NONE
    next_step: str = ""
    numbers: Mapping[str, object] = field(default_factory=dict[str, object])
    feature: str | None = None

    @property
    def is_supported(self) -> bool:
        return self.status is FindingStatus.SUPPORTED

    @property
    def is_undermining(self) -> bool:
        """Whether another model than the one on trial was measured, so that nothing else says anything about it."""
        return self.is_supported and self.hypothesis in _UNDERMINING and self.severity is Severity.SEVERE


_UNDERMINING = (Hypothesis.ARTIFACT, Hypothesis.SERVED_VERSION)
_SEVERITY = {Severity.SEVERE: 0, Severity.MILD: 1, Severity.NONE: 2}


def not_testable(hypothesis: Hypothesis, missing: str) -> Finding:
    """A finding for what could not be looked at; `missing` as a sentence that says what to bring."""
    return Finding(hypothesis, FindingStatus.NOT_TESTABLE, missing)


def rank_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What a person should read first: what undermines the test itself, then the supported ones by the recall that they explain,
    then those of which nobody can tell it, by severity; after them what could not be tested, and what was ruled out.

    Example:
        >>> drift = Finding(Hypothesis.FEATURE_DRIFT, FindingStatus.SUPPORTED, "amounts doubled", explained_recall=0.08)
        >>> fitted = Finding(Hypothesis.OVERFITTING, FindingStatus.SUPPORTED, "losses diverge", severity=Severity.SEVERE)
        >>> [finding.hypothesis.value for finding in rank_findings([fitted, drift])]
        ['feature_drift', 'overfitting']
    """
    return tuple(sorted(findings, key=_rank))


def is_ranked_by_recall(ranked: Iterable[Finding]) -> bool:
    """Whether the first finding is first because of the recall that it explains, and not because of its severity."""
    first = next(iter(ranked), None)
    return first is not None and first.is_supported and first.explained_recall is not None


def _rank(finding: Finding) -> tuple[int, float, int, int]:
    group = {
        FindingStatus.SUPPORTED: 0 if finding.is_undermining else 1,
        FindingStatus.NOT_TESTABLE: 3,
        FindingStatus.NOT_SUPPORTED: 4,
    }[finding.status]
    explained = finding.explained_recall
    if group == 1 and explained is None:
        group = 2
    return group, -(explained or 0.0), _SEVERITY[finding.severity], list(Hypothesis).index(finding.hypothesis)
