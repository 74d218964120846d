"""Why the candidate lost: every hypothesis with its finding, ranked. Flow, benchmark and tests run this and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.baseline_replays import BaselineReplays
from flows.domain.criteria import CriterionName, check_stability
from flows.domain.data_findings import (
    LEAST_MISMATCH,
    Suspects,
    find_feature_drift,
    find_label_drift,
    find_scaling,
    find_serving_skew,
    sort_suspects,
)
from flows.domain.drift import FeatureDrift, Severity, feature_drifts
from flows.domain.errors import FraudABError
from flows.domain.findings import Finding, Hypothesis, not_testable, rank_findings
from flows.domain.holdout_findings import Likeness, find_holdout
from flows.domain.model_findings import (
    ModelFacts,
    Scored,
    find_calibration,
    find_model_changes,
    find_overfitting,
    find_precision,
    find_weaker_model,
    logged_share,
    sum_scores,
)
from flows.domain.pipeline_findings import Answers, find_artifact, find_errors, find_latency, find_served_version
from flows.domain.policy import LabelBasis
from flows.domain.recalls import Caught, compare_replays
from flows.domain.rescaling import Rescaling, find_rescaling
from flows.domain.segment_findings import find_segments
from flows.material import DATA_HYPOTHESES, Material, with_reason
from flows.replay import SEED, are_spread, features_of_frauds, find_mismatches, is_fraud, same_rows
from flows.restoration import Restorer
from flows.table_summaries import (
    MOST,
    column_pairs,
    compare_frauds,
    count_labels,
    count_outcomes,
    distance_between_weeks,
    find_bands,
    overlap_kinds,
    overlap_of,
    served_answers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.counts import Outcomes
    from flows.ports import FeatureTable

    Column = NDArray[Any]

SCORED_ROWS = 25_000


def diagnose(material: Material) -> tuple[Finding, ...]:
    """A finding for every hypothesis, in the order in which people should read them.

    Nothing that is missing stops it: what cannot be tested says what to bring.
    """
    looked = _Examination(material)
    data, pipeline = looked.data_findings(), looked.pipeline_findings()
    elsewhere = sum(finding.explained_recall or 0.0 for finding in data if finding.is_supported)
    otherwise = max((finding.explained_recall or 0.0 for finding in pipeline if finding.is_supported), default=0.0)
    found = [*data, *looked.model_findings(elsewhere, otherwise), *pipeline]
    return rank_findings(with_reason(finding, material) for finding in found)


def _guarded(hypothesis: Hypothesis, look: Callable[[], Finding]) -> Finding:
    """What a system or the data do not let us look at costs its own finding only."""
    try:
        return look()
    except FraudABError as error:
        return not_testable(hypothesis, f"{error}.".replace("..", "."))


class _Examination:
    """One pass over the material; what several findings rest on is computed once."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.baseline = BaselineReplays(material)
        self.between_weeks: dict[str, float] = {}

    def data_findings(self) -> list[Finding]:
        """Of what may be restored: scaling, drift and serving skew."""
        material, why = self.material, "Give training and production with at least one of the candidate's features in both."
        try:
            is_comparable = bool(self.used)
        except FraudABError as error:
            is_comparable, why = False, str(error)
        if material.training is None or material.production is None or not is_comparable:
            return [not_testable(hypothesis, why) for hypothesis in DATA_HYPOTHESES]
        restorer = self._restorer(material.training, material.production)

        def rescaled() -> Finding:
            only = Suspects((), (), self.suspects.rescaled, self.suspects.mismatches)
            return find_scaling(self.used, only, restorer.undamaged(only))

        def drifted() -> Finding:
            restored = restorer.undrifted(self.suspects.drifted)
            return find_feature_drift(self.used, self.suspects, restored)

        def broken() -> Finding:
            only = Suspects((), self.suspects.broken, (), self.suspects.mismatches)
            uncompared = [
                drift.feature for drift in self.used if material.reference is not None and drift.feature not in self.mismatches
            ]
            return find_serving_skew(only, restorer.undamaged(only), self.mismatches, uncompared)

        looks = {Hypothesis.SCALING: rescaled, Hypothesis.FEATURE_DRIFT: drifted, Hypothesis.SERVING_SKEW: broken}
        return [_guarded(hypothesis, look) for hypothesis, look in looks.items()]

    def _restorer(self, training: FeatureTable, production: FeatureTable) -> Restorer:
        material = self.material
        return Restorer(
            flags=material.flags,
            no_model=material.missing.get("flags", "the registered candidate, to be run again, is missing."),
            features=(material.candidate.features if material.candidate else ()) or tuple(production.features),
            training=training,
            production=production,
            holdout=material.holdout,
            reference=material.reference,
            places=self.places,
            unlabelled=self.unlabelled,
        )

    @property
    def unlabelled(self) -> str:
        """Why production's frauds are not all known; empty where they are."""
        if self.material.policy.labels is LabelBasis.ALL:
            return ""
        return "Not all transactions get a label (the policy's labels), so nobody knows which frauds production missed."

    def model_findings(self, elsewhere: float, otherwise: float) -> list[Finding]:
        """Of the model and its holdout; points of recall that the data explain, and that the answers of another model do."""
        material, precision = self.material, float(self.material.policy.precision_band.absolute)
        judged = {criterion.name: criterion for criterion in material.criteria}

        def fitted() -> Finding:
            seen, held = self._caught("training"), self._caught("holdout")
            return find_overfitting(
                material.candidate, seen, held, self.in_production, elsewhere, self.baseline.easier_training()
            )

        fit = _guarded(Hypothesis.OVERFITTING, fitted)
        holdout = self._needing_labels(Hypothesis.HOLDOUT, lambda: self._holdout(elsewhere))
        if fit.is_supported and holdout.explained_recall and fit.explained_recall:
            fit = replace(fit, said=f"{fit.said} The recall that it costs is counted with the holdout.", explained_recall=None)
        return [
            fit,
            holdout,
            self._needing_labels(
                Hypothesis.WEAKER_MODEL, lambda: self._weaker(elsewhere + otherwise, is_overfitted=fit.is_supported)
            ),
            self._needing_labels(
                Hypothesis.LABEL_DRIFT,
                lambda: find_label_drift(count_labels(material.training), count_labels(material.production)),
            ),
            self._needing_labels(
                Hypothesis.CALIBRATION,
                lambda: find_calibration(self._scored(material.holdout), self._scored(material.production)),
            ),
            self._needing_labels(Hypothesis.SEGMENTS, self._segments),
            _guarded(
                Hypothesis.PRECISION,
                lambda: find_precision(self.outcomes, precision, judged.get(CriterionName.PRECISION_STABILITY)),
            ),
            find_model_changes(material.baseline, material.candidate, material.at),
        ]

    def _needing_labels(self, hypothesis: Hypothesis, look: Callable[[], Finding]) -> Finding:
        return not_testable(hypothesis, self.unlabelled) if self.unlabelled else _guarded(hypothesis, look)

    def _weaker(self, elsewhere: float, *, is_overfitted: bool) -> Finding:
        both, on_holdout = self.answers_of_both, None if self.baseline.is_holdout_known else self._replayed(self.material.holdout)
        return find_weaker_model(
            self.outcomes,
            self.promised,
            self.in_production,
            elsewhere,
            is_overfitted=is_overfitted,
            overlap=overlap_of(overlap_kinds(*both[1:])) if both else None,
            on_holdout=overlap_of(overlap_kinds(*on_holdout)) if on_holdout else None,
        )

    def _segments(self) -> Finding:
        production, both = self.material.production, self.answers_of_both
        return find_segments(find_bands(production, *both) if production and both else [])

    @cached_property
    def answers_of_both(self) -> tuple[Column, Column, Column] | None:
        """Places of production's frauds (k,), and which baseline and candidate catch: as served, where both answered most of
        them; else replayed; else of the few."""
        production = self.material.production
        if production is None or not production.has("is_fraud"):
            return None
        served, frauds = served_answers(production), np.flatnonzero(is_fraud(production))
        if served is not None and len(served[0]) >= MOST * len(frauds):
            return served
        try:
            replayed = self._replayed(production)
        except FraudABError:
            if served is None:
                raise
            return served
        return (frauds, *replayed) if replayed else served

    def _replayed(self, table: FeatureTable | None) -> tuple[Column, Column] | None:
        """Which of a table's frauds (k,) each model catches when run again, the baseline first; None where nobody can tell."""
        flags, baseline_flags = self.material.flags, self.material.baseline_flags
        if table is None or flags is None or baseline_flags is None:
            return None
        one, two = self._frauds(table, self.material.baseline), self._frauds(table)
        if one is None or two is None:
            return None
        return np.asarray(baseline_flags(one), bool), np.asarray(flags(two), bool)

    def pipeline_findings(self) -> list[Finding]:
        material, answers = self.material, self._answers()
        recomputed = check_stability(material.telemetry, material.policy, is_final=True)
        # the verdict's own counts, where it judged
        judged = {criterion.name: criterion for criterion in (*recomputed, *material.criteria)}
        artifact = find_artifact(material.manifest, material.artifact, answers)
        version = find_served_version(
            material.registered_version, material.served_version, answers, is_artifact_intact=not artifact.is_supported
        )
        return [artifact, version, find_latency(judged[CriterionName.LATENCY]), find_errors(judged[CriterionName.ERROR_RATE])]

    @cached_property
    def drifts(self) -> tuple[FeatureDrift, ...]:
        training, production = self.material.training, self.material.production
        if self.material.drifts is not None:
            return self.material.drifts
        if training is None or production is None:
            return ()
        return feature_drifts(column_pairs(training, production))

    @cached_property
    def used(self) -> tuple[FeatureDrift, ...]:
        """The drifts that may be a cause: what the candidate does not ask for costs it nothing. All, where nobody knows that."""
        asked_for = self.material.candidate.features if self.material.candidate else ()
        return tuple(drift for drift in self.drifts if drift.feature in asked_for or not asked_for)

    @cached_property
    def places(self) -> Column | None:
        """Where production's rows are in the reference; None without enough common rows."""
        production, reference = self.material.production, self.material.reference
        return None if production is None or reference is None else same_rows(production, reference)

    @cached_property
    def suspects(self) -> Suspects:
        """Of training and production, which must be there."""
        training, production = self.material.training, self.material.production
        if training is None or production is None:
            return Suspects((), (), (), {})
        changed = [drift for drift in self.used if drift.severity is not Severity.NONE]
        rescaled = [found for drift in changed if (found := self._rescaling(drift, training, production))]
        return sort_suspects(self.used, rescaled, self._natural(training, changed), self.mismatches)

    def _natural(self, training: FeatureTable, drifts: Iterable[FeatureDrift]) -> dict[str, float]:
        """By feature the largest distance between weeks of training, of those that differ; computed once."""
        for drift in drifts:
            name = drift.feature
            if drift.severity is not Severity.NONE and name not in self.between_weeks and training.has(name):
                self.between_weeks[name] = distance_between_weeks(training, name)
        return self.between_weeks

    @cached_property
    def mismatches(self) -> Mapping[str, float]:
        """As `find_mismatches` tells them, of the features that could be compared with the reference. One that has only some of
        the days shows what differs there, and clears nothing."""
        production, reference, places = self.material.production, self.material.reference, self.places
        if production is None or reference is None or places is None:
            return {}
        found = find_mismatches(production, reference, places, [drift.feature for drift in self.used])
        is_whole = are_spread(places, production)
        return {name: share for name, share in found.items() if is_whole or share >= LEAST_MISMATCH}

    def _rescaling(self, drift: FeatureDrift, training: FeatureTable, production: FeatureTable) -> Rescaling | None:
        one, two = training.column(drift.feature), production.column(drift.feature)
        if object in (one.dtype, two.dtype):
            return None
        scaler = self.material.candidate.scalers.get(drift.feature) if self.material.candidate else None
        return find_rescaling(drift.feature, one.astype(np.float64), two.astype(np.float64), scaler)

    def _frauds(self, table: FeatureTable, model: ModelFacts | None = None) -> pd.DataFrame | None:
        """A model's (else the candidate's) features of a table's frauds; None without labels or with a feature missing."""
        known = model or self.material.candidate
        return features_of_frauds(table, known.features if known else ())

    def _caught(self, name: str) -> Caught | None:
        """What the candidate catches in a part: replayed, else as its run logged it."""
        table, flags = getattr(self.material, name), self.material.flags
        frauds = None if table is None or flags is None else self._frauds(table)
        if frauds is not None and flags is not None:
            return Caught(len(frauds), int(flags(frauds).sum()))
        return self._logged(name)

    def _logged(self, name: str) -> Caught | None:
        """The logged recall, on as many frauds as the part has or the run logged; None where either is unknown."""
        logged = self.material.candidate.offline if self.material.candidate else {}
        recall, frauds = logged_share(logged, {"training": "train", "holdout": "holdout"}.get(name, ""))
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
        if self.unlabelled:
            return None
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
        """The registered model's answers on production's frauds, beside those that were served; None where nobody can tell."""
        production, flags = self.material.production, self.material.flags
        if production is None or flags is None or not production.has("candidate_prediction"):
            return None
        try:
            frauds = self._frauds(production)
            served = np.asarray(production.column("candidate_prediction"), np.float64)
            if frauds is None:
                return None
            of_frauds = served[is_fraud(production)]
            known = ~np.isnan(of_frauds)
            replayed = compare_replays(flags(frauds.loc[known]), of_frauds[known] == 1) if known.any() else None
        except FraudABError:
            return None
        return Answers(replayed.frauds, replayed.gained + replayed.lost, replayed) if replayed else None

    def _holdout(self, elsewhere: float) -> Finding:
        training, holdout = self.material.training, self.material.holdout
        beside = feature_drifts(column_pairs(training, holdout)) if training and holdout else ()
        natural = self._natural(training, beside) if training else {}
        return find_holdout(
            self.promised, self.in_production, self._likenesses(), self.baseline.ease(), elsewhere, beside, natural
        )

    def _likenesses(self) -> list[Likeness] | None:
        holdout, training, production = self.material.holdout, self.material.training, self.material.production
        if holdout is None or training is None or production is None:
            return None
        distances = {drift.feature: drift.distance or 0.0 for drift in self.drifts}
        far = [drift for drift in feature_drifts(column_pairs(holdout, production)) if drift.severity is not Severity.NONE]
        natural = self._natural(training, far)
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
