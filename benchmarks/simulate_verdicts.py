"""How often the rules err, by simulated tests whose truth is known: `make simulate-verdicts` (QUICK=1: fewer of them).

Three questions. Does the significance rule keep its error over ten looks, where a plain 5 % level would not? Does it with
frauds that come in bunches of one card? And which verdicts does the whole rule give, from the first look to the horizon?
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from flows.domain.counts import (
    VECTOR,
    ArmCounts,
    CardCounts,
    CardProducts,
    Design,
    FeedbackCounts,
    LabelCounts,
    ModelCounts,
    Outcomes,
    Overlap,
    QualityCounts,
    RequestBucket,
    TelemetrySummary,
)
from flows.domain.criteria import measure_significance
from flows.domain.evidence import Evidence
from flows.domain.feedback import ExposureWindow
from flows.domain.metrics import comparison_information, mcnemar, score_z, two_sided_p
from flows.domain.policy import Policy
from flows.domain.sequential import Look, boundaries
from flows.domain.verdict import VerdictKind, decide_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

POLICY, ALPHA, RECALL, PRECISION = Policy(), 0.05, 0.80, 0.91
DISAGREEMENT = 0.03  # share of the frauds that only the baseline catches
BAND = float(POLICY.precision_band.absolute)


class Errors(NamedTuple):
    """Of `tests` without any difference: rejected at their looks, at a plain 5 % level, and in favour of the candidate."""

    tests: int
    rejected: int
    naive: int
    promoted: int

    def of(self, count: int) -> float:
        return count / self.tests


@dataclass(frozen=True)
class Truth:
    """A test as it really is: the ratio of recalls, the difference of precisions, and the frauds until the horizon."""

    design: Design
    ratio: float
    precision: float
    frauds: int

    @property
    def must_not_win(self) -> bool:
        return self.ratio <= 1 or abs(self.precision) > 2 * BAND


@dataclass
class Verdicts:
    """The final verdicts of one truth, and the days at which they fell."""

    truth: Truth
    kinds: Counter[VerdictKind] = field(default_factory=Counter)
    days: int = 0

    @property
    def power(self) -> float:
        return self.kinds[VerdictKind.PROMOTE] / self.kinds.total()

    @property
    def wrong(self) -> int:
        if self.truth.must_not_win:
            return self.kinds[VerdictKind.PROMOTE]
        is_sure = self.truth.ratio >= 1.10 and self.power >= 0.95
        return self.kinds[VerdictKind.KEEP_BASELINE] if is_sure else 0


def look_ten_times(design: Design, tests: int, seed: int) -> Errors:
    """The significance rule alone under ten looks at equal recalls, 150 (pairs) or 500 (split) frauds a look."""
    rng, looks = np.random.default_rng(seed), 10
    n1, n2 = (150, 150) if design is Design.PAIRED else (400, 100)
    model = [ModelCounts(look * n, 0, 0, 0) for look in range(1, looks + 1) for n in (n1, n2)]
    plan = [
        Look(look, comparison_information(Outcomes(design, *model[2 * look - 2 : 2 * look])), look / looks)
        for look in range(1, looks + 1)
    ]
    levels = [2 * float(norm.sf(z)) for z in boundaries(ALPHA, plan)]
    if design is Design.PAIRED:
        shares = [RECALL - DISAGREEMENT, DISAGREEMENT, DISAGREEMENT, 1 - RECALL - DISAGREEMENT]
        one, two = rng.multinomial(n1, shares, (tests, looks)).cumsum(axis=1)[:, :, 1:3].transpose(2, 0, 1)
    else:
        one, two = (rng.binomial(n, RECALL, (tests, looks)).cumsum(axis=1) for n in (n1, n2))

    def p_value(look: int, x1: int, x2: int) -> tuple[float, bool]:
        if design is Design.PAIRED:
            return mcnemar(x1, x2).midp_p_value, x2 > x1
        z = score_z(ModelCounts(look * n1, x1, 0, 0), ModelCounts(look * n2, x2, 0, 0))
        return two_sided_p(z), z > 0

    return _errors(one, two, levels, p_value)


def _errors(
    one: np.ndarray, two: np.ndarray, levels: list[float], p_value: Callable[[int, int, int], tuple[float, bool]]
) -> Errors:
    rejected = naive = promoted = 0
    for x1, x2 in zip(one.tolist(), two.tolist(), strict=True):
        found = [p_value(look, *pair) for look, pair in enumerate(zip(x1, x2, strict=True), start=1)]
        naive += any(p < ALPHA for p, _ in found)
        crossings = [is_better for (p, is_better), level in zip(found, levels, strict=True) if p < level]
        rejected += bool(crossings)
        promoted += bool(crossings) and crossings[0]
    return Errors(len(one), rejected, naive, promoted)


def look_at_bunches(design: Design, tests: int, seed: int) -> Errors:
    """The significance rule at equal recalls, where the frauds of a card are alike; `naive`: as if they were not."""
    rng, rejected, naive, promoted = np.random.default_rng(seed), 0, 0, 0
    for _ in range(tests):
        outcomes = bunched_outcomes(design, rng)
        found = measure_significance(Evidence(counted=outcomes), POLICY)
        plain = measure_significance(Evidence(counted=replace(outcomes, cards=None)), POLICY)
        if found is None or plain is None:
            raise RuntimeError("a simulated test has no frauds")
        is_better = (outcomes.candidate.recall or 0) > (outcomes.baseline.recall or 0)
        rejected += found.p_value < ALPHA
        naive += plain.p_value < ALPHA
        promoted += found.p_value < ALPHA and is_better
    return Errors(tests, rejected, naive, promoted)


def bunched_outcomes(design: Design, rng: np.random.Generator) -> Outcomes:
    """Cards with three frauds on average, any two of a card alike in half of the cases; equal recalls."""
    sizes = 1 + rng.poisson(2, 400 if design is Design.PAIRED else 1000)
    card = np.arange(len(sizes)).repeat(sizes)
    is_alike = rng.random(len(card)) < 0.5**0.5
    kind_shares = [RECALL - DISAGREEMENT, DISAGREEMENT, DISAGREEMENT, 1 - RECALL - DISAGREEMENT]
    kind = np.where(is_alike, rng.choice(4, len(sizes), p=kind_shares)[card], rng.choice(4, len(card), p=kind_shares))
    caught = [kind <= 1, (kind == 0) | (kind == 2)]
    scored = [np.ones(len(card), bool)] * 2
    if design is Design.SPLIT:
        is_candidate = card % 5 == 0
        scored = [~is_candidate, is_candidate]
        caught = [hits & seen for hits, seen in zip(caught, scored, strict=True)]
    columns = [column for arm in (0, 1) for column in (scored[arm], caught[arm], caught[arm])]
    sums = np.stack([np.bincount(card, column, len(sizes)) for column in columns], axis=1)
    matrix = sums.T @ sums
    products = tuple(int(matrix[i, j]) for i in range(len(VECTOR)) for j in range(i, len(VECTOR)))
    one, two = (ModelCounts(*(int(columns[3 * arm + k].sum()) for k in (0, 1, 1, 1))) for arm in (0, 1))
    paired = Overlap(*np.bincount(kind, minlength=4).tolist()) if design is Design.PAIRED else None
    return Outcomes(design, one, two, frauds=paired, cards=CardProducts(len(sizes), products))


def run_whole_tests(truth: Truth, tests: int, seed: int) -> Verdicts:
    """Tests of one truth under the whole rule, each from its first look to its last verdict."""
    rng, found = np.random.default_rng(seed), Verdicts(truth)
    for _ in range(tests):
        kind, day = run_whole_test(truth, rng)
        found.kinds[kind] += 1
        found.days += day
    return found


def run_whole_test(truth: Truth, rng: np.random.Generator) -> tuple[VerdictKind, int]:
    looks: list[Look] = []
    seen, before = np.zeros(7, dtype=np.int64), 0
    for day in POLICY.looks:
        seen = seen + new_counts(truth, (day - before) / POLICY.looks[-1], rng)
        outcomes = outcomes_of(truth.design, seen.tolist())
        looks.append(Look(day, comparison_information(outcomes), day / POLICY.looks[-1]))
        kind = decide_verdict(healthy_evidence(outcomes, day, looks), POLICY).kind
        if kind in (VerdictKind.PROMOTE, VerdictKind.KEEP_BASELINE):
            return kind, day
        before = day
    raise RuntimeError(f"a test ended without a verdict: {kind}")


def new_counts(truth: Truth, share: float, rng: np.random.Generator) -> np.ndarray:
    """What a stretch of the test adds: four counts of frauds and three of false alerts (both models, one alone)."""
    after, frauds = RECALL * truth.ratio, truth.frauds * share
    false_1 = RECALL * (1 - PRECISION) / PRECISION
    false_2 = after * (1 - PRECISION - truth.precision) / (PRECISION + truth.precision)
    if truth.design is Design.PAIRED:
        alone_1, both_false = DISAGREEMENT + max(0.0, RECALL - after), 0.7 * min(false_1, false_2)
        alone_2 = alone_1 + after - RECALL
        kinds = [RECALL - alone_1, alone_1, alone_2, 1 - RECALL - alone_2, both_false, false_1 - both_false, false_2 - both_false]
    else:
        one, two = (float(share) / 100 for share in (POLICY.traffic.baseline, POLICY.traffic.candidate))
        kinds = [RECALL * one, (1 - RECALL) * one, after * two, (1 - after) * two, false_1 * one, false_2 * two, 0.0]
    return rng.poisson(np.array(kinds) * frauds)


def outcomes_of(design: Design, seen: list[int]) -> Outcomes:
    if design is Design.SPLIT:
        caught_1, missed_1, caught_2, missed_2, false_1, false_2, _ = seen
        one = ModelCounts(caught_1 + missed_1, caught_1, caught_1 + false_1, caught_1)
        return Outcomes(design, one, ModelCounts(caught_2 + missed_2, caught_2, caught_2 + false_2, caught_2))
    frauds, false = Overlap(*seen[:4]), Overlap(*seen[4:])
    caught_1, caught_2 = frauds.both + frauds.baseline_only, frauds.both + frauds.candidate_only
    one = ModelCounts(sum(seen[:4]), caught_1, caught_1 + false.both + false.baseline_only, caught_1)
    two = ModelCounts(sum(seen[:4]), caught_2, caught_2 + false.both + false.candidate_only, caught_2)
    return Outcomes(design, one, two, frauds=frauds, false_alerts=false)


def healthy_evidence(outcomes: Outcomes, day: int, looks: Sequence[Look]) -> Evidence:
    """Evidence in which nothing but the outcomes can decide."""
    arms = [
        ArmCounts(n, n, n, model.frauds, model.caught) for n, model in ((80_000, outcomes.baseline), (20_000, outcomes.candidate))
    ]
    feedback = FeedbackCounts(
        outcomes,
        arms[0],
        arms[1],
        LabelCounts(90_000, 90_000, 1000, 0),
        QualityCounts(100_000, 0, 0, 0, 0),
        CardCounts(8000, 2000, 0),
        None,
    )
    fast = RequestBucket(20_000, 20_000, 20_000, 0)
    telemetry = TelemetrySummary(Fraction(100), fast, fast, 80, 80, 300, 0, 0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = ExposureWindow(start, day, start + timedelta(days=day + POLICY.label_maturity_days))
    return Evidence(feedback, None, window, telemetry, tuple(looks), POLICY.looks[-1])


TRUTHS = [
    Truth(design, ratio, precision, frauds)
    for design, sizes in ((Design.PAIRED, (1000, 4000)), (Design.SPLIT, (8000, 40_000)))
    for frauds, (ratio, precision) in product(
        sizes, ((0.95, 0.0), (1.0, 0.0), (1.05, 0.0), (1.10, 0.0), (1.15, 0.0), (1.10, 0.025), (1.10, -0.025))
    )
]


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    tests, bunched, whole = (2_000, 500, 20) if is_quick else (20_000, 10_000, 100)
    chunks = 1 if is_quick else 4
    designs = (Design.PAIRED, Design.SPLIT)
    with ProcessPoolExecutor(max_workers=2) as pool:
        looks = {one: [pool.submit(look_ten_times, one, tests // chunks, 100 + i) for i in range(chunks)] for one in designs}
        cards = {one: [pool.submit(look_at_bunches, one, bunched // chunks, 200 + i) for i in range(chunks)] for one in designs}
        rows = [pool.submit(run_whole_tests, truth, whole, 300 + i) for i, truth in enumerate(TRUTHS)]
        looked = {one: added(part.result() for part in parts) for one, parts in looks.items()}
        carded = {one: added(part.result() for part in parts) for one, parts in cards.items()}
        verdicts = [row.result() for row in rows]
    show(looked, carded, verdicts)
    worst, bunch = max(looked.values(), key=lambda found: found.rejected), max(carded.values(), key=lambda found: found.rejected)
    result = {
        "cases": sum(row.kinds.total() for row in verdicts),
        "wrong": sum(row.wrong for row in verdicts),
        "looks_type_1": round(worst.of(worst.rejected), 4),
        "looks_promote": round(max(found.of(found.promoted) for found in looked.values()), 4),
        "naive_type_1": round(worst.of(worst.naive), 4),
        "clustered_type_1": round(bunch.of(bunch.rejected), 4),
        "clustered_promote": round(max(found.of(found.promoted) for found in carded.values()), 4),
        "clustered_naive_type_1": round(bunch.of(bunch.naive), 4),
        "simulated_tests": worst.tests,
        "simulated_clustered_tests": bunch.tests,
        "seconds": round(time.monotonic() - began),
        "quick": is_quick,
    }
    Console().print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


def added(parts: Iterable[Errors]) -> Errors:
    return Errors(*map(sum, zip(*parts, strict=True)))


def show(looked: dict[Design, Errors], carded: dict[Design, Errors], verdicts: list[Verdicts]) -> None:
    console = Console(width=120)
    errors = Table("equal recalls", "design", "tests", "rejected", "for the candidate", "at a plain 5 % level", title="Errors")
    for what, table in (("ten looks", looked), ("bunches of a card, one look", carded)):
        for design, found in table.items():
            shares = (f"{found.of(count):.2%}" for count in (found.rejected, found.promoted, found.naive))
            errors.add_row(what, design.value, str(found.tests), *shares)
    whole = Table("design", "frauds", "ratio", "precision", "PROMOTE", "KEEP_BASELINE", "days", "wrong", title="The whole rule")
    for row in verdicts:
        truth, total = row.truth, row.kinds.total()
        kinds = (f"{row.kinds[kind] / total:.0%}" for kind in (VerdictKind.PROMOTE, VerdictKind.KEEP_BASELINE))
        start = (truth.design.value, str(truth.frauds), f"{truth.ratio:.2f}", f"{truth.precision:+.3f}")
        whole.add_row(*start, *kinds, f"{row.days / total:.1f}", str(row.wrong))
    console.print(errors, whole)


if __name__ == "__main__":
    main()
