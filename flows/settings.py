"""Every setting, typed; all problems are listed together at start.

Systems that have a customary variable of their own are read by that name; ours begin with `FRAUD_AB_`.
`PREFECT_API_URL` and the `AWS_*` variables are read by their clients.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.domain.errors import SettingsInvalid


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
    prometheus_url: str | None = Field(
        default=None, description="Prometheus with Seldon's metrics; without it the feedback tells latency"
    )
    kubeconfig: Path | None = Field(default=None, validation_alias="KUBECONFIG", description="without it: the pod's own account")
    namespace: str = Field(default="models", description="namespace of the SeldonDeployment")
    seldon_deployment: str = Field(default="fraud-predictor", description="name of the SeldonDeployment")
    mlflow_tracking_uri: str = Field(validation_alias="MLFLOW_TRACKING_URI", description="MLflow's tracking server")
    registry_mode: RegistryMode = Field(default=RegistryMode.BOTH, description="stages, aliases or both")
    archive_bucket: str = Field(default="fraud-ab-archive", description="S3 bucket of the model archive")
    lifecycle_repository: str = Field(description="git repository (or folder) of docs/model_lifecycle.md")
    lifecycle_branch: str = Field(default="main", description="branch that the lifecycle page is committed to")
    slack_bot_token: SecretStr = Field(validation_alias="SLACK_BOT_TOKEN", description="xoxb-… of the Slack app")
    slack_api_url: str = Field(
        default="https://slack.com/api/", validation_alias="SLACK_API_URL", description="another Slack-compatible server"
    )
    slack_channel: str = Field(description="channel id of the verdict message")
    prefect_ui_url: str = Field(default="", description="base of links to flow runs; empty: the API's own host")
    dashboard_url: str = Field(default="", description="Grafana dashboard of the test")


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsInvalid: some are missing or wrong; every one is named.
    """
    try:
        return Settings()  # pyright: ignore[reportCallIssue]  (the values come from the environment)
    except ValidationError as error:
        raise SettingsInvalid("the environment", problems_of(error)) from error


def problems_of(error: ValidationError, settings: type[BaseSettings] | None = None) -> list[str]:
    """One line a problem, each with its variable; values are left out, some are secrets."""
    fields = (settings or Settings).model_fields
    names = [str(item["loc"][0]) for item in error.errors()]
    variables = [variable_of(name, settings) if name in fields else name for name in names]
    return [f"{variable}: {item['msg'].lower()}" for variable, item in zip(variables, error.errors(), strict=True)]


def variable_of(field: str, settings: type[BaseSettings] | None = None) -> str:
    """The environment variable that a setting is read from."""
    model = settings or Settings
    alias = model.model_fields[field].validation_alias
    if isinstance(alias, str):
        return alias
    return f"{model.model_config.get('env_prefix', '')}{field}".upper()
