"""The diagnosis of a simulated test: a planted cause comes first, and where nothing is planted nothing is supported."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.planted_causes import run_one
from benchmarks.planted_world import World
from benchmarks.planting import FINDS, Cause

SEED = 7


@pytest.fixture(scope="module")
def world() -> World:
    return World(SEED)


@pytest.mark.parametrize("cause", [Cause.AMOUNT_DRIFT, Cause.ZEROED_FEATURE, Cause.UNSCALED_INPUTS, Cause.CORRUPTED_ARTIFACT])
def test_a_planted_cause_is_found_and_comes_first(world: World, cause: Cause) -> None:
    run = run_one(world, 0, cause, np.random.default_rng(SEED))
    assert run.harm >= 0.02
    assert run.first == FINDS[cause].value, run.said


@pytest.mark.parametrize("seed", [1, 2])
def test_where_nothing_is_planted_nothing_is_supported(world: World, seed: int) -> None:
    assert not run_one(world, 0, Cause.NOTHING, np.random.default_rng(seed)).said
