"""One fault case: its own deployment, models, decision log, repository and decision; how it is looked after; what must hold.

Everything here runs in forked processes of a lane (`fault_worker`). Looking after is what `fraud-ab serve` does: the project's
reconciler and its checks of production; and where Prefect's runner would see a dead process, the run is said to have crashed.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import psycopg
from kubernetes import client, config
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Crashed

from benchmarks.fault_cases import Judged
from benchmarks.fault_stage import LaneFiles
from benchmarks.fault_worker import at_step
from deployments import serve
from flows.ask_a_person import mark_as_carried_out, wait_for_answer
from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import Stage, plan_model_in_charge
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, DecisionRequest, Links, Person
from flows.domain.decision_record import RecordKind, chain_problems
from flows.domain.errors import PromotionUndone
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.serving_state import ServingState, close_operation, open_operation, shift_traffic
from flows.domain.verdict import decide_verdict
from flows.emergency_revert import settle
from flows.execution import leased_run
from flows.production_steps import COMPENSATED, append_record, change_serving
from flows.promote_candidate import promote_candidate
from flows.registry_steps import follow_test_that_serves, mark
from flows.rollback_to_baseline import keep_baseline, rollback_to_baseline
from flows.start_ab_test import start_ab_test
from flows.watch import poll
from flows.wiring import systems
from slackbot.emergency import Emergency
from slackbot.late_messages import LateMessages
from slackbot.periodic_checks import PeriodicChecks
from slackbot.prefect_gateway import PrefectGateway
from slackbot.reconciler import Reconciler

WHERE = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
POLICY = 'watch_minutes = 0\ntraffic_steps = [50]\npromoters = ["U0ANA"]\nrollbackers = ["U0CHI"]\n'
ANA = Person("U0ANA", "Ana")
PROMOTION, KEEP_BASELINE, ROLLBACK, EMERGENCY = "promotion", "keep-baseline", "rollback", "emergency"
SCENARIOS = (PROMOTION, KEEP_BASELINE, ROLLBACK, EMERGENCY)
FOLLOW_UP_SECONDS = 60.0
REVERT_STEP = "Revert the traffic"
COUNTS = Outcomes(Design.SPLIT, ModelCounts(1000, 800, 880, 800), ModelCounts(1000, 880, 968, 880))
Json = dict[str, Any]


@flow(name="carry-out", persist_result=True)
def carry_out(decision_id: str) -> str:
    """The second half of `finalize-ab-test`: what follows a decision, without the evaluation before it."""
    with leased_run():
        decision = wait_for_answer(decision_id)
        claim = decision.claim
        act = promote_candidate if claim and claim.choice is Choice.CONFIRM else keep_baseline
        outcome = act(decision_id)
        mark_as_carried_out(decision_id, flow_run.run_count)
        if outcome == COMPENSATED:
            raise PromotionUndone("as finalize-ab-test ends then")
        return outcome


@dataclass(frozen=True, slots=True)
class Look:
    """The runs that are scheduled after a look, what failed in it, and how the case ended if neither is left."""

    runs: tuple[str, ...]
    failed: tuple[str, ...]
    judged: Judged | None


@dataclass(frozen=True, slots=True)
class World:
    """The names in one case; `files` are those of its lane."""

    number: int
    scenario: str
    files: LaneFiles

    @property
    def test(self) -> ABTest:
        models = [Model(f"fraud_{side}_{self.number}", "1", f"fraud-{side}") for side in ("v1", "v2")]
        return ABTest(f"t{self.number}", models[0], models[1], datetime(2026, 11, 1, tzinfo=UTC), self._run_id)

    @property
    def _run_id(self) -> str:
        file = self.folder / "run"
        return file.read_text() if file.exists() else ""

    @property
    def folder(self) -> Path:
        return self.files.folder / f"case-{self.number}"

    @property
    def deployment(self) -> str:
        return f"fraud-{self.number}"

    @property
    def revert_id(self) -> str:
        return f"revert-{self.number}"

    def enter(self) -> None:
        """Make this case's systems those of the process."""
        database = f"postgresql+psycopg://postgres@{os.environ['FAULTS_DATABASE']}/case_{self.number}"
        os.environ |= {
            "FRAUD_AB_SELDON_DEPLOYMENT": self.deployment,
            "FRAUD_AB_DECISION_LOG_URL": f"{database}?sslmode=disable&gssencmode=disable",
            "FRAUD_AB_LIFECYCLE_REPOSITORY": str(self.folder / "repository"),
            "FRAUD_AB_POLICY_FILE": str(self.folder / "policy.toml"),
        }
        systems.cache_clear()
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])

    # ---- before the fault -------------------------------------------------------------------------------------------

    def prepare(self) -> str:
        """Everything as it is when the fault comes; returns the run that is to be executed, if any."""
        self._create()
        self.enter()
        systems().registry.set_in_charge(self.test.baseline)
        systems().registry.set_stage(self.test.candidate, Stage.STAGING)
        start_ab_test(systems().serving, self.test, systems().policy)
        run_id = _create_run()
        decision_id = self._decide(Choice.FORCE_ROLLBACK if self.scenario == KEEP_BASELINE else Choice.CONFIRM, run_id)
        if self.scenario == ROLLBACK:
            self._promote(decision_id)
            self.revert()
            _start_follow_up()
            return self.scheduled()[0]
        if self.scenario == EMERGENCY:
            self._begin_promotion(decision_id)
            _say_crashed(run_id)
            return ""
        return run_id

    def _create(self) -> None:
        self.folder.mkdir()
        (self.folder / "policy.toml").write_text(POLICY)
        repository = ["git", "init", "--quiet", "--initial-branch=main", str(self.folder / "repository")]
        subprocess.run(repository, check=True, timeout=30)
        host, _, port = os.environ["FAULTS_DATABASE"].partition(":")
        with psycopg.connect(host=host, port=port, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE case_{self.number} STRATEGY file_copy".encode())
        registry = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        (self.folder / "run").write_text(registry.create_run(os.environ["FAULTS_EXPERIMENT"]).info.run_id)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        logged = os.environ["FAULTS_MODEL"]
        for model in self.test.models:
            registry.create_registered_model(model.name)
            registry.create_model_version(model.name, f"models:/{logged}", model_id=logged, await_creation_for=0)
        _kubernetes().create_namespaced_custom_object(*WHERE, _manifest(self.deployment, self.test))

    def _decide(self, choice: Choice, run_id: str) -> str:
        state, evidence = systems().serving.read(), Evidence(counted=COUNTS)
        entries = tuple(systems().registry.entry(model) for model in self.test.models)
        request = DecisionRequest(
            test=self.test,
            round=1,
            flow_run_id=run_id,
            verdict=decide_verdict(evidence, Policy()),
            plan=plan_model_in_charge(self.test, Arm.CANDIDATE, state, entries, (*systems().policy.traffic_steps, 100)),
            rollback_plan=plan_model_in_charge(self.test, Arm.BASELINE, state, entries, (100,)),
            epoch=state.epoch,
            links=Links(),
            decide_within_hours=1,
            next_look_at=None,
            postponements_left=1,
            evidence=evidence,
        )
        log = systems().decision_log
        decision_id = log.open(request).decision_id
        systems().publisher.publish_decision(decision_id)
        digest = request.verdict.evidence_digest
        log.claim(decision_id, evidence_digest=digest, choice=choice, actor=ANA, reason="looks good", postponed_until=None)
        return decision_id

    def _begin_promotion(self, decision_id: str, share_percent: int = 50) -> ServingState:
        """As far as a promotion got whose process has died since."""
        epoch = systems().decision_log.read(decision_id).request.epoch
        opened = change_serving(lambda state: open_operation(state, decision_id, epoch))
        wanted = {self.test.candidate.predictor: share_percent, self.test.baseline.predictor: 100 - share_percent}
        return change_serving(lambda state: shift_traffic(state, decision_id, opened.epoch, wanted))

    def _promote(self, decision_id: str) -> None:
        shifted = self._begin_promotion(decision_id, 100)
        mark(self.test, {Arm.CANDIDATE: Stage.PRODUCTION, Arm.BASELINE: Stage.ARCHIVED})
        change_serving(lambda state: close_operation(state, decision_id, shifted.epoch))
        append_record(RecordKind.PROMOTED, decision_id, {"test_id": self.test.test_id})
        systems().decision_log.consume(decision_id)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def revert(self) -> None:
        """The emergency, by the function that Slack calls."""
        self.enter()
        settings = systems().settings
        emergency = Emergency(kubeconfig=settings.kubeconfig, namespace=settings.namespace, name=settings.seldon_deployment)
        with at_step(self.files, REVERT_STEP):
            emergency.revert(revert_id=self.revert_id, actor="Chi (U0CHI)", reason="wrong alerts", when_slow=lambda: None)

    def revert_and_follow(self) -> str:
        """What `/fraud-rollback` does, and the run that it starts; returns how that ended."""
        self.revert()
        _start_follow_up()
        with get_client(sync_client=True) as api:
            [run] = api.read_flow_runs(flow_run_filter=_of_keys(self.revert_id))
        return self.execute(str(run.id))

    def execute(self, run_id: str) -> str:
        """One execution of a run, as Prefect's runner starts it; returns the name of the state that it ended in."""
        self.enter()
        with get_client(sync_client=True) as api:
            run = api.read_flow_run(uuid.UUID(run_id))
            name = api.read_flow(run.flow_id).name
        state: Any
        if name == carry_out.name:
            [decision] = systems().decision_log.decisions(self.test.test_id)
            state = run_flow(carry_out, run, {"decision_id": decision.decision_id}, return_type="state")
        else:
            state = run_flow(rollback_to_baseline, run, run.parameters, return_type="state")
        return f"{state.name}: {state.message}"

    def look_after(self, crashed: Sequence[str], *, may_rest: bool) -> Look:
        """One look of every check; where nothing is left to do then, the case is judged."""
        self.enter()
        for run_id in crashed:
            _say_crashed(run_id)
        gateway = PrefectGateway()
        reconciler = Reconciler(systems().decision_log, systems().executions, gateway)
        late = LateMessages(systems().decision_log, systems().publisher)
        checks = {
            "settle": lambda: settle(systems().serving),
            "catch-up": lambda: serve.catch_up(gateway),
            "follow": follow_test_that_serves,
        }
        production = PeriodicChecks("production", checks, period_seconds=1)
        for looking in (reconciler, late, production):
            looking.check_once()
        troubles = (one for looking in (reconciler, late, production) for one in looking.troubles.values())
        runs, failed = self.scheduled(), tuple(troubles)
        return Look(tuple(runs), failed, self.judge() if may_rest and not runs and not failed else None)

    def scheduled(self) -> list[str]:
        """The runs of this case that wait for a runner."""
        ids = [decision.request.flow_run_id for decision in systems().decision_log.decisions(self.test.test_id)]
        keys = [self.revert_id, *(f"{self.revert_id}-{tried}" for tried in range(1, 20))]
        with get_client(sync_client=True) as api:
            runs = [api.read_flow_run(uuid.UUID(one)) for one in ids]
            runs += api.read_flow_runs(flow_run_filter=_of_keys(*keys))
        is_undelivered = bool(systems().decision_log.undelivered())
        waiting = [run for run in runs if run.state and run.state.is_scheduled()]
        return [str(run.id) for run in waiting if run.idempotency_key or is_undelivered]

    # ---- at rest ----------------------------------------------------------------------------------------------------

    def judge(self) -> Judged:
        """How the case ended, and every invariant of DESIGN.md that does not hold. Removes the deployment."""
        self.enter()
        address = f"{os.environ['FAULTS_VERSIONS_URL']}/{self.deployment}"
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own server
            versions: list[Json] = json.load(answer)
        state = systems().serving.read()
        problems = [*_wrong_traffic(versions), *self._wrong_rest(state), *self._wrong_records(versions), *self._wrong_posts()]
        problems += self._traffic_after_emergency(versions)
        wanted = self.test.candidate if self.scenario == PROMOTION else self.test.baseline
        _kubernetes().delete_namespaced_custom_object(*WHERE, self.deployment)
        if problems:
            return "bad", tuple(problems)
        return ("finished" if state.serves_alone(wanted.predictor) else "baseline"), ()

    def recorded(self) -> list[RecordKind]:
        """What the records tell, in their order."""
        self.enter()
        kinds = (record.kind for record in systems().decision_log.records())
        return [kind for kind in kinds if kind not in (RecordKind.DECIDED, RecordKind.DOCUMENTED)]

    def _wrong_rest(self, state: ServingState) -> list[str]:
        stages = {model.predictor: systems().registry.entry(model).stage for model in self.test.models}
        in_charge = [name for name, stage in stages.items() if stage is Stage.PRODUCTION]
        serving = [model.predictor for model in self.test.models if state.serves_alone(model.predictor)]
        left = {"operation": state.operation, "intent": state.intent, "unrecorded": state.unrecorded}
        undelivered = [decision.decision_id for decision in systems().decision_log.undelivered()]
        checks = {
            f"no model serves alone: {dict(state.traffic)}": not serving,
            f"{serving} serves, {stages} is in the registry": in_charge != serving,
            f"left open: {left}": any(left.values()),
            f"undelivered: {undelivered}": bool(undelivered),
        }
        return [text for text, is_wrong in checks.items() if is_wrong]

    def _wrong_records(self, versions: list[Json]) -> list[str]:
        """The chain is whole, and what the records claim is what the deployment's versions show."""
        records = list(systems().decision_log.records())
        kinds = Counter(record.kind for record in records if record.kind is not RecordKind.DOCUMENTED)  # one for each content
        outcomes = {_annotation(version, "outcome").partition("@")[0] for version in versions} - {""}
        said = {one.rpartition(":")[2] for one in outcomes}
        claims = {RecordKind.PROMOTED, RecordKind.BASELINE_KEPT, RecordKind.COMPENSATED, RecordKind.SUPERSEDED} & set(kinds)
        has_emergency = any(_annotation(version, "unrecorded") for version in versions)
        checks = {
            "the chain of records is broken": chain_problems(records) != (),
            f"accepted and compensated: {outcomes}": len(outcomes) > 1,
            f"not one ending in the records: {sorted(claims)}": len(claims) != 1,
            f"recorded twice: {kinds}": any(count > 1 for count in kinds.values()),
            f"{sorted(claims)} is recorded, {said} has happened": not _fits(claims, said),
            "the emergency and its record do not belong together": has_emergency != (RecordKind.EMERGENCY_REVERT in kinds),
        }
        return [text for text, is_wrong in checks.items() if is_wrong]

    def _wrong_posts(self) -> list[str]:
        """No line is in the decision's thread twice."""
        [decision] = systems().decision_log.decisions(self.test.test_id)
        posted = systems().publisher.publish_decision(decision.decision_id)
        thread: Any = systems().publisher._client.conversations_replies(  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            channel=posted.channel, ts=posted.ts, include_all_metadata=True, limit=200
        )
        keys = Counter(str(one.get("metadata", {}).get("event_payload", {}).get("key")) for one in thread["messages"])
        return [f"posted {count} times: {key}" for key, count in keys.items() if count > 1 and key != "None"]

    def _traffic_after_emergency(self, versions: list[Json]) -> list[str]:
        first = next((place for place, version in enumerate(versions) if _annotation(version, "unrecorded")), len(versions))
        shares = [_traffic(version).get(self.test.candidate.predictor, 0) for version in versions[first:]]
        return [f"after the emergency the candidate had {max(shares)} %"] if any(shares) else []


def _fits(claims: set[RecordKind], said: set[str]) -> bool:
    happened = {RecordKind.PROMOTED: "accepted", RecordKind.BASELINE_KEPT: "accepted", RecordKind.COMPENSATED: "compensated"}
    return all(happened[kind] in said if kind in happened else not said for kind in claims)


def _wrong_traffic(versions: list[Json]) -> list[str]:
    wrong = [traffic for version in versions if sum((traffic := _traffic(version)).values()) != 100]
    return [f"traffic does not sum to 100: {wrong[0]}"] if wrong else []


def _traffic(version: Mapping[str, Any]) -> dict[str, int]:
    live = [one for one in version["spec"]["predictors"] if not one.get("shadow")]
    return {one["name"]: 100 if len(live) == 1 else one.get("traffic", 0) for one in live}


def _annotation(version: Mapping[str, Any], name: str) -> str:
    return str(version["metadata"].get("annotations", {}).get(f"fraud-ab/{name}", ""))


def _start_follow_up() -> None:
    """As soon as Prefect takes it."""
    poll(lambda: serve.catch_up(PrefectGateway()) is None, FOLLOW_UP_SECONDS)


def _of_keys(*keys: str) -> FlowRunFilter:
    return FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=list(keys)))


def _create_run() -> str:
    with get_client(sync_client=True) as api:
        return str(api.create_flow_run(carry_out, parameters={"decision_id": "of this run"}).id)


def _say_crashed(run_id: str) -> None:
    """What Prefect's runner reports of a process that was killed."""
    with get_client(sync_client=True) as api:
        api.set_flow_run_state(uuid.UUID(run_id), Crashed(message="Flow run process exited with status code -9"), force=True)


def _kubernetes() -> client.CustomObjectsApi:
    return client.CustomObjectsApi(config.new_client_from_config(os.environ["KUBECONFIG"]))


def _manifest(name: str, test: ABTest) -> Json:
    predictors = [
        {
            "name": model.predictor,
            "traffic": 100 * (model is test.baseline),
            "graph": {"name": model.predictor, "implementation": "MLFLOW_SERVER", "modelUri": "s3://models/x"},
        }
        for model in test.models
    ]
    kind = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment"}
    return {**kind, "metadata": {"name": name}, "spec": {"predictors": predictors}}
