"""Which labels a comparison may rest on, where what no model flagged is labelled in part only."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import exp, log, sqrt
from typing import TYPE_CHECKING

from flows.domain.counts import Design, Overlap
from flows.domain.intervals import Interval
from flows.domain.metrics import recall_design_effect, two_sided_p, two_sided_z
from flows.domain.policy import LabelBasis

if TYPE_CHECKING:
    from flows.domain.counts import AuditCounts, FeedbackCounts, ModelCounts, Outcomes


def outcomes_by(basis: LabelBasis, feedback: FeedbackCounts) -> Outcomes:
    """The outcomes with the frauds that this basis knows of.

    Args:
        basis: `flagged` knows nothing of frauds that no model flagged: they are left out; `audit` estimates them from a random
            audit, rounded to whole frauds; `all` takes the labels as they are.
        feedback: what was counted; in pairs one audit, in a split one for each arm.

    Returns:
        outcomes whose relative improvement is that of the basis; what rests on alerts stays as it is.

    Source:
        Pepe & Alonzo 2001, Biostatistics 2:249-260: the ratio of true positive rates needs no labels of what neither flagged.

    Example:
        20,000 transactions not flagged, 1,000 of them audited, 12 of those frauds: 240 frauds were missed.
    """
    outcomes, audits = feedback.outcomes, feedback.audits
    if basis is LabelBasis.ALL or (basis is LabelBasis.AUDIT and not all(audit.audited for audit in audits)):
        return outcomes
    if outcomes.frauds is not None:
        missed = round(_missed(audits[0])) if basis is LabelBasis.AUDIT and audits else 0
        known = outcomes.frauds
        total = known.both + known.baseline_only + known.candidate_only + missed
        models = (replace(model, frauds=total) for model in (outcomes.baseline, outcomes.candidate))
        overlap = Overlap(known.both, known.baseline_only, known.candidate_only, missed)
        return replace(outcomes, **dict(zip(("baseline", "candidate"), models, strict=True)), frauds=overlap)
    if basis is LabelBasis.FLAGGED or len(audits) != 2:
        return outcomes
    before, after = (
        replace(model, frauds=model.caught + round(_missed(audit)))
        for model, audit in zip((outcomes.baseline, outcomes.candidate), audits, strict=True)
    )
    return replace(outcomes, baseline=before, candidate=after)


def audit_weighted(feedback: FeedbackCounts, confidence: float = 0.95) -> tuple[float, Interval] | None:
    """Test of equal recalls in a split whose missed frauds are estimated from a random audit.

    Args:
        feedback: a split with one audit for each arm.
        confidence: of the interval, 0..1.

    Returns:
        (two-sided p-value 0..1, interval of the recalls' ratio); None without caught or audited frauds in both arms.

    Source:
        inverse-probability weights and the delta method: with C caught and M = N f / n missed frauds,
        var(ln R) = (M²/C + var M) / (C + M)², var M = N² π (1 - π) / n, π = f/n; times the cards' design effect. Without the
        correction for a finite N: the missed frauds are themselves a sample of those that the model would miss.
    """
    outcomes, audits = feedback.outcomes, feedback.audits
    models = (outcomes.baseline, outcomes.candidate)
    if outcomes.design is not Design.SPLIT or len(audits) != 2:
        return None
    if not all(model.caught and audit.frauds for model, audit in zip(models, audits, strict=True)):
        return None
    recalls = [model.caught / (model.caught + float(_missed(audit))) for model, audit in zip(models, audits, strict=True)]
    variance = sum(_log_variance(model, audit) for model, audit in zip(models, audits, strict=True))
    error = sqrt(variance * max(1.0, recall_design_effect(outcomes) or 1.0))
    ratio = log(recalls[1] / recalls[0])
    half = two_sided_z(confidence) * error
    interval = Interval("recall ratio", exp(ratio - half), exp(ratio + half), confidence)
    return two_sided_p(ratio / error) if error else 1.0, interval


def _missed(audit: AuditCounts) -> Fraction:
    return Fraction(audit.unflagged * audit.frauds, audit.audited)


def _log_variance(model: ModelCounts, audit: AuditCounts) -> float:
    missed, share = float(_missed(audit)), audit.frauds / audit.audited
    of_missed = audit.unflagged**2 * share * (1 - share) / audit.audited
    return (missed**2 / model.caught + of_missed) / (model.caught + missed) ** 2
