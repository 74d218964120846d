"""Why the candidate lost: every hypothesis with its finding, ranked. Flow, benchmark and tests run this and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.domain.criteria import check_stability
from flows.domain.data_findings import (
    Restoration,
    Suspects,
    find_feature_drift,
    find_label_drift,
    find_scaling,
    find_serving_skew,
    sort_suspects,
)
from flows.domain.drift import FeatureDrift, Severity, feature_drifts
from flows.domain.errors import DataInvalid
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable, rank_findings
from flows.domain.holdout_findings import Ease, Likeness, find_holdout
from flows.domain.model_findings import (
    ModelFacts,
    Scored,
    find_calibration,
    find_model_changes,
    find_overfitting,
    find_precision,
    find_segments,
    find_weaker_model,
    sum_scores,
)
from flows.domain.pipeline_findings import Answers, find_artifact, find_errors, find_latency, find_served_version
from flows.domain.policy import Policy
from flows.domain.recalls import Caught, Replayed, compare_replays
from flows.domain.rescaling import Rescaling, find_rescaling
from flows.replay import (
    SEED,
    do_the_same_damage,
    find_mismatches,
    is_fraud,
    replay,
    restore_distributions,
    restore_from_reference,
    rows_of,
    same_rows,
)
from flows.table_summaries import (
    column_pairs,
    compare_frauds,
    count_labels,
    count_outcomes,
    distance_between_weeks,
    find_bands,
)

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.counts import Outcomes, TelemetrySummary
    from flows.ports import FeatureTable
    from flows.replay import Flags

    Column = NDArray[Any]

SCORED_ROWS = 25_000
DATA_HYPOTHESES = (Hypothesis.SCALING, Hypothesis.FEATURE_DRIFT, Hypothesis.SERVING_SKEW)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that may tell why the candidate lost; what is None could not be had, and `missing` says why, by field.

    `training`, `holdout`, `production` (the features as the candidate got them online, with labels and both models' predictions
    where known) and `reference` (production's rows as the offline pipeline computes them). `flags` and `scores`: the registered
    candidate on a frame of its features; `baseline_flags`: the baseline. `manifest` and `artifact`: SHA-256 by path, as the test
    began and as served. `outcomes`: of the verdict; None: counted from production. `at`: the moment for the models' ages.
    `drifts`: of production, where it has been compared with training already.
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
    missing: Mapping[str, str] = field(default_factory=dict[str, str])


def diagnose(material: Material) -> tuple[Finding, ...]:
    """A finding for every hypothesis, in the order in which people should read them.

    Nothing that is missing stops it: what cannot be tested says what to bring.
    """
    looked = _Examination(material)
    data, pipeline = looked.data_findings(), looked.pipeline_findings()
    elsewhere = sum(finding.explained_recall or 0.0 for finding in data if finding.is_supported)
    otherwise = max((finding.explained_recall or 0.0 for finding in pipeline if finding.is_supported), default=0.0)
    found = [*data, *looked.model_findings(elsewhere, otherwise), *pipeline]
    return rank_findings(_with_reason(finding, material) for finding in found)


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


def _with_reason(finding: Finding, material: Material) -> Finding:
    """What could not be tested, with the words of who tried to get what is missing."""
    if finding.status is not FindingStatus.NOT_TESTABLE:
        return finding
    reasons = dict.fromkeys(material.missing[name] for name in _NEEDED[finding.hypothesis] if name in material.missing)
    return replace(finding, said=" ".join([*reasons, finding.said]))


class _Examination:
    """One pass over the material; what several findings rest on is computed once."""

    def __init__(self, material: Material) -> None:
        self.material = material

    def data_findings(self) -> list[Finding]:
        """Of what may be restored: scaling, drift and serving skew."""
        try:
            suspects = self.suspects
        except DataInvalid as error:
            return [not_testable(hypothesis, str(error)) for hypothesis in DATA_HYPOTHESES]
        if suspects is None:
            why = "Give the features of training and of production, with at least one in common."
            return [not_testable(hypothesis, why) for hypothesis in DATA_HYPOTHESES]
        broken = Suspects((), suspects.broken, (), suspects.mismatches)
        rescaled = Suspects((), (), suspects.rescaled, {})
        return [
            find_scaling(rescaled, self._undamaged(rescaled)),
            find_feature_drift(len(self.drifts), suspects, self._undrifted(suspects)),
            find_serving_skew(broken, self._undamaged(broken), is_compared=self.places is not None),
        ]

    def model_findings(self, elsewhere: float, otherwise: float) -> list[Finding]:
        """Of the model and its holdout; points of recall that the data explain, and that the answers of another model do."""
        material = self.material
        fitted = find_overfitting(
            material.candidate, self._caught("training"), self._caught("holdout"), self.in_production, elsewhere
        )
        found = {
            Hypothesis.HOLDOUT: self._holdout(elsewhere),
            Hypothesis.WEAKER_MODEL: find_weaker_model(
                self.outcomes, self.promised, self.in_production, elsewhere + otherwise, is_overfitted=fitted.is_supported
            ),
            Hypothesis.LABEL_DRIFT: find_label_drift(count_labels(material.training), count_labels(material.production)),
            Hypothesis.CALIBRATION: find_calibration(self._scored(material.holdout), self._scored(material.production)),
            Hypothesis.SEGMENTS: find_segments(find_bands(material.production) if material.production else []),
            Hypothesis.PRECISION: find_precision(self.outcomes, float(material.policy.precision_band.absolute)),
            Hypothesis.MODEL_CHANGES: find_model_changes(material.baseline, material.candidate, material.at),
        }
        return [fitted, *found.values()]

    def pipeline_findings(self) -> list[Finding]:
        material, answers = self.material, self._answers()
        latency, errors = check_stability(material.telemetry, material.policy, is_final=True)
        artifact = find_artifact(material.manifest, material.artifact, answers)
        version = find_served_version(
            material.registered_version, material.served_version, answers, is_artifact_intact=not artifact.is_supported
        )
        return [artifact, version, find_latency(latency), find_errors(errors)]

    @cached_property
    def drifts(self) -> tuple[FeatureDrift, ...]:
        training, production = self.material.training, self.material.production
        if self.material.drifts is not None:
            return self.material.drifts
        if training is None or production is None:
            return ()
        return feature_drifts(column_pairs(training, production))

    @cached_property
    def places(self) -> Column | None:
        """Where production's rows are in the reference."""
        production, reference = self.material.production, self.material.reference
        return None if production is None or reference is None else same_rows(production, reference)

    @cached_property
    def suspects(self) -> Suspects | None:
        training, production, reference = self.material.training, self.material.production, self.material.reference
        if training is None or production is None or not self.drifts:
            return None
        changed = [drift for drift in self.drifts if drift.severity is not Severity.NONE]
        rescaled = [found for drift in changed if (found := self._rescaling(drift, training, production))]
        natural = {drift.feature: distance_between_weeks(training, drift.feature) for drift in changed}
        places = self.places
        mismatches = None if reference is None or places is None else find_mismatches(production, reference, places)
        return sort_suspects(self.drifts, rescaled, natural, mismatches)

    def _rescaling(self, drift: FeatureDrift, training: FeatureTable, production: FeatureTable) -> Rescaling | None:
        one, two = training.column(drift.feature), production.column(drift.feature)
        if object in (one.dtype, two.dtype):
            return None
        scaler = self.material.candidate.scalers.get(drift.feature) if self.material.candidate else None
        return find_rescaling(drift.feature, one.astype(np.float64), two.astype(np.float64), scaler)

    def _undrifted(self, suspects: Suspects) -> Restoration:
        training, production, flags = self.material.training, self.material.production, self.material.flags
        if not suspects.drifted or training is None or production is None or flags is None:
            return self._no_model()
        frauds = self._frauds(production)
        if frauds is None:
            return Restoration(None, "production has no labels or lacks a feature of the candidate.")
        restored = restore_distributions(frauds, suspects.drifted, training, production)
        return Restoration(replay(flags, restored, frauds), "With training's distribution on production's frauds")

    def _undamaged(self, suspects: Suspects) -> Restoration:
        """The candidate on the reference's values; without a reference, on intact frauds with and without the same damage."""
        flags = self.material.flags
        if not suspects.features or flags is None:
            return self._no_model()
        if (beside := self._beside_reference(suspects, flags)) is not None:
            return Restoration(beside, "With the offline pipeline's values")
        for name in ("holdout", "training"):
            table: FeatureTable | None = getattr(self.material, name)
            frauds = None if table is None else self._frauds(table)
            if frauds is not None:
                damaged = do_the_same_damage(frauds, suspects.broken, suspects.rescaled)
                return Restoration(replay(flags, frauds, damaged), f"Without the same damage on the {name}'s frauds")
        return Restoration(None, "no table has labels and all features of the candidate.")

    def _beside_reference(self, suspects: Suspects, flags: Flags) -> Replayed | None:
        """The candidate on the reference's values of the suspected features; None without a reference that has such frauds."""
        production, reference = self.material.production, self.material.reference
        frauds = None if production is None else self._frauds(production)
        if production is None or reference is None or self.places is None or frauds is None:
            return None
        places = self.places[is_fraud(production)]
        served = frauds.loc[places >= 0]
        return replay(flags, restore_from_reference(served, suspects.features, reference, places[places >= 0]), served)

    def _ease(self) -> Ease | None:
        """The baseline on the frauds of holdout, training and production."""
        material, flags = self.material, self.material.baseline_flags
        tables = [table for table in (material.holdout, material.training, material.production) if table is not None]
        frauds = [rows for table in tables if (rows := self._frauds(table, material.baseline)) is not None]
        if flags is None or len(frauds) < 3:
            return None
        return Ease(*(Caught(len(rows), int(flags(rows).sum())) for rows in frauds))

    def _frauds(self, table: FeatureTable, model: ModelFacts | None = None) -> pd.DataFrame | None:
        """A model's (else the candidate's) features of a table's frauds; None without labels or with a feature missing."""
        known = model or self.material.candidate
        needed = (known.features if known else ()) or tuple(table.features)
        if not table.has("is_fraud") or not all(table.has(name) for name in needed):
            return None
        frauds = rows_of(table, is_fraud(table), needed)
        return frauds if len(frauds) else None

    def _caught(self, name: str) -> Caught | None:
        """What the candidate catches in a part: replayed, else as its run logged it."""
        table, flags = getattr(self.material, name), self.material.flags
        frauds = None if table is None or flags is None else self._frauds(table)
        if frauds is not None and flags is not None:
            return Caught(len(frauds), int(flags(frauds).sum()))
        return self._logged(name)

    def _logged(self, name: str) -> Caught | None:
        """The logged recall, on as many frauds as the part has or the run logged; None where either is unknown."""
        metric = {"training": "train", "holdout": "holdout"}.get(name)
        logged = self.material.candidate.offline if self.material.candidate else {}
        recall, frauds = logged.get(f"{metric}_recall"), int(logged.get(f"{metric}_frauds", 0))
        table: FeatureTable | None = getattr(self.material, name)
        if table is not None and table.has("is_fraud"):
            frauds = int(is_fraud(table).sum())
        return Caught(frauds, round(recall * frauds)) if recall is not None and frauds else None

    @cached_property
    def promised(self) -> Caught | None:
        """What the candidate caught of the holdout, as its run says; else replayed."""
        return self._logged("holdout") or self._caught("holdout")

    @cached_property
    def in_production(self) -> Caught | None:
        """What the registered candidate catches of production's frauds; else what it caught as it was served."""
        replayed = self._caught("production")
        if replayed is not None or self.outcomes is None or not self.outcomes.candidate.frauds:
            return replayed
        return Caught(self.outcomes.candidate.frauds, self.outcomes.candidate.caught)

    @cached_property
    def outcomes(self) -> Outcomes | None:
        production = self.material.production
        if self.material.outcomes is not None or production is None:
            return self.material.outcomes
        return count_outcomes(production)

    def _answers(self) -> Answers | None:
        """The registered model's answers on production's frauds, beside those that were served."""
        production, flags = self.material.production, self.material.flags
        if production is None or flags is None or not production.has("candidate_prediction"):
            return None
        frauds = self._frauds(production)
        if frauds is None:
            return None
        served = np.asarray(production.column("candidate_prediction"), np.float64)[is_fraud(production)]
        known = ~np.isnan(served)
        replayed = compare_replays(flags(frauds.loc[known]), served[known] == 1) if known.any() else None
        return Answers(replayed.frauds, replayed.gained + replayed.lost, replayed) if replayed else None

    def _holdout(self, elsewhere: float) -> Finding:
        try:
            return find_holdout(self.promised, self.in_production, self._likenesses(), self._ease(), elsewhere)
        except DataInvalid as error:
            return not_testable(Hypothesis.HOLDOUT, str(error))

    def _likenesses(self) -> list[Likeness] | None:
        holdout, training, production = self.material.holdout, self.material.training, self.material.production
        if holdout is None or training is None or production is None:
            return None
        distances = {drift.feature: drift.distance or 0.0 for drift in self.drifts}
        far = [drift for drift in feature_drifts(column_pairs(holdout, production)) if drift.severity is not Severity.NONE]
        natural = {drift.feature: distance_between_weeks(training, drift.feature) for drift in far if training.has(drift.feature)}
        found = [
            Likeness("all transactions", drift, distances.get(drift.feature, 1.0), natural.get(drift.feature, 0.0))
            for drift in far
        ]
        if not all(table.has("is_fraud") and is_fraud(table).any() for table in (holdout, training, production)):
            return found
        return found + compare_frauds(holdout, training, production)

    def _scored(self, table: FeatureTable | None) -> Scored | None:
        scores, candidate = self.material.scores, self.material.candidate
        if table is None or scores is None or not table.has("is_fraud"):
            return None
        features = list(candidate.features if candidate and candidate.features else table.features)
        if not all(table.has(name) for name in features):
            return None
        rows = table.sample(SCORED_ROWS, SEED, [*features, "is_fraud"])
        rows = rows.loc[rows["is_fraud"].notna()]
        return sum_scores(np.asarray(scores(rows[features]), np.float64), rows["is_fraud"].to_numpy(np.bool_))

    def _no_model(self) -> Restoration:
        return Restoration(None, self.material.missing.get("flags", "the registered candidate, to be run again, is missing."))
