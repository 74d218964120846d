"""What an investigation looks at, gathered from the outside; what cannot be had is named, with the reason."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import TypeAdapter

from flows.domain.ab_test import Arm
from flows.domain.errors import DataInvalid, FraudABError, NotEnoughEvidence
from flows.domain.model_findings import ModelFacts
from flows.domain.serving_state import model_uri
from flows.material import Material
from flows.preflight import digest_of, file_digests
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.ab_test import ABTest, Model
    from flows.domain.decision import Decision
    from flows.ports import FeatureTable, LoadedModel, Provenance

T = TypeVar("T")
Digests = dict[str, str]
FACTS = TypeAdapter(ModelFacts)
TABLES = {
    "training": "FRAUD_AB_TRAINING_DATA",
    "holdout": "FRAUD_AB_HOLDOUT_DATA",
    "production": "FRAUD_AB_PRODUCTION_DATA",
    "reference": "FRAUD_AB_REFERENCE_DATA",
}
"""The feature tables, and the setting that says where each is."""
FILES = ("manifest", "artifact", "registered_version", "served_version")
"""What `compare_files` tells, by the field of `Material`."""
ALL_FILES = "one of the files, of which only a common digest was noted,"


class Watcher(Protocol):
    """Is told what is read."""

    def opened(self, table: str, features: int) -> None: ...

    def reading(self, table: str, column: str) -> None: ...


def read_making(model: Model) -> dict[str, Any]:
    """What MLflow knows of a model's making, as JSON."""
    return FACTS.dump_python(systems().registry.making(model), mode="json")


def known_making(making: Mapping[str, Mapping[str, Any] | str]) -> dict[Arm, ModelFacts]:
    """Of `read_making` by arm, where it did not fail."""
    return {Arm(arm): FACTS.validate_python(facts) for arm, facts in making.items() if not isinstance(facts, str)}


def compare_files(test: ABTest) -> dict[str, Any]:
    """SHA-256 by path of the candidate's files, as they were when the test began (`manifest`) and as its predictor loads them
    (`artifact`), and the addresses that registry and predictor name (`registered`, `served`).

    Each is None where it cannot be had, and `missing` says why, by the field of `Material`.
    """
    candidate, missing = test.candidate, dict[str, str]()
    origin = _or_missing(missing, lambda: systems().registry.provenance(candidate), "registered_version", "manifest")
    address = _or_missing(missing, lambda: _loaded_from(candidate), "served_version", "artifact")
    source = origin.source.rstrip("/") if origin else None
    wanted, artifact, served = None, None, None
    if origin is not None:
        wanted = _or_missing(missing, lambda: _files_at_start(candidate, origin, address), "manifest")
    if address is not None:
        artifact = _or_missing(missing, lambda: _loaded_files(candidate, address, source), "artifact")
        served = _or_missing(missing, lambda: _comparable(candidate, address, source), "served_version")
    wanted, artifact = _compared_alike(wanted, artifact)
    return {"manifest": wanted, "artifact": artifact, "registered": source, "served": served, "missing": missing}


def _loaded_from(candidate: Model) -> str:
    """The address from which the candidate's predictor has its model; empty where its image has it."""
    state = systems().serving.read()
    predictor = state.predictor(candidate.predictor)
    if predictor is None:
        raise NotEnoughEvidence(f"{state.name} has no predictor {candidate.predictor} any more.")
    return model_uri(predictor.spec).rstrip("/")


def _files_at_start(candidate: Model, origin: Provenance, address: str | None) -> Digests:
    """As noted when the test began; else as archived, which is a copy made since and tells nothing of its own source."""
    if origin.noted_files:
        return dict(origin.noted_files)
    if origin.noted_sha256:
        return {ALL_FILES: origin.noted_sha256}
    if address == origin.source.rstrip("/"):
        raise NotEnoughEvidence(
            f"Nobody noted what the files of {candidate} were when the test began (fraud-ab start does), and the archive has them"
            " from where the predictor loads them."
        )
    return dict(systems().archive.manifest(candidate))


def _loaded_files(candidate: Model, address: str, source: str | None) -> Digests:
    """What lies where the predictor loads it from; empty when nothing is left there."""
    if address.startswith("s3://"):
        return dict(systems().archive.digests(address))
    if not address or address != source:
        raise NotEnoughEvidence(
            f"What the predictor {candidate.predictor} loads ({address or 'its image'}) cannot be read, as it is neither at an s3://"
            " address nor at the registry's own."
        )
    with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
        return file_digests(systems().registry.artifact_files(candidate, Path(folder)))


def _comparable(candidate: Model, address: str, source: str | None) -> str:
    """The address, if it may be compared with the registry's."""
    if source is not None and address.partition("://")[0] != source.partition("://")[0]:
        raise NotEnoughEvidence(
            f"The registry has {candidate} at {source} and its predictor loads {address or 'its image'}: whether that is the same"
            " cannot be seen."
        )
    return address


def _compared_alike(wanted: Digests | None, found: Digests | None) -> tuple[Digests | None, Digests | None]:
    """File by file; by one digest of all files where no other was noted."""
    if wanted is None or found is None or ALL_FILES not in wanted:
        return wanted, found
    digest = digest_of(found)
    return (found, found) if wanted[ALL_FILES] == digest else (wanted, {ALL_FILES: digest})


def _or_missing(missing: dict[str, str], get: Callable[[], T], *names: str) -> T | None:
    """What was got; None where it could not be had, with the reason for each of the names."""
    try:
        return get()
    except FraudABError as error:
        missing.update(dict.fromkeys(names, f"{error}".rstrip(".") + "."))
        return None


class Gathering:
    """Opens the tables and the model while the `with` block lasts."""

    def __init__(self, decision: Decision, watcher: Watcher | None = None) -> None:
        self._decision = decision
        self._watcher = watcher
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def material(self, making: Mapping[str, Mapping[str, Any] | str], files: Mapping[str, Any] | str) -> Material:
        """Everything that could be had.

        Args:
            making: of `read_making` by arm; where it failed, why.
            files: of `compare_files`; where it failed, why.
        """
        request, evidence = self._decision.request, self._decision.request.evidence
        missing, (one, two) = dict[str, str](), request.test.models
        tables = {name: _or_missing(missing, lambda name=name: self.table(name), name) for name in TABLES}
        baseline = _or_missing(missing, lambda: self._load(one), "baseline_flags")
        candidate = _or_missing(missing, lambda: self._load(two), "flags", "scores")
        facts = known_making(making)
        missing |= {str(arm): why for arm, why in making.items() if isinstance(why, str)}
        known: Mapping[str, Any] = {"missing": dict.fromkeys(FILES, files)} if isinstance(files, str) else files
        return Material(
            training=tables["training"],
            holdout=tables["holdout"],
            production=tables["production"],
            reference=tables["reference"],
            baseline=_asked_for(one, facts.get(Arm.BASELINE), baseline),
            candidate=_asked_for(two, facts.get(Arm.CANDIDATE), candidate),
            flags=candidate.flags if candidate else None,
            baseline_flags=baseline.flags if baseline else None,
            scores=candidate.scores if candidate else None,
            manifest=known.get("manifest"),
            artifact=known.get("artifact"),
            registered_version=known.get("registered"),
            served_version=known.get("served"),
            outcomes=evidence.outcomes if evidence else None,
            telemetry=evidence.telemetry if evidence else None,
            policy=request.policy or systems().policy,
            at=self._decision.created_at,
            criteria=request.verdict.criteria,
            missing=missing | known.get("missing", {}),
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

    def _load(self, model: Model) -> LoadedModel:
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="candidate-")))
        return systems().registry.load(model, systems().registry.artifact_files(model, folder))


def _asked_for(model: Model, facts: ModelFacts | None, loaded: LoadedModel | None) -> ModelFacts | None:
    """With the features that the model itself asks for, where it tells them, also when nothing is known of its making."""
    if loaded is None or not loaded.features:
        return facts
    return replace(facts or ModelFacts(str(model)), features=loaded.features)


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
