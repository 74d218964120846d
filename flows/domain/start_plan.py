"""What the start of a test changes, when its first look is due, and every reason not to start it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flows.domain.action_plan import RegistryEntry, Stage
from flows.domain.errors import StartRefused
from flows.domain.serving_state import ServingChange, ServingState, describe_serving, start_test

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.domain.ab_test import ABTest
    from flows.domain.policy import Policy

CLOCKS_DIFFER = timedelta(minutes=5)
SPLIT_IS_NEW = timedelta(hours=1)
LAST_ROWS_ARRIVE = timedelta(hours=1)


def plan_start(state: ServingState, test: ABTest, policy: Policy) -> ServingChange:
    """Rollback point, split and the test's name in one change. A candidate that is a shadow stays one: nobody is served by it.

    Raises:
        Superseded: an operation or a revert is open, or a model has no predictor.
        StartRefused: the deployment or the policy does not fit the test.
    """
    wanted = _traffic(state, test, policy)
    change = start_test(state, test, wanted)
    refuse((*_unfit_deployment(state, test, wanted), *_unfit_split(state, test, policy)))
    return change


def _traffic(state: ServingState, test: ABTest, policy: Policy) -> dict[str, int]:
    baseline, candidate = (model.predictor for model in test.models)
    split = {baseline: policy.traffic.baseline, candidate: policy.traffic.candidate}
    shares = {baseline: 100} if state.is_shadow(candidate) else split
    return {name: shares.get(name, 0) for name in state.traffic}


def _unfit_deployment(state: ServingState, test: ABTest, wanted: dict[str, int]) -> Iterable[str]:
    if not state.serves_alone(test.baseline.predictor) and state.traffic != wanted:
        yield f"{state.name} serves {describe_serving(state)}: put all traffic on the baseline {test.baseline.predictor} first"
    for entry in state.unrecorded:
        yield f"the emergency revert of {entry['at']} by {entry['actor']} is still being recorded: start the test after that"


def _unfit_split(state: ServingState, test: ABTest, policy: Policy) -> Iterable[str]:
    candidate, share = test.candidate.predictor, policy.traffic.candidate
    if state.is_shadow(candidate) and not policy.is_shadow:
        yield (
            f"{candidate} is a shadow and serves nobody, but the policy would judge the test by a share of {share} %: "
            "set [traffic] baseline = 100, candidate = 0 in the policy"
        )
    if policy.is_shadow and not state.is_shadow(candidate):
        yield f"the policy gives the candidate no traffic, but {candidate} is no shadow: it would score nothing"


def unfit_registry(test: ABTest, entries: tuple[RegistryEntry, ...]) -> Iterable[str]:
    """What the registry says against a test: its candidate is in charge already.

    Args:
        entries: both models' as read now.
    """
    for entry in entries:
        if (entry.name, entry.version) == (test.candidate.name, test.candidate.version) and entry.stage is Stage.PRODUCTION:
            yield f"the registry has the candidate in charge ({entry}): baseline and candidate may have been exchanged"


def unfit_initiator(test: ABTest, policy: Policy) -> Iterable[str]:
    """What would keep anybody from promoting in the end: the policy bars the initiator, and nobody says who that is."""
    if not policy.initiator_may_promote and not test.initiator:
        yield (
            "the policy does not let whoever starts a test promote its candidate (initiator_may_promote = false): "
            'say who that is with initiator = "U…", your Slack user id, in the file of the test'
        )


def unfit_times(state: ServingState, test: ABTest, now: datetime) -> Iterable[str]:
    """What speaks against the start of exposure: it is to come, or before anybody was served by the candidate.

    Args:
        now: the decision log's clock (UTC), as every evaluation uses it.
    """
    if test.started_at > now + CLOCKS_DIFFER:
        yield f"started_at {test.started_at:%Y-%m-%d %H:%M} UTC is to come: leave it out, the test starts when its traffic does"
    candidate = test.candidate.predictor
    if test.started_at < now - SPLIT_IS_NEW and not (state.traffic.get(candidate, 0) or state.is_shadow(candidate)):
        yield (
            f"started_at {test.started_at:%Y-%m-%d %H:%M} UTC is past, but {candidate} gets no traffic yet: leave it out, "
            "the test starts when its traffic does"
        )


def first_look_at(test: ABTest, policy: Policy) -> datetime:
    """When (UTC) the first planned look can be evaluated: its labels have matured, and the last rows have had time to arrive."""
    exposed_and_labelled = timedelta(days=policy.looks[0] + policy.label_maturity_days)
    return test.started_at + exposed_and_labelled + timedelta(hours=policy.feedback_delay_hours) + LAST_ROWS_ARRIVE


def begun(state: ServingState, test: ABTest) -> ABTest | None:
    """This test as the deployment carries it, when an earlier start has made its patch; else None.

    Raises:
        StartRefused: the deployment carries another test under this id, or this one, but its candidate was taken off since.
    """
    found = state.test
    if found is None or found.test_id != test.test_id:
        return None
    if found.models != test.models:
        models = " and ".join(f"{model} on {model.predictor}" for model in found.models)
        raise StartRefused(f"the test {test.test_id} was started already, with {models}: choose another test_id")
    candidate = found.candidate.predictor
    if not (state.traffic.get(candidate, 0) or state.is_shadow(candidate)):
        now = describe_serving(state)
        raise StartRefused(
            f"the test {test.test_id} was started and has ended: {state.name} serves {now}; choose another test_id"
        )
    return found


def refuse(problems: Iterable[str]) -> None:
    """Raises `StartRefused` with all of them, if there are any."""
    found = list(problems)
    if found:
        raise StartRefused("; ".join(found))
