"""Start an A/B test: check everything, then the SeldonDeployment, the registry and the run that takes its first look.

Nothing is changed before all is checked. The deployment comes first, in one patch, and carries the test from then on: whatever
fails after it, the same start finds it there, goes on with what is missing, and ends in the same state.

Steps of the flows are imported where they are used: the demo imports this module before it knows which Prefect it will use.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from flows.deployment_names import FINALIZE, FINALIZING_FLOW
from flows.domain.ab_test import ABTest, Arm
from flows.domain.start_plan import begun, first_look_at, plan_start, refuse, unfit_initiator, unfit_registry, unfit_times

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from flows.domain.action_plan import RegistryEntry
    from flows.domain.policy import Policy
    from flows.domain.serving_state import ServingState
    from flows.ports import Serving
    from flows.wiring import Systems
    from slackbot.prefect_gateway import KnownRun, PrefectGateway

_TEST = TypeAdapter(ABTest)


@dataclass(frozen=True, slots=True)
class Start:
    """A start that was checked and may be made.

    Attributes:
        test: without its MLflow run where that is still to be opened.
        before, after: the deployment as it is, and as it will be (the server was asked); the same when it was patched before.
        run: the run that takes the first look, when it is scheduled already.
    """

    test: ABTest
    experiment: str
    before: ServingState
    after: ServingState
    registry: tuple[RegistryEntry, ...]
    first_look_at: datetime
    run: KnownRun | None

    @property
    def is_begun(self) -> bool:
        """Whether the deployment carries the test already."""
        return self.before is self.after

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do: the run is the last thing that a start makes."""
        return self.is_begun and self.run is not None


def start_ab_test(serving: Serving, test: ABTest, policy: Policy) -> ServingState:
    """Write the baseline with its spec as the rollback point and give each arm its share; a shadow stays one.

    Raises:
        Superseded: an operation or a revert is open, or a model has no predictor.
        StartRefused: the deployment or the policy does not fit the test.
        Conflict: somebody changed the deployment at the same time; look at it and start again.
    """
    state = serving.read()
    return serving.apply(state, plan_start(state, test, policy))


def prepare_start(systems: Systems, gateway: PrefectGateway, test: ABTest, experiment: str) -> Start:
    """Check everything that a start needs and change nothing.

    Args:
        test: with an empty `experiment_run_id` when its run is to be opened in `experiment`.

    Raises:
        StartRefused: this test must not start; everything that was found is listed.
        Superseded: the deployment is being changed.
        OutsideSystemError: a system does not answer, or something that the test names does not exist.
    """
    state, run = systems.serving.read(), gateway.find_run(FINALIZE, first_look_key(test))
    refuse(_used_or_busy(systems, gateway, test, run))
    registry = tuple(systems.registry.entry(model) for model in test.models)
    found = begun(state, test)
    if found is None:
        after = _rehearsed(systems, state, test, registry)
    else:
        test, after = found, state
    return Start(test, experiment, state, after, registry, first_look_at(test, systems.policy), run)


def carry_out_start(systems: Systems, gateway: PrefectGateway, start: Start) -> Start:
    """Make the start, or what is missing of it. Returns it as it stands then: complete.

    Raises:
        Superseded, Conflict: somebody changed the deployment since it was checked, so it was left alone.
        OutsideSystemError: a system failed; what was done stays, and the next start goes on from there.
    """
    from flows.preflight import note_artifacts
    from flows.registry_steps import follow_what_serves

    test, state = start.test, start.before
    if not start.is_begun:
        test = _with_run(systems, test, start.experiment)
        state = systems.serving.apply(state, plan_start(state, test, systems.policy))
    if start.run is None:
        note_artifacts(test)
        follow_what_serves(test)
    parameters: dict[str, Any] = {"test": _TEST.dump_python(test, mode="json")}
    gateway.start_run(FINALIZE, parameters, idempotency_key=first_look_key(test), scheduled_time=start.first_look_at)
    registry = tuple(systems.registry.entry(model) for model in test.models)
    run = gateway.find_run(FINALIZE, first_look_key(test))
    return replace(start, test=test, before=state, after=state, registry=registry, run=run)


def first_look_key(test: ABTest) -> str:
    """The idempotency key of the run that takes the test's first look."""
    return f"first-look-{test.test_id}"


def _with_run(systems: Systems, test: ABTest, experiment: str) -> ABTest:
    if test.experiment_run_id:
        return test
    facts = {f"fraud-ab.{arm}": f"{test.model(arm).name}/{test.model(arm).version}" for arm in Arm}
    return replace(test, experiment_run_id=systems.registry.open_test_run(test.test_id, experiment, facts))


def _used_or_busy(systems: Systems, gateway: PrefectGateway, test: ABTest, run: KnownRun | None) -> Iterable[str]:
    """The test's id belongs to one test for ever, and the deployment to one unfinished test."""
    if run is not None and run.is_over:
        yield f"the run of {test.test_id} has ended as {run.state} ({run.url}): choose another test_id"
    elif run is None and (decided := systems.decision_log.decisions(test.test_id)):
        yield f"{decided[0].decision_id} was asked already: choose another test_id"
    runs = (parameters.get("test") or {} for parameters in gateway.unfinished_parameters(FINALIZING_FLOW))
    unfinished = {str(known["test_id"]) for known in runs if known}
    unfinished |= {one.request.test.test_id for one in systems.decision_log.decisions() if one.consumed_at is None}
    for other in sorted(unfinished - {test.test_id}):
        yield f"the test {other} is not finished: decide it first, or cancel its run of {FINALIZING_FLOW} in Prefect"


def _rehearsed(systems: Systems, state: ServingState, test: ABTest, registry: tuple[RegistryEntry, ...]) -> ServingState:
    """The deployment as the start would leave it, by a dry run on the server."""
    from flows.preflight import obstacles

    change = plan_start(state, test, systems.policy)
    unfit = [*unfit_initiator(test, systems.policy), *unfit_registry(test, registry)]
    unfit += unfit_times(state, test, systems.decision_log.now())
    refuse((*unfit, *_unfit_systems(systems, test), *_unlike_registered(systems, state, test)))
    if test.experiment_run_id:
        systems.registry.require_run(test.experiment_run_id)
    after = systems.serving.apply(state, change, dry_run=True)
    refuse(obstacles(after, test))
    return after


def _unlike_registered(systems: Systems, state: ServingState, test: ABTest) -> Iterable[str]:
    """What a promotion would find after weeks is better found now: another model behind a predictor than the registered one."""
    from flows.preflight import compare_loaded, mistaken_identity

    for model in test.models:
        with tempfile.TemporaryDirectory(prefix="model-") as folder:
            files = systems.registry.artifact_files(model, Path(folder))
            provenance = systems.registry.provenance(model)
            yield from mistaken_identity(model, state, files, provenance)
            yield from compare_loaded(model, state, files, provenance.source, systems.archive).problems


def _unfit_systems(systems: Systems, test: ABTest) -> Iterable[str]:
    for what in systems.serving.missing_permissions():
        yield f"this account may not {what}: apply k8s/base/promoter-role.yaml"
    readiness = systems.serving.readiness()
    for model in test.models:
        if not readiness.is_up(model.predictor):
            yield f"the pods of {model.predictor} are not ready ({readiness}): Seldon would move no traffic"
    if systems.policy.is_shadow and systems.policy.required_telemetry and not systems.settings.prometheus_url:
        yield (
            "how long a shadow's requests take and whether they fail is in Prometheus alone: set FRAUD_AB_PROMETHEUS_URL, "
            "or required_telemetry = [] in the policy"
        )
