"""The business summary of a final outcome: what it means in money or in continuity, in words without statistics. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from flows.domain.decision import Choice
from flows.domain.decision_record import RecordKind, is_lost
from flows.domain.verdict import VerdictKind
from slackbot.messages.block_kit import SlackMessage, escape, header, section

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.decision import Decision
    from flows.domain.savings import Money
    from flows.domain.verdict import Verdict

DIGITS = 3  # of an amount: more would look more exact than it is


def stakeholder_message(test: ABTest, outcome: RecordKind, decision: Decision | None = None) -> SlackMessage:
    """For people who neither run nor judge the models.

    Args:
        outcome: promoted, baseline kept, compensated or emergency revert.
        decision: the test's latest; None for an emergency before its first.

    Raises:
        KeyError: nothing was changed by this outcome, so there is nothing to tell.
    """
    titles = {
        RecordKind.PROMOTED: "A better fraud model is in production",
        RecordKind.BASELINE_KEPT: "The fraud model stays as it is",
        RecordKind.COMPENSATED: "A change of the fraud model was undone",
        RecordKind.EMERGENCY_REVERT: "The previous fraud model is back",
    }
    verdict = decision.request.verdict if decision else None
    if outcome is RecordKind.PROMOTED and verdict:
        sentences = [*_better(test, verdict), _worth(verdict.savings_per_month), _CLOSELY_WATCHED]
    else:
        sentences = [_why(test, outcome, decision), _continuity(test, outcome, decision)]
    told = [sentence for sentence in sentences if sentence]
    return SlackMessage(f"{titles[outcome]}. {' '.join(told)}", (header(titles[outcome]), *map(section, told)))


_CLOSELY_WATCHED = "The new model is watched closely, and the one before can be put back within seconds."


def _better(test: ABTest, verdict: Verdict) -> list[str]:
    """What the new model does better, as parts of a hundred."""
    name, before, after = escape(test.candidate.name), verdict.metrics.baseline, verdict.metrics.candidate
    sentences = [f"*{name}* checks all transactions now."]
    if after.recall is not None and before.recall is not None:
        caught = f"it caught {_of_100(after.recall)} of 100 frauds; until now it was {_of_100(before.recall)}"
        sentences[0] += f" In its trial on real transactions {caught}."
    if after.precision is not None and before.precision is not None:
        now, was = _of_100(after.precision), _of_100(before.precision)
        beside = "as before" if abs(now - was) <= 1 else f"until now it was {was}"
        sentences.append(f"About {now} of 100 alerts are really fraud, {beside}: customers and reviewers should notice little.")
    return sentences


def _worth(savings: Money | None) -> str:
    if savings is None:
        return "What that is worth in money is not known: the data carry no amounts."
    amount, low, high = (Decimal(text) for text in (savings.amount, savings.low, savings.high))
    expected = f"Expected: *{_gain(amount, savings.currency)} a month*"
    if savings.crosses_zero:
        between = f"anything between {_gain(low, savings.currency)} and {_gain(high, savings.currency)}"
        return f"{expected}. That is not certain: {between} is likely."
    return f"{expected}, most likely between {_round(low)} and {_round(high)} {savings.currency}."


def _why(test: ABTest, outcome: RecordKind, decision: Decision | None) -> str:
    baseline, candidate = escape(test.baseline.name), escape(test.candidate.name)
    match outcome:
        case RecordKind.COMPENSATED:
            return f"While *{candidate}* was put in charge a check failed, and everything was put back automatically."
        case RecordKind.EMERGENCY_REVERT:
            return f"*{candidate}* was taken out and *{baseline}* put back by somebody on call."
        case _ if decision is None or decision.claim is None or decision.claim.choice is Choice.FORCE_ROLLBACK:
            return f"The trial of *{candidate}* was ended as a precaution."
        case _ if decision.claim.choice is Choice.EXPIRE:
            return f"Nobody decided about *{candidate}* in time, and without a decision nothing is changed."
        case _ if decision.request.verdict.kind is VerdictKind.NOT_EVALUABLE:
            return f"The trial of *{candidate}* could not be judged, so it was ended."
        case _:
            return f"*{candidate}* did not pass its trial."


def _continuity(test: ABTest, outcome: RecordKind, decision: Decision | None) -> str:
    """An investigation is promised only where one is started."""
    baseline, candidate = escape(test.baseline.name), escape(test.candidate.name)
    verdict, claim = (decision.request.verdict.kind, decision.claim) if decision else (None, None)
    later = (
        f"Why {candidate} is not used is investigated before it, or a successor, is tried again."
        if is_lost(outcome, verdict, claim.choice if claim else None)
        else f"{candidate} can be tried again."
    )
    noticed = " Customers and reviewers notice nothing." if outcome is RecordKind.BASELINE_KEPT else ""
    return f"*{baseline}* checks all transactions as before.{noticed} {later}"


def _of_100(share: float) -> int:
    return round(100 * share)


def _gain(amount: Decimal, currency: str) -> str:
    return f"a {'loss' if amount < 0 else 'gain'} of about {_round(abs(amount))} {currency}"


def _round(amount: Decimal) -> str:
    """Three digits of it: 12,345.67 is 12,300."""
    places = DIGITS - 1 - amount.adjusted() if amount else 0
    return f"{round(amount, min(places, 0)):,.0f}"
