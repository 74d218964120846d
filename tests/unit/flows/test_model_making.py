"""What a model's run logged, as an investigation takes it: what is no such thing counts as not logged."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from mlflow.entities import Metric

from flows.adapters.model_mlflow import as_curve, as_scaling, as_window
from flows.domain.model_findings import ModelFacts, facts_of_making
from flows.domain.rescaling import Scaler
from flows.investigation_material import FACTS


def test_a_window_without_a_zone_is_utc() -> None:
    window = as_window({"training_start": "2025-01-01", "training_end": "2025-03-01T02:00+02:00"})
    assert window == (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC))
    plain = as_window({"training_start": "2025-01-01", "training_end": "2025-03-01"})
    made = facts_of_making(ModelFacts("fraud_v2", trained_on=plain), datetime(2025, 3, 11, tzinfo=UTC))
    assert made["age in days"] == 10


@pytest.mark.parametrize("end", [{}, {"training_end": "in March"}])
def test_a_window_without_two_times_is_none(end: dict[str, str]) -> None:
    assert as_window({"training_start": "2025-01-01", **end}) is None


def test_a_logged_scaling_is_taken() -> None:
    logged = {"scaling": {"amount": {"log1p": True, "mean": 1, "scale": 2.5}}, "features": ["amount"]}
    assert as_scaling(json.dumps(logged).encode()) == {"amount": Scaler(log1p=True, mean=1.0, scale=2.5)}
    assert as_scaling(b'{"scaling": {}}') == {}


@pytest.mark.parametrize(
    "document",
    [
        '{"scaling": "standard"}',
        '{"scaling": {"amount": {"mean": 1, "scale": 2}}}',
        '{"scaling": {"amount": {"log1p": false, "mean": 1, "scale": null}}}',
        '{"scaling": {"amount": {"log1p": false, "mean": NaN, "scale": 1}}}',
        '{"scaling": {"amount": {"log1p": false, "mean": 1, "scale": 0}}}',
        '{"scaling": null}',
        "{}",
        "[]",
        "scaled",
    ],
)
def test_a_scaling_of_another_shape_counts_as_not_logged(document: str) -> None:
    assert as_scaling(document.encode()) == {}


def test_losses_keep_their_steps_from_mlflow_to_the_report() -> None:
    logged = [
        Metric("loss", value, moment, step) for value, moment, step in ((0.2, 7, 50), (0.5, 3, 0), (0.4, 6, 25), (0.3, 5, 25))
    ]
    curve = as_curve(logged)
    assert curve == ((0, 0.5), (25, 0.3), (25, 0.4), (50, 0.2))
    facts = ModelFacts("fraud_v2", training_loss=curve, validation_loss=curve[:1])
    assert FACTS.validate_python(json.loads(json.dumps(FACTS.dump_python(facts, mode="json")))) == facts
