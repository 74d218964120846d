"""Each planted cause once as people meet it: tables in files, models in MLflow, an archive in S3, and the flow that looks for it.

Each costs the candidate recall, though not always the test. Whether a cause is found for other strengths and in other worlds is
for `make planted-causes`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import skops.io
from mlflow import MlflowClient
from threadpoolctl import threadpool_limits

from benchmarks.planted_world import World as PlantedWorld
from benchmarks.planting import FINDS, Cause, Planted, plant, without_preprocessing
from deployments.sandbox.simulator.registration import log_model
from flows.domain.action_plan import Stage
from flows.domain.decision_record import RecordKind, latest_investigation
from flows.domain.findings import Hypothesis
from flows.investigate_candidate import investigate_candidate
from flows.reports.root_cause_report import title_of
from flows.table_summaries import count_outcomes
from tests.integration.production_world import World, lines

if TYPE_CHECKING:
    from benchmarks.frame_table import FrameTable
    from flows.domain.ab_test import Model
    from flows.domain.decision import Decision

pytest_plugins = ("tests.integration.production_world",)

SEED = 7


@pytest.fixture(scope="module")
def simulated() -> PlantedWorld:
    return PlantedWorld(SEED)


@pytest.mark.parametrize("cause", FINDS)
def test_the_investigation_of_a_lost_test_names_its_planted_cause_first(
    world: World, simulated: PlantedWorld, cause: Cause, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threadpool_limits(1, user_api="openmp"):  # its waiting threads make a busy machine ten times slower
        planted = plant(simulated, cause, np.random.default_rng(SEED))
        set_tables(planted, tmp_path, monkeypatch)
        decision = lose(world, planted, tmp_path / "files")
        summary = investigate_candidate(decision.decision_id)

    title = title_of(FINDS[cause])
    found = latest_investigation(world.systems.decision_log.records(decision.decision_id))
    assert found is not None
    supported = [Hypothesis(one["hypothesis"]) for one in found.findings if one["status"] == "supported"]
    assert supported[:1] == [FINDS[cause]], f"{planted.strength}: {summary}"
    assert found.summary == tuple(summary)
    assert world.kinds() == [RecordKind.INVESTIGATED]
    assert world.report(decision.decision_id).partition("\n### ")[2].splitlines()[0] == title
    [told] = [line for line in lines(world, decision.decision_id) if line.startswith(f"Why {world.test.candidate} did not win: ")]
    assert f"\nCause 1: {title}" in told


def set_tables(planted: Planted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables as files, each named by its setting; production's rows have the same ids in the reference."""
    material = planted.material
    for name in ("training", "holdout", "production", "reference"):
        table: FrameTable | None = getattr(material, name)
        monkeypatch.delenv(f"FRAUD_AB_{name.upper()}_DATA", raising=False)
        if table is not None:
            file = folder / f"{name}.parquet"
            table.frame.assign(transaction_id=[f"tx-{row:07d}" for row in range(table.rows)]).to_parquet(file)
            monkeypatch.setenv(f"FRAUD_AB_{name.upper()}_DATA", str(file))


def lose(world: World, planted: Planted, folder: Path) -> Decision:
    """Register and archive the models, serve the candidate as it was served, and decide by what production has counted."""
    baseline, candidate = register(planted)
    world.read_settings()
    world.test = replace(world.test, baseline=baseline, candidate=candidate)
    registry, archive = world.systems.registry, world.systems.archive
    registry.set_in_charge(baseline)
    registry.set_stage(candidate, Stage.STAGING)
    files = registry.artifact_files(candidate, folder)
    archive.store(candidate, files)
    if planted.stage.serving is not planted.stage.registered:
        skops.io.dump(planted.stage.serving.pipeline, files / "model.skops")
    world.serve_files(files)
    production = planted.material.production
    counts = count_outcomes(production) if production else None
    assert counts is not None
    return world.decide(counts=counts)


def register(planted: Planted) -> tuple[Model, Model]:
    """The baseline and the candidate."""
    client, stage = MlflowClient(), planted.stage
    experiment = client.get_experiment_by_name("ab")
    assert experiment is not None
    baseline = stage.world.baseline
    return (
        log_model(client, experiment.experiment_id, baseline, without_preprocessing(baseline) if stage.is_bare else None),
        log_model(client, experiment.experiment_id, stage.candidate, stage.registered),
    )
