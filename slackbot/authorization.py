"""Who may do what. Pure: the members of user groups come in as an argument.

Towards safety one named person is enough, whatever else is down. Away from safety only the promoters count, and a user group that
cannot be read counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from flows.domain.errors import NotAuthorized
from slackbot.messages.block_kit import mention

if TYPE_CHECKING:
    from flows.domain.policy import Policy

Groups = Mapping[str, frozenset[str] | None]
"""Members by user group id; None: Slack could not tell."""


class Permission(StrEnum):
    """What a person wants to do."""

    DECIDE = "answer the verdict"
    ROLL_BACK = "roll back"
    INVESTIGATE = "start an investigation"


def allowed_ids(permission: Permission, policy: Policy) -> tuple[str, ...]:
    """The user and user group ids that the policy names for this."""
    match permission:
        case Permission.DECIDE:
            return policy.promoters
        case Permission.ROLL_BACK | Permission.INVESTIGATE:
            return tuple(dict.fromkeys((*policy.rollbackers, *policy.promoters)))
    assert_never(permission)


def is_group(slack_id: str) -> bool:
    return slack_id.startswith("S")


def require(permission: Permission, user_id: str, policy: Policy, groups: Groups) -> None:
    """Let a person through or say why not.

    Args:
        user_id: who pressed.
        groups: the members of the groups that the policy names; one that is missing or None lets nobody in.

    Raises:
        NotAuthorized: with what was refused, why, and what this person can do.
    """
    allowed = allowed_ids(permission, policy)
    if user_id in allowed or any(user_id in (groups.get(one) or ()) for one in allowed if is_group(one)):
        return
    unreadable = [one for one in allowed if is_group(one) and groups.get(one) is None]
    raise NotAuthorized(_refusal(permission, user_id, policy, groups, unreadable))


def _refusal(permission: Permission, user_id: str, policy: Policy, groups: Groups, unreadable: list[str]) -> str:
    allowed = allowed_ids(permission, policy)
    who = f"only {mention(allowed)} may do that" if allowed else "the policy names nobody who may do that"
    sentences = [f"You cannot {permission}: {who}.", "Nothing has changed."]
    if unreadable:
        sentences.insert(
            1, f"Slack did not tell who is in {mention(unreadable)}, so until it does only people named directly count."
        )
    if permission is Permission.DECIDE and _may(Permission.ROLL_BACK, user_id, policy, groups):
        sentences.append("What you can do: roll back, with *Force rollback…* or `/fraud-rollback`.")
    elif allowed:
        sentences.append(f"What you can do: ask {mention(allowed)}, or look at the links in the message.")
    else:
        sentences.append("What you can do: ask who maintains the policy to name people there.")
    return " ".join(sentences)


def _may(permission: Permission, user_id: str, policy: Policy, groups: Groups) -> bool:
    try:
        require(permission, user_id, policy, groups)
    except NotAuthorized:
        return False
    return True
