"""What follows a change: the decision document on the test's MLflow run, the lifecycle page and the manifest in git."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.domain.action_plan import Change
from flows.domain.decision_record import RecordKind
from flows.domain.lifecycle import arm_in_charge, model_lives
from flows.reports.charts import recall_and_precision_chart
from flows.reports.decision_document import CHART_NAME, decision_document, decision_json
from flows.reports.lifecycle_page import PAGE_PATH, lifecycle_page, merge_page
from flows.reports.serving_manifest import changed_lines, manifest_as_served
from flows.steps import step
from flows.telling import show_in_prefect, tell
from flows.wiring import systems

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest


@step("Store the decision document")
def store_documents(decision_id: str, kind: str, epoch: int = 0) -> list[str]:
    """Markdown and JSON on the test's run, with their SHA-256 as tags. Returns their URIs.

    Args:
        epoch: tells several ends of the same kind apart.
    """
    decision = systems().decision_log.read(decision_id)
    ending = [one for one in systems().decision_log.records(decision_id) if one.kind is RecordKind(kind)][-1]
    test, registry = decision.request.test, systems().registry
    chart = recall_and_precision_chart(decision.request)
    if chart is not None:
        registry.log_picture(test, f"decisions/{decision_id}/{CHART_NAME}", chart)
    uris = [
        registry.log_document(test, f"decisions/{decision_id}/decision_document.md", decision_document(decision, ending)),
        registry.log_document(test, f"decisions/{decision_id}/decision_document.json", decision_json(decision, ending)),
    ]
    registry.tag_test(test, {"fraud-ab.decision": decision_id, "fraud-ab.outcome": kind, "fraud-ab.record": ending.hash})
    place = registry.run_url(test) or uris[0]
    tell(
        decision_id,
        f"document-{kind}-{epoch}",
        f"decision document: {place}",
        [Change("decision document", "", uri) for uri in uris],
    )
    return uris


@step("Publish the lifecycle page")
def publish_lifecycle(decision_id: str, epoch: int = 0) -> str:
    """Rewrite the page from all records and what serves now. Returns where it is. `epoch`: as for `store_documents`."""
    reference = write_lifecycle_page(systems().decision_log.read(decision_id).request.test, decision_id)
    tell(decision_id, f"lifecycle-{epoch}", f"lifecycle page: {reference}", [Change("lifecycle page", "", reference)])
    return reference


def document_answer(decision_id: str) -> None:
    """Document an answer after which the test goes on. Where that fails, the run's next execution tries it again: a test must
    not stop because a document could not be stored."""
    store_documents(decision_id, RecordKind.DECIDED, return_state=True)
    publish_lifecycle(decision_id, return_state=True)


def write_lifecycle_page(test: ABTest, cause: str) -> str:
    """Publish the page and link it from the test's run; `cause` goes into the commit's message."""
    log = systems().decision_log
    arm = arm_in_charge(systems().serving.read(), test)
    lives = model_lives(log.decisions(), log.records(), test.model(arm) if arm else None, log.now())
    text = lifecycle_page(lives, systems().policy.traffic)
    message = f"Model lifecycle after {cause}"
    reference = systems().lifecycle_docs.edit(PAGE_PATH, lambda existing: merge_page(existing, text), message)
    systems().registry.tag_test(test, {"fraud-ab.lifecycle_page": reference})
    return reference


def update_manifest(cause: str, epoch: int = 0, *, is_decision: bool = True) -> None:
    """Let the manifest follow, for a team that keeps it in git; without its settings the step is not run."""
    if systems().manifests is None:
        return
    reference = commit_manifest(cause, epoch)
    if is_decision:
        tell(cause, f"manifest-{epoch}", f"manifest: {reference}")


@step("Commit the manifest")
def commit_manifest(cause: str, epoch: int) -> str:
    """Write what the deployment serves when this runs, so that a late run does no harm. Returns where it is.

    While somebody is changing the deployment it is left as it is: the end of that change commits it. `epoch`: as for
    `store_documents`.
    """
    manifests, path = systems().manifests, systems().settings.manifest_path

    texts: list[str] = []

    def change(text: str) -> str:
        state = systems().serving.read()
        texts[:] = text, text if state.operation or state.intent else manifest_as_served(text, state, path)
        return texts[1]

    reference = manifests.edit(path, change, f"Traffic after {cause}") if manifests else ""
    show_in_prefect(f"{cause}-manifest-{epoch}", f"manifest: {reference}", [Change(path, *changed_lines(*texts))])
    return reference
