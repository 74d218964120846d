"""Keep the baseline in charge after a decision, and catch up after an emergency revert.

Towards safety nothing is compensated: the traffic goes to the baseline first, and what fails after that is repeated. An emergency
that comes in between has done the first part already, so the rest goes on without opening an operation of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.runtime import flow_run

from flows.documents import (
    publish_lifecycle,
    revert_dossier,
    store_documents,
    store_dossier,
    update_manifest,
    write_lifecycle_page,
)
from flows.domain.ab_test import Arm
from flows.domain.action_plan import Change
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError, Superseded
from flows.domain.evidence import plain
from flows.domain.serving_state import acknowledge_recorded, describe_serving, model_uri
from flows.investigation_start import investigate_if_lost, start_investigation
from flows.production_steps import (
    ACCEPTED,
    append_record,
    archive_model,
    begin_keeping,
    change_serving,
    close,
    record,
    shift,
    verify,
)
from flows.promote_candidate import stop_superseded
from flows.registry_steps import follow_what_serves, put_in_charge, registry_in_words
from flows.stakeholders import tell_stakeholders, tell_stakeholders_of_reverts
from flows.steps import step
from flows.telling import announce, describe_failure, show_in_prefect, tell, tell_trouble
from flows.watch import await_arrival, removed_in_words
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.ab_test import Model
    from flows.domain.decision import Decision
    from flows.domain.serving_state import ServingState

BASELINE_KEPT = "baseline_kept"


def keep_baseline(decision_id: str) -> str:
    """Carry out a decision for the baseline inside a flow run; executed again, it continues.

    Returns:
        `baseline_kept`, or `superseded` when a newer change came first and the baseline does not serve alone.

    Raises:
        OutsideSystemError: a step failed; the traffic is where the message in the thread says; retry the run.
    """
    attempt = 2 * flow_run.run_count
    try:
        try:
            archive, epoch = _put_baseline_in_charge(decision_id, attempt)
        except Superseded:  # by an emergency, maybe: then it has done the first part, and the rest is still to do
            archive, epoch = _put_baseline_in_charge(decision_id, attempt + 1)
    except Superseded as error:
        return stop_superseded(decision_id, str(error))
    except Exception as error:
        why = describe_failure(error)
        tell_trouble(
            decision_id, "not-finished", why, f"keeping the baseline is not finished: {why}. It is tried again until it is"
        )
        raise
    record(decision_id, RecordKind.BASELINE_KEPT, {"archive": archive}, epoch)
    investigate_if_lost(decision_id, RecordKind.BASELINE_KEPT)
    tell_stakeholders(decision_id, RecordKind.BASELINE_KEPT)
    store_documents(decision_id, RecordKind.BASELINE_KEPT)
    publish_lifecycle(decision_id)
    update_manifest(decision_id)
    return BASELINE_KEPT


def _put_baseline_in_charge(decision_id: str, attempt: int) -> tuple[dict[str, Any], int]:
    """Returns the receipt of the candidate's archive and the epoch at which the baseline was in charge."""
    opening = begin_keeping(decision_id, attempt)
    epoch: int | None = opening["epoch"]
    if opening["outcome"] != ACCEPTED:
        if epoch is not None:
            shift(decision_id, Arm.BASELINE, epoch, 100)
        verify(decision_id, Arm.BASELINE, epoch, 100)
        put_in_charge(decision_id, Arm.BASELINE, epoch)
    archive = _archive_candidate(decision_id)
    if opening["outcome"] != ACCEPTED and epoch is not None:
        return archive, close(decision_id, epoch)
    return archive, opening["ended"]


def _archive_candidate(decision_id: str) -> dict[str, Any]:
    """A candidate whose artifacts are broken, maybe the very reason why it lost, must not keep the operation open."""
    try:
        return archive_model(decision_id, Arm.CANDIDATE)
    except OutsideSystemError as error:
        tell(decision_id, "not-archived", f"the candidate's artifacts could not be archived: {error}", also_to_channel=True)
        return {"failed": str(error)}


@flow(name="rollback-to-baseline", persist_result=True)
def rollback_to_baseline(revert_id: str, actor: str, reason: str) -> list[str]:
    """Catch up after an emergency revert of the traffic: registry, records, page, notice. It carries no target and may run late.

    Args:
        revert_id: the id that the revert was made with.
        actor: who reverted.
        reason: why.

    Returns:
        both models as the registry has them, empty when no decision tells which models are meant.
    """
    _restore_artifacts(revert_id)
    recorded = record_reverts(revert_id)
    tell_revert(revert_id, actor, reason)
    tell_stakeholders_of_reverts(recorded)
    see_it_arrive(revert_id)
    registry = follow_after_revert(revert_id)
    page_after_revert(revert_id)
    document_reverts(revert_id, recorded)
    update_manifest(revert_id, is_decision=False)
    for decision_id in find_decisions(revert_id, recorded):
        start_investigation(decision_id)
    acknowledge(revert_id, recorded)
    return registry


def _restore_artifacts(revert_id: str) -> None:
    """First of all, since a baseline that is started again waits for nothing else; and it holds nothing up."""
    try:
        said = restore_artifacts(revert_id)
    except OutsideSystemError as error:
        said = (
            f"the baseline's artifacts could not be restored from the archive: {error}. If its pods do not start, do it by hand"
        )
    tell_artifacts(revert_id, said)


@step("Restore the baseline's artifacts")
def restore_artifacts(revert_id: str) -> str:
    """Put back what is missing where the baseline's predictor looks for it, if it has to be started again.

    Returns:
        what was restored, in words; empty when there was nothing to do.

    Raises:
        OutsideSystemError: the archive is not whole, or something else lies at that place.
    """
    del revert_id  # part of the step's key
    state = systems().serving.read()
    baseline, uri = _baseline_that_starts(state), model_uri((state.revert_to or {}).get("spec"))
    if baseline is None:
        return ""
    if not uri.startswith("s3://"):
        return (
            f"{baseline} is started again from {uri or 'its image'}: only artifacts at an s3:// address can be restored from here"
        )
    restored = systems().archive.put_back(baseline, uri)
    return (
        f"{restored} missing files of {baseline} are back at {uri}; all are as they were archived (SHA-256)" if restored else ""
    )


@step("Say what became of the artifacts")
def tell_artifacts(revert_id: str, said: str) -> None:
    """In the thread of the test's latest decision and in the channel, if there is something to say."""
    if said:
        _tell_latest(f"revert-{revert_id}-artifacts", said)


def _baseline_that_starts(state: ServingState) -> Model | None:
    """The model of the predictor that a revert has restored and that takes no traffic yet."""
    point = (state.revert_to or {}).get("predictor")
    is_baseline = state.test is not None and state.test.baseline.predictor == point
    return state.test.baseline if state.test and state.intent and is_baseline else None


@step("See the traffic arrive")
def see_it_arrive(revert_id: str) -> str:
    """The patch is what Kubernetes accepted; only the router says what is served. Moves the traffic to a baseline that had to be
    started again, and removes a broken candidate that holds it up.

    Returns:
        the baseline's predictor; empty when a newer change came first, so that there is nothing to wait for.

    Raises:
        OutsideSystemError: retryable, the router does not follow.
    """
    arrival = await_arrival(systems().serving)
    for predictor in arrival.removed:
        _tell_latest(f"revert-{revert_id}-removed-{predictor}", removed_in_words(predictor))
    if not arrival.is_there:
        baseline = arrival.baseline or "the baseline"
        _tell_latest(
            f"revert-{revert_id}-late",
            f"the router does not send all traffic to {baseline} yet: look at its pods. I go on waiting",
        )
        raise OutsideSystemError("Seldon", f"waiting for the router to follow to {baseline}", retryable=True)
    if arrival.baseline:
        _tell_latest(f"revert-{revert_id}-arrived", f"the router sends all traffic to {arrival.baseline}")
    return arrival.baseline


@step("Let the registry follow what serves")
def follow_after_revert(revert_id: str) -> list[str]:
    """Both models of the deployment's test; empty, and said so, when no test was started with fraud-ab."""
    test = systems().serving.read().test
    if test is None:
        text = "The registry was left as it is: the SeldonDeployment does not say which test's models are meant."
        announce(f"revert-{revert_id}-registry", text)
        return []
    changes = follow_what_serves(test)
    if changes:
        _tell_latest(f"revert-{revert_id}-registry", registry_in_words(changes), changes, also_to_channel=False)
    return [change.after for change in changes]


@step("Record the emergency reverts")
def record_reverts(revert_id: str) -> list[str]:
    """Every entry of the deployment that no record tells of yet, under its own id. Returns these ids."""
    del revert_id  # part of the step's key
    state, decision = systems().serving.read(), _latest_decision()
    about: dict[str, object] = {"test_id": state.test.test_id, "test": plain(state.test)} if state.test else {}
    about |= {"decision_id": decision.decision_id} if decision else {}
    entries = state.unrecorded
    for entry in entries:
        append_record(RecordKind.EMERGENCY_REVERT, entry["id"], {**about, **entry})
    return [entry["id"] for entry in entries]


@step("Say what was reverted")
def tell_revert(revert_id: str, actor: str, reason: str) -> None:
    """In the thread of the test's latest decision and in the channel."""
    state = systems().serving.read()
    text = f"emergency revert by {actor}: {state.name} serves {describe_serving(state)}. Reason: {reason or 'none given'}"
    before = [entry.get("before", "") for entry in state.unrecorded if entry["id"] == revert_id]
    _tell_latest(f"revert-{revert_id}", text, [Change("traffic", one, describe_serving(state)) for one in before])


def _tell_latest(key: str, text: str, changes: Sequence[Change] = (), *, also_to_channel: bool = True, page: str = "") -> None:
    decision = _latest_decision()
    if decision is None:
        announce(key, text, changes)
    else:
        tell(decision.decision_id, key, text, changes, also_to_channel=also_to_channel, page=page)


@step("Publish the lifecycle page")
def page_after_revert(revert_id: str) -> str:
    """The page of all models; empty without a test."""
    test = systems().serving.read().test
    if test is None:
        return ""
    reference = write_lifecycle_page(test, f"emergency revert {revert_id}")
    text = f"lifecycle page: {reference}"
    show_in_prefect(f"revert-{revert_id}-lifecycle", text, [Change("lifecycle page", "", reference)])
    return reference


@step("Store the documents of the emergency reverts")
def document_reverts(revert_id: str, recorded: list[str]) -> list[str]:
    """A decision document for each, beside those of the test's questions; none without a test. Returns their URIs."""
    del revert_id  # part of the step's key
    log, test = systems().decision_log, systems().serving.read().test
    stored: list[str] = []
    if test is None:
        return stored
    for one in recorded:
        [revert] = log.records(one)
        uris, page = store_dossier(revert_dossier(test, revert))
        changes = [Change("decision document", "", uri) for uri in uris]
        _tell_latest(
            f"revert-{one}-document", "decision document of the emergency revert", changes, also_to_channel=False, page=page
        )
        stored += uris
    return stored


@step("Take what is recorded off the deployment")
def acknowledge(revert_id: str, recorded: list[str]) -> None:
    """Only now: until its record and page are there, the deployment itself says that something is to be caught up."""
    del revert_id  # part of the step's key
    change_serving(lambda state: acknowledge_recorded(state, frozenset(recorded)))


@step("Find what is to be investigated")
def find_decisions(revert_id: str, recorded: list[str]) -> list[str]:
    """The decisions whose candidate was taken out; an emergency before a test's first question has no evidence to look into."""
    del revert_id  # part of the step's key
    log = systems().decision_log
    named = (record.payload.get("decision_id") for one in recorded for record in log.records(one))
    return sorted({str(decision_id) for decision_id in named if decision_id})


def _latest_decision() -> Decision | None:
    """The latest one of the test that the deployment is in; None before its first."""
    test = systems().serving.read().test
    return next(iter(systems().decision_log.decisions(test.test_id)), None) if test else None
