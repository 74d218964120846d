"""A registered model as an investigation needs it: what was logged of its making, and the model itself to be asked again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flows.domain.model_findings import ModelFacts
from flows.domain.rescaling import Scaler
from flows.ports import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from mlflow import MlflowClient
    from numpy.typing import NDArray
    from pandas import DataFrame

LOSSES = {
    "training_loss": ("training_loss", "train_loss", "loss"),
    "validation_loss": ("validation_loss", "valid_loss", "val_loss"),
}
"""Under which names loss curves are logged, by step; the first that is there counts."""
PREPROCESSING = "preprocessing.json"
"""`{"scaling": {feature: {"log1p": bool, "mean": number, "scale": number}}}`."""
WINDOW = ("training_start", "training_end")
"""Parameters: ISO 8601 times."""


def read_making(client: MlflowClient, name: str, run_id: str, tracking_uri: str) -> ModelFacts:
    """Parameters, offline metrics, loss curves and scaling of the run that made a model.

    Raises:
        MlflowException, OSError: MLflow failed.
    """
    run: Any = client.get_run(run_id)
    logged: Mapping[str, float] = run.data.metrics
    curves = {kind: _curve(client, run_id, next((one for one in names if one in logged), "")) for kind, names in LOSSES.items()}
    offline = {metric: value for metric, value in logged.items() if not any(metric in names for names in LOSSES.values())}
    scaling = _scaling(client, run_id, tracking_uri)
    return ModelFacts(
        name,
        tuple(scaling),
        dict(run.data.params),
        offline,
        **curves,
        scalers={feature: Scaler(bool(one["log1p"]), one["mean"], one["scale"]) for feature, one in scaling.items()},
        trained_on=_window(run.data.params),
    )


def load_model(files: Path) -> LoadedModel:
    """Load it; whatever its own code raises comes out."""
    import mlflow.pyfunc
    import numpy as np

    loaded: Any = mlflow.pyfunc.load_model(str(files), suppress_warnings=True)
    schema = loaded.metadata.get_input_schema()
    types = {column.name: column.type.to_pandas() for column in schema.inputs} if schema and schema.has_input_names() else {}

    def shaped(frame: DataFrame) -> DataFrame:
        return frame.loc[:, list(types)].astype(types) if types else frame

    def flags(frame: DataFrame) -> NDArray[np.bool_]:
        return np.asarray(loaded.predict(shaped(frame)), dtype=bool)

    raw: Any = loaded.get_raw_model()
    if not hasattr(raw, "predict_proba"):
        return LoadedModel(tuple(types), flags)
    return LoadedModel(tuple(types), flags, lambda frame: np.asarray(raw.predict_proba(shaped(frame)))[:, 1])


def _curve(client: MlflowClient, run_id: str, metric: str) -> tuple[float, ...]:
    history = client.get_metric_history(run_id, metric) if metric else []
    return tuple(point.value for point in sorted(history, key=lambda point: point.step))


def _scaling(client: MlflowClient, run_id: str, tracking_uri: str) -> dict[str, Any]:
    from mlflow.artifacts import download_artifacts

    if PREPROCESSING not in {file.path for file in client.list_artifacts(run_id)}:
        return {}
    with TemporaryDirectory(prefix="making-") as folder:
        file = download_artifacts(run_id=run_id, artifact_path=PREPROCESSING, dst_path=folder, tracking_uri=tracking_uri)
        return dict(json.loads(Path(file).read_text(encoding="utf-8")).get("scaling", {}))


def _window(parameters: Mapping[str, str]) -> tuple[datetime, datetime] | None:
    try:
        begin, end = (datetime.fromisoformat(parameters[name]) for name in WINDOW)
    except (KeyError, ValueError):
        return None
    return begin, end
