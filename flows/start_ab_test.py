"""Start an A/B test on the SeldonDeployment: the rollback point and the traffic split in one patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.ab_test import Arm
from flows.domain.serving_state import start_test

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.policy import Policy
    from flows.domain.serving_state import ServingState
    from flows.ports import Serving


def start_ab_test(serving: Serving, test: ABTest, policy: Policy) -> ServingState:
    """Write the baseline with its spec as the rollback point and give each arm its share.

    Raises:
        Superseded: an operation or a revert is open, or a model of the test has no predictor.
        Conflict: somebody changed the deployment at the same time; look at it and start again.
    """
    state = serving.read()
    shares = {
        test.model(Arm.BASELINE).predictor: policy.traffic.baseline,
        test.model(Arm.CANDIDATE).predictor: policy.traffic.candidate,
    }
    change = start_test(state, test, {name: shares.get(name, 0) for name in state.traffic})
    return serving.apply(state, change)
