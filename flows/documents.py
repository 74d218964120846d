"""What follows a change: the decision document on the test's MLflow run, the lifecycle page and the manifest in git."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.domain.ab_test import ABTest
from flows.domain.action_plan import Change
from flows.domain.decision_record import RecordKind, latest_outcome, noted_files, reverts_after
from flows.domain.evidence import rebuilt
from flows.domain.lifecycle import arm_in_charge, model_lives
from flows.reports.charts import recall_and_precision_chart
from flows.reports.decision_document import CHART_NAME, DOCUMENT_NAME, decision_document
from flows.reports.dossier import Dossier, document_folder
from flows.reports.lifecycle_page import PAGE_PATH, lifecycle_page, merge_page
from flows.reports.markdown import words
from flows.reports.production_model import PRODUCTION_PATH, production_model_page
from flows.reports.record_json import JSON_NAME, document_json
from flows.reports.serving_manifest import changed_lines, manifest_as_served
from flows.steps import step
from flows.telling import show_in_prefect, tell
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flows.domain.decision_record import DecisionRecord
    from flows.domain.lifecycle import ModelLife
    from flows.ports import DecisionLog


@step("Store the decision document")
def store_documents(decision_id: str, kind: str, epoch: int = 0) -> list[str]:
    """Markdown and JSON on the test's run, with their SHA-256 as tags. Returns their URIs.

    Args:
        epoch: tells several ends of the same kind apart.
    """
    log = systems().decision_log
    decision, records = log.read(decision_id), tuple(log.records(decision_id))
    ending = [one for one in records if one.kind is RecordKind(kind)][-1]
    uris, page = store_dossier(Dossier(decision.request.test, decision, ending, records))
    changes = [Change("decision document", "", uri) for uri in uris]
    tell(decision_id, f"document-{kind}-{epoch}", _stored(ending), changes, page=page)
    return uris


def store_dossier(dossier: Dossier) -> tuple[list[str], str]:
    """Chart, Markdown and JSON on the test's run; returns the URIs of both documents, and where a browser shows the first."""
    registry, test, ending = systems().registry, dossier.test, dossier.ending
    dossier = replace(dossier, registry="; ".join(str(registry.entry(model)) for model in test.models))
    folder = document_folder(ending.decision_id)
    chart = recall_and_precision_chart(dossier.decision.request) if dossier.decision else None
    pictures: dict[str, str | bytes] = {CHART_NAME: chart} if chart is not None else {}
    uris = keep_files(test, folder, {**pictures, DOCUMENT_NAME: decision_document(dossier), JSON_NAME: document_json(dossier)})
    outcome = {"decision": ending.decision_id, "outcome": str(ending.kind), "record": ending.hash}
    registry.tag_test(test, {f"fraud-ab.{name}": value for name, value in outcome.items()})
    return list(uris.values()), registry.run_url(test, f"{folder}/{DOCUMENT_NAME}")


def keep_files(test: ABTest, folder: str, files: Mapping[str, str | bytes]) -> dict[str, str]:
    """Texts and PNGs in a folder of the test's run, and then a record with the SHA-256 of each. Returns the URI of each text."""
    registry, uris = systems().registry, dict[str, str]()
    for name, content in files.items():
        if isinstance(content, bytes):
            registry.log_picture(test, f"{folder}/{name}", content)
        else:
            uris[name] = registry.log_document(test, f"{folder}/{name}", content)
    note_files(systems().decision_log, folder, files)
    return uris


def note_files(log: DecisionLog, folder: str, files: Mapping[str, str | bytes]) -> None:
    """Record the SHA-256 of each, unless that is what was recorded of it last."""
    contents = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    known = list(log.records(folder))
    if digests.items() <= {name: sha256 for name, (_, sha256) in noted_files(known, folder).items()}.items():
        return
    kept = log.append_record(RecordKind.DOCUMENTED, folder, {"files": digests}, occurrence=len(known))
    if kept.payload != {"files": digests}:  # another process was faster with its own
        note_files(log, folder, files)


def revert_dossier(test: ABTest, revert: DecisionRecord) -> Dossier:
    """An emergency revert with the test's latest decision before it, if there was one.

    Args:
        test: of the deployment, for a revert before the test's first question whose record names none.
    """
    log, about, told = systems().decision_log, str(revert.payload.get("decision_id", "")), revert.payload.get("test")
    if not about:
        return Dossier(rebuilt(ABTest, told) if isinstance(told, dict) else test, None, revert, (revert,))
    decision, before = log.read(about), log.records(about)
    return Dossier(decision.request.test, decision, revert, tuple(sorted((*before, revert), key=lambda one: one.sequence)))


def _stored(ending: DecisionRecord) -> str:
    return f"decision document ({words(ending.kind)}), on the test's MLflow run"


@step("Publish the lifecycle page")
def publish_lifecycle(decision_id: str, epoch: int = 0) -> str:
    """Rewrite the page from all records and what serves now. Returns where it is. `epoch`: as for `store_documents`."""
    reference = write_lifecycle_page(systems().decision_log.read(decision_id).request.test, decision_id)
    tell(decision_id, f"lifecycle-{epoch}", "lifecycle page", [Change("lifecycle page", "", reference)], where=reference)
    return reference


def document_answer(decision_id: str) -> None:
    """Document an answer after which the test goes on. Where that fails, the run's next execution tries it again: a test must
    not stop because a document could not be stored."""
    store_documents(decision_id, RecordKind.DECIDED, return_state=True)
    publish_lifecycle(decision_id, return_state=True)


def document_investigation(decision_id: str, record_hash: str) -> None:
    """Write document and page again with what an investigation has recorded; inside a flow run.

    Args:
        record_hash: of the investigation's record, which tells its documents from those of another one.
    """
    records = tuple(systems().decision_log.records(decision_id))
    kinds = [record.kind for record in records]
    epoch = next(record.sequence for record in records if record.hash == record_hash)
    outcome = latest_outcome(kinds) or (RecordKind.DECIDED if RecordKind.DECIDED in kinds else None)
    if outcome is not None:
        store_documents(decision_id, outcome, epoch)
    store_reverts(decision_id, epoch)
    publish_lifecycle(decision_id, epoch)


@step("Store the documents of the emergency reverts again")
def store_reverts(decision_id: str, epoch: int) -> None:
    """Of those that came after this decision. `epoch`: as for `store_documents`."""
    del epoch  # part of the step's key
    log = systems().decision_log
    for revert in reverts_after(decision_id, log.records()):
        store_dossier(revert_dossier(log.read(decision_id).request.test, revert))


def write_lifecycle_page(test: ABTest, cause: str) -> str:
    """Publish the page, and the one for fraud analysts beside it, and link both from the test's run; `cause` goes into the
    commit's message."""
    message, policy = f"Model lifecycle after {cause}", systems().policy
    page = _edit_page(PAGE_PATH, test, lambda lives: lifecycle_page(lives, policy), message)
    production = _edit_page(PRODUCTION_PATH, test, production_model_page, message)
    systems().registry.tag_test(test, {"fraud-ab.lifecycle_page": page, "fraud-ab.production_page": production})
    return page


def _edit_page(path: str, test: ABTest, render: Callable[[Sequence[ModelLife]], str], message: str) -> str:
    """The records are read when the page is written, also when that is done again because somebody was faster."""

    def change(existing: str) -> str:
        log = systems().decision_log
        arm = arm_in_charge(systems().serving.read(), test)
        lives = model_lives(log.decisions(), log.records(), test.model(arm) if arm else None, log.now())
        return merge_page(existing, render(lives))

    return systems().lifecycle_docs.edit(path, change, message)


def update_manifest(cause: str, epoch: int = 0, *, is_decision: bool = True) -> None:
    """Let the manifest follow, for a team that keeps it in git; without its settings the step is not run."""
    if systems().manifests is None:
        return
    reference = commit_manifest(cause, epoch)
    if is_decision:
        tell(cause, f"manifest-{epoch}", "manifest", where=reference)


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
