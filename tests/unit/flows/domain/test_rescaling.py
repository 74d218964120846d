"""Whether production holds the same values in another unit or scale."""

from __future__ import annotations

import numpy as np
import pytest

from flows.domain.rescaling import QUANTILES, Scaler, find_rescaling

RANDOM = np.random.default_rng(5)
TRAINING, PRODUCTION = RANDOM.lognormal(3.0, 0.7, (2, 20_000))
LOGGED = Scaler(log1p=True, mean=3.05, scale=0.7)


@pytest.mark.parametrize("factor", [100.0, 1 / 100, 1 / 1000, 7.3, 1 / 25])
def test_another_unit_is_found(factor: float) -> None:
    found = find_rescaling("amount", TRAINING, PRODUCTION * factor)
    assert found is not None
    assert found.transformation.factor == pytest.approx(factor, rel=0.05)
    assert found.share == 1
    assert found.left < 0.05 < found.distance


def test_another_unit_in_some_of_the_rows_is_found_with_their_share() -> None:
    served = np.where(RANDOM.random(len(PRODUCTION)) < 0.4, PRODUCTION / 100, PRODUCTION)
    found = find_rescaling("amount", TRAINING, served)
    assert found is not None
    assert found.said == "amount is 100 times as small in about 40 % of the rows"


def test_infinite_values_do_not_hide_another_unit() -> None:
    training, served = np.append(TRAINING, np.inf), np.append(PRODUCTION * 100, [np.inf, -np.inf])
    found = find_rescaling("amount", training, served)
    assert found is not None
    assert found.transformation.factor == pytest.approx(100, rel=0.05)


def test_values_scaled_already_and_values_not_scaled_are_found_by_the_logged_scaler() -> None:
    twice = find_rescaling("amount", TRAINING, LOGGED.apply(PRODUCTION), LOGGED)
    assert twice is not None
    assert twice.said == "amount is scaled already where training was not"
    raw = find_rescaling("amount", LOGGED.apply(TRAINING), PRODUCTION, LOGGED)
    assert raw is not None
    assert raw.said == "amount is not scaled where training was"


def test_a_scaler_without_a_logarithm_is_undone_as_well() -> None:
    plain = Scaler(log1p=False, mean=20.0, scale=10.0)
    assert plain.undo(plain.apply(TRAINING)) == pytest.approx(TRAINING)
    assert LOGGED.undo(LOGGED.apply(TRAINING)) == pytest.approx(TRAINING)


@pytest.mark.parametrize("factor", [1.0, 1.5, 0.5, 2.5])
def test_what_drifts_is_not_rescaled(factor: float) -> None:
    assert find_rescaling("amount", TRAINING, PRODUCTION * factor, LOGGED) is None


def test_zeros_are_no_other_unit() -> None:
    assert find_rescaling("amount", TRAINING, np.where(RANDOM.random(20_000) < 0.7, 0.0, PRODUCTION)) is None
    assert find_rescaling("amount", TRAINING, np.zeros(100)) is None
    assert find_rescaling("amount", np.zeros(100), TRAINING) is None


def test_another_shape_of_the_distribution_is_no_other_unit() -> None:
    assert find_rescaling("amount", TRAINING, RANDOM.normal(1000, 1, 20_000)) is None


def test_without_values_nothing_is_found() -> None:
    nothing = np.full(10, np.nan)
    assert find_rescaling("amount", TRAINING, nothing) is None
    assert find_rescaling("amount", nothing, TRAINING) is None


def test_few_values_are_all_used_and_many_are_thinned_out() -> None:
    few = find_rescaling("amount", TRAINING[:200], PRODUCTION[:200] * 100)
    many = find_rescaling("amount", np.tile(TRAINING, 3), np.tile(PRODUCTION, 3) * 100)
    assert len(TRAINING) > QUANTILES
    assert few is not None
    assert many is not None
