"""A registered model as an investigation needs it: what was logged of its making, and the model itself to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from flows.domain.model_findings import ModelFacts
from flows.domain.rescaling import Scaler
from flows.ports import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from numpy.typing import NDArray
    from pandas import DataFrame

    from flows.domain.model_findings import Curve

LOSSES = {
    "training_loss": ("training_loss", "train_loss", "loss"),
    "validation_loss": ("validation_loss", "valid_loss", "val_loss"),
}
"""Under which names loss curves are logged, by step; the first that is there counts."""
PREPROCESSING = "preprocessing.json"
"""`{"scaling": {feature: {"log1p": bool, "mean": number, "scale": number above 0}}}`; another shape counts as not logged."""
WINDOW = ("training_start", "training_end")
"""Parameters: ISO 8601 times, in UTC where they name no zone."""
THRESHOLD = "threshold"
"""Parameter: from which score on (0..1) a transaction is flagged, where `predict` returns scores."""


class _Scaling(BaseModel):
    log1p: bool
    mean: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]


class _Preprocessing(BaseModel):
    scaling: dict[str, _Scaling]


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
        scalers=scaling,
        trained_on=as_window(run.data.params),
    )


def read_threshold(parameters: Mapping[str, str]) -> float | None:
    """The logged threshold; None where none from 0 to 1 is logged."""
    try:
        found = float(parameters[THRESHOLD])
    except (KeyError, ValueError):
        return None
    return found if 0 <= found <= 1 else None


def load_model(files: Path, threshold: Callable[[], float | None]) -> LoadedModel:
    """Load it, and ask it for flags on the rows that were logged as its input example, if any were; whatever its own code raises
    comes out.

    Args:
        threshold: the one of its run; only looked for when `predict` returns scores.

    Raises:
        ValueError: its answers on the example tell no flags.
    """
    import mlflow.pyfunc
    import numpy as np
    import pandas as pd

    loaded: Any = mlflow.pyfunc.load_model(str(files), suppress_warnings=True)
    schema = loaded.metadata.get_input_schema()
    is_table = schema and schema.has_input_names() and not schema.is_tensor_spec()
    types = {column.name: column.type.to_pandas() for column in schema.inputs} if is_table else {}

    def shaped(frame: DataFrame) -> DataFrame:
        return frame.loc[:, list(types)].astype(types) if types else frame

    def flags(frame: DataFrame) -> NDArray[np.bool_]:
        return as_flags(loaded.predict(shaped(frame)), threshold)

    example = loaded.metadata.load_input_example(str(files))
    if isinstance(example, pd.DataFrame):
        flags(example)
    raw = _model_inside(loaded)
    if not hasattr(raw, "predict_proba"):
        return LoadedModel(tuple(types), flags)
    return LoadedModel(tuple(types), flags, lambda frame: np.asarray(raw.predict_proba(shaped(frame)))[:, 1])


def as_flags(answers: Any, threshold: Callable[[], float | None]) -> NDArray[np.bool_]:
    """What a model's `predict` returns, (n,) or (n, 1), as flags: true or false, 1 or 0, or scores from the threshold on.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> as_flags([[0.2], [0.7]], lambda: 0.5).tolist()
        [False, True]
    """
    import numpy as np

    values = np.asarray(answers)
    if values.dtype == object:  # such as pandas' booleans that may be null
        values = np.array(values.tolist())
    if values.ndim > 1 and values.shape[1:] == (1,):
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "biuf" or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("its predict has to return true or false (1 or 0) for each row, or a score from 0 to 1")
    if np.isin(values, (0, 1)).all():
        return values == 1
    least = threshold()
    if least is None:
        raise ValueError(
            f"its predict returns scores: log from which on it flags (0..1), as the parameter {THRESHOLD} of its run"
        )
    return values >= least


def as_curve(history: Iterable[Metric]) -> Curve:
    """A metric's values by step; those of one step in the order in which they were logged."""
    return tuple((point.step, point.value) for point in sorted(history, key=lambda point: (point.step, point.timestamp)))


def as_scaling(document: bytes) -> dict[str, Scaler]:
    """Of a logged `PREPROCESSING`; empty where it has another shape."""
    try:
        found = _Preprocessing.model_validate_json(document)
    except ValidationError:
        return {}
    return {feature: Scaler(one.log1p, one.mean, one.scale) for feature, one in found.scaling.items()}


def as_window(parameters: Mapping[str, str]) -> tuple[datetime, datetime] | None:
    """When the training window begins and ends, in UTC where no zone is logged; None where either is not logged as a time.

    Example:
        >>> as_window({"training_start": "2025-01-01", "training_end": "2025-03-01T06:00+02:00"})[0].isoformat()
        '2025-01-01T00:00:00+00:00'
    """
    try:
        begin, end = (datetime.fromisoformat(parameters[name]) for name in WINDOW)
    except (KeyError, ValueError):
        return None
    return _in_utc(begin), _in_utc(end)


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _model_inside(loaded: Any) -> Any:
    """None where MLflow does not give it out, as of a Python function."""
    try:
        return loaded.get_raw_model()
    except NotImplementedError:
        return None


def _curve(client: MlflowClient, run_id: str, metric: str) -> Curve:
    return as_curve(client.get_metric_history(run_id, metric)) if metric else ()


def _scaling(client: MlflowClient, run_id: str, tracking_uri: str) -> dict[str, Scaler]:
    from mlflow.artifacts import download_artifacts

    if PREPROCESSING not in {file.path for file in client.list_artifacts(run_id)}:
        return {}
    with TemporaryDirectory(prefix="making-") as folder:
        file = download_artifacts(run_id=run_id, artifact_path=PREPROCESSING, dst_path=folder, tracking_uri=tracking_uri)
        return as_scaling(Path(file).read_bytes())
