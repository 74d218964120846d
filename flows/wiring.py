"""Builds the adapters that a flow may touch, each when it is first needed: imports of MLflow or Ibis cost seconds."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

from flows.settings import Settings, load_settings, read_policy

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flows.adapters.telemetry_feedback import FeedbackTelemetry
    from flows.adapters.telemetry_prometheus import PrometheusTelemetry
    from flows.domain.ab_test import ABTest
    from flows.domain.feedback import ExposureWindow
    from flows.domain.policy import Policy
    from flows.evaluate_ab_test import WindowTelemetry
    from flows.ports import (
        Archive,
        DecisionLog,
        Executions,
        FeatureTable,
        FeedbackSource,
        Outbox,
        Registry,
        Serving,
        Telemetry,
        VersionedFiles,
    )
    from slackbot.publisher import Publisher


class Systems:
    """Everything outside, by the settings of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def policy(self) -> Policy:
        return read_policy(self.settings.policy_file)

    @cached_property
    def feedback(self) -> FeedbackSource:
        from flows.adapters.feedback_ibis import IbisFeedback

        return IbisFeedback(self.settings.feedback_url, self.policy)

    def open_features(
        self, source: str, window: ExposureWindow | None = None, *, with_labels: bool = False
    ) -> AbstractContextManager[FeatureTable]:
        """A table of features while the block lasts; `with_labels`: what it lacks of them, from the feedback."""
        from flows.adapters.feature_table_duckdb import Labels, open_features

        labels = Labels(self.settings.feedback_url, self.policy.columns) if with_labels else None
        return open_features(source, labels=labels, window=window)

    @cached_property
    def telemetry(self) -> Telemetry:
        return self._prometheus or self._feedback_telemetry

    def window_telemetry(self, test: ABTest) -> WindowTelemetry:
        """Latency and errors of a test over a whole window of exposure."""
        if self._prometheus is None:
            return self._feedback_telemetry
        from flows.adapters.telemetry_prometheus import PrometheusWindow

        return PrometheusWindow(self._prometheus, test, self._feedback_telemetry.served)

    @cached_property
    def _prometheus(self) -> PrometheusTelemetry | None:
        if not self.settings.prometheus_url:
            return None
        from flows.adapters.telemetry_prometheus import PrometheusTelemetry

        return PrometheusTelemetry(self.settings.prometheus_url, deployment=self.settings.seldon_deployment)

    @cached_property
    def _feedback_telemetry(self) -> FeedbackTelemetry:
        from flows.adapters.telemetry_feedback import FeedbackTelemetry

        return FeedbackTelemetry(self.settings.feedback_url, self.policy)

    @cached_property
    def serving(self) -> Serving:
        from flows.adapters.serving_seldon import SeldonServing

        return SeldonServing(
            kubeconfig=self.settings.kubeconfig, namespace=self.settings.namespace, name=self.settings.seldon_deployment
        )

    @cached_property
    def registry(self) -> Registry:
        from flows.adapters.registry_mlflow import MlflowRegistry

        return MlflowRegistry(self.settings.mlflow_tracking_uri, self.settings.registry_mode)

    @cached_property
    def archive(self) -> Archive:
        from flows.adapters.archive_s3 import S3Archive

        return S3Archive(self.settings.archive_bucket)

    @cached_property
    def lifecycle_docs(self) -> VersionedFiles:
        from flows.adapters.versioned_files_git import GitFiles

        return GitFiles(self.settings.lifecycle_repository, self.settings.lifecycle_branch)

    @cached_property
    def manifests(self) -> VersionedFiles | None:
        """None for a team that does not keep the SeldonDeployment's manifest in git."""
        if not self.settings.manifest_repository:
            return None
        from flows.adapters.versioned_files_git import GitFiles

        return GitFiles(self.settings.manifest_repository, self.settings.manifest_branch)

    @cached_property
    def decision_log(self) -> DecisionLog:
        from flows.adapters.decision_log_sql import SqlDecisionLog

        return SqlDecisionLog(self.settings.decision_log_url)

    @cached_property
    def executions(self) -> Executions:
        from flows.adapters.executions_sql import SqlExecutions

        return SqlExecutions(self.settings.decision_log_url)

    @cached_property
    def outbox(self) -> Outbox:
        from flows.adapters.outbox_sql import SqlOutbox

        return SqlOutbox(self.settings.decision_log_url)

    @cached_property
    def publisher(self) -> Publisher:
        from slackbot.publisher import Publisher, slack_client

        client = slack_client(self.settings.slack_bot_token.get_secret_value(), self.settings.slack_api_url)
        return Publisher(client, self.outbox, self.decision_log, self.policy, channel=self.settings.slack_channel)


@cache
def systems() -> Systems:
    """The systems of this process."""
    return Systems(load_settings(Settings))
