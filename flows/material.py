"""What may tell why a candidate lost, as far as it could be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flows.domain.findings import Finding, FindingStatus, Hypothesis
from flows.domain.policy import Policy

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.counts import Outcomes, TelemetrySummary
    from flows.domain.criteria import Criterion
    from flows.domain.drift import FeatureDrift
    from flows.domain.model_findings import ModelFacts
    from flows.ports import FeatureTable
    from flows.replay import Flags

DATA_HYPOTHESES = (Hypothesis.SCALING, Hypothesis.FEATURE_DRIFT, Hypothesis.SERVING_SKEW)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that may tell why the candidate lost; what is None could not be had, and `missing` says why, by field.

    `training`, `holdout`, `production` (the features as the candidate got them online, with labels and both models' predictions
    where known) and `reference` (production's rows as the offline pipeline computes them). `flags` and `scores`: the registered
    candidate on a frame of its features; `baseline_flags`: the baseline. `manifest` and `artifact`: SHA-256 by path, as the test
    began and as served. `outcomes`: of the verdict; None: counted from production. `at`: the moment for the models' ages.
    `drifts`: of production, where it has been compared with training already. `criteria`: as the verdict judged them.
    """

    training: FeatureTable | None = None
    holdout: FeatureTable | None = None
    production: FeatureTable | None = None
    reference: FeatureTable | None = None
    baseline: ModelFacts | None = None
    candidate: ModelFacts | None = None
    flags: Flags | None = None
    baseline_flags: Flags | None = None
    scores: Callable[[pd.DataFrame], NDArray[np.float64]] | None = None
    manifest: Mapping[str, str] | None = None
    artifact: Mapping[str, str] | None = None
    registered_version: str | None = None
    served_version: str | None = None
    outcomes: Outcomes | None = None
    telemetry: TelemetrySummary | None = None
    policy: Policy = field(default_factory=Policy)
    at: datetime | None = None
    drifts: tuple[FeatureDrift, ...] | None = None
    criteria: tuple[Criterion, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict[str, str])


_NEEDED: Mapping[Hypothesis, tuple[str, ...]] = {
    **dict.fromkeys(DATA_HYPOTHESES, ("training", "production")),
    Hypothesis.HOLDOUT: ("training", "holdout", "production", "candidate"),
    Hypothesis.OVERFITTING: ("training", "holdout", "production", "candidate"),
    Hypothesis.LABEL_DRIFT: ("training", "production"),
    Hypothesis.WEAKER_MODEL: ("production", "holdout", "candidate"),
    Hypothesis.SEGMENTS: ("production",),
    Hypothesis.CALIBRATION: ("holdout", "production", "scores"),
    Hypothesis.PRECISION: ("production",),
    Hypothesis.MODEL_CHANGES: ("baseline", "candidate"),
    Hypothesis.ARTIFACT: ("manifest", "artifact"),
    Hypothesis.SERVED_VERSION: ("registered_version", "served_version", "flags"),
    Hypothesis.LATENCY: ("telemetry",),
    Hypothesis.ERRORS: ("telemetry",),
}


def with_reason(finding: Finding, material: Material) -> Finding:
    """What could not be tested, with the words of who tried to get what is missing."""
    if finding.status is not FindingStatus.NOT_TESTABLE:
        return finding
    reasons = dict.fromkeys(material.missing[name] for name in _NEEDED[finding.hypothesis] if name in material.missing)
    return replace(finding, said=" ".join([*reasons, finding.said]))
