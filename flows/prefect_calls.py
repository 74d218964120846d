"""Calls of Prefect's API that do not wait: its own retries pause for a minute in all, and what is asked here is asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.context import SettingsContext


def no_retries(request_seconds: float) -> SettingsContext:
    """A context in which each call of Prefect's API is made once and may take so long.

    `prefect.settings.temporary_settings` would do the same, but it reads all settings anew, which takes a tenth of a second.
    """
    from prefect.context import SettingsContext, get_settings_context

    context = get_settings_context()
    settings = context.settings.model_copy(
        update={
            "client": context.settings.client.model_copy(update={"max_retries": 0}),
            "api": context.settings.api.model_copy(update={"request_timeout": request_seconds}),
        }
    )
    return SettingsContext(profile=context.profile, settings=settings)
