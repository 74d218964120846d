"""Guardrails: checks of validity. They can veto a verdict and never earn one; what cannot be checked says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from flows.domain.counts import ModelCounts
from flows.domain.metrics import sample_ratio_p, score_z, two_sided_p
from flows.domain.policy import LabelBasis

if TYPE_CHECKING:
    from flows.domain.counts import FeedbackCounts
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy

_UNFLAGGED = "transactions that no model flagged"


class GuardrailStatus(StrEnum):
    """Not checked is not passed."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"


class GuardrailName(StrEnum):
    """The checks, in the order in which they are shown."""

    WINDOW = "window"
    LABEL_MATURITY = "label_maturity"
    LABEL_COVERAGE = "label_coverage"
    SAMPLE_RATIO = "sample_ratio"
    CROSSOVER = "crossover"
    DATA_QUALITY = "data_quality"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One check and why it came out as it did, in a sentence for people."""

    name: GuardrailName
    status: GuardrailStatus
    reason: str


def check_guardrails(counts: FeedbackCounts, window: ExposureWindow, policy: Policy) -> tuple[Guardrail, ...]:
    """Every guardrail for one window of feedback, in the order of `GuardrailName`."""
    return (
        _window(counts, window, policy),
        _label_maturity(counts, window, policy),
        _label_coverage(counts, policy),
        _sample_ratio(counts, policy),
        _crossover(counts, policy),
        _data_quality(counts, policy),
    )


def nothing_checked(reason: str) -> tuple[Guardrail, ...]:
    """All guardrails as not checked, for counts that come without their feedback."""
    return tuple(Guardrail(name, GuardrailStatus.NOT_CHECKED, reason) for name in GuardrailName)


def percent(share: Fraction | float, digits: int = 1) -> str:
    """A share 0..1 in words, such as 81.3 %."""
    return f"{float(share) * 100:.{digits}f} %"


def _judge(name: GuardrailName, problems: list[str], passed: str) -> Guardrail:
    status = GuardrailStatus.FAILED if problems else GuardrailStatus.PASSED
    return Guardrail(name, status, "; ".join(problems) if problems else passed)


def _unchecked(name: GuardrailName, reason: str) -> Guardrail:
    return Guardrail(name, GuardrailStatus.NOT_CHECKED, reason)


def _window(counts: FeedbackCounts, window: ExposureWindow, policy: Policy) -> Guardrail:
    days, least = window.exposure_days, policy.window_days.min
    problems: list[str] = []
    if days < least:
        problems.append(f"{days} days of matured exposure are fewer than the {least} that the policy requires")
    elif days % 7:
        problems.append(f"{days} days are no whole weeks, so weekdays would weigh unequally")
    empty = days - len({day.day for day in counts.days if day.day < days})
    if empty:
        problems.append(f"no transactions on {empty} of {days} days")
    return _judge(GuardrailName.WINDOW, problems, f"{days} days of matured exposure, whole weeks, none without transactions")


def _label_maturity(counts: FeedbackCounts, window: ExposureWindow, policy: Policy) -> Guardrail:
    name, days, labels = GuardrailName.LABEL_MATURITY, policy.label_maturity_days, counts.labels
    if not counts.baseline.matured + counts.candidate.matured:
        problem = f"the feedback reaches to {window.as_of:%Y-%m-%d %H:%M} UTC, so no transaction is {days} days old yet"
        return Guardrail(name, GuardrailStatus.FAILED, problem)
    if labels.timed_frauds is None or labels.late_frauds is None:
        return _unchecked(name, "without label_time nobody can tell how long labels take")
    if not labels.timed_frauds:
        return _unchecked(name, "no fraud has a label time yet")
    late = Fraction(labels.late_frauds, labels.timed_frauds)
    problem = f"{percent(late)} of the fraud labels came later than {days} days, so younger numbers are not final"
    problems = [problem] if late > policy.validity.max_late_labels else []
    return _judge(name, problems, f"{percent(1 - late)} of the fraud labels came within {days} days")


def _label_coverage(counts: FeedbackCounts, policy: Policy) -> Guardrail:
    name, least = GuardrailName.LABEL_COVERAGE, policy.validity.min_label_coverage
    shares = {group: Fraction(labelled, matured) for group, (labelled, matured) in _labelled(counts, policy).items() if matured}
    if not shares:
        return _unchecked(name, "no transaction is matured yet")
    problems = [f"only {percent(share)} of the matured {group} have a label" for group, share in shares.items() if share < least]
    problems += _unequal_labels(counts, policy)
    if policy.labels is LabelBasis.ALL:
        problems += [f"to go on, {_fallback(counts, policy)}"] if shares.get(_UNFLAGGED, 1) < least else []
    if policy.labels is LabelBasis.FLAGGED and counts.selection is None:
        problems.append('labels = "flagged" needs pairs: score both models on the same transactions')
    if policy.labels is LabelBasis.AUDIT and not (counts.audits and all(audit.audited for audit in counts.audits)):
        problems.append('labels = "audit" needs a random sample of what was not flagged, with label_source = "audit"')
    return _judge(name, problems, f"at least {percent(min(shares.values()))} of the matured transactions have a label")


def _labelled(counts: FeedbackCounts, policy: Policy) -> dict[str, tuple[int, int]]:
    """What must have labels, as (labelled, matured)."""
    is_all = policy.labels is LabelBasis.ALL
    what = "transactions" if is_all else "flagged transactions"
    names = (f"{what} served by the {arm}" for arm in ("baseline", "candidate"))
    shares = dict(zip(names, _by_arm(counts, policy), strict=True))
    return shares | ({_UNFLAGGED: (counts.labels.unflagged_labelled, counts.labels.unflagged)} if is_all else {})


def _by_arm(counts: FeedbackCounts, policy: Policy) -> list[tuple[int, int]]:
    """Of each arm what is labelled, of what must be: all matured rows, or those that a model flagged."""
    arms = (counts.baseline, counts.candidate)
    if policy.labels is LabelBasis.ALL:
        return [(arm.labelled, arm.matured) for arm in arms]
    return [(arm.flagged_labelled, arm.flagged) for arm in arms]


def _unequal_labels(counts: FeedbackCounts, policy: Policy) -> list[str]:
    before, after = _by_arm(counts, policy)
    if not _differ(before, after, policy):
        return []
    shown = " against ".join(percent(Fraction(*share)) for share in (before, after))
    return [f"labels are not equally complete in both arms: {shown} of the matured transactions"]


def _fallback(counts: FeedbackCounts, policy: Policy) -> str:
    """What this data allows where unflagged transactions have no labels, so that recall is not identified."""
    least, found = policy.validity.min_label_coverage, list[str]()
    flagged = counts.baseline.flagged + counts.candidate.flagged
    labelled = counts.baseline.flagged_labelled + counts.candidate.flagged_labelled
    if counts.selection is not None and labelled and labelled >= least * flagged:
        found.append('set labels = "flagged" in the policy (the pairs give the ratio of recalls, not the recalls)')
    if counts.audits and all(audit.frauds >= policy.min_counts.audited_frauds for audit in counts.audits):
        found.append('set labels = "audit" (the audited sample stands for what was not flagged)')
    if found:
        return " or ".join(found)
    pairs = "" if counts.selection else ", or score both models on the same transactions and label all that either flags"
    return f'label a random sample of what was not flagged, with label_source = "audit"{pairs}'


def _sample_ratio(counts: FeedbackCounts, policy: Policy) -> Guardrail:
    """At the card, the unit of randomisation: transactions of one card go together and would look like a mismatch."""
    name, cards = GuardrailName.SAMPLE_RATIO, counts.cards
    if cards is None:
        return _unchecked(name, "without entity_id the split cannot be tested at the card")
    total = cards.baseline + cards.candidate
    if not total:
        return _unchecked(name, "there are no cards in the window")
    p_value = sample_ratio_p(cards.candidate, total, Fraction(policy.traffic.candidate, 100))
    seen = f"{percent(Fraction(cards.candidate, total))} of {total:,} cards met the candidate"
    text = f"{seen}, the policy sends {policy.traffic.candidate} % (p = {p_value:.2g})"
    return _judge(name, [text] if p_value < policy.validity.sample_ratio_p_value else [], text)


def _crossover(counts: FeedbackCounts, policy: Policy) -> Guardrail:
    name, cards = GuardrailName.CROSSOVER, counts.cards
    if cards is None:
        return _unchecked(name, "without entity_id cards that met both arms cannot be counted")
    total = cards.baseline + cards.candidate + cards.crossover
    if not total:
        return _unchecked(name, "there are no cards in the window")
    share = Fraction(cards.crossover, total)
    text = f"{percent(share)} of the cards met both arms"
    return _judge(name, [text] if share > policy.validity.max_crossover else [], text)


def _data_quality(counts: FeedbackCounts, policy: Policy) -> Guardrail:
    name, quality = GuardrailName.DATA_QUALITY, counts.quality
    if not quality.rows:
        return _unchecked(name, "there are no rows in the window")
    found = {
        "rows repeat a transaction": quality.duplicates,
        "transactions are labelled both fraud and not": quality.conflicting,
        "rows are labelled before they happened": quality.early_labels or 0,
        "rows lack an id, a time or a known arm": quality.unusable,
        "rows have an event or a label later than now": quality.future,
    }
    most = policy.validity.max_bad_rows
    problems = [f"{number:,} of {quality.rows:,} {what}" for what, number in found.items() if number > most * quality.rows]
    problems += _selected_pairs(counts, policy)
    not_checked = " (label times could not be checked)" if quality.early_labels is None else ""
    return _judge(name, problems, f"{sum(found.values()):,} of {quality.rows:,} rows are doubtful{not_checked}")


def _selected_pairs(counts: FeedbackCounts, policy: Policy) -> list[str]:
    """Pairs that were chosen by what the baseline said compare the models on chosen transactions."""
    chosen = counts.selection
    if chosen is None:
        return []
    flagged, unflagged = (chosen.flagged_pairs, chosen.flagged), (chosen.unflagged_pairs, chosen.unflagged)
    if not _differ(flagged, unflagged, policy):
        return []
    shares = percent(Fraction(*flagged)), percent(Fraction(*unflagged))
    return [f"the pairs are selected: the candidate scored {shares[0]} of what the baseline flagged and {shares[1]} of the rest"]


def _differ(one: tuple[int, int], two: tuple[int, int], policy: Policy) -> bool:
    """Whether two shares (count, total) differ by more than the policy lets pass, and beyond chance (score test)."""
    if not one[1] or not two[1] or abs(Fraction(*one) - Fraction(*two)) <= policy.validity.unequal_shares:
        return False
    before, after = (ModelCounts(total, count, 0, 0) for count, total in (one, two))
    return two_sided_p(score_z(before, after)) < policy.validity.unequal_p_value
