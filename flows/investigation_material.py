"""What an investigation looks at, gathered from the outside; what cannot be had is named, with the reason."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from flows.diagnosis import Material
from flows.domain.ab_test import Arm
from flows.domain.errors import FraudABError
from flows.domain.model_findings import ModelFacts
from flows.domain.serving_state import model_uri
from flows.joined_table import labelled
from flows.preflight import file_digests
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.decision import Decision
    from flows.ports import FeatureTable, LoadedModel

FACTS = TypeAdapter(ModelFacts)
TABLES = {
    "training": "FRAUD_AB_TRAINING_DATA",
    "holdout": "FRAUD_AB_HOLDOUT_DATA",
    "production": "FRAUD_AB_PRODUCTION_DATA",
    "reference": "FRAUD_AB_REFERENCE_DATA",
}
"""The feature tables, and the setting that says where each is."""


def read_making(test: ABTest) -> dict[str, Any]:
    """What MLflow knows of the making of both models, as JSON by arm."""
    return {str(arm): FACTS.dump_python(systems().registry.making(test.model(arm)), mode="json") for arm in Arm}


def compare_files(test: ABTest) -> dict[str, Any]:
    """SHA-256 by path of the candidate's files: as archived, and as its predictor loads them (else: as registered)."""
    candidate, found = test.candidate, dict[str, Any]()
    found["manifest"] = dict(systems().archive.manifest(candidate))
    predictor = systems().serving.read().predictor(candidate.predictor)
    address = model_uri(predictor.spec) if predictor else ""
    source = systems().registry.provenance(candidate).source
    at_source = not address or address.rstrip("/") == source.rstrip("/")
    if address.startswith("s3://"):
        found["artifact"] = dict(systems().archive.digests(address))
    if not found.get("artifact"):
        with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
            found["artifact"] = file_digests(systems().registry.artifact_files(candidate, Path(folder)))
    return {**found, "registered": source, "served": source if at_source or address.startswith("s3://") else address}


class Gathering:
    """Opens the tables and the model while the `with` block lasts.

    Args:
        watch: told the name of each table and column before it is read.
    """

    def __init__(self, decision: Decision, watch: Callable[[str, str], None]) -> None:
        self._decision = decision
        self._watch = watch
        self._missing: dict[str, str] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def material(self, making: Mapping[str, Any] | str, files: Mapping[str, Any] | str) -> Material:
        """Everything that could be had.

        Args:
            making, files: of `read_making` and `compare_files`; where they failed, why.
        """
        request = self._decision.request
        tables = {name: self._try(name, lambda name=name: self._table(name)) for name in TABLES}
        loaded = self._try("flags", lambda: self._load(request.test.candidate))
        facts = {arm: None if isinstance(making, str) else FACTS.validate_python(making[arm]) for arm in Arm}
        known: Mapping[str, Any] = {} if isinstance(files, str) else files
        self._missing |= {name: found for name, found in (("candidate", making), ("artifact", files)) if isinstance(found, str)}
        evidence = request.evidence
        return Material(
            **tables,
            baseline=facts[Arm.BASELINE],
            candidate=facts[Arm.CANDIDATE],
            flags=loaded.flags if loaded else None,
            scores=loaded.scores if loaded else None,
            manifest=known.get("manifest"),
            artifact=known.get("artifact"),
            registered_version=known.get("registered"),
            served_version=known.get("served"),
            outcomes=evidence.outcomes if evidence else None,
            telemetry=evidence.telemetry if evidence else None,
            policy=request.policy or systems().policy,
            at=self._decision.created_at,
            missing=self._missing,
        )

    def _try(self, name: str, get: Callable[[], Any]) -> Any:
        try:
            return get()
        except FraudABError as error:
            self._missing[name] = f"{error}."
            return None

    def _table(self, name: str) -> FeatureTable | None:
        settings, test = systems().settings, self._decision.request.test
        where = getattr(settings, f"{name}_data")
        if not where:
            self._missing[name] = f"Set {TABLES[name]} to the table of the {name} features."
            return None
        place = where.format(model=test.candidate.name, version=test.candidate.version, test=test.test_id)
        table = systems().feature_table(place, watch=lambda column: self._watch(name, column))
        return self._tested(table) if name == "production" else table

    def _tested(self, table: FeatureTable) -> FeatureTable:
        """Production's rows of the window, with labels and predictions from the feedback where they are not in the table."""
        evidence = self._decision.request.evidence
        return labelled(table, systems().feedback_table, evidence.window if evidence else None)

    def _load(self, model: Model) -> LoadedModel:
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="candidate-")))
        registry = systems().registry
        return registry.load(model, registry.artifact_files(model, folder))
