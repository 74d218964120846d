"""Counts from the feedback by Ibis: the engine aggregates, a handful of whole numbers comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import ibis

from flows.adapters.feedback_table import Expression, FeedbackTable, open_feedback
from flows.domain.counts import (
    VECTOR,
    AmountCounts,
    ArmCounts,
    CardCounts,
    CardProducts,
    Design,
    FeedbackCounts,
    FeedbackHealth,
    LabelCounts,
    LabelledDay,
    ModelCounts,
    Outcomes,
    Overlap,
    QualityCounts,
)
from flows.domain.errors import FeedbackInvalid
from flows.domain.policy import WantedDesign

if TYPE_CHECKING:
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

_ARMS = ("baseline", "candidate")


class IbisFeedback:
    """The feedback's source: a Parquet or CSV file, or a PostgreSQL table."""

    def __init__(self, source: str, policy: Policy) -> None:
        self._source = source
        self._policy = policy

    def watermark(self) -> datetime:
        """The latest moment that the feedback knows of: its last event or label (UTC)."""
        with open_feedback(self._source, self._policy) as table:
            return _moment(table, _last_seconds(table))

    def first_event(self) -> datetime:
        """The earliest event's time (UTC)."""
        with open_feedback(self._source, self._policy) as table:
            return _moment(table, table.rows.event_s.min())

    def count(self, window: ExposureWindow, policy: Policy) -> FeedbackCounts:
        """Count one window's rows.

        Raises:
            FeedbackInvalid: a column is missing, of a wrong type or holds NaN, or pairs are required and there are none.
        """
        with open_feedback(self._source, policy) as table:
            table.refuse_nan()
            rows = _marked(table, window, policy)
            numbers = _Numbers(table.fetch(rows.aggregate(**_totals(table, rows, policy)))[0])
            design = _design(table, policy, numbers)
            cards, products = _cards(table, rows, design) if table.has("entity_id") else (None, None)
            return FeedbackCounts(
                outcomes=_outcomes(design, numbers, products),
                baseline=_arm(numbers, "baseline"),
                candidate=_arm(numbers, "candidate"),
                labels=_labels(table, numbers),
                quality=_quality(table, rows, numbers),
                cards=cards,
                amounts=_amounts(numbers, design) if table.has("amount") else None,
                not_checked=table.absent,
            )

    def health(self, window: ExposureWindow) -> FeedbackHealth:
        """Cards that met each arm, and rows and labels by arm and day, whether matured or not."""
        with open_feedback(self._source, self._policy) as table:
            start, end = int(window.start.timestamp()), int(window.end.timestamp())
            rows = table.rows.filter((table.rows.event_s >= start) & (table.rows.event_s < end) & table.rows.arm.isin(_ARMS))
            day = ((rows.event_s - start) / 86_400).floor().cast("int64") + 1
            by_day = rows.group_by(arm=rows.arm, day=day).aggregate(rows=rows.count(), labelled=rows.is_fraud.count())
            return FeedbackHealth(
                cards=_met_cards(table, rows) if table.has("entity_id") else None,
                days=tuple(LabelledDay(**row) for row in table.fetch(by_day.order_by("day", "arm"))),
                last_label_days=_label_silence_days(table, rows, window) if table.has("label_time") else None,
            )

    def refuse_bad_rows(self) -> None:
        """Refuse a table that no careful person would evaluate.

        Raises:
            FeedbackInvalid: naming the first row that is repeated, labelled before it happened, without a time, an id or a known
                arm, or that holds NaN; or the table is empty.
        """
        with open_feedback(self._source, self._policy) as table:
            _moment(table, table.rows.event_s.min())
            table.refuse_nan()
            rows = table.rows
            table.refuse_any(
                rows.filter(rows.transaction_id.isnull() | rows.event_s.isnull()), "has no transaction_id or event_time"
            )
            table.refuse_any(
                rows.filter(rows.arm.isnull() | rows.arm.notin(_ARMS)), "has an arm that is neither baseline nor candidate"
            )
            repeated = rows.group_by("transaction_id").having(rows.count() > 1).aggregate(repeats=rows.count())
            table.refuse_any(repeated, "appears more than once")
            if table.has("label_time"):
                table.refuse_any(rows.filter(rows.label_s < rows.event_s), "has a label_time before its event_time")


def _met_cards(table: FeedbackTable, rows: Expression) -> CardCounts:
    met = {f"met_{arm}": (rows.arm == arm).cast("int32").max() for arm in _ARMS}
    cards = rows.filter(rows.entity_id.notnull()).group_by("entity_id").aggregate(**met)
    alone = {"baseline": (cards.met_candidate == 0).sum(), "candidate": (cards.met_baseline == 0).sum()}
    numbers = _Numbers(table.fetch(cards.aggregate(cards=cards.count(), **alone))[0])
    only = numbers["baseline"], numbers["candidate"]
    return CardCounts(*only, crossover=numbers["cards"] - sum(only))


def _label_silence_days(table: FeedbackTable, rows: Expression, window: ExposureWindow) -> int | None:
    last = table.fetch(rows.aggregate(last=rows.label_s.max()))[0]["last"]
    return None if last is None else max(0, int(window.as_of.timestamp()) - int(last)) // 86_400


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A fetched row of sums; a sum over no rows is null in SQL and 0 in fact."""

    row: dict[str, Any]

    def __getitem__(self, name: str) -> int:
        return int(self.row[name] or 0)


def _moment(table: FeedbackTable, seconds: Expression) -> datetime:
    found = table.fetch(table.rows.aggregate(seconds=seconds))[0]["seconds"]
    if found is None:
        raise FeedbackInvalid(f"{table.name} holds no rows with an event_time, so there is nothing to evaluate.")
    return datetime.fromtimestamp(int(found), UTC)


def _last_seconds(table: FeedbackTable) -> Expression:
    last = table.rows.event_s.max()
    return ibis.greatest(last, table.rows.label_s.max().fill_null(last)) if table.has("label_time") else last


def _marked(table: FeedbackTable, window: ExposureWindow, policy: Policy) -> Expression:
    """The window's rows with a truth value for each thing that is counted."""
    rows = table.rows
    start, end = int(window.start.timestamp()), int(window.end.timestamp())
    rows = rows.filter(rows.event_s.isnull() | ((rows.event_s >= start) & (rows.event_s < end)))
    rows = rows.mutate(
        in_baseline=(rows.arm == "baseline").fill_null(False), in_candidate=(rows.arm == "candidate").fill_null(False)
    )
    usable = rows.transaction_id.notnull() & rows.event_s.notnull() & (rows.in_baseline | rows.in_candidate)
    matured_until = int(window.matured_until(policy.label_maturity_days).timestamp())
    rows = rows.mutate(
        usable=usable,
        matured=usable & (rows.event_s <= matured_until).fill_null(False),
        is_labelled=rows.is_fraud.notnull(),
        baseline_flag=rows.baseline_prediction.cast("boolean").fill_null(False),
        candidate_flag=rows.candidate_prediction.cast("boolean").fill_null(False),
        scored_by_baseline=rows.baseline_prediction.notnull(),
        scored_by_candidate=rows.candidate_prediction.notnull(),
    )
    rows = rows.mutate(known=rows.matured & rows.is_labelled, fraud=rows.matured & rows.is_fraud.cast("boolean").fill_null(False))
    pair = rows.known & rows.scored_by_baseline & rows.scored_by_candidate
    return rows.mutate(
        pair=pair,
        served_baseline=rows.known & rows.in_baseline & rows.scored_by_baseline,
        served_candidate=rows.known & rows.in_candidate & rows.scored_by_candidate,
    )


def _totals(table: FeedbackTable, rows: Expression, policy: Policy) -> dict[str, Expression]:
    """Every sum that one scan of the window gives."""
    both: Expression = rows.baseline_flag & rows.candidate_flag
    either: Expression = rows.baseline_flag | rows.candidate_flag
    only = {"baseline": rows.baseline_flag & ~rows.candidate_flag, "candidate": rows.candidate_flag & ~rows.baseline_flag}
    legitimate = rows.pair & ~rows.fraud
    marks = {
        "unusable": ~rows.usable,
        "known": rows.known,
        "unflagged": rows.matured & ~either,
        "unflagged_labelled": rows.known & ~either,
        "pairs": rows.pair,
        "fraud_both": rows.pair & rows.fraud & both,
        "fraud_neither": rows.pair & rows.fraud & ~either,
        "false_both": legitimate & both,
    }
    for arm in _ARMS:
        flag, here, served = rows[f"{arm}_flag"], rows[f"in_{arm}"], rows[f"served_{arm}"]
        marks[f"fraud_{arm}"], marks[f"false_{arm}"] = rows.pair & rows.fraud & only[arm], legitimate & only[arm]
        marks |= {f"{arm}_rows": rows.usable & here, f"{arm}_matured": rows.matured & here, f"{arm}_labelled": rows.known & here}
        marks |= {f"{arm}_frauds": rows.fraud & here, f"{arm}_caught": rows.fraud & here & flag}
        marks |= {f"{arm}_served": served, f"{arm}_served_frauds": served & rows.fraud, f"{arm}_served_alerts": served & flag}
    if table.has("label_time"):
        timed = rows.fraud & rows.label_s.notnull()
        late = rows.label_s > rows.event_s + policy.label_maturity_days * 86_400
        marks |= {"timed": timed, "late": timed & late, "early": rows.label_s < rows.event_s}
    return {"rows": rows.count(), **{name: mark.sum() for name, mark in marks.items()}, **_amount_sums(table, rows)}


def _amount_sums(table: FeedbackTable, rows: Expression) -> dict[str, Expression]:
    """Fraud amounts in hundredths: whole numbers add up alike in every engine and order, which the digest needs."""
    if not table.has("amount"):
        return {}
    hundredths = (rows.amount.cast("float64") * 100).round().cast("int64")
    sums = {"amount": hundredths.sum(where=rows.fraud), "amount_pair": hundredths.sum(where=rows.pair & rows.fraud)}
    for arm in _ARMS:
        flag, served = rows[f"{arm}_flag"], rows[f"served_{arm}"]
        sums[f"amount_pair_{arm}"] = hundredths.sum(where=rows.pair & rows.fraud & flag)
        sums[f"amount_served_{arm}"] = hundredths.sum(where=served & rows.fraud)
        sums[f"amount_caught_{arm}"] = hundredths.sum(where=served & rows.fraud & flag)
    return sums


def _design(table: FeedbackTable, policy: Policy, numbers: _Numbers) -> Design:
    """Pairs wherever there are any, unless the policy wants one design; McNemar's test is never made from unpaired rows."""
    if policy.design is WantedDesign.PAIRED and not numbers["pairs"]:
        raise FeedbackInvalid(
            f"{table.name}: the policy requires pairs (McNemar's test), but no matured, labelled transaction has both"
            ' baseline_prediction and candidate_prediction; score both models on the same transactions, or set design = "split".'
        )
    return Design.PAIRED if numbers["pairs"] and policy.design is not WantedDesign.SPLIT else Design.SPLIT


def _outcomes(design: Design, numbers: _Numbers, cards: CardProducts | None) -> Outcomes:
    if design is Design.SPLIT:
        models = tuple(
            ModelCounts(
                numbers[f"{arm}_served_frauds"],
                numbers[f"{arm}_caught"],
                numbers[f"{arm}_served_alerts"],
                numbers[f"{arm}_caught"],
            )
            for arm in _ARMS
        )
        left_out = numbers["known"] - numbers["baseline_served"] - numbers["candidate_served"]
        return Outcomes(design, models[0], models[1], cards=cards, left_out=left_out)
    frauds = Overlap(numbers["fraud_both"], numbers["fraud_baseline"], numbers["fraud_candidate"], numbers["fraud_neither"])
    false = Overlap(numbers["false_both"], numbers["false_baseline"], numbers["false_candidate"])
    total = frauds.both + frauds.baseline_only + frauds.candidate_only + frauds.neither
    caught = (frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only)
    wrong = (false.both + false.baseline_only, false.both + false.candidate_only)
    models = [ModelCounts(total, right, right + bad, right) for right, bad in zip(caught, wrong, strict=True)]
    return Outcomes(
        design, models[0], models[1], frauds=frauds, false_alerts=false, cards=cards, left_out=numbers["known"] - numbers["pairs"]
    )


def _cards(table: FeedbackTable, rows: Expression, design: Design) -> tuple[CardCounts, CardProducts]:
    """Cards by the arms they met, and the sums over cards of products that clustered variances need, in one pass."""
    rows = rows.filter(rows.usable & rows.entity_id.notnull())
    vector: dict[str, Expression] = {}
    for arm in _ARMS:
        scored = rows.pair if design is Design.PAIRED else rows[f"served_{arm}"]
        vector[f"{arm}_frauds"] = scored & rows.fraud
        vector[f"{arm}_caught"] = scored & rows.fraud & rows[f"{arm}_flag"]
        vector[f"{arm}_alerts"] = scored & rows[f"{arm}_flag"]
    met = {f"met_{arm}": rows[f"in_{arm}"].cast("int32").max() for arm in _ARMS}
    cards = rows.group_by("entity_id").aggregate(**met, **{name: vector[name].sum() for name in VECTOR})
    products = {
        f"product_{number}": (cards[one] * cards[two]).sum()
        for number, (one, two) in enumerate(combinations_with_replacement(VECTOR, 2))
    }
    row = table.fetch(
        cards.aggregate(
            cards=cards.count(),
            baseline=(cards.met_candidate == 0).sum(),
            candidate=(cards.met_baseline == 0).sum(),
            **products,
        )
    )[0]
    numbers = _Numbers(row)
    alone = numbers["baseline"], numbers["candidate"]
    counts = CardCounts(*alone, crossover=numbers["cards"] - sum(alone))
    return counts, CardProducts(numbers["cards"], tuple(numbers[name] for name in products))


def _arm(numbers: _Numbers, arm: str) -> ArmCounts:
    return ArmCounts(
        rows=numbers[f"{arm}_rows"],
        matured=numbers[f"{arm}_matured"],
        labelled=numbers[f"{arm}_labelled"],
        frauds=numbers[f"{arm}_frauds"],
        caught=numbers[f"{arm}_caught"],
    )


def _labels(table: FeedbackTable, numbers: _Numbers) -> LabelCounts:
    times = (numbers["timed"], numbers["late"]) if table.has("label_time") else (None, None)
    return LabelCounts(numbers["unflagged"], numbers["unflagged_labelled"], *times)


def _quality(table: FeedbackTable, rows: Expression, numbers: _Numbers) -> QualityCounts:
    usable = rows.filter(rows.usable)
    repeats = table.fetch(usable.aggregate(repeats=usable.count() - usable.transaction_id.nunique()))[0]["repeats"]
    conflicting = 0
    if repeats:  # only then is a pass by transaction worth its cost
        label = usable.is_fraud.cast("boolean").cast("int32")
        by_transaction = usable.group_by("transaction_id").aggregate(labels=label.nunique())
        conflicting = table.fetch(by_transaction.aggregate(conflicting=(by_transaction.labels > 1).sum()))[0]["conflicting"]
    early = numbers["early"] if table.has("label_time") else None
    return QualityCounts(numbers["rows"], numbers["unusable"], int(repeats), int(conflicting), early)


def _amounts(numbers: _Numbers, design: Design) -> AmountCounts:
    if design is Design.PAIRED:
        scored = numbers["amount_pair"]
        return AmountCounts(numbers["amount"], scored, numbers["amount_pair_baseline"], scored, numbers["amount_pair_candidate"])
    return AmountCounts(
        numbers["amount"],
        numbers["amount_served_baseline"],
        numbers["amount_caught_baseline"],
        numbers["amount_served_candidate"],
        numbers["amount_caught_candidate"],
    )
