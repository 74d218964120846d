"""The app's own settings; what it shares with the flows is defined there, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.domain.errors import SettingsInvalid
from flows.settings import Settings, load_settings


def _shared(name: str) -> Any:
    return Settings.model_fields[name]


class BotSettings(BaseSettings):
    """Less than a flow has: no feedback, no registry, no archive."""

    model_config = SettingsConfigDict(env_prefix="FRAUD_AB_", extra="ignore", frozen=True)

    policy_file: Path | None = _shared("policy_file")
    decision_log_url: str = _shared("decision_log_url")
    kubeconfig: Path | None = _shared("kubeconfig")
    namespace: str = _shared("namespace")
    seldon_deployment: str = _shared("seldon_deployment")
    slack_bot_token: SecretStr = _shared("slack_bot_token")
    slack_api_url: str = _shared("slack_api_url")
    slack_channel: str = _shared("slack_channel")
    prefect_ui_url: str = _shared("prefect_ui_url")
    slack_app_token: SecretStr | None = Field(
        default=None, validation_alias="SLACK_APP_TOKEN", description="xapp-… of the Slack app, for Socket Mode"
    )
    slack_signing_secret: SecretStr | None = Field(
        default=None, validation_alias="SLACK_SIGNING_SECRET", description="signing secret of the Slack app, for HTTP"
    )
    bot_host: str = Field(default="127.0.0.1", description="address that `fraud-ab bot --http` listens on")
    bot_metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="port of the app's /healthz, /readyz and /metrics; without it: none"
    )
    metrics_host: str = _shared("metrics_host")


def load_bot_settings(*, is_http: bool) -> BotSettings:
    """Read the environment.

    Raises:
        SettingsInvalid: some are missing or wrong; every one is named.
    """
    settings = load_settings(BotSettings)
    if is_http and settings.slack_signing_secret is None:
        raise SettingsInvalid("the environment", ["SLACK_SIGNING_SECRET: requests over HTTP are believed only with it"])
    if not is_http and settings.slack_app_token is None:
        raise SettingsInvalid("the environment", ["SLACK_APP_TOKEN: Socket Mode needs it (or start with --http PORT)"])
    return settings
