"""Builds what the bot may touch: the decision log and its outbox, Slack, Prefect, and the emergency revert. Nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.adapters.decision_log_sql import SqlDecisionLog
from flows.adapters.executions_sql import SqlExecutions
from flows.adapters.outbox_sql import SqlOutbox
from flows.settings import read_policy
from slackbot.bot import Bot
from slackbot.directory import Directory
from slackbot.emergency import Emergency
from slackbot.late_messages import LateMessages
from slackbot.periodic_checks import PeriodicChecks
from slackbot.prefect_gateway import PrefectGateway
from slackbot.publisher import Publisher, slack_client
from slackbot.reconciler import Reconciler
from slackbot.redrawing import Redrawer
from slackbot.shared_reads import SharedReads

if TYPE_CHECKING:
    from slackbot.settings import BotSettings

SETTLE_SECONDS = 5.0
PERSON_SECONDS = 3.0  # a person waits for the answer; what Prefect has not taken by then, the reconciler brings to it


def build_bot(settings: BotSettings) -> tuple[Bot, tuple[PeriodicChecks, ...]]:
    """The bot and its threads, not started: one delivers what is decided, one says what Slack did not take, one finishes reverts
    (it needs Kubernetes alone)."""
    policy = read_policy(settings.policy_file)
    decision_log = SqlDecisionLog(settings.decision_log_url)
    client = slack_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
    publisher = Publisher(client, SqlOutbox(settings.decision_log_url), decision_log, policy, channel=settings.slack_channel)
    emergency = Emergency(kubeconfig=settings.kubeconfig, namespace=settings.namespace, name=settings.seldon_deployment)
    reconciler = Reconciler(
        decision_log,
        SqlExecutions(settings.decision_log_url),
        PrefectGateway(ui_url=settings.prefect_ui_url),
    )
    settling = PeriodicChecks("settling", {"settle": emergency.settle}, period_seconds=SETTLE_SECONDS)
    bot = Bot(
        client=client,
        policy=policy,
        decision_log=decision_log,
        publisher=publisher,
        directory=Directory(client),
        emergency=emergency,
        gateway=PrefectGateway(ui_url=settings.prefect_ui_url, call_seconds=PERSON_SECONDS),
        nudge=reconciler.nudge,
        redrawer=Redrawer(publisher),
        read=SharedReads(decision_log.read),
    )
    return bot, (reconciler, LateMessages(decision_log, publisher), settling)
