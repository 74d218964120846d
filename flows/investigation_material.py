"""What an investigation looks at, gathered from the outside; what cannot be had is named, with the reason."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import TypeAdapter

from flows.diagnosis import Material
from flows.domain.ab_test import Arm
from flows.domain.errors import DataInvalid, FraudABError
from flows.domain.model_findings import ModelFacts
from flows.domain.serving_state import model_uri
from flows.preflight import file_digests
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.decision import Decision
    from flows.ports import FeatureTable, LoadedModel

T = TypeVar("T")
FACTS = TypeAdapter(ModelFacts)
TABLES = {
    "training": "FRAUD_AB_TRAINING_DATA",
    "holdout": "FRAUD_AB_HOLDOUT_DATA",
    "production": "FRAUD_AB_PRODUCTION_DATA",
    "reference": "FRAUD_AB_REFERENCE_DATA",
}
"""The feature tables, and the setting that says where each is."""


class Watcher(Protocol):
    """Is told what is read."""

    def opened(self, table: str, features: int) -> None: ...

    def reading(self, table: str, column: str) -> None: ...


def read_making(test: ABTest) -> dict[str, Any]:
    """What MLflow knows of the making of both models, as JSON by arm."""
    return {str(arm): FACTS.dump_python(systems().registry.making(test.model(arm)), mode="json") for arm in Arm}


def compare_files(test: ABTest) -> dict[str, Any]:
    """SHA-256 by path of the candidate's files: as archived, and as its predictor loads them (else: as registered); with the
    addresses that registry and predictor name."""
    candidate = test.candidate
    predictor = systems().serving.read().predictor(candidate.predictor)
    address = model_uri(predictor.spec) if predictor else ""
    served = systems().archive.digests(address) if address.startswith("s3://") else {}
    if not served:
        with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
            served = file_digests(systems().registry.artifact_files(candidate, Path(folder)))
    source = systems().registry.provenance(candidate).source
    is_comparable = address.partition("://")[0] == source.partition("://")[0]
    return {
        "manifest": dict(systems().archive.manifest(candidate)),
        "artifact": dict(served),
        "registered": source.rstrip("/"),
        "served": address.rstrip("/") if is_comparable else None,
    }


class Gathering:
    """Opens the tables and the model while the `with` block lasts."""

    def __init__(self, decision: Decision, watcher: Watcher | None = None) -> None:
        self._decision = decision
        self._watcher = watcher
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
        request, evidence = self._decision.request, self._decision.request.evidence
        tables = {name: self._try(name, lambda name=name: self.table(name)) for name in TABLES}
        loaded = self._try("flags", lambda: self._load(request.test.candidate))
        baseline = self._try("baseline_flags", lambda: self._load(request.test.baseline))
        facts = {arm: None if isinstance(making, str) else FACTS.validate_python(making[arm]) for arm in Arm}
        known: Mapping[str, Any] = {} if isinstance(files, str) else files
        failed = {"candidate": making, "artifact": files}
        return Material(
            training=tables["training"],
            holdout=tables["holdout"],
            production=tables["production"],
            reference=tables["reference"],
            baseline=facts[Arm.BASELINE],
            candidate=_asked_for(facts[Arm.CANDIDATE], loaded),
            flags=loaded.flags if loaded else None,
            baseline_flags=baseline.flags if baseline else None,
            scores=loaded.scores if loaded else None,
            manifest=known.get("manifest"),
            artifact=known.get("artifact"),
            registered_version=known.get("registered"),
            served_version=known.get("served"),
            outcomes=evidence.outcomes if evidence else None,
            telemetry=evidence.telemetry if evidence else None,
            policy=request.policy or systems().policy,
            at=self._decision.created_at,
            missing=self._missing | {name: why for name, why in failed.items() if isinstance(why, str)},
        )

    def table(self, name: str) -> FeatureTable:
        """One of `TABLES`; production's rows are those of the window that was judged, with the feedback's labels and predictions.

        Raises:
            DataInvalid: its setting is empty, or it cannot be used.
            OutsideSystemError: its database failed.
        """
        place, test = getattr(systems().settings, f"{name}_data"), self._decision.request.test
        if not place:
            raise DataInvalid(f"Set {TABLES[name]} to the table of the {name} features.")
        known = {"model": test.candidate.name, "version": test.candidate.version, "test": test.test_id}
        try:
            source = place.format(**known)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataInvalid(f"{TABLES[name]} may name {{model}}, {{version}} and {{test}} only.") from error
        evidence = self._decision.request.evidence
        window = evidence.window if evidence and name == "production" else None
        table = self._ends.enter_context(systems().open_features(source, window, with_labels=name == "production"))
        if self._watcher is None:
            return table
        self._watcher.opened(name, len(table.features))
        return Watched(name, table, self._watcher)

    def _try(self, name: str, get: Callable[[], T]) -> T | None:
        try:
            return get()
        except FraudABError as error:
            self._missing[name] = f"{error}".rstrip(".") + "."
            return None

    def _load(self, model: Model) -> LoadedModel:
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="candidate-")))
        return systems().registry.load(model, systems().registry.artifact_files(model, folder))


def _asked_for(facts: ModelFacts | None, loaded: LoadedModel | None) -> ModelFacts | None:
    """With the features that the model itself asks for, where it tells them."""
    return replace(facts, features=loaded.features) if facts and loaded and loaded.features else facts


@dataclass(frozen=True, slots=True)
class Watched:
    """A table of which somebody is told what is read."""

    called: str
    table: FeatureTable
    watcher: Watcher

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def left_out(self) -> Sequence[str]:
        return self.table.left_out

    @property
    def rows(self) -> int:
        return self.table.rows

    @property
    def features(self) -> Sequence[str]:
        return self.table.features

    def has(self, column: str) -> bool:
        return self.table.has(column)

    def column(self, name: str) -> NDArray[Any]:
        self.watcher.reading(self.called, name)
        return self.table.column(name)

    def sample(self, rows: int, seed: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        return self.table.sample(rows, seed, columns)
