"""Savings: what the candidate would bring in money each month, and how well that is known."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations_with_replacement
from math import sqrt
from typing import TYPE_CHECKING

from flows.domain.counts import Design
from flows.domain.metrics import two_sided_z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.counts import AmountCounts, FeedbackCounts
    from flows.domain.evidence import Evidence
    from flows.domain.policy import Policy

_MONTH_DAYS = 30


@dataclass(frozen=True, slots=True)
class Money:
    """An amount with the ends of its interval as decimal text, such as 1234.50, and its ISO 4217 currency.

    `unit`: what was resampled for the interval, cards, or transactions where the feedback has no cards.
    """

    amount: str
    low: str
    high: str
    currency: str
    unit: str = "card"
    confidence: float = 0.95

    def __str__(self) -> str:
        """In whole units of the currency: the interval is far wider than a cent."""
        amount, low, high = (f"{Decimal(text):z,.0f}" for text in (self.amount, self.low, self.high))
        unsure = "; the interval crosses zero, so it may be no gain at all" if self.crosses_zero else ""
        unit = "" if self.unit == "card" else "; by transaction, since the feedback has no entity_id: probably too narrow"
        return f"{amount} {self.currency} ({self.confidence * 100:g} % interval {low} to {high}{unsure}{unit})"

    @property
    def crosses_zero(self) -> bool:
        return Decimal(self.low) <= 0 <= Decimal(self.high)


def monthly_savings(evidence: Evidence, policy: Policy) -> Money | None:
    """Fraud amount caught by the candidate beyond the baseline over 30 days of all traffic, less the cost of more false alerts.

    Args:
        evidence: its amounts are in hundredths of the currency.
        policy: gives the cost of one false alert and the currency.

    Returns:
        the estimate with its interval; None without amounts of fraud, or without any exposure.

    Source:
        the infinitesimal jackknife with cards as units (Efron 1982): the linear terms of a bootstrap by card, in closed form.
    """
    feedback, window = evidence.feedback, evidence.window
    amounts = feedback.amounts if feedback else None
    if feedback is None or window is None or amounts is None or not window.exposure_days:
        return None
    if not amounts.baseline_scored or not amounts.candidate_scored:
        return None
    find = _of_pairs if feedback.outcomes.design is Design.PAIRED else _of_split
    gain, variance = find(feedback, amounts, policy.false_positive_cost)
    confidence = float(policy.statistics.confidence)
    error = Fraction(two_sided_z(confidence) * sqrt(variance))
    gain, half = (part * _MONTH_DAYS / window.exposure_days for part in (gain, error))
    unit = "card" if amounts.by_card else "transaction"
    return Money(_text(gain), _text(gain - half), _text(gain + half), policy.currency, unit, confidence)


def _of_pairs(feedback: FeedbackCounts, amounts: AmountCounts, cost: Fraction) -> tuple[Fraction, float]:
    """Sums over the pairs, scaled to every labelled transaction: amounts and false alerts alike."""
    scale = Fraction(feedback.baseline.labelled + feedback.candidate.labelled, amounts.candidate_rows)
    more_caught, before, after = amounts.candidate_caught - amounts.baseline_caught, *_false(feedback)
    gain = scale * (Fraction(more_caught, 100) - cost * (after - before))
    return gain, _form(amounts.products[0], (Fraction(1, 100), -cost)) * float(scale) ** 2


def _of_split(feedback: FeedbackCounts, amounts: AmountCounts, cost: Fraction) -> tuple[Fraction, float]:
    """The difference of shares caught times all fraud, and of false alerts a row times all rows."""
    fraud, rows = Fraction(amounts.total, 100), feedback.baseline.labelled + feedback.candidate.labelled
    arms = (
        (amounts.baseline_caught, amounts.baseline_scored, amounts.baseline_rows),
        (amounts.candidate_caught, amounts.candidate_scored, amounts.candidate_rows),
    )
    gains: list[Fraction] = []
    variance = 0.0
    for (caught, scored, served), false, sums in zip(arms, _false(feedback), amounts.products, strict=True):
        share, alerts = Fraction(caught, scored), Fraction(false, served)
        gains.append(fraud * share - cost * rows * alerts)
        of_amount, of_alert = fraud / scored, cost * rows / served
        variance += _form(sums, (-share * of_amount, of_amount, -of_alert, alerts * of_alert))
    return gains[1] - gains[0], variance


def _false(feedback: FeedbackCounts) -> tuple[int, int]:
    before, after = feedback.outcomes.baseline, feedback.outcomes.candidate
    return before.alerts - before.true_alerts, after.alerts - after.true_alerts


def _form(products: Sequence[int], weights: Sequence[Fraction]) -> float:
    """Σ(weights · vector)² from the upper triangle, row by row, of the vectors' products; exact, so never below 0."""
    pairs = combinations_with_replacement(range(len(weights)), 2)
    terms = (weights[i] * weights[j] * (1 if i == j else 2) * sums for (i, j), sums in zip(pairs, products, strict=True))
    return float(sum(terms, Fraction(0)))


def _text(amount: Fraction) -> str:
    return str((Decimal(round(amount * 100)) / 100).quantize(Decimal("0.01")))
