"""Builds the adapters that a flow may touch, each when it is first needed: imports of MLflow or Ibis cost seconds."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

from flows.settings import Settings, load_settings, read_policy

if TYPE_CHECKING:
    from flows.domain.policy import Policy
    from flows.evaluate_ab_test import WindowTelemetry
    from flows.ports import Archive, DecisionLog, Executions, FeedbackSource, LifecycleDocs, Outbox, Registry, Serving, Telemetry
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

    @cached_property
    def telemetry(self) -> Telemetry:
        if self.settings.prometheus_url:
            from flows.adapters.telemetry_prometheus import PrometheusTelemetry

            return PrometheusTelemetry(self.settings.prometheus_url, deployment=self.settings.seldon_deployment)
        from flows.adapters.telemetry_feedback import FeedbackTelemetry

        return FeedbackTelemetry(self.settings.feedback_url, self.policy)

    @cached_property
    def window_telemetry(self) -> WindowTelemetry:
        """Latency and errors over a whole window of exposure, as the feedback has kept them."""
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
    def lifecycle_docs(self) -> LifecycleDocs:
        from flows.adapters.lifecycle_docs_git import GitLifecycleDocs

        return GitLifecycleDocs(self.settings.lifecycle_repository, self.settings.lifecycle_branch)

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
