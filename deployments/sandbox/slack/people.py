"""Who and what is in the sandbox's workspace before anybody has said anything."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def direct_channel(self) -> str:
        """The conversation between this person and the app."""
        return f"D{self.id[1:]}"


@dataclass(frozen=True, slots=True)
class SandboxGroup:
    """A user group; `members` are user ids."""

    id: str
    handle: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxChannel:
    """A public channel that everybody and the app have joined, or one person's conversation with the app."""

    id: str
    name: str


DEFAULT_USERS = (
    SandboxUser("U0ANA", "ana", "Ana Costa", "Europe/Lisbon"),
    SandboxUser("U0BEN", "ben", "Ben Okafor", "America/New_York"),
    SandboxUser("U0CHI", "chiara", "Chiara Rossi", "Europe/Rome"),
)
GROUPS = (
    SandboxGroup("S0PROMOTERS", "fraud-promoters", ("U0ANA",)),
    SandboxGroup("S0ONCALL", "fraud-on-call", ("U0CHI",)),
)
CHANNELS = (SandboxChannel("C0FRAUD", "fraud-models"), SandboxChannel("C0BUSINESS", "fraud-business"))
