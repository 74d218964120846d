"""Counts: all that is ever taken out of the feedback. Whole numbers, so that gates are exact and digests are stable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction


class Design(StrEnum):
    """Paired: both models scored each transaction. Split: each transaction was scored by one."""

    PAIRED = "paired"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """One model: `frauds` it scored, how many of them it `caught`, its `alerts` and how many of those were `true_alerts`."""

    frauds: int
    caught: int
    alerts: int
    true_alerts: int

    @property
    def recall(self) -> Fraction | None:
        """Caught over frauds, 0..1; None without frauds: missing is not zero."""
        return Fraction(self.caught, self.frauds) if self.frauds else None

    @property
    def precision(self) -> Fraction | None:
        """True alerts over alerts, 0..1; None without alerts."""
        return Fraction(self.true_alerts, self.alerts) if self.alerts else None


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two models' alerts overlap on the same transactions (all frauds, or all others); `neither` where it is counted."""

    both: int
    baseline_only: int
    candidate_only: int
    neither: int = 0

    @property
    def total(self) -> int:
        return self.both + self.baseline_only + self.candidate_only + self.neither


@dataclass(frozen=True, slots=True)
class CardProducts:
    """Sums over cards of the products of each two of VECTOR, row by row of the upper triangle.

    With u a linear function of a card's vector, Σu² over the cards follows from these sums alone.
    """

    cards: int
    products: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlagCounts:
    """Requests that a model scored, and how many it `flagged`; `products`: sums over the cards of n², n·x and x², with n a card's
    requests and x those flagged (None without cards)."""

    requests: int
    flagged: int
    products: tuple[int, int, int] | None = None

    @property
    def share(self) -> Fraction | None:
        """Flagged over scored, 0..1; None without requests."""
        return Fraction(self.flagged, self.requests) if self.requests else None


VECTOR = ("baseline_frauds", "baseline_caught", "baseline_alerts", "candidate_frauds", "candidate_caught", "candidate_alerts")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the comparison rests on: matured, labelled transactions.

    `frauds` and `false_alerts` are the overlaps of a paired design (`false_alerts` is unknown in a counts file); `left_out` are
    labelled rows that the comparison cannot use, beside the `rows` that it does (0: unknown, in a counts file); `cards` is None
    without cards.
    """

    design: Design
    baseline: ModelCounts
    candidate: ModelCounts
    frauds: Overlap | None = None
    false_alerts: Overlap | None = None
    cards: CardProducts | None = None
    rows: int = 0
    left_out: int = 0

    @property
    def compared_frauds(self) -> int:
        """Frauds that the comparison rests on: its information."""
        return self.baseline.frauds if self.design is Design.PAIRED else self.baseline.frauds + self.candidate.frauds


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One arm as it was served: rows of the window, of them `matured`, of those `labelled`; frauds known and caught as served.

    `flagged`: matured rows that some model flagged, and `flagged_labelled` of them.
    """

    rows: int
    matured: int
    labelled: int
    frauds: int
    caught: int
    flagged: int = 0
    flagged_labelled: int = 0


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Labels among matured rows that no model flagged; frauds whose label has a time, and those of them that came after maturity.

    A fraud whose label came late counts here only: elsewhere it is unlabelled, so that all labels are equally old.
    `timed_frauds` and `late_frauds` are None without the column label_time.
    """

    unflagged: int
    unflagged_labelled: int
    timed_frauds: int | None
    late_frauds: int | None


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """A random audit of what was not flagged: matured rows `unflagged`, how many of them were `audited`, and `frauds` found."""

    unflagged: int
    audited: int
    frauds: int


@dataclass(frozen=True, slots=True)
class PairSelection:
    """Of the rows that the baseline scored, flagged and not: how many there are, and how many the candidate scored too."""

    flagged: int
    flagged_pairs: int
    unflagged: int
    unflagged_pairs: int


@dataclass(frozen=True, slots=True)
class CardCounts:
    """Cards that met one arm only, and those that met both (crossover)."""

    baseline: int
    candidate: int
    crossover: int


@dataclass(frozen=True, slots=True)
class QualityCounts:
    """Rows of the window that cannot be right.

    `unusable`: no id, no time or no known arm; `duplicates`: repeats of a transaction, of which `conflicting` transactions carry
    both labels; `early_labels`: labelled before the transaction (None without label_time); `future`: with an event or a label
    later than now, wherever in the table.
    """

    rows: int
    unusable: int
    duplicates: int
    conflicting: int
    early_labels: int | None
    future: int = 0


@dataclass(frozen=True, slots=True)
class DayCounts:
    """One day of exposure (from 0) that has transactions: both models on it, and the overlap on its frauds in pairs."""

    day: int
    baseline: ModelCounts
    candidate: ModelCounts
    frauds: Overlap | None

    @property
    def compared_frauds(self) -> int:
        """Frauds of the day that the comparison rests on."""
        return self.baseline.frauds if self.frauds else self.baseline.frauds + self.candidate.frauds


@dataclass(frozen=True, slots=True)
class AmountCounts:
    """Amounts of fraud in hundredths of the currency: in all, and scored and caught by each model; rows that each model scored.

    `products` hold the upper triangles, row by row, of sums over cards (`by_card`; else over transactions) of the products of
    each two of a vector. In pairs it is one vector of what the candidate alone caught less what the baseline alone caught, and
    the difference in false alerts; in a split, for each arm, the amount of fraud, what was caught of it, false alerts and rows.
    """

    total: int
    baseline_scored: int
    baseline_caught: int
    candidate_scored: int
    candidate_caught: int
    baseline_rows: int
    candidate_rows: int
    products: tuple[tuple[int, ...], ...]
    by_card: bool


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """Everything counted in one window; None and `not_checked` (names of absent columns) say what could not be.

    `days` are those of the window with at least one transaction, in order. `audits`: of both arms in a split, one in pairs (of
    what neither model flagged), none without the column label_source. `selection` is None in a split.
    """

    outcomes: Outcomes
    baseline: ArmCounts
    candidate: ArmCounts
    labels: LabelCounts
    quality: QualityCounts
    cards: CardCounts | None
    amounts: AmountCounts | None
    days: tuple[DayCounts, ...]
    selection: PairSelection | None = None
    audits: tuple[AuditCounts, ...] = ()
    not_checked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestBucket:
    """One arm's requests in one stretch of time: those with a known latency and how many of them were within the limit,
    those with a known outcome and how many of them failed.

    `near_limit`: further requests of which a histogram tells only that they lie between its two boundaries around the limit.
    """

    timed: int
    within_limit: int
    answered: int
    errors: int
    near_limit: int = 0

    def __add__(self, other: RequestBucket) -> RequestBucket:
        return RequestBucket(
            self.timed + other.timed,
            self.within_limit + other.within_limit,
            self.answered + other.answered,
            self.errors + other.errors,
            self.near_limit + other.near_limit,
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of an arm's `rows` were `measured` on one `day` of exposure (from 1; None: the whole window)."""

    arm: str
    day: int | None
    measured: int
    rows: int

    @property
    def share(self) -> Fraction:
        return Fraction(self.measured, self.rows) if self.rows else Fraction(0)


@dataclass(frozen=True, slots=True)
class TelemetrySummary:
    """Latency and errors over the window.

    `p95_ms` is rounded up to whole milliseconds, None where unknown. `bucket_seconds` is the width at which sustained breaches
    were looked for (None: too few requests for any). `latency_breach` and `error_breach` are the longest runs of adjacent
    significantly bad buckets of the candidate alone, `shared_latency_breach` the longest with the baseline over the limit too.
    `latency_coverage` and `error_coverage` are where the least was measured. `near_ms` are the histogram's boundaries below and
    above the latency limit; empty where one lies at it.
    """

    latency_limit_ms: Fraction
    baseline: RequestBucket
    candidate: RequestBucket
    baseline_p95_ms: int | None
    candidate_p95_ms: int | None
    bucket_seconds: int | None
    latency_breach: int
    shared_latency_breach: int
    error_breach: int
    latency_coverage: Coverage
    error_coverage: Coverage
    near_ms: tuple[Fraction, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledDay:
    """One arm's rows of one `day` of exposure (from 1), and how many of them have a label by now."""

    arm: str
    day: int
    rows: int
    labelled: int


@dataclass(frozen=True, slots=True)
class FeedbackHealth:
    """What can be told of a running test without its outcomes.

    `cards` is None without entity_id; `last_label_days` is how many whole days before the feedback's end the newest label came,
    None without labels or label_time; `days` are in order, each once an arm.
    """

    cards: CardCounts | None
    days: tuple[LabelledDay, ...]
    last_label_days: int | None
