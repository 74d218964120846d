"""What a fault case has shown, and the table that counts such cases; whoever makes cases hands over a list of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

Ending = Literal["finished", "baseline", "bad"]
Judged = tuple[Ending, tuple[str, ...]]  # with what is wrong, a sentence each
ENDINGS: tuple[Ending, ...] = ("finished", "baseline", "bad")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One fault at one step of one scenario.

    Args:
        ending: `finished`: the change has arrived; `baseline`: the baseline serves alone; `bad`: neither, or an invariant is
            broken.
        problems: what is wrong, a sentence each; empty unless the ending is `bad`.
    """

    scenario: str
    fault: str
    step: str
    ending: Ending
    problems: tuple[str, ...]
    seconds: float


def count_table(results: Iterable[CaseResult]) -> Table:
    """Scenario × fault: how many cases, and how they ended."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        counted.setdefault((result.scenario, result.fault), Counter())[result.ending] += 1
    table = Table("scenario", "fault", "cases", *ENDINGS, title="Faults")
    for (scenario, fault), endings in counted.items():
        table.add_row(scenario, fault, str(endings.total()), *(str(endings[ending]) for ending in ENDINGS))
    return table


def totals(results: Sequence[CaseResult]) -> dict[str, int]:
    """The keys of the RESULT line that count cases."""
    endings = Counter(result.ending for result in results)
    return {"cases": len(results), **{ending: endings[ending] for ending in ENDINGS}}


def bad_lines(results: Iterable[CaseResult]) -> list[str]:
    """A line for each bad case that says what was wrong."""
    bad = (result for result in results if result.ending == "bad")
    return [f"BAD {one.scenario}, {one.fault} at {one.step}: {'; '.join(one.problems)}" for one in bad]
