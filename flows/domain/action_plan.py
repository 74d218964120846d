"""The exact changes before they are made: the diff that a person confirms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from flows.domain.ab_test import ABTest, Arm
from flows.domain.serving_state import ServingState, describe_serving, only_these


class Stage(StrEnum):
    """Where a model stands in the registry."""

    PRODUCTION = "Production"
    STAGING = "Staging"
    ARCHIVED = "Archived"
    NONE = "None"


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One model version as the registry has it."""

    name: str
    version: str
    stage: Stage
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        aliases = f" ({', '.join(sorted(self.aliases))})" if self.aliases else ""
        return f"{self.name} v{self.version}: {self.stage}{aliases}"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the diff: what changes, from what, to what, in words."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """All that putting `target` in charge will change. `traffic_steps`: per cent to the target, the last is 100."""

    target: Arm
    traffic_steps: tuple[int, ...]
    changes: tuple[Change, ...]


def describe_traffic(traffic: Mapping[str, int]) -> str:
    """`fraud-v1 80 %, fraud-v2 20 %`."""
    return ", ".join(f"{name} {share} %" for name, share in traffic.items())


def plan_model_in_charge(
    test: ABTest, target: Arm, serving: ServingState, registry: tuple[RegistryEntry, ...], traffic_steps: tuple[int, ...]
) -> ActionPlan:
    """What changes when `target` takes all traffic.

    Args:
        serving: the deployment as read now.
        registry: both models' entries as read now.
        traffic_steps: the policy's steps in per cent for a promotion; the baseline always takes all traffic at once.
    """
    winner, loser = test.model(target), test.model(target.other)
    after = only_these(serving, {winner.predictor: 100})
    stages = {
        (winner.name, winner.version): (Stage.PRODUCTION, "champion"),
        (loser.name, loser.version): (Stage.ARCHIVED, "previous" if target is Arm.CANDIDATE else ""),
    }
    changes = [Change("traffic", describe_serving(serving), describe_traffic(after))]
    for entry in registry:
        stage, alias = stages[entry.name, entry.version]
        wanted = f"{entry.name} v{entry.version}: {stage}" + (f" ({alias})" if alias else "")
        changes.append(Change("registry", str(entry), wanted))
    changes.append(Change("archive", "", f"{loser} is kept in the archive with its checksums"))
    return ActionPlan(
        target=target,
        traffic_steps=traffic_steps if target is Arm.CANDIDATE else (100,),
        changes=tuple(changes),
    )
