"""The A/B test that is being decided: which two models, where they serve, since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Arm(StrEnum):
    """One side of the test."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"

    @property
    def other(self) -> Arm:
        return Arm.CANDIDATE if self is Arm.BASELINE else Arm.BASELINE


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model version and the Seldon predictor that serves it."""

    name: str
    version: str
    predictor: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


@dataclass(frozen=True, slots=True)
class ABTest:
    """Baseline and candidate, the start of exposure (UTC) and the MLflow run that carries the test's documents.

    `initiator`: the Slack user id of the person who started it; empty when nobody said.
    """

    test_id: str
    baseline: Model
    candidate: Model
    started_at: datetime
    experiment_run_id: str
    initiator: str = ""

    def model(self, arm: Arm) -> Model:
        return self.baseline if arm is Arm.BASELINE else self.candidate

    @property
    def models(self) -> tuple[Model, Model]:
        return self.baseline, self.candidate
