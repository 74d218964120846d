"""Names of other people's making, short enough for a message. Only names lose their middle: numbers are never cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from slackbot.messages.block_kit import escape, plain

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest, Model
    from flows.domain.action_plan import ActionPlan
    from flows.domain.decision import DecisionRequest

NAME_CHARACTERS = 56
"""Two names and a question fit into a header, ..."""
NAME_BYTES = 96
"""... and a dozen, as they are sent to Slack, into a verdict message's 6 kB."""


def brief(name: str) -> str:
    """A name for people, not yet escaped; a long one without its middle.

    Example:
        >>> brief("fraud_v2")
        'fraud_v2'
        >>> brief("a model of " * 20 + "fraud")
        'a model of a model of a mod…a model of a model of fraud'
    """
    seen = text = plain(name)
    half = len(seen) // 2
    while half and not _fits(text):
        half -= 1
        text = f"{seen[:half]}…{seen[len(seen) - half :]}"
    return text


def _fits(text: str) -> bool:
    sent = json.dumps(escape(text), ensure_ascii=False).encode()
    return len(text) <= NAME_CHARACTERS and len(sent) <= NAME_BYTES


def with_short_names(request: DecisionRequest) -> DecisionRequest:
    """The question to be shown: models and predictors by brief names, in the plans too. Its id stays what it is."""
    names = _shortened(*request.test.models)
    return replace(
        request,
        test=named_briefly(request.test),
        plan=_renamed(request.plan, names),
        rollback_plan=_renamed(request.rollback_plan, names),
    )


def named_briefly(test: ABTest) -> ABTest:
    return replace(test, baseline=_brief_model(test.baseline), candidate=_brief_model(test.candidate))


def _brief_model(model: Model) -> Model:
    return replace(model, name=brief(model.name), predictor=brief(model.predictor))


def _shortened(*models: Model) -> Mapping[str, str]:
    """What has to be replaced, the longest first: one name may contain another."""
    names = {name for model in models for name in (model.name, model.predictor) if len(brief(name)) < len(plain(name))}
    return {name: brief(name) for name in sorted(names, key=len, reverse=True)}


def _renamed(plan: ActionPlan, names: Mapping[str, str]) -> ActionPlan:
    def renamed(text: str) -> str:
        for name, short in names.items():
            text = text.replace(name, short)
        return text

    return replace(
        plan,
        changes=tuple(replace(one, before=renamed(one.before), after=renamed(one.after)) for one in plan.changes),
    )
