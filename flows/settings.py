"""Every setting, typed; all problems are listed together at start.

Systems that have a customary variable of their own are read by that name; ours begin with `FRAUD_AB_`.
`PREFECT_API_URL` and the `AWS_*` variables are read by their clients.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.domain.errors import PolicyInvalid, SettingsInvalid
from flows.domain.policy import Policy, load_policy

AnySettings = TypeVar("AnySettings", bound=BaseSettings)


class RegistryMode(StrEnum):
    """How the team marks the model in charge in MLflow."""

    STAGES = "stages"
    ALIASES = "aliases"
    BOTH = "both"


class Settings(BaseSettings):
    """The environment's settings; secrets never show in logs."""

    model_config = SettingsConfigDict(env_prefix="FRAUD_AB_", extra="ignore", frozen=True)

    policy_file: Path | None = Field(default=None, description="policy.toml; without it the defaults apply")
    decision_log_url: str = Field(description="SQLAlchemy URL of the decision log (PostgreSQL or SQLite)")
    feedback_url: str = Field(description="where the feedback is: a Parquet file or a database URL with its table")
    training_data: str = Field(
        default="",
        description="the candidate's training rows, for an investigation: a .parquet or .csv file, or a database URL with its "
        "table; {model}, {version} and {test} are filled in",
    )
    holdout_data: str = Field(default="", description="the rows of its offline evaluation, likewise")
    production_data: str = Field(default="", description="the features as the candidate got them in production, likewise")
    reference_data: str = Field(default="", description="production's rows as the offline pipeline computes them, likewise")
    prometheus_url: str | None = Field(
        default=None, description="Prometheus with Seldon's metrics; without it the feedback tells latency and errors"
    )
    kubeconfig: Path | None = Field(default=None, validation_alias="KUBECONFIG", description="without it: the pod's own account")
    namespace: str = Field(default="models", description="namespace of the SeldonDeployment")
    seldon_deployment: str = Field(default="fraud-predictor", description="name of the SeldonDeployment")
    mlflow_tracking_uri: str = Field(validation_alias="MLFLOW_TRACKING_URI", description="MLflow's tracking server")
    registry_mode: RegistryMode = Field(default=RegistryMode.BOTH, description="stages, aliases or both")
    archive_bucket: str = Field(default="fraud-ab-archive", description="S3 bucket of the model archive")
    lifecycle_repository: str = Field(description="git repository (or folder) of docs/model_lifecycle.md")
    lifecycle_branch: str = Field(default="main", description="branch that the lifecycle page is committed to")
    manifest_repository: str = Field(
        default="", description="git repository (or folder) of the SeldonDeployment's manifest; without it none is changed"
    )
    manifest_branch: str = Field(default="main", description="branch that the manifest is committed to")
    manifest_path: str = Field(default="seldon-deployment.yaml", description="the manifest's file in that repository")
    slack_bot_token: SecretStr = Field(validation_alias="SLACK_BOT_TOKEN", description="xoxb-… of the Slack app")
    slack_api_url: str = Field(
        default="https://slack.com/api/", validation_alias="SLACK_API_URL", description="another Slack-compatible server"
    )
    slack_channel: str = Field(description="channel id of the verdict message")
    stakeholder_channel: str = Field(default="", description="channel id of the business summaries; without it none is posted")
    prefect_ui_url: str = Field(default="", description="base of links to flow runs; empty: the API's own host")
    dashboard_url: str = Field(default="", description="Grafana dashboard of the test")
    metrics_port: int | None = Field(default=None, ge=1, le=65535, description="port of `serve`'s metrics; without it: none")
    metrics_host: str = Field(default="127.0.0.1", description="address that metrics are answered on")


def load_settings(model: type[AnySettings]) -> AnySettings:
    """Read the environment.

    Raises:
        SettingsInvalid: some are missing or wrong; every one is named, and no value, since some are secrets.
    """
    try:
        return model()
    except ValidationError as error:
        names = [str(item["loc"][0]) for item in error.errors()]
        variables = [variable_of(name, model) if name in model.model_fields else name for name in names]
        problems = [f"{variable}: {item['msg'].lower()}" for variable, item in zip(variables, error.errors(), strict=True)]
        raise SettingsInvalid("the environment", problems) from None


def read_policy(file: Path | None) -> Policy:
    """The policy in a file; without one the defaults.

    Raises:
        PolicyInvalid: the file cannot be read, or something in it is wrong.
    """
    if file is None:
        return Policy()
    try:
        return load_policy(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise PolicyInvalid(str(file), [f"it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise PolicyInvalid(str(file), ["it is no UTF-8 text"]) from error


def variable_of(field: str, model: type[BaseSettings]) -> str:
    """The environment variable that a setting is read from."""
    alias = model.model_fields[field].validation_alias
    if isinstance(alias, str):
        return alias
    return f"{model.model_config.get('env_prefix', '')}{field}".upper()
