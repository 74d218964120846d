"""Counts from the feedback by Ibis: the engine aggregates, a handful of whole numbers comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ibis

from flows.adapters.feedback_sums import ARMS, card_vector, is_not_finite, marked, money_vectors, products, totals
from flows.adapters.feedback_table import Expression, FeedbackTable, open_feedback
from flows.domain.counts import (
    VECTOR,
    AmountCounts,
    ArmCounts,
    AuditCounts,
    CardCounts,
    CardProducts,
    DayCounts,
    Design,
    FeedbackCounts,
    FeedbackHealth,
    FlagCounts,
    LabelCounts,
    LabelledDay,
    ModelCounts,
    Outcomes,
    Overlap,
    PairSelection,
    QualityCounts,
)
from flows.domain.errors import FeedbackInvalid
from flows.domain.policy import WantedDesign

if TYPE_CHECKING:
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy


class IbisFeedback:
    """The feedback's source: a Parquet or CSV file, or a PostgreSQL table."""

    def __init__(self, source: str, policy: Policy) -> None:
        self._source = source
        self._policy = policy

    def watermark(self, now: datetime) -> datetime:
        """The latest moment up to `now` that the feedback knows of: its last event or label (UTC)."""
        with open_feedback(self._source, self._policy) as table:
            return _moment(table, _last_seconds(table, int(now.timestamp())))

    def first_event(self) -> datetime:
        """The earliest event's time (UTC)."""
        with open_feedback(self._source, self._policy) as table:
            return _moment(table, {"seconds": table.rows.event_s.min()})

    def count(self, window: ExposureWindow, policy: Policy, now: datetime | None = None) -> FeedbackCounts:
        """Count one window's rows.

        Args:
            now: rows of a later time have not happened; None: of a time after the watermark, where nothing is loaded meanwhile.

        Raises:
            FeedbackInvalid: a column is missing, of a wrong type or holds NaN, or pairs are required and there are none.
        """
        with open_feedback(self._source, policy) as table:
            rows = marked(table, window, policy, now or window.as_of)
            by_day = _by_day(table, rows)
            numbers = _added_up(by_day)
            if numbers["not_finite"]:
                table.refuse_nan()
            design = _design(table, policy, numbers)
            units = _units(table, rows, design, some_without_card=bool(numbers["without_card"]))
            return FeedbackCounts(
                outcomes=_outcomes(design, numbers, _card_products(units)),
                baseline=_arm(numbers, "baseline"),
                candidate=_arm(numbers, "candidate"),
                labels=_labels(table, numbers),
                quality=_quality(table, rows, numbers),
                cards=_card_counts(units) if table.has("entity_id") else None,
                amounts=_amounts(numbers, design, units, by_card=table.has("entity_id")) if table.has("amount") else None,
                days=tuple(_day(design, day) for day in by_day if day.row["day"] is not None),
                selection=_selection(numbers) if design is Design.PAIRED else None,
                audits=_audits(table, numbers, design),
                not_checked=table.absent,
            )

    def flags(self, since: datetime, until: datetime) -> FlagCounts:
        """The candidate's predictions between two moments (the first inclusive), with sums over cards where they are known."""
        start, end = int(since.timestamp()), int(until.timestamp())
        with open_feedback(self._source, self._policy) as table:
            rows, has_cards = table.rows, table.has("entity_id")
            # on the column itself, so that row groups are pruned
            inside = (rows.event_time >= table.moment(start)) & (rows.event_time < table.moment(end))
            units = _scored_by_candidate(rows.filter(inside & rows.candidate_prediction.notnull()), by_card=has_cards)
            n, x = units.n.cast("int64"), units.x.cast("int64")
            sums = {"requests": n.sum(), "flagged": x.sum(), "nn": (n * n).sum(), "nx": (n * x).sum(), "xx": (x * x).sum()}
            found = _Numbers(table.fetch(units.aggregate(**sums))[0])
            products = (found["nn"], found["nx"], found["xx"]) if has_cards else None
            return FlagCounts(found["requests"], found["flagged"], products)

    def health(self, window: ExposureWindow) -> FeedbackHealth:
        """Cards that met each arm, and rows and labels by arm and day, whether matured or not."""
        with open_feedback(self._source, self._policy) as table:
            start, end = int(window.start.timestamp()), int(window.end.timestamp())
            rows = table.rows.filter((table.rows.event_s >= start) & (table.rows.event_s < end) & table.rows.arm.isin(ARMS))
            day = ((rows.event_s - start) / 86_400).floor().cast("int64") + 1
            by_day = rows.group_by(arm=rows.arm, day=day).aggregate(rows=rows.count(), labelled=rows.is_fraud.count())
            return FeedbackHealth(
                cards=_met_cards(table, rows) if table.has("entity_id") else None,
                days=tuple(LabelledDay(**row) for row in table.fetch(by_day.order_by("day", "arm"))),
                last_label_days=_label_silence_days(table, rows, window) if table.has("label_time") else None,
            )

    def largest(self, window: ExposureWindow, policy: Policy, most: int) -> list[LargeFraud]:
        """The largest frauds of the window that one model caught and the other missed; in a split those that each missed.

        For people to look at; nothing is decided by them. Empty without amounts.
        """
        with open_feedback(self._source, policy) as table:
            if not table.has("amount"):
                return []
            rows = marked(table, window, policy, window.as_of)
            found: list[LargeFraud] = []
            for what, group in _frauds_to_look_at(rows).items():
                frauds = rows.filter(group & rows.fraud & rows.amount.notnull()).select("transaction_id", "amount")
                shown = table.fetch(frauds.order_by([ibis.desc("amount"), "transaction_id"]).limit(most))
                found += [LargeFraud(what, _masked(str(row["transaction_id"])), float(row["amount"])) for row in shown]
            return found

    def refuse_bad_rows(self) -> None:
        """Refuse a table that no careful person would evaluate.

        Raises:
            FeedbackInvalid: naming the first row that is repeated, labelled before it happened, without a time, an id or a known
                arm, or that holds NaN; or the table is empty.
        """
        with open_feedback(self._source, self._policy) as table:
            _moment(table, {"seconds": table.rows.event_s.min()})
            rows, bad = table.rows, _bad_rows(table)
            found = _Numbers(
                table.fetch(rows.aggregate(**{str(number): mark.sum() for number, mark in enumerate(bad.values())}))[0]
            )
            for number, (what, mark) in enumerate(bad.items()):
                if found[str(number)]:
                    table.refuse_any(rows.filter(mark), what)
            distinct = table.fetch(rows.aggregate(repeats=rows.count() - rows.transaction_id.nunique()))[0]["repeats"]
            if distinct:
                repeated = rows.group_by("transaction_id").having(rows.count() > 1).aggregate(repeats=rows.count())
                table.refuse_any(repeated, "appears more than once")


def _bad_rows(table: FeedbackTable) -> dict[str, Expression]:
    rows = table.rows
    bad = {
        f"holds NaN in {name}; unknown must be null": is_not_finite(rows[name])
        for name in ("latency_ms", "amount")
        if table.has(name)
    }
    bad["has no transaction_id or event_time"] = rows.transaction_id.isnull() | rows.event_s.isnull()
    bad["has an arm that is neither baseline nor candidate"] = rows.arm.isnull() | rows.arm.notin(ARMS)
    if table.has("label_time"):
        bad["has a label_time before its event_time"] = rows.label_s < rows.event_s
    return bad


def _met_cards(table: FeedbackTable, rows: Expression) -> CardCounts:
    met = {f"met_{arm}": (rows.arm == arm).cast("int32").max() for arm in ARMS}
    cards = rows.filter(rows.entity_id.notnull()).group_by("entity_id").aggregate(**met)
    alone = {"baseline": (cards.met_candidate == 0).sum(), "candidate": (cards.met_baseline == 0).sum()}
    numbers = _Numbers(table.fetch(cards.aggregate(cards=cards.count(), **alone))[0])
    only = numbers["baseline"], numbers["candidate"]
    return CardCounts(*only, crossover=numbers["cards"] - sum(only))


def _scored_by_candidate(rows: Expression, *, by_card: bool) -> Expression:
    """Requests `n` and those flagged `x` of each unit: a card, or a transaction where it has none."""
    flag = rows.candidate_prediction.cast("boolean").cast("int32")
    if not by_card:
        return rows.select(n=ibis.literal(1), x=flag)
    lone = ibis.ifelse(rows.entity_id.isnull(), rows.transaction_id, None)
    return rows.group_by(card=rows.entity_id, lone=lone).aggregate(n=rows.count(), x=flag.sum())


def _label_silence_days(table: FeedbackTable, rows: Expression, window: ExposureWindow) -> int | None:
    last = table.fetch(rows.aggregate(last=rows.label_s.max()))[0]["last"]
    return None if last is None else max(0, int(window.as_of.timestamp()) - int(last)) // 86_400


@dataclass(frozen=True, slots=True)
class LargeFraud:
    """A fraud for people to look at: what the models did with it, its masked transaction and its amount."""

    what: str
    transaction: str
    amount: float


def _frauds_to_look_at(rows: Expression) -> dict[str, Expression]:
    alone = {f"the {arm} alone caught": rows.pair & rows[f"only_{arm}"] for arm in ARMS}
    unpaired = {arm: rows[f"served_{arm}"] & ~rows.pair & ~rows[f"{arm}_flag"] for arm in ARMS}
    return alone | {f"the {arm} missed": missed for arm, missed in unpaired.items()}


def _masked(identifier: str) -> str:
    """Its last four characters, and never all of them."""
    return f"…{identifier[-min(4, len(identifier) // 2) :]}"


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A fetched row of sums; a sum over no rows is null in SQL and 0 in fact."""

    row: dict[str, Any]

    def __getitem__(self, name: str) -> int:
        return int(self.row.get(name) or 0)

    def starting(self, prefix: str) -> tuple[int, ...]:
        """The sums named so, in their order."""
        return tuple(self[name] for name in self.row if name.startswith(prefix))


def _moment(table: FeedbackTable, seconds: dict[str, Expression]) -> datetime:
    found = table.fetch(table.rows.aggregate(**seconds))[0].values()
    if all(one is None for one in found):
        raise FeedbackInvalid(f"{table.name} holds no rows with an event_time, so there is nothing to evaluate.")
    return datetime.fromtimestamp(max(int(one) for one in found if one is not None), UTC)


def _last_seconds(table: FeedbackTable, now: int) -> dict[str, Expression]:
    rows = table.rows
    last = {"event": rows.event_s.max(where=rows.event_s <= now)}
    return last | {"label": rows.label_s.max(where=rows.label_s <= now)} if table.has("label_time") else last


def _by_day(table: FeedbackTable, rows: Expression) -> list[_Numbers]:
    """One row of sums for each day of the window; the last, without a day, holds the rows that are in no window."""
    found = table.fetch(rows.group_by("day").aggregate(**totals(table, rows)))
    return [_Numbers(row) for row in sorted(found, key=lambda row: (row["day"] is None, row["day"]))]


def _added_up(by_day: list[_Numbers]) -> _Numbers:
    names = {name for day in by_day for name in day.row if name != "day"}
    return _Numbers({name: sum(day[name] for day in by_day) for name in names})


def _design(table: FeedbackTable, policy: Policy, numbers: _Numbers) -> Design:
    """As the policy wants it; else pairs if they hold enough frauds, else a split that does, else whichever holds more.

    McNemar's test is never made from unpaired rows, and a few pairs among them do not make a test paired.
    """
    if policy.design is WantedDesign.PAIRED and not numbers["pairs"]:
        raise FeedbackInvalid(
            f"{table.name}: the policy requires pairs (McNemar's test), but no matured, labelled transaction has both"
            ' baseline_prediction and candidate_prediction; score both models on the same transactions, or set design = "split".'
        )
    if policy.design is not WantedDesign.AUTO:
        return Design(policy.design.value)
    least = policy.min_counts.frauds
    pairs = (
        numbers["fraud_both"] + numbers["fraud_baseline"] + numbers["fraud_candidate"] + numbers["fraud_neither"],
        numbers["pairs"],
    )
    split = (min(numbers[f"{arm}_served_frauds"] for arm in ARMS), min(numbers[f"{arm}_served"] for arm in ARMS))
    is_paired = pairs[0] >= least or (split[0] < least and pairs >= split)
    return Design.PAIRED if is_paired else Design.SPLIT


def _outcomes(design: Design, numbers: _Numbers, cards: CardProducts | None) -> Outcomes:
    models, frauds, false = _models(design, numbers)
    rows = numbers["pairs"] if design is Design.PAIRED else numbers["baseline_served"] + numbers["candidate_served"]
    return Outcomes(design, *models, frauds, false, cards, rows, numbers["known"] - rows)


def _models(design: Design, numbers: _Numbers) -> tuple[tuple[ModelCounts, ModelCounts], Overlap | None, Overlap | None]:
    """Both models, and in pairs the overlaps of their alerts on frauds and on others."""
    if design is Design.SPLIT:
        one, two = (
            ModelCounts(numbers[f"{arm}_served_frauds"], caught, numbers[f"{arm}_served_alerts"], caught)
            for arm, caught in ((arm, numbers[f"{arm}_caught"]) for arm in ARMS)
        )
        return (one, two), None, None
    frauds = Overlap(numbers["fraud_both"], numbers["fraud_baseline"], numbers["fraud_candidate"], numbers["fraud_neither"])
    false = Overlap(numbers["false_both"], numbers["false_baseline"], numbers["false_candidate"])
    total = frauds.total
    caught = (frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only)
    wrong = (false.both + false.baseline_only, false.both + false.candidate_only)
    one, two = (ModelCounts(total, right, right + bad, right) for right, bad in zip(caught, wrong, strict=True))
    return (one, two), frauds, false


def _day(design: Design, numbers: _Numbers) -> DayCounts:
    models, frauds, _ = _models(design, numbers)
    return DayCounts(numbers["day"], *models, frauds)


def _units(table: FeedbackTable, rows: Expression, design: Design, *, some_without_card: bool) -> _Numbers:
    """Cards by the arms they met, and sums over cards of the products that clustered variances need, in one pass.

    A transaction without a card is its own unit; where none has one, only the savings need the sums.
    """
    money = money_vectors(rows, design) if table.has("amount") else []
    if not table.has("entity_id"):
        units = rows.select(**{name: part for vector in money for name, part in vector.items()}) if money else None
        sums: dict[str, Expression] = {}
    else:
        keys = {"card": rows.entity_id}
        if some_without_card:
            keys["lone"] = ibis.ifelse(rows.entity_id.isnull(), rows.transaction_id, None)
        cards = rows.filter(rows.usable).group_by(**keys)
        parts = {name: part.sum() for vector in (card_vector(rows, design), *money) for name, part in vector.items()}
        units = cards.aggregate(**{f"met_{arm}": rows[f"in_{arm}"].cast("int32").max() for arm in ARMS}, **parts)
        sums = {
            "cards": units.card.count(),
            "baseline": (units.card.notnull() & (units.met_candidate == 0)).sum(),
            "candidate": (units.card.notnull() & (units.met_baseline == 0)).sum(),
            **products(units, VECTOR, "card"),
        }
    if units is None:
        return _Numbers({})
    for number, vector in enumerate(money):
        sums |= products(units, list(vector), f"money_{number}")
    return _Numbers(table.fetch(units.aggregate(**sums))[0])


def _card_counts(units: _Numbers) -> CardCounts:
    alone = units["baseline"], units["candidate"]
    return CardCounts(*alone, crossover=units["cards"] - sum(alone))


def _card_products(units: _Numbers) -> CardProducts | None:
    found = units.starting("card_")
    return CardProducts(units["cards"], found) if found else None


def _arm(numbers: _Numbers, arm: str) -> ArmCounts:
    return ArmCounts(
        rows=numbers[f"{arm}_rows"],
        matured=numbers[f"{arm}_matured"],
        labelled=numbers[f"{arm}_labelled"],
        frauds=numbers[f"{arm}_frauds"],
        caught=numbers[f"{arm}_caught"],
        flagged=numbers[f"{arm}_flagged"],
        flagged_labelled=numbers[f"{arm}_flagged_labelled"],
    )


def _labels(table: FeedbackTable, numbers: _Numbers) -> LabelCounts:
    timed, late = (numbers["timed"], numbers["late"]) if table.has("label_time") else (None, None)
    return LabelCounts(numbers["unflagged"], numbers["unflagged_labelled"], timed, late)


def _selection(numbers: _Numbers) -> PairSelection:
    return PairSelection(*(numbers[f"chosen_{name}"] for name in ("flagged", "flagged_pairs", "unflagged", "unflagged_pairs")))


def _audits(table: FeedbackTable, numbers: _Numbers, design: Design) -> tuple[AuditCounts, ...]:
    if not table.has("label_source"):
        return ()
    groups = ("pair",) if design is Design.PAIRED else ARMS
    return tuple(
        AuditCounts(numbers[f"{group}_unflagged"], numbers[f"{group}_audited"], numbers[f"{group}_audit_frauds"])
        for group in groups
    )


def _quality(table: FeedbackTable, rows: Expression, numbers: _Numbers) -> QualityCounts:
    usable = rows.filter(rows.usable)
    repeats = table.fetch(usable.aggregate(repeats=usable.count() - usable.transaction_id.nunique()))[0]["repeats"]
    conflicting = 0
    if repeats:  # only then is a pass by transaction worth its cost
        label = usable.is_fraud.cast("boolean").cast("int32")
        by_transaction = usable.group_by("transaction_id").aggregate(labels=label.nunique())
        conflicting = table.fetch(by_transaction.aggregate(conflicting=(by_transaction.labels > 1).sum()))[0]["conflicting"]
    early = numbers["early"] if table.has("label_time") else None
    return QualityCounts(numbers["rows"], numbers["unusable"], int(repeats), int(conflicting), early, numbers["future"])


def _amounts(numbers: _Numbers, design: Design, units: _Numbers, *, by_card: bool) -> AmountCounts:
    if design is Design.PAIRED:
        scored, rows = numbers["amount_pair"], numbers["pairs"]
        by_arm = (scored, numbers["amount_pair_baseline"], scored, numbers["amount_pair_candidate"], rows, rows)
    else:
        amounts = (numbers[f"amount_{what}_{arm}"] for arm in ARMS for what in ("served", "caught"))
        by_arm = (*amounts, numbers["baseline_served"], numbers["candidate_served"])
    found = tuple(products for number in range(2) if (products := units.starting(f"money_{number}_")))
    return AmountCounts(numbers["amount"], *by_arm, products=found, by_card=by_card)
