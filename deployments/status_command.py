"""`fraud-ab status`: what is live. A system that cannot be read is one line, and the rest is still shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.domain.errors import FraudABError, SettingsInvalid

if TYPE_CHECKING:
    from flows.domain.ab_test import ABTest
    from flows.domain.serving_state import ServingState
    from flows.ports import DecisionLog

_UNREACHABLE = 1
_UNREAD = "cannot be read"
_QUICKLY = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
JSON = dict[str, Any]


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
    namespace: Annotated[str, typer.Option(envvar="FRAUD_AB_NAMESPACE", help="namespace of the SeldonDeployment")] = "models",
    name: Annotated[str, typer.Option(envvar="FRAUD_AB_SELDON_DEPLOYMENT", help="its name")] = "fraud-predictor",
    kubeconfig: Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="without it: the pod's own account")] = None,
    log_url: Annotated[str, typer.Option(envvar="FRAUD_AB_DECISION_LOG_URL", help="the decision log")] = "",
    tracking_uri: Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking server")] = "",
    registry_mode: Annotated[str, typer.Option(envvar="FRAUD_AB_REGISTRY_MODE", help="stages, aliases or both")] = "both",
) -> None:
    """Show what is live: traffic, test, registry, the open question. Exit 1 if Kubernetes does not answer."""
    tests: list[ABTest] = []
    found = {
        "deployment": {"namespace": namespace, "name": name},
        "serving": _read(lambda: _serving(kubeconfig, namespace, name, tests)),
        "decisions": _read(lambda: _decisions(log_url, tests)),
        "registry": _read(lambda: _registry(tracking_uri, registry_mode, tests)),
        "first look": _read(lambda: _first_look(tests)),
    }
    typer.echo(json.dumps(found, indent=2, default=str, ensure_ascii=False)) if as_json else _show(found)
    if _UNREAD in found["serving"]:
        raise typer.Exit(_UNREACHABLE)


def _read(part: Callable[[], JSON]) -> JSON:
    try:
        return part()
    except FraudABError as error:
        return {_UNREAD: str(error)}


def _serving(kubeconfig: Path | None, namespace: str, name: str, tests: list[ABTest]) -> JSON:
    """Adds the deployment's own test to `tests`."""
    from flows.adapters.serving_seldon import SeldonServing

    state = SeldonServing(kubeconfig=kubeconfig, namespace=namespace, name=name).read()
    tests += [state.test] if state.test else []
    return {
        "predictors": _predictors(state),
        "test": {"test_id": state.test.test_id, "started_at": state.test.started_at} if state.test else None,
        "epoch": state.epoch,
        "operation": state.operation,
        "intent": state.intent,
        "outcome": state.outcome,
        "unrecorded": [dict(entry) for entry in state.unrecorded],
        "rollback point": (state.revert_to or {}).get("predictor"),
    }


def _predictors(state: ServingState) -> list[JSON]:
    models = {model.predictor: str(model) for model in state.test.models} if state.test else {}
    return [
        {"name": one.name, "traffic": one.traffic, "shadow": one.shadow, "model": models.get(one.name)}
        for one in state.predictors
    ]


def _decisions(log_url: str, tests: list[ABTest]) -> JSON:
    """Adds the test of the latest decision to `tests`, for a deployment that cannot be read."""
    from flows.adapters.decision_log_sql import SqlDecisionLog
    from flows.domain.decision_record import RecordKind

    log: DecisionLog = SqlDecisionLog(_given("FRAUD_AB_DECISION_LOG_URL", log_url))
    decisions = log.decisions()
    tests += [decisions[0].request.test] if decisions else []
    pending = [
        {
            "decision": one.decision_id,
            "verdict": one.request.verdict.kind,
            "deadline": one.deadline,
            "first confirmation": one.first_confirmation.actor.name if one.first_confirmation else None,
        }
        for one in decisions
        if one.is_pending
    ]
    last = None
    for record in log.records():
        if record.kind is RecordKind.DOCUMENTED:
            continue  # it tells of papers, not of production
        last = {"kind": record.kind, "decision": record.decision_id, "at": record.at}
    return {"pending": pending, "last record": last}


def _registry(tracking_uri: str, mode: str, tests: list[ABTest]) -> JSON:
    """Both models of the first of `tests`; without one nobody knows which models are meant."""
    uri = _given("MLFLOW_TRACKING_URI", tracking_uri)
    if not tests:
        return {}
    from flows.adapters.registry_mlflow import MlflowRegistry
    from flows.domain.ab_test import Arm
    from flows.settings import RegistryMode

    if mode not in set(RegistryMode):
        raise SettingsInvalid("FRAUD_AB_REGISTRY_MODE", [f"{mode} is none of {', '.join(RegistryMode)}"])
    for variable, value in _QUICKLY.items():
        os.environ.setdefault(variable, value)
    registry = MlflowRegistry(uri, RegistryMode(mode))
    return {str(arm): str(registry.entry(tests[0].model(arm))) for arm in Arm}


def _first_look(tests: list[ABTest]) -> JSON:
    from flows.deployment_names import FINALIZE
    from flows.start_ab_test import first_look_key
    from slackbot.prefect_gateway import PrefectGateway

    gateway = PrefectGateway(ui_url=os.environ.get("FRAUD_AB_PREFECT_UI_URL", ""))
    if not tests:
        return {"state": "no test is known to look for"}
    run = gateway.find_run(FINALIZE, first_look_key(tests[0]))
    return {"at": run.starts_at, "state": run.state, "run": run.url} if run else {"state": "no run is scheduled"}


def _given(variable: str, value: str) -> str:
    if not value:
        raise SettingsInvalid("the environment", [f"{variable} is not set"])
    return value


def _show(found: dict[str, JSON]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    where = found["deployment"]
    table = Table(title=f"{where['namespace']}/{where['name']}", title_justify="left", show_header=False)
    rows = {"serving": _serving_rows, "registry": _registry_rows, "first look": _look_rows, "decisions": _decision_rows}
    for part, describe in rows.items():
        lines = [(part, f"{_UNREAD}: {found[part][_UNREAD]}")] if _UNREAD in found[part] else describe(found[part])
        for what, text in lines:
            table.add_row(what, Text(text))
        table.add_section()
    Console(highlight=False).print(table)


def _serving_rows(serving: JSON) -> Iterable[tuple[str, str]]:
    for one in serving["predictors"]:
        share = "shadow" if one["shadow"] else f"{one['traffic']} %"
        yield one["name"], share + (f"  {one['model']}" if one["model"] else "")
    test = serving["test"]
    yield "test", f"{test['test_id']}, since {test['started_at']:%Y-%m-%d %H:%M} UTC" if test else "none was started"
    yield "epoch", str(serving["epoch"])
    yield "rollback point", serving["rollback point"] or "none"
    for what in ("operation", "intent"):
        yield f"open {what}", serving[what] or "none"
    for entry in serving["unrecorded"]:
        yield "not yet recorded", f"emergency revert by {entry['actor']} at {entry['at']}: {entry['reason']}"


def _registry_rows(registry: JSON) -> Iterable[tuple[str, str]]:
    return [(f"registry, {arm}", entry) for arm, entry in registry.items()] or [("registry", "no test says which models")]


def _look_rows(look: JSON) -> Iterable[tuple[str, str]]:
    at = f"{look['at']:%Y-%m-%d %H:%M} UTC, " if look.get("at") else ""
    return [("first look", f"{at}{look['state']}" + (f": {look['run']}" if "run" in look else ""))]


def _decision_rows(decisions: JSON) -> Iterable[tuple[str, str]]:
    for one in decisions["pending"]:
        confirmed = f"; {one['first confirmation']} has confirmed, a second person has to" if one["first confirmation"] else ""
        until = f"{one['deadline']:%Y-%m-%d %H:%M} UTC"
        yield "open question", f"{one['decision']}: {one['verdict']}, to be answered until {until}{confirmed}"
    if not decisions["pending"]:
        yield "open question", "none"
    last = decisions["last record"]
    yield "last record", f"{last['kind']} ({last['decision']}), {last['at']:%Y-%m-%d %H:%M} UTC" if last else "none"
