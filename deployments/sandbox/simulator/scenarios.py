"""The scenarios of the demo: each is a cause in the world, in the training or in the serving; the outcome follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from deployments.sandbox.simulator.training import CANDIDATE, OVERFITTED_CANDIDATE, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story of an A/B test; every field but the first two is a cause.

    `cards_share`: the share (0..1) of the cards that take part.
    `stale_gateway`: one of the gateways still splits 50/50.
    `cold_risk_store`: the candidate's look-up of the terminal's risk is slow in the busy hours.
    `unconverted_issuers`: the candidate's online pipeline keeps the usual amounts of two of the five issuers' cards in cents.
    """

    name: str
    cause: str
    candidate: Recipe = CANDIDATE
    cards_share: float = 1.0
    stale_gateway: bool = False
    cold_risk_store: bool = False
    unconverted_issuers: bool = False


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(
                "win",
                "Fraud through terminals is new; only the candidate was trained on it and sees the terminals' chargebacks.",
            ),
            Scenario(
                "lose",
                "The candidate memorised places: large trees, hardly regularised, and a holdout from its own training days.",
                candidate=OVERFITTED_CANDIDATE,
            ),
            Scenario("inconclusive", "As in a win, but only 8 % of the cards take part in the test.", cards_share=0.08),
            Scenario("split-bug", "One gateway still splits its payments 50/50 instead of 80/20.", stale_gateway=True),
            Scenario(
                "slow-candidate",
                "The candidate's store of terminal risks is cold in the busy hours, every day.",
                cold_risk_store=True,
            ),
            Scenario(
                "drifted",
                "The candidate's online pipeline holds the usual amounts of two issuers' cards in cents; training had units.",
                unconverted_issuers=True,
            ),
        )
    }
)
