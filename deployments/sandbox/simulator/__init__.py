"""A seeded world of card transactions with two real models in an A/B test: the demo's and the tests' input."""

from deployments.sandbox.simulator.scenarios import SCENARIOS, Scenario
from deployments.sandbox.simulator.simulated_test import SimulatedTest, simulate_test
from deployments.sandbox.simulator.timeline import TEST_START
from deployments.sandbox.simulator.training import TrainedModel

__all__ = ["SCENARIOS", "TEST_START", "Scenario", "SimulatedTest", "TrainedModel", "simulate_test"]
