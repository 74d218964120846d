"""What is summed over the feedback's rows, as Ibis expressions: the engine does the adding."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import ibis

from flows.adapters.feedback_table import Expression, FeedbackTable
from flows.domain.counts import VECTOR, Design

if TYPE_CHECKING:
    from datetime import datetime

    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

ARMS = ("baseline", "candidate")
_DAY = 86_400
_LEEWAY = 3_600


def marked(table: FeedbackTable, window: ExposureWindow, policy: Policy, now: datetime) -> Expression:
    """The window's rows, and those that no window can hold, with a truth value for each thing that is counted.

    Not yet happened is what is an hour later than `now`: clocks differ, and rows go on arriving after the watermark was read.
    """
    rows, maturity = table.rows, policy.label_maturity_days * _DAY
    start, end, as_of, clock = (int(moment.timestamp()) for moment in (window.start, window.end, window.as_of, now))
    inside = (rows.event_time >= table.moment(start)) & (rows.event_time < table.moment(end))
    clock += _LEEWAY
    future = rows.event_time >= table.moment(clock + 1)
    # on the column itself, so that row groups are pruned
    rows = table.once(rows.filter(rows.event_time.isnull() | inside | future))
    in_window = ((rows.event_s >= start) & (rows.event_s < end)).fill_null(False)
    in_arm = {f"in_{arm}": (rows.arm == arm).fill_null(False) for arm in ARMS}
    usable = rows.transaction_id.notnull() & in_window & (in_arm["in_baseline"] | in_arm["in_candidate"])
    matured = usable & (rows.event_s <= as_of - maturity).fill_null(False)
    said_fraud = matured & rows.is_fraud.cast("boolean").fill_null(False)
    timed: Expression = ibis.literal(False)
    late: Expression = ibis.literal(False)
    ahead = (rows.event_s > clock).fill_null(False)
    if table.has("label_time"):
        timed = said_fraud & rows.label_s.notnull()
        late = timed & (rows.label_s > rows.event_s + maturity)
        ahead |= (rows.label_s > clock).fill_null(False)
    rows = rows.mutate(
        **in_arm,
        day=ibis.ifelse(in_window, ((rows.event_s - start) / _DAY).floor().cast("int32"), None),
        usable=usable,
        matured=matured,
        future=ahead,
        timed=timed,
        late=late,
        known=matured & rows.is_fraud.notnull() & ~late,
        fraud=said_fraud & ~late,
        **{f"{arm}_flag": rows[f"{arm}_prediction"].cast("boolean").fill_null(False) for arm in ARMS},
        **{f"scored_by_{arm}": rows[f"{arm}_prediction"].notnull() for arm in ARMS},
    )
    rows = table.once(rows)
    rows = rows.mutate(
        pair=rows.known & rows.scored_by_baseline & rows.scored_by_candidate,
        either=rows.baseline_flag | rows.candidate_flag,
        **{f"only_{one}": rows[f"{one}_flag"] & ~rows[f"{other}_flag"] for one, other in (ARMS, ARMS[::-1])},
        **{f"served_{arm}": rows.known & rows[f"in_{arm}"] & rows[f"scored_by_{arm}"] for arm in ARMS},
    )
    return table.once(rows)


def totals(table: FeedbackTable, rows: Expression) -> dict[str, Expression]:
    """Every sum that one scan of the window gives."""
    both = rows.baseline_flag & rows.candidate_flag
    fraud, legitimate = rows.pair & rows.fraud, rows.pair & ~rows.fraud
    marks = {
        "unusable": ~rows.usable & ~rows.future,
        "future": rows.future,
        "known": rows.known,
        "unflagged": rows.matured & ~rows.either,
        "unflagged_labelled": rows.known & ~rows.either,
        "pairs": rows.pair,
        "fraud_both": fraud & both,
        "fraud_neither": fraud & ~rows.either,
        "false_both": legitimate & both,
    }
    for arm in ARMS:
        flag, here, served = rows[f"{arm}_flag"], rows[f"in_{arm}"], rows[f"served_{arm}"]
        marks |= {f"fraud_{arm}": fraud & rows[f"only_{arm}"], f"false_{arm}": legitimate & rows[f"only_{arm}"]}
        marks |= {f"{arm}_rows": rows.usable & here, f"{arm}_matured": rows.matured & here, f"{arm}_labelled": rows.known & here}
        marks |= {f"{arm}_flagged": rows.matured & here & rows.either, f"{arm}_flagged_labelled": rows.known & here & rows.either}
        marks |= {f"{arm}_frauds": rows.fraud & here, f"{arm}_caught": rows.fraud & here & flag}
        marks |= {f"{arm}_served": served, f"{arm}_served_frauds": served & rows.fraud, f"{arm}_served_alerts": served & flag}
    if table.has("entity_id"):
        marks["without_card"] = rows.usable & rows.entity_id.isnull()
    marks |= _selection(rows) | _audits(table, rows)
    if table.has("label_time"):
        marks |= {"timed": rows.timed, "late": rows.late, "early": rows.usable & (rows.label_s < rows.event_s)}
    return {"rows": rows.count(), **{name: table.count(rows, mark) for name, mark in marks.items()}, **_amounts(table, rows)}


def _selection(rows: Expression) -> dict[str, Expression]:
    scored = rows.usable & rows.scored_by_baseline
    groups = {"chosen_flagged": scored & rows.baseline_flag, "chosen_unflagged": scored & ~rows.baseline_flag}
    return groups | {f"{name}_pairs": group & rows.scored_by_candidate for name, group in groups.items()}


def _audits(table: FeedbackTable, rows: Expression) -> dict[str, Expression]:
    """What a random audit found among what a model did not flag: of each arm as served, and of the pairs."""
    if not table.has("label_source"):
        return {}
    groups = {arm: rows.matured & rows[f"in_{arm}"] & rows[f"scored_by_{arm}"] & ~rows[f"{arm}_flag"] for arm in ARMS}
    groups["pair"] = rows.matured & rows.scored_by_baseline & rows.scored_by_candidate & ~rows.either
    is_audited = rows.known & (rows.label_source == "audit").fill_null(False)
    marks: dict[str, Expression] = {}
    for name, group in groups.items():
        marks[f"{name}_unflagged"], marks[f"{name}_audited"] = group, group & is_audited
        marks[f"{name}_audit_frauds"] = group & is_audited & rows.fraud
    return marks


def _amounts(table: FeedbackTable, rows: Expression) -> dict[str, Expression]:
    """Fraud amounts in hundredths: whole numbers add up alike in every engine and order, which the digest needs."""
    if not table.has("amount"):
        return {}
    amount = hundredths(rows)
    sums = {
        "amount": amount.sum(where=rows.fraud),
        "amount_pair": amount.sum(where=rows.pair & rows.fraud),
        "not_finite": is_not_finite(rows.amount).sum(),
    }
    for arm in ARMS:
        flag, served = rows[f"{arm}_flag"], rows[f"served_{arm}"]
        sums[f"amount_pair_{arm}"] = amount.sum(where=rows.pair & rows.fraud & flag)
        sums[f"amount_served_{arm}"] = amount.sum(where=served & rows.fraud)
        sums[f"amount_caught_{arm}"] = amount.sum(where=served & rows.fraud & flag)
    return sums


def is_not_finite(column: Expression) -> Expression:
    """NaN or infinite. Not by isnan: DuckDB 2.0 trusts Parquet's statistics, which leave NaN out, and finds none."""
    return column - column != 0


def hundredths(rows: Expression) -> Expression:
    """The amount as whole hundredths; null where it is unknown or not finite."""
    return ibis.ifelse(is_not_finite(rows.amount), None, (rows.amount.cast("float64") * 100).round()).cast("int64")


def card_vector(rows: Expression, design: Design) -> dict[str, Expression]:
    """Each row's part of the VECTOR, whose products clustered variances need."""
    vector: dict[str, Expression] = {}
    for arm in ARMS:
        scored = rows.pair if design is Design.PAIRED else rows[f"served_{arm}"]
        vector[f"{arm}_frauds"] = scored & rows.fraud
        vector[f"{arm}_caught"] = scored & rows.fraud & rows[f"{arm}_flag"]
        vector[f"{arm}_alerts"] = scored & rows[f"{arm}_flag"]
    return {name: vector[name].cast("int32") for name in VECTOR}


def money_vectors(rows: Expression, design: Design) -> list[dict[str, Expression]]:
    """Each row's part of the vectors whose products the savings' variance needs (see AmountCounts)."""
    amount = hundredths(rows).fill_null(0)
    if design is Design.PAIRED:
        gain = rows.only_candidate.cast("int32") - rows.only_baseline.cast("int32")
        fraud, legitimate = rows.pair & rows.fraud, rows.pair & ~rows.fraud
        return [{"gain": amount * gain * fraud.cast("int32"), "more_false": gain * legitimate.cast("int32")}]
    vectors: list[dict[str, Expression]] = []
    for arm in ARMS:
        served, flag = rows[f"served_{arm}"], rows[f"{arm}_flag"]
        vectors.append(
            {
                f"{arm}_amount": amount * (served & rows.fraud).cast("int32"),
                f"{arm}_caught_amount": amount * (served & rows.fraud & flag).cast("int32"),
                f"{arm}_false": (served & ~rows.fraud & flag).cast("int32"),
                f"{arm}_scored": served.cast("int32"),
            }
        )
    return vectors


def products(units: Expression, names: tuple[str, ...] | list[str], prefix: str) -> dict[str, Expression]:
    """Sums over the units of the products of each two; decimals, because squares of amounts overflow 64 bits."""
    wide = {name: units[name].cast("decimal(19, 0)") for name in names}
    pairs = combinations_with_replacement(names, 2)
    return {f"{prefix}_{number}": (wide[one] * wide[two]).sum() for number, (one, two) in enumerate(pairs)}
