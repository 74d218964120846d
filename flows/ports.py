"""What is needed from outside, as Protocols. Adapters implement them; flows and the bot know nothing else of the outside.

Every method may raise `OutsideSystemError` (`retryable` says whether trying again can help); every call has a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from flows.domain.ab_test import ABTest, Arm, Model
    from flows.domain.action_plan import RegistryEntry, Stage
    from flows.domain.counts import FeedbackCounts, FeedbackHealth, FlagCounts
    from flows.domain.decision import Choice, Decision, DecisionRequest, Person
    from flows.domain.decision_record import DecisionRecord, RecordKind
    from flows.domain.feedback import ExposureWindow
    from flows.domain.model_findings import ModelFacts
    from flows.domain.policy import Policy
    from flows.domain.serving_state import ServingChange, ServingState


class FeedbackSource(Protocol):
    """Predictions joined with their labels; aggregates only, computed in the engine."""

    def watermark(self, now: datetime) -> datetime:
        """The latest moment (UTC) up to `now` that the feedback knows of; labels age against this, not against the clock."""
        ...

    def first_event(self) -> datetime:
        """The earliest event's time (UTC)."""
        ...

    def count(self, window: ExposureWindow, policy: Policy, now: datetime | None = None) -> FeedbackCounts:
        """The counts of the matured rows of a window; rows later than `now` (None: than the window's watermark) are doubtful.

        Raises:
            FeedbackInvalid: a column is missing, has a wrong type, or the window holds no row.
        """
        ...

    def flags(self, since: datetime, until: datetime) -> FlagCounts:
        """What the candidate scored and flagged between two moments, labels or not; 0 requests where nothing is known."""
        ...

    def health(self, window: ExposureWindow) -> FeedbackHealth:
        """Cards per arm, rows and labels by day: no outcome, so that asking every day is no look."""
        ...


class FeatureTable(Protocol):
    """A table of features (training, holdout, production, or production as the offline pipeline computes it), read by column.

    Columns of the contract, absent or present: transaction_id, event_time, entity_id, is_fraud, baseline_prediction,
    candidate_prediction, candidate_score; `amount` is of the contract and a feature. Rows keep their order.
    """

    @property
    def name(self) -> str:
        """Its name for messages, without a password."""
        ...

    @property
    def rows(self) -> int:
        """At least 1."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """Columns of numbers, booleans or text that no contract names, in the table's order; at least one."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """Columns of a kind that nothing here compares, such as times."""
        ...

    def has(self, column: str) -> bool: ...

    def column(self, name: str) -> NDArray[Any]:
        """One column, (rows,): numbers as float32 or float64 with NaN for null, booleans as 0 and 1, times as seconds since 1970
        (UTC); text and ids as objects with None for null.

        Raises:
            DataInvalid: there is no such column.
        """
        ...

    def sample(self, rows: int, seed: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """At most that many rows at random, in the table's order and the same for the same seed; None: all columns."""
        ...


@dataclass(frozen=True, slots=True)
class ArmTelemetry:
    """What one arm served since a moment: `share` of all requests 0..1, `p95_ms` None without requests."""

    requests: int
    share: float
    p95_ms: float | None
    errors: int


class Telemetry(Protocol):
    """Latency, errors and the measured traffic share, as the users of the models met them."""

    def now(self) -> datetime:
        """The telemetry's own clock (UTC); take `since` from here, so that no two machines' clocks are compared."""
        ...

    def measure(self, test: ABTest, since: datetime, until: datetime | None = None) -> Mapping[Arm, ArmTelemetry]:
        """Both arms since a moment (up to another; None: up to now); an arm without requests has 0 of them, never a
        healthy-looking default."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """The signs that a change has arrived: each True, False, or None where this cluster cannot tell.

    `routed`: per cent by predictor as the router sends them now (the most where routes differ). `not_ready`: predictors whose
    pods are not all available, or not there yet. Both None where this cluster cannot tell.
    """

    signs: Mapping[str, bool | None]
    routed: Mapping[str, int] | None = None
    not_ready: frozenset[str] | None = None

    @property
    def is_done(self) -> bool:
        return all(sign is not False for sign in self.signs.values()) and any(self.signs.values())

    def is_up(self, predictor: str) -> bool:
        """Whether this predictor's own pods are available, whatever the others' are; where that cannot be told, all signs."""
        return self.is_done if self.not_ready is None else predictor not in self.not_ready

    def routes_all_to(self, predictor: str) -> bool:
        """Whether the router sends everything there; where that cannot be seen, whether all signs are good."""
        return self.is_done if self.routed is None else {name for name, share in self.routed.items() if share} == {predictor}

    def __str__(self) -> str:
        words = {True: "yes", False: "not yet", None: "cannot be checked here"}
        return ", ".join(f"{name}: {words[sign]}" for name, sign in self.signs.items())


class Serving(Protocol):
    """The SeldonDeployment."""

    def read(self) -> ServingState: ...

    def apply(self, state: ServingState, change: ServingChange, *, dry_run: bool = False) -> ServingState:
        """Make a change to exactly this version of the deployment, in one patch.

        Returns:
            the new version (on a dry run: what it would be; nothing is kept).

        Raises:
            Conflict: the deployment changed since `state` was read: read again and decide again.
        """
        ...

    def readiness(self) -> Readiness:
        """Whether what the spec says is what runs (Seldon's status, its Deployments, the VirtualService)."""
        ...

    def missing_permissions(self) -> Sequence[str]:
        """What this account may not do and a change needs, in words; empty when all is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Provenance:
    """A model version as registered: the run that logged it, where its files are, and the digest of all of them and the SHA-256
    of each by path, noted when its test began (each empty when unknown)."""

    run_id: str
    source: str
    noted_sha256: str
    noted_files: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document's text with its SHA-256, and the one `noted` at each place, in words (empty: none is)."""

    text: str
    sha256: str
    noted: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A registered model that can be asked: `flags` gives booleans (n,) for a frame of its `features` (empty: it does not tell
    them), `scores` 0..1 where it has them. Whatever its own code raises comes as `OutsideSystemError`."""

    features: tuple[str, ...]
    flags: Callable[[pd.DataFrame], NDArray[np.bool_]]
    scores: Callable[[pd.DataFrame], NDArray[np.float64]] | None = None


class Registry(Protocol):
    """The model registry; with stages, aliases or both as the settings say."""

    def entry(self, model: Model) -> RegistryEntry: ...

    def set_in_charge(self, model: Model) -> RegistryEntry:
        """Production / `champion`. Idempotent. Returns what was read back."""
        ...

    def set_archived(self, model: Model, *, previous: bool) -> RegistryEntry:
        """Archived, explicitly; with `previous` the alias of the model in charge before. Idempotent."""
        ...

    def set_stage(self, model: Model, stage: Stage) -> RegistryEntry: ...

    def artifact_files(self, model: Model, folder: Path) -> Path:
        """Download the model's artifacts below `folder`; returns where they are."""
        ...

    def provenance(self, model: Model) -> Provenance:
        """Where the registry says that this version comes from."""
        ...

    def note_artifacts(self, model: Model, sha256: str, files: Mapping[str, str]) -> None:
        """Keep the digest of the artifacts that a test begins with, and the SHA-256 of each by path unless they are too many, as
        tags of the version."""
        ...

    def try_out(self, model: Model, files: Path) -> int:
        """Load downloaded artifacts and predict on the input example logged with them; returns the rows predicted."""
        ...

    def making(self, model: Model) -> ModelFacts:
        """What was logged of the model's making; what was not logged is empty."""
        ...

    def load(self, model: Model, files: Path) -> LoadedModel:
        """Load downloaded artifacts, to run the model again."""
        ...

    def log_document(self, test: ABTest, name: str, text: str) -> str:
        """Store a text artifact on the test's MLflow run, with its SHA-256 as a tag of the run and of both model versions.

        Returns:
            its URI.
        """
        ...

    def stored_document(self, test: ABTest, name: str) -> StoredDocument:
        """A document as it is now, and the digests that were noted when it was stored."""
        ...

    def log_picture(self, test: ABTest, name: str, png: bytes) -> None:
        """Store a PNG on the test's MLflow run."""
        ...

    def open_test_run(self, test_id: str, experiment: str, facts: Mapping[str, str]) -> str:
        """The id of the run of this test in the named experiment, created with `facts` as tags unless it is there. Idempotent."""
        ...

    def require_run(self, run_id: str) -> None:
        """Raises `OutsideSystemError` when there is no such run."""
        ...

    def tag_test(self, test: ABTest, tags: Mapping[str, str]) -> None: ...

    def run_url(self, test: ABTest, document: str = "") -> str:
        """Where a person sees the test's run, or a document of it; empty when the tracking server has no page."""
        ...


@dataclass(frozen=True, slots=True)
class ArchiveReceipt:
    """A verified archive: where it is, how many files and bytes, the SHA-256 of its manifest."""

    uri: str
    files: int
    size_bytes: int
    manifest_sha256: str


class Archive(Protocol):
    """Artifacts of models, kept with a manifest that is written last."""

    def store(self, model: Model, folder: Path) -> ArchiveReceipt:
        """Copy a folder, only what is missing, then verify every checksum. Idempotent."""
        ...

    def verify(self, model: Model) -> ArchiveReceipt: ...

    def manifest(self, model: Model) -> Mapping[str, str]:
        """SHA-256 by relative path, as archived; the files are not read."""
        ...

    def restore(self, model: Model, folder: Path) -> Path: ...

    def digests(self, uri: str) -> Mapping[str, str]:
        """SHA-256 by relative path of all that lies at an s3:// address, read and not taken from a label; empty: nothing."""
        ...

    def put_back(self, model: Model, uri: str) -> int:
        """Copy to an s3:// address what is missing there, then verify every checksum at that place; nothing is overwritten.

        Returns:
            how many files were missing.
        """
        ...


class VersionedFiles(Protocol):
    """Text files in a repository (or a plain folder): the lifecycle page, the deployment's manifest."""

    def edit(self, path: str, change: Callable[[str], str], message: str) -> str:
        """Commit what `change` makes of a file's text (of "" when there is no such file); returns a reference to it.

        `change` is called again on the newer text when somebody else was faster. Unchanged text makes no commit.
        """
        ...


class DecisionLog(Protocol):
    """What was asked and answered. The database's clock decides what is in time."""

    def now(self) -> datetime: ...

    def open(self, request: DecisionRequest) -> Decision:
        """Insert a pending decision, or read the one that is there: UNIQUE(test, round).

        The stored question stays as people have seen it; only its `flow_run_id` becomes the one of the latest asker.
        """
        ...

    def read(self, decision_id: str) -> Decision:
        """Raises `UnknownDecision`."""
        ...

    def claim(
        self,
        decision_id: str,
        *,
        evidence_digest: str,
        choice: Choice,
        actor: Person,
        reason: str,
        postponed_until: datetime | None = None,
        wanted_frauds: int | None = None,
    ) -> Decision:
        """Answer a pending decision by one conditional UPDATE, with its record in the same transaction.

        Where a promotion needs two people, the first one's confirmation is kept likewise, with a record of its own. With
        `wanted_frauds` a postponement is over when somebody who sees so many wakes it, and at the latest at `postponed_until`.

        Returns:
            the decision; still pending, with a first confirmation, when a second person has to confirm.

        Raises:
            AlreadyDecided: somebody was first, or the time is over; the message says who decided what and when.
            EvidenceChanged: the digest is not the one that was asked about.
            PostponementRefused: the policy does not allow this postponement; the decision is still pending.
            ConfirmationRefused: this person may not confirm the promotion, or has done so; the decision is still pending.
            UnknownDecision: there is no such decision.
        """
        ...

    def claim_overdue(self) -> Sequence[Decision]:
        """Let every pending decision past its deadline expire; returns those that this call claimed."""
        ...

    def undelivered(self) -> Sequence[Decision]:
        """Claimed, due, and not yet consumed by their flow run."""
        ...

    def waiting_for_frauds(self) -> Sequence[Decision]:
        """Postponed until so many frauds are seen, and neither woken nor due yet."""
        ...

    def wake(self, decision_id: str) -> bool:
        """Let a postponement that waits for frauds be due now; False when it is not waiting (any more)."""
        ...

    def begin_repair(self, decision_id: str) -> bool:
        """The right to reschedule the flow run of an unconsumed answer: one process at a time, each time after a longer pause."""
        ...

    def consume(self, decision_id: str) -> Decision:
        """Mark that the flow has carried the claim out, or has asked the next question. Idempotent."""
        ...

    def decisions(self, test_id: str | None = None, *, unconsumed_only: bool = False) -> Sequence[Decision]:
        """Newest first.

        Args:
            unconsumed_only: open questions, and answers that no flow has carried out yet.
        """
        ...

    def reopen(self, decision_id: str) -> None:
        """Another attempt at an answer that was carried out: until it is consumed again, it counts as undelivered. Idempotent."""
        ...

    def append_record(
        self, kind: RecordKind, decision_id: str, payload: Mapping[str, object], *, occurrence: int = 0
    ) -> DecisionRecord:
        """Append to the chain. Idempotent for the same kind, decision and occurrence: the first record stays and is returned."""
        ...

    def records(self, decision_id: str | None = None) -> Iterable[DecisionRecord]:
        """In the order of the chain."""
        ...


class Executions(Protocol):
    """Leases on flow runs: each is renewed by the process that executes the run, and lapses when that process is gone."""

    def renew(self, flow_run_id: str) -> None: ...

    def end(self, flow_run_id: str) -> None: ...

    def is_leased(self, flow_run_id: str) -> bool:
        """Whether a process executes the run, or did until a moment ago."""
        ...

    def take_lapsed(self) -> Sequence[str]:
        """The runs whose lease has lapsed. Whoever takes one has a lease's time to bring the run back before another may."""
        ...


@dataclass(frozen=True, slots=True)
class PostedMessage:
    """Where a message of the outbox is in Slack, and the digest of what it shows now."""

    key: str
    channel: str
    ts: str
    content_digest: str


class OutboxSlot(Protocol):
    """The exclusive right to post or redraw one message, held until the `with` block ends."""

    @property
    def posted(self) -> PostedMessage | None:
        """What is in Slack under this key, None when nothing is known to be."""
        ...

    @property
    def attempted(self) -> bool:
        """Somebody tried to post it before and never learnt the outcome: look for it in Slack before posting again."""
        ...

    def record(self, ts: str, content_digest: str) -> PostedMessage: ...


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that Slack did not take: `content` is the publisher's own JSON, `at` when it was to be said first (UTC), `times`
    how often it was kept."""

    key: str
    content: str
    at: datetime
    times: int


class Outbox(Protocol):
    """Which messages are in Slack already, so that none is posted twice, by however many processes; and which are to be yet."""

    def slot(self, key: str, channel: str) -> AbstractContextManager[OutboxSlot]:
        """Wait for and hold the slot of a key; the attempt itself is stored before the block is entered."""
        ...

    def find(self, key: str) -> PostedMessage | None: ...

    def keep(self, key: str, channel: str, content: str) -> None:
        """Remember what Slack did not take, until it is dropped. Under the same key the first content and moment stay."""
        ...

    def kept(self) -> Sequence[KeptMessage]:
        """In the order in which they were to be said."""
        ...

    def drop(self, message: KeptMessage) -> None:
        """It is in Slack now. Nothing is dropped when it was kept once more since it was read."""
        ...
