"""The tables of the root-cause report: offline against production, both models side by side, the weeks, what was ruled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from flows.domain.ab_test import Arm
from flows.domain.criteria import points
from flows.domain.guardrails import percent
from flows.domain.model_findings import OUT_OF, facts_of_making, logged_share
from flows.domain.recalls import Caught
from flows.reports.markdown import table, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from flows.domain.ab_test import ABTest
    from flows.domain.findings import Finding
    from flows.domain.model_findings import ModelFacts
    from flows.domain.verdict import MetricsByArm, ModelMetrics

NUMBERS_SHOWN = 8
PARTS = ("train", "holdout")


def offline_and_production(test: ABTest, offline: Mapping[str, float], measured: MetricsByArm) -> list[str]:
    """Recall and precision as the candidate's run logged them, beside what both models did in production: paragraphs.

    Args:
        offline: as logged: `holdout_recall` and, for its interval, `holdout_frauds`; so too `holdout_precision` and
            `holdout_alerts`, and all of them with `train`.
    """
    rows = [["", "training", "holdout", f"{test.candidate.name} in production", f"{test.baseline.name} in production"]]
    for metric in OUT_OF:
        logged = [_share(_logged(offline, part, metric), logged_share(offline, part, metric)[0], "not logged") for part in PARTS]
        found = [
            _share(_counted(model, metric), cast("float | None", getattr(model, metric)), "unknown")
            for model in (measured.candidate, measured.baseline)
        ]
        rows.append([metric, *logged, *found])
    lost = [_change(metric, offline, measured.candidate) for metric in OUT_OF]
    return [
        table(rows),
        "In brackets: 95 % intervals (Wilson's), where it is known of how many.",
        " ".join(filter(None, lost)),
    ]


def recall_by_part(test: ABTest, offline: Mapping[str, float], measured: MetricsByArm) -> dict[str, Caught]:
    """Recalls of which it is known of how many frauds they are: the candidate's, where it was made and where it served, and the
    baseline's."""
    parts = {
        "training": _logged(offline, "train", "recall"),
        "holdout": _logged(offline, "holdout", "recall"),
        f"{test.candidate.name} in production": _counted(measured.candidate, "recall"),
        f"{test.baseline.name} in production": _counted(measured.baseline, "recall"),
    }
    return {name: caught for name, caught in parts.items() if caught is not None}


def _logged(offline: Mapping[str, float], part: str, metric: str) -> Caught | None:
    """What was caught of how many frauds, or of how many alerts were right; None unless both were logged."""
    share, total = logged_share(offline, part, metric)
    return Caught(total, round(share * total)) if share is not None and total else None


def _counted(model: ModelMetrics, metric: str) -> Caught | None:
    others = model.false_negatives if metric == "recall" else model.false_positives
    if getattr(model, metric) is None or others is None or not model.true_positives + others:
        return None
    return Caught(model.true_positives + others, model.true_positives)


def _share(counted: Caught | None, share: float | None, otherwise: str) -> str:
    if counted is not None:
        low, high = counted.interval
        return f"{percent(counted.recall)} ({100 * low:.1f} to {percent(high)})"
    return otherwise if share is None else percent(share)


def _change(metric: str, offline: Mapping[str, float], candidate: ModelMetrics) -> str:
    """From the holdout to production, with Newcombe's interval where both are counted."""
    promised, found = _logged(offline, "holdout", metric), _counted(candidate, metric)
    if promised is not None and found is not None:
        change, low, high = found.above(promised)
        return f"From holdout to production the {metric} changes by {points(change)} ({100 * low:+.1f} to {100 * high:+.1f})."
    before, after = logged_share(offline, "holdout", metric)[0], getattr(candidate, metric)
    return (
        "" if before is None or after is None else f"From holdout to production the {metric} changes by {points(after - before)}."
    )


def side_by_side(test: ABTest, making: Mapping[Arm, ModelFacts], at: datetime) -> str:
    """How both models were made, what differs first; empty where it is known of neither."""
    if not making:
        return ""
    made = [facts_of_making(making[arm], at) if arm in making else None for arm in Arm]
    known = [facts for facts in made if facts is not None]

    def is_changed(name: str) -> bool:
        return len(known) > 1 and known[0].get(name) != known[1].get(name)

    names = sorted(set[str]().union(*known), key=lambda name: (not is_changed(name), name))
    cells = [["not readable" if facts is None else facts.get(name, "not logged") for facts in made] for name in names]
    rows = [[name, *cell, "changed" if is_changed(name) else ""] for name, cell in zip(names, cells, strict=True)]
    return table([["", str(test.baseline), str(test.candidate), ""], *rows]) if rows else "Nothing was logged of their making."


def drift_by_week(weeks: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A row for each feature, the first one worst; empty where there are no weeks to compare."""
    if len(weeks) < 2:
        return ""
    features = list(dict.fromkeys(name for _, distances in weeks for name in distances))
    rows = [[name, *(f"{distances[name]:.2f}" if name in distances else "–" for _, distances in weeks)] for name in features]
    return table([["week from", *(begins for begins, _ in weeks)], *rows])


def ruled_out(findings: Sequence[tuple[str, Finding]]) -> str:
    """What was found of each, under its headline, with the numbers to judge it by."""
    rows = [
        [headline, one.said, "" if one.effect is None else f"{one.effect[0]}: {one.effect[1]:.3g}", _numbers(one.numbers)]
        for headline, one in findings
    ]
    return table([["", "what was found", "effect", "numbers"], *rows]) if rows else "Nothing."


def _numbers(numbers: Mapping[str, object]) -> str:
    shown = [f"{' '.join(path)} {value:.3g}" for path, value in _flat(numbers)]
    more = [f"{len(shown) - NUMBERS_SHOWN} more in the record"] if len(shown) > NUMBERS_SHOWN else []
    return "; ".join(shown[:NUMBERS_SHOWN] + more)


def _flat(numbers: Mapping[str, object]) -> Iterator[tuple[list[str], float]]:
    """Every number, with where it stands; what is no number is told in words elsewhere."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            yield from (([words(name), *path], number) for path, number in _flat(cast("Mapping[str, object]", value)))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield [words(name)], value
