"""Looks: what they may spend, whatever is known of the information."""

from __future__ import annotations

from math import inf

import pytest

from flows.domain.sequential import (
    Look,
    boundaries,
    crossing_probability,
    mcnemar_e_value,
    nominal_alpha,
    spent_alpha,
    wang_tsiatis,
)


def looks(*frauds: int) -> list[Look]:
    return [Look(7 * (i + 2), n, (i + 2) / 4) for i, n in enumerate(frauds)]


@pytest.mark.parametrize("frauds", [100, 1, 0, 1_000_000])
def test_looks_without_new_frauds_spend_what_the_calendar_gives(frauds: int) -> None:
    """The same numbers thrice: the last look is a plain test at the whole alpha, for it rejects whatever the others do."""
    if frauds > 1:
        assert boundaries(0.05, looks(frauds, frauds, frauds))[-1] == pytest.approx(1.960, abs=2e-3)
    found = boundaries(0.05, looks(frauds, frauds, frauds))
    assert found[0] == pytest.approx(2.9626, abs=1e-3)
    assert found[0] > found[1] > found[2] > 1.8


@pytest.mark.parametrize("frauds", [(100, 101, 103), (100, 102, 200), (100, 150, 152), (1, 2, 3)])
def test_few_new_frauds_break_nothing(frauds: tuple[int, ...]) -> None:
    found = boundaries(0.05, looks(*frauds))
    assert 1.95 < found[-1] < 2.2
    assert crossing_probability(found, [n / frauds[-1] for n in frauds]) == pytest.approx(0.05, abs=2e-3)


def test_the_boundaries_are_crossed_as_often_as_alpha_says() -> None:
    plan = [Look(day, 100 * day, day / 28) for day in (7, 14, 21, 28)]
    for alpha in (0.01, 0.05, 0.2):
        assert crossing_probability(boundaries(alpha, plan), [0.25, 0.5, 0.75, 1.0]) == pytest.approx(alpha, abs=1e-5)
        first_two = crossing_probability(boundaries(alpha, plan)[:2], [0.5, 1.0])
        assert first_two == pytest.approx(spent_alpha(alpha, 0.5), abs=1e-5)


def test_calendar_spending_keeps_the_error_when_frauds_arrive_late() -> None:
    late = [Look(14, 100, 0.5), Look(21, 120, 0.75), Look(28, 1000, 1.0)]
    assert crossing_probability(boundaries(0.05, late), [0.1, 0.12, 1.0]) == pytest.approx(0.05, abs=1e-4)


def test_a_fraction_that_falls_spends_nothing_again() -> None:
    assert boundaries(0.05, [Look(21, 100, 0.75), Look(14, 200, 0.5)])[1] == inf


def test_the_level_of_a_look_is_two_sided() -> None:
    assert nominal_alpha(0.05, looks(100)) == pytest.approx(0.00305, abs=1e-5)
    assert nominal_alpha(0.05, looks(100, 150, 200)) == pytest.approx(0.0440, abs=1e-4)


def test_what_may_be_spent_rises_to_alpha() -> None:
    spent = [spent_alpha(0.05, fraction / 10) for fraction in range(12)]
    assert spent == sorted(spent)
    assert (spent[0], spent[10], spent[11]) == (0.0, 0.05, 0.05)
    assert spent[5] == pytest.approx(0.00305, abs=1e-5)


def test_no_look_crosses_nothing_for_sure() -> None:
    assert crossing_probability([8.0], [1.0]) == pytest.approx(0.0, abs=1e-9)
    assert crossing_probability([1.0], [1.0]) == pytest.approx(0.3173, abs=1e-4)


def test_boundaries_between_pococks_and_obrien_flemings() -> None:
    found = wang_tsiatis(0.05, [0.5, 1.0], 0.25)
    assert crossing_probability(found, [0.5, 1.0]) == pytest.approx(0.05, abs=1e-6)
    assert found[0] / found[1] == pytest.approx(0.5**-0.25)


def test_the_e_value_averages_one_while_the_candidate_is_no_better() -> None:
    """The next disagreement is even either way: the e-value's mean over both is what it was."""
    for b, c in ((0, 0), (3, 1), (10, 25), (40, 40)):
        after = (mcnemar_e_value(b + 1, c) + mcnemar_e_value(b, c + 1)) / 2
        assert after == pytest.approx(mcnemar_e_value(b, c), rel=1e-9)
    assert mcnemar_e_value(0, 0) == pytest.approx(1.0)
    assert mcnemar_e_value(200, 20) < 0.01
    assert (mcnemar_e_value(0, 5000), mcnemar_e_value(5000, 0)) == (inf, pytest.approx(0.0, abs=1e-3))


def test_each_boundary_needs_its_information() -> None:
    for boundary, fractions in (([2.0], [0.5, 1.0]), ([2.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="zip"):
            crossing_probability(boundary, fractions)


@pytest.mark.filterwarnings("error")
def test_overwhelming_evidence_and_none_are_no_warning() -> None:
    assert mcnemar_e_value(0, 5000) == inf
    assert mcnemar_e_value(5000, 0) == 0.0
