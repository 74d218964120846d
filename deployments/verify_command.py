"""`fraud-ab verify-record`: was this decided on these numbers, by this policy, and has nobody changed it since?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.domain.errors import FraudABError, UnknownDecision

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_VERIFIED = 1


def verify_record(
    which: Annotated[str, typer.Argument(help="a decision_document.json, or the id of a decision in the decision log")],
    log_url: Annotated[
        str | None, typer.Option(envvar="FRAUD_AB_DECISION_LOG_URL", help="the decision log, for a decision's id")
    ] = None,
) -> None:
    """Recompute a recorded verdict from its recorded counts and policy, and the hashes. Exit 1 if anything differs."""
    try:
        problems = _of_document(Path(which)) if which.endswith(".json") else _of_log(which, log_url)
    except OSError as error:
        raise FraudABError(f"{which} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FraudABError(
            f"{which} is no decision document or record of this version ({type(error).__name__}: {error})."
        ) from error
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(_NOT_VERIFIED)
    typer.echo(f"{which}: the verdict follows from its evidence and policy, and the hashes agree.")


def _of_document(file: Path) -> list[str]:
    from flows.reports.decision_document import parse_record

    body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    record = parse_record(body)
    found = record.recomputed_hash
    changed = [] if found == record.hash else [f"{file}: the record was changed, its hash should be {found}."]
    return changed + _verdict_problems(str(file), body["verdict"], body["evidence"], body["policy"])


def _of_log(decision_id: str, log_url: str | None) -> list[str]:
    from flows.adapters.decision_log_sql import SqlDecisionLog
    from flows.domain.decision_record import RecordKind, first_broken_link

    if not log_url:
        raise FraudABError("Set FRAUD_AB_DECISION_LOG_URL: a decision's id is looked up in the decision log.")
    log = SqlDecisionLog(log_url)
    decided = [record for record in log.records(decision_id) if record.kind is RecordKind.DECIDED]
    if not decided:
        log.read(decision_id)  # says so when there is none
        raise UnknownDecision(f"{decision_id} is not decided yet, so there is no record to verify.")
    broken = first_broken_link(log.records())
    changed = (
        [f"record {broken.sequence} ({broken.decision_id}, {broken.kind}) was changed, or one is missing."] if broken else []
    )
    request: Any = decided[0].payload["request"]
    return changed + _verdict_problems(decision_id, request["verdict"], request["evidence"], request["policy"])


def _verdict_problems(
    name: str, recorded: Mapping[str, Any], evidence: Mapping[str, Any] | None, policy: Mapping[str, Any] | None
) -> list[str]:
    from flows.domain.evidence import Evidence
    from flows.domain.policy import Policy
    from flows.domain.verdict import decide_verdict

    if evidence is None or policy is None:
        return [f"{name}: the record holds no evidence or no policy, so the verdict cannot be recomputed."]
    again = decide_verdict(Evidence.from_json(evidence), Policy.model_validate(policy)).to_json()
    return [
        f"{name}: {field} is recorded as {recorded.get(field)!r}, but the evidence gives {value!r}."
        for field, value in again.items()
        if recorded.get(field) != value
    ]
