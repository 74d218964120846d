"""Seven causes of a lost test, each planted alone into a world in which nothing is wrong, and the material that a diagnosis gets.

A planted cause must be one: strengths are drawn until it costs two points of recall, or lets the holdout promise two too many.
"""

from __future__ import annotations

import hashlib
import pickle
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier

from benchmarks.frame_table import FrameTable
from benchmarks.planted_world import BASELINE, CANDIDATE, HOLDOUT, TEST_DAYS, TRAINING, World, facts_of, table_of
from deployments.sandbox.simulator.features import CARD_FEATURES, LOCATION_FEATURES
from deployments.sandbox.simulator.timeline import Days
from deployments.sandbox.simulator.training import Booster, Recipe, split_history
from flows.domain.findings import Hypothesis
from flows.material import Material

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deployments.sandbox.simulator.training import TrainedModel

HARM, DRAWS = 0.02, 100
AS_GOOD = 0.01  # a candidate that is weaker by more than that is weaker, though nobody planted it
ZEROED_SHARE, RESCALED_SHARE = (0.6, 1.0), (0.4, 1.0)
DEFLATION = (1.25, 2.6)
ABOVE_MINUS_ONE = np.nextafter(np.float32(-1), np.float32(0))  # log1p(-1) is no number that a model takes
UNITS = (100.0, 1 / 100, 1000.0, 1 / 1000)


class Cause(StrEnum):
    AMOUNT_DRIFT = "amount drift"
    ZEROED_FEATURE = "zeroed feature"
    UNSCALED_INPUTS = "unscaled inputs"
    OVERFITTED = "overfitted model"
    OTHER_HOLDOUT = "holdout of other weeks"
    CORRUPTED_ARTIFACT = "corrupted artifact"
    WEAKER = "weaker candidate"
    NOTHING = "nothing"


FINDS: Mapping[Cause, Hypothesis] = {
    Cause.AMOUNT_DRIFT: Hypothesis.FEATURE_DRIFT,
    Cause.ZEROED_FEATURE: Hypothesis.SERVING_SKEW,
    Cause.UNSCALED_INPUTS: Hypothesis.SCALING,
    Cause.OVERFITTED: Hypothesis.OVERFITTING,
    Cause.OTHER_HOLDOUT: Hypothesis.HOLDOUT,
    Cause.CORRUPTED_ARTIFACT: Hypothesis.ARTIFACT,
    Cause.WEAKER: Hypothesis.WEAKER_MODEL,
}


@dataclass(frozen=True)
class Planted:
    """A cause in a world: what was drawn, what it costs in points of recall, where, and what the diagnosis gets to see."""

    cause: Cause
    strength: str
    harm: float
    stage: Stage
    material: Material


@dataclass
class Stage:
    """A test in which nothing is wrong yet; plantings change it.

    `registered`: the candidate as the registry has it; `serving`: the model that answers. `right`: production's rows as the
    offline pipeline has them; `served`: as they were served.
    """

    world: World
    candidate: TrainedModel
    registered: TrainedModel
    serving: TrainedModel
    recipe: Recipe
    right: pd.DataFrame
    served: pd.DataFrame
    start: int
    rng: np.random.Generator

    @property
    def is_bare(self) -> bool:
        """Whether models are registered without their preprocessing, which is done before them."""
        return self.registered is not self.candidate

    def recall(self, model: TrainedModel, rows: pd.DataFrame) -> float:
        return float(model.predict(rows.loc[rows["is_fraud"]]).mean())


def plant(world: World, cause: Cause, rng: np.random.Generator) -> Planted:
    """Draw strengths of a cause until it does harm.

    Raises:
        RuntimeError: none of the strengths does harm in this world.
    """
    for _ in range(DRAWS):
        stage = _stage(world, rng)
        strength, harm = _PLANTINGS[cause](stage)
        if cause is Cause.NOTHING or harm >= HARM:
            return Planted(cause, strength, harm, stage, _material(stage, is_with_reference=bool(rng.random() < 0.5)))
    raise RuntimeError(f"{cause} does no harm in world {world.seed}")


def _stage(world: World, rng: np.random.Generator) -> Stage:
    start = int(rng.integers(HOLDOUT.end, 60 - TEST_DAYS + 1))
    rows = world.production(start, float(rng.uniform(0.4, 0.8)))
    model = world.candidate
    return Stage(world, model, model, model, CANDIDATE, rows, rows, start, rng)


def _use(stage: Stage, recipe: Recipe) -> TrainedModel:
    stage.recipe = recipe
    stage.candidate = stage.registered = stage.serving = stage.world.model(recipe)
    return stage.candidate


def _nothing(stage: Stage) -> tuple[str, float]:
    """The candidate has more features than the baseline, or it is the baseline's recipe with newer weeks, if it is as good."""
    newer = replace(BASELINE, name="fraud_v2", training=TRAINING)
    deficit = stage.recall(stage.world.baseline, stage.right) - stage.recall(stage.world.model(newer), stage.right)
    if stage.rng.random() < 0.5 or deficit >= AS_GOOD:
        return "more features", 0.0
    _use(stage, newer)
    return "newer weeks", 0.0


def _amount_drift(stage: Stage) -> tuple[str, float]:
    """People pay smaller amounts from the start of the test on."""
    factor = float(np.exp(stage.rng.uniform(*np.log(DEFLATION))))
    before = stage.recall(stage.candidate, stage.right)
    stage.right = stage.served = stage.world.with_other_amounts(stage.right, stage.start, 1 / factor)
    return f"amounts / {factor:.2f}", before - stage.recall(stage.candidate, stage.right)


def _zeroed_feature(stage: Stage) -> tuple[str, float]:
    name = str(stage.rng.choice(stage.candidate.features))
    share = float(stage.rng.uniform(*ZEROED_SHARE))
    hit = stage.rng.random(len(stage.right)) < share
    stage.served = stage.right.assign(**{name: stage.right[name].mask(hit, 0)})
    return f"{name} in {share:.0%} of the rows", _served_harm(stage)


def _served_harm(stage: Stage) -> float:
    return stage.recall(stage.candidate, stage.right) - stage.recall(stage.candidate, stage.served)


def _unscaled_inputs(stage: Stage) -> tuple[str, float]:
    """Another unit in some or all rows; scaled already where the model scales by itself; or not scaled where it does not."""
    return (_other_unit, _scaled_twice, _not_scaled)[int(stage.rng.integers(3))](stage, _some_features(stage))


def _some_features(stage: Stage) -> list[str]:
    return [str(name) for name in stage.rng.choice(stage.candidate.features, int(stage.rng.integers(1, 4)), replace=False)]


def _other_unit(stage: Stage, names: list[str]) -> tuple[str, float]:
    unit = float(stage.rng.choice(UNITS))
    share = 1.0 if stage.rng.random() < 0.5 else float(stage.rng.uniform(*RESCALED_SHARE))
    hit = stage.rng.random(len(stage.right)) < share
    changed = {name: stage.right[name].mask(hit, stage.right[name] * np.float32(unit)) for name in names}
    stage.served = stage.right.assign(**changed)
    return f"{', '.join(names)} × {unit:g} in {share:.0%} of the rows", _served_harm(stage)


def _scaled_twice(stage: Stage, names: list[str]) -> tuple[str, float]:
    names = list(stage.candidate.features) if stage.rng.random() < 0.3 else names
    again = scaled(stage.candidate, stage.right, names)
    stage.served = again.assign(**{name: again[name].replace(np.float32(-1), ABOVE_MINUS_ONE) for name in names})
    return f"scaled twice: {', '.join(names)}", _served_harm(stage)


def _not_scaled(stage: Stage, names: list[str]) -> tuple[str, float]:
    """The trees alone are the model, and their inputs are scaled before; the serving path forgets it for some features or all."""
    model, names = stage.candidate, list(stage.candidate.features) if stage.rng.random() < 0.3 else names
    stage.registered = stage.serving = without_preprocessing(model)
    stage.served = scaled(model, stage.right, [name for name in model.features if name not in names])
    harm = stage.recall(model, stage.right) - stage.recall(stage.serving, stage.served)
    return f"not scaled: {', '.join(names)}", harm


def scaled(model: TrainedModel, rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows with some features scaled as the model's own pipeline does."""
    scalers = facts_of(model).scalers
    return rows.assign(**{name: scalers[name].apply(rows[name].to_numpy(np.float64)).astype(np.float32) for name in names})


def without_preprocessing(model: TrainedModel) -> TrainedModel:
    """A model's trees alone; they need scaled features."""
    steps: Any = model.pipeline.estimator_.estimator.named_steps
    features = tuple(name for _, _, names in steps["preprocessing"].transformers_ for name in names)
    example = scaled(model, model.input_example, features)[list(features)]
    trees = FixedThresholdClassifier(
        FrozenEstimator(steps["booster"]), threshold=model.pipeline.threshold, response_method="predict_proba"
    )
    trees.fit(example, np.arange(len(example)) == 0)  # nothing is learnt: the trees are frozen
    return replace(model, pipeline=trees, features=features, input_example=example)


def _overfitted(stage: Stage) -> tuple[str, float]:
    """Large trees with few rows in a leaf, places among the features; the holdout from the training days or from later ones."""
    rng = stage.rng
    booster = Booster(
        learning_rate=float(rng.choice([0.1, 0.15, 0.2])),
        max_iter=int(rng.integers(80, 140)),
        max_leaf_nodes=int(rng.choice([63, 95, 127])),
        min_samples_leaf=int(rng.integers(2, 6)),
        l2_regularization=0.01,
    )
    features = CARD_FEATURES + LOCATION_FEATURES
    recipe = replace(CANDIDATE, features=features, booster=booster, random_holdout=bool(rng.random() < 0.5))
    model = _use(stage, recipe)
    found = stage.recall(model, stage.right)
    deficit = stage.recall(stage.world.baseline, stage.right) - found
    where = "training days" if recipe.random_holdout else "later days"
    return f"{booster}, holdout of {where}", max(deficit, model.offline_metrics["holdout_recall"] - found)


def _other_holdout(stage: Stage) -> tuple[str, float]:
    """A holdout from months before, when the fraud through terminals was new or unknown."""
    first = int(stage.rng.integers(-119, -91))
    days = Days(first, first + HOLDOUT.end - HOLDOUT.first)
    features = CANDIDATE.features if stage.rng.random() < 0.5 else CARD_FEATURES
    model = _use(stage, replace(CANDIDATE, features=features, holdout=days))
    return f"days {days.first} to {days.end}", model.offline_metrics["holdout_recall"] - stage.recall(model, stage.right)


def _weaker(stage: Stage) -> tuple[str, float]:
    """Fewer features or hardly any trees."""
    rng = stage.rng
    kept = rng.choice(CARD_FEATURES, int(rng.integers(3, len(CARD_FEATURES) + 1)), replace=False)
    features = tuple(name for name in CARD_FEATURES if name in kept or name == "amount_to_card_mean")
    booster = Booster(max_iter=int(rng.integers(5, 40)), max_leaf_nodes=int(rng.integers(3, 12)), min_samples_leaf=100)
    model = _use(stage, replace(CANDIDATE, features=features, booster=booster))
    deficit = stage.recall(stage.world.baseline, stage.right) - stage.recall(model, stage.right)
    return f"{len(features)} features, {booster.max_iter} trees of {booster.max_leaf_nodes} leaves", deficit


def _corrupted_artifact(stage: Stage) -> tuple[str, float]:
    """Bytes of the trees' leaves are flipped, or the upload broke off and the last trees are missing."""
    broken = deepcopy(stage.candidate)
    booster: Any = broken.pipeline.estimator_.estimator.named_steps["booster"]
    trees: list[Any] = booster._predictors  # noqa: SLF001 -- a file is damaged below every interface
    if stage.rng.random() < 0.5:
        kept = int(stage.rng.integers(1, len(trees) - 5))
        del trees[kept:]
        strength = f"{kept} trees left"
    else:
        hit = int(stage.rng.integers(5, 60))
        for tree in stage.rng.choice(len(trees), hit):
            nodes = trees[tree][0].nodes
            damaged = nodes["value"].copy()
            damaged.view(np.uint8)[stage.rng.integers(0, damaged.nbytes)] ^= np.uint8(1 << stage.rng.integers(0, 8))
            nodes["value"] = np.nan_to_num(damaged)
        strength = f"{hit} bits of leaves flipped"
    stage.serving = broken
    return strength, stage.recall(stage.candidate, stage.right) - stage.recall(broken, stage.right)


_PLANTINGS: Mapping[Cause, Callable[[Stage], tuple[str, float]]] = {
    Cause.NOTHING: _nothing,
    Cause.AMOUNT_DRIFT: _amount_drift,
    Cause.ZEROED_FEATURE: _zeroed_feature,
    Cause.UNSCALED_INPUTS: _unscaled_inputs,
    Cause.OVERFITTED: _overfitted,
    Cause.OTHER_HOLDOUT: _other_holdout,
    Cause.CORRUPTED_ARTIFACT: _corrupted_artifact,
    Cause.WEAKER: _weaker,
}


def _material(stage: Stage, *, is_with_reference: bool) -> Material:
    """What an investigation finds of such a test: tables, registered models, runs, manifest and served files."""
    world, model, registered = stage.world, stage.candidate, stage.registered
    features = tuple(dict.fromkeys([*model.features, *BASELINE.features]))

    def offline(rows: pd.DataFrame) -> FrameTable:
        return FrameTable(table_of(scaled(model, rows, model.features) if stage.is_bare else rows, features))

    training, holdout = split_history(stage.recipe, world.seed, world.history)
    production = table_of(stage.served, features).assign(
        baseline_prediction=world.baseline_answers(stage.right), candidate_prediction=stage.serving.predict(stage.served)
    )
    return Material(
        training=offline(training),
        holdout=offline(holdout),
        production=FrameTable(production),
        reference=offline(stage.right) if is_with_reference else None,
        baseline=facts_of(world.baseline),
        candidate=facts_of(model),
        flags=registered.predict,
        baseline_flags=None if stage.is_bare else world.baseline.predict,
        scores=lambda rows: registered.pipeline.estimator_.predict_proba(rows[list(registered.features)])[:, 1],
        manifest=_digests(registered),
        artifact=_digests(stage.serving),
        registered_version="2",
        served_version="2",
    )


def _digests(model: TrainedModel) -> dict[str, str]:
    return {"model.pkl": hashlib.sha256(pickle.dumps(model)).hexdigest()}
