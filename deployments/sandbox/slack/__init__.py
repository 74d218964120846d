"""A Slack workspace on the loopback that behaves to a Bolt app as Slack does, with a page on which people press its buttons."""

from __future__ import annotations

from deployments.sandbox.slack.delivery import Outcome
from deployments.sandbox.slack.interactions import NothingThere
from deployments.sandbox.slack.people import SandboxUser
from deployments.sandbox.slack.server import SandboxSlack

__all__ = ["NothingThere", "Outcome", "SandboxSlack", "SandboxUser"]
