from __future__ import annotations

import pickle

import pytest

from flows.domain.errors import AlreadyDecided, Conflict, FraudABError, OutsideSystemError, PolicyInvalid, PreflightFailed


@pytest.mark.parametrize(
    "error",
    [
        OutsideSystemError("Kubernetes", "patching the traffic", retryable=True),
        Conflict("Kubernetes", "patching the traffic", retryable=False),
        PreflightFailed(["no predictor fraud-v2", "this account may not patch"]),
        PolicyInvalid("policy.toml", ["alpha: wrong", "foo is no setting"]),
        AlreadyDecided("somebody was first", {"id": 1}),
    ],
)
def test_an_error_survives_the_way_between_processes(error: FraudABError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
