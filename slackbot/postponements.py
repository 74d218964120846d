"""When a postponement of the policy ends: "4 hours", "tomorrow 09:00", "next monday 09:00", "250 frauds". Pure."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def needs_time_zone(words: str) -> bool:
    """Whether the words name a time of day, which is different for each person."""
    return ":" in words


def wanted_frauds(words: str) -> int | None:
    """The number of "250 frauds"; None: the words name a time."""
    number, _, unit = words.partition(" ")
    return int(number) if unit in ("fraud", "frauds") else None


def moment(words: str, now: datetime, zone: ZoneInfo) -> datetime:
    """The moment (UTC) that the words mean to a person in `zone` at `now`.

    Args:
        words: as the policy allows them, and a time.
        now: an aware time.

    Example:
        >>> moment("tomorrow 09:00", datetime(2026, 3, 28, 12, tzinfo=UTC), ZoneInfo("Europe/Berlin")).isoformat()
        '2026-03-29T07:00:00+00:00'
    """
    if not needs_time_zone(words):
        number, unit = words.split()
        return now.astimezone(UTC) + timedelta(**{unit.removesuffix("s") + "s": int(number)})
    day, clock = words.rsplit(" ", 1)
    local = now.astimezone(zone)
    days = 1 if day == "tomorrow" else (DAYS.index(day.removeprefix("next ")) - local.weekday() - 1) % 7 + 1
    wanted = datetime.combine(local.date() + timedelta(days=days), time.fromisoformat(clock), tzinfo=zone)
    return wanted.astimezone(UTC)
