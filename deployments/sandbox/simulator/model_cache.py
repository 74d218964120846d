"""Trained models kept between runs: by the simulator's own source, the libraries, the seed and the recipe."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from joblib import Memory

from deployments.sandbox.simulator.training import Recipe, TrainedModel

if TYPE_CHECKING:
    from collections.abc import Callable


def cached_model(recipe: Recipe, seed: int, cache: Path | None, train: Callable[[], TrainedModel]) -> TrainedModel:
    """The recipe's model from the cache, or trained now and kept (unless `cache` is None); a damaged file is trained over."""
    kept: Any = Memory(cache, verbose=0).cache(_trained, ignore=["train"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Exception while loading results")  # of a damaged file
        return kept(recipe, seed, _source_digest(), train)


def _trained(_recipe: Recipe, _seed: int, _source: str, train: Callable[[], TrainedModel]) -> TrainedModel:
    return train()


def _source_digest() -> str:
    digest = hashlib.sha256(f"{sklearn.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
