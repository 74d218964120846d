"""Who may do what: the table, groups that can and cannot be read, and what a refused person reads."""

from __future__ import annotations

import pytest

from flows.domain.errors import NotAuthorized
from flows.domain.policy import Policy
from slackbot.authorization import Permission, require

POLICY = Policy(promoters=("U0ANA", "S0PROMOTERS"), rollbackers=("U0CHI", "S0ONCALL"))
GROUPS = {"S0PROMOTERS": frozenset({"U0PAT"}), "S0ONCALL": frozenset({"U0OLE"})}
DECIDE, ROLL_BACK = Permission.DECIDE, Permission.ROLL_BACK


def may(permission: Permission, user: str, groups: dict[str, frozenset[str] | None] | None = None) -> bool:
    try:
        require(permission, user, POLICY, GROUPS if groups is None else groups)
    except NotAuthorized:
        return False
    return True


@pytest.mark.parametrize(
    ("user", "decides", "rolls_back"),
    [
        ("U0ANA", True, True),
        ("U0PAT", True, True),
        ("U0CHI", False, True),
        ("U0OLE", False, True),
        ("U0BEN", False, False),
        ("S0PROMOTERS", False, False),
        ("", False, False),
    ],
)
def test_the_policy_says_who_may(user: str, decides: bool, rolls_back: bool) -> None:  # noqa: FBT001 - a table
    is_named_group = user.startswith("S")
    assert may(DECIDE, user) is (decides or (is_named_group and user in POLICY.promoters))
    assert may(ROLL_BACK, user) is (rolls_back or (is_named_group and user in POLICY.promoters))


@pytest.mark.parametrize("groups", [{}, {"S0PROMOTERS": None, "S0ONCALL": None}])
def test_a_group_that_cannot_be_read_lets_nobody_in_but_people_named_directly_still_roll_back(
    groups: dict[str, frozenset[str] | None],
) -> None:
    assert not may(DECIDE, "U0PAT", groups)
    assert not may(ROLL_BACK, "U0OLE", groups)
    assert may(ROLL_BACK, "U0CHI", groups)
    assert may(DECIDE, "U0ANA", groups)


def refusal(permission: Permission, user: str, policy: Policy = POLICY) -> str:
    with pytest.raises(NotAuthorized) as refused:
        require(permission, user, policy, {})
    return str(refused.value)


def test_a_refusal_says_what_why_what_you_can_do_and_that_nothing_changed() -> None:
    text = refusal(DECIDE, "U0BEN")
    assert text.startswith("You cannot answer the verdict: only <@U0ANA> or <!subteam^S0PROMOTERS> may do that.")
    assert "Nothing has changed." in text
    assert "What you can do: ask <@U0ANA>" in text
    assert "Slack did not tell who is in <!subteam^S0PROMOTERS>" in text


def test_who_may_roll_back_is_told_so_when_they_may_not_decide() -> None:
    assert "What you can do: roll back" in refusal(DECIDE, "U0CHI")
    assert "roll back, with" not in refusal(DECIDE, "U0BEN")


def test_a_policy_that_names_nobody_lets_nobody_through() -> None:
    assert "the policy names nobody who may do that" in refusal(ROLL_BACK, "U0ANA", Policy())
