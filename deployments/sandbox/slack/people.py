"""Who and what is in the sandbox's workspace before anybody has said anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from deployments.sandbox.slack.block_kit import Json

TEAM_ID = "T0SANDBOX"
TEAM_DOMAIN = "fraud-sandbox"
APP_ID = "A0FRAUDAB"
BOT_ID = "B0FRAUDAB"
BOT_USER_ID = "U0FRAUDAB"


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """A person of the workspace; `tz` is an IANA zone, in which the page shows dates to them."""

    id: str
    name: str
    real_name: str
    tz: str = "Europe/Berlin"
    is_bot: bool = False

    @property
    def direct_channel(self) -> str:
        """The conversation between this person and the app."""
        return f"D{self.id[1:]}"

    def as_slack(self) -> Json:
        now = datetime.now(UTC).astimezone(ZoneInfo(self.tz))
        offset = now.utcoffset()
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "name": self.name,
            "deleted": False,
            "real_name": self.real_name,
            "tz": self.tz,
            "tz_label": now.tzname(),
            "tz_offset": int(offset.total_seconds()) if offset else 0,
            "profile": {"real_name": self.real_name, "display_name": self.name, "team": TEAM_ID},
            "is_admin": False,
            "is_owner": False,
            "is_bot": self.is_bot,
            "is_restricted": False,
            "is_app_user": False,
            "updated": 0,
        }


@dataclass(frozen=True, slots=True)
class SandboxGroup:
    """A user group; `members` are user ids."""

    id: str
    handle: str
    members: tuple[str, ...]

    def as_slack(self, *, with_users: bool) -> Json:
        users: Json = {"users": list(self.members)} if with_users else {}
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "is_usergroup": True,
            "name": self.handle,
            "handle": self.handle,
            "user_count": len(self.members),
            "date_delete": 0,
            **users,
        }


@dataclass(frozen=True, slots=True)
class SandboxChannel:
    """A public channel that everybody and the app have joined."""

    id: str
    name: str

    def as_slack(self) -> Json:
        direct = self.id.startswith("D")
        named: Json = {"user": f"U{self.id[1:]}"} if direct else {"name": self.name, "name_normalized": self.name}
        return {
            "id": self.id,
            "is_channel": not direct,
            "is_im": direct,
            "is_private": direct,
            "is_archived": False,
            "is_member": True,
            "context_team_id": TEAM_ID,
            **named,
        }


DEFAULT_USERS = (
    SandboxUser("U0ANA", "ana", "Ana Costa", "Europe/Lisbon"),
    SandboxUser("U0BEN", "ben", "Ben Okafor", "America/New_York"),
    SandboxUser("U0CHI", "chiara", "Chiara Rossi", "Europe/Rome"),
)
DEFAULT_GROUPS = (
    SandboxGroup("S0PROMOTERS", "fraud-promoters", ("U0ANA",)),
    SandboxGroup("S0ONCALL", "fraud-on-call", ("U0CHI",)),
)
DEFAULT_CHANNELS = (SandboxChannel("C0FRAUD", "fraud-models"), SandboxChannel("C0BUSINESS", "fraud-business"))
APP_USER = SandboxUser(BOT_USER_ID, "fraud_ab", "Fraud A/B", "Etc/UTC", is_bot=True)
