"""Every name that Slack sends back to the app: the manifest, the messages and the routes all take it from here."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """The buttons: of a verdict message, and `REVERT` of a breach after a promotion."""

    CONFIRM = "verdict_confirm"
    POSTPONE = "verdict_postpone"
    FORCE_ROLLBACK = "verdict_force_rollback"
    REVERT = "breach_revert"


class View(StrEnum):
    """The modals that can be submitted (`callback_id`)."""

    CONFIRM = "confirm_verdict"
    POSTPONE = "postpone_verdict"
    FORCE_ROLLBACK = "force_rollback"
    FRAUD_ROLLBACK = "fraud_rollback"


class Command(StrEnum):
    """The slash commands."""

    FRAUD_ROLLBACK = "/fraud-rollback"
    FRAUD_STATUS = "/fraud-status"
    FRAUD_INVESTIGATE = "/fraud-investigate"


HOME_OPENED = "app_home_opened"
"""The event: somebody looks at the app's Home."""


class Field(StrEnum):
    """The inputs of modals; each is the `action_id` and the `block_id` at once."""

    REASON = "reason"
    UNTIL = "until"
    CAUSE = "cause"
    NOTE = "note"
