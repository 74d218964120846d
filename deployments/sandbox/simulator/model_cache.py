"""Trained models kept between runs: by the simulator's own source, the libraries, the seed and the recipe."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sklearn

from deployments.sandbox.simulator.training import Recipe, TrainedModel

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST_BYTES = 32


def cached_model(recipe: Recipe, seed: int, cache: Path | None, train: Callable[[], TrainedModel]) -> TrainedModel:
    """The model of this recipe from the cache, or trained now and kept; a damaged or foreign file is trained over."""
    if cache is None:
        return train()
    file = cache / f"{recipe.name}-{_key(recipe, seed)}.model"
    model = _read(file)
    if model is None:
        model = train()
        _write(file, model)
    return model


def _key(recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256(f"{recipe!r} {seed} {sklearn.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _read(file: Path) -> TrainedModel | None:
    """The digest is checked before anything is unpickled; it also covers the file's name, so a renamed file is foreign."""
    if not file.is_file():
        return None
    content = file.read_bytes()
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if digest != _digest(file, payload):
        return None
    model = pickle.loads(payload)  # noqa: S301 - our own file in the user's own cache, whole by its digest
    return model if isinstance(model, TrainedModel) else None


def _write(file: Path, model: TrainedModel) -> None:
    """In one step, since two demos may train the same model at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    payload = pickle.dumps(model)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(_digest(file, payload) + payload)
    Path(part.name).replace(file)


def _digest(file: Path, payload: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + payload).digest()
