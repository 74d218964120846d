"""The time after a promotion, as Prefect runs against the embedded systems: watch, revert, retirement, and the way back.

Hours pass by moving the clocks of the decision log and of the telemetry ahead. The feedback is a Parquet file.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from flows.domain.bake import BreachKind
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError
from flows.domain.policy import load_policy
from flows.domain.serving_state import start_test
from flows.emergency_revert import revert_obstacles, revert_traffic
from flows.promote_candidate import promote_candidate
from flows.rehearse_rollback import rehearse_rollback
from flows.rollback_to_baseline import rollback_to_baseline
from flows.watch_promotion import ACTOR, act_on_breaches, find_promotion, watch_promotion
from slackbot.identifiers import Action
from slackbot.payloads import Alarm
from tests.integration.production_world import WHERE, World, lines, run, shown

pytest_plugins = ("tests.integration.production_world",)

RULES = 'watch_minutes = 0\npromoters = ["U0ANA"]\nrollbackers = ["U0ANA"]\n'


@pytest.fixture
def promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> Baking:
    monkeypatch.setattr("flows.bake.ROUTER_SECONDS", 0.2)
    decision_id = world.decide().decision_id
    assert run(promote_candidate, decision_id) == "promoted"
    baking = Baking(world, decision_id, monkeypatch)
    baking.predictions()
    return baking


class Baking:
    """A promotion and the hours after it."""

    def __init__(self, world: World, decision_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.decision_id = decision_id
        self.promoted_at = datetime.now(UTC)
        self._real_now = world.systems.decision_log.now
        self._patch = monkeypatch

    def later(self, hours: float) -> None:
        ahead = timedelta(hours=hours)
        self.world.telemetry.ahead = ahead
        self._patch.setattr(self.world.systems.decision_log, "now", lambda: self._real_now() + ahead)

    def policy(self, more: str) -> None:
        self.world.systems.__dict__["policy"] = load_policy(RULES + more, "policy.toml")

    def predictions(self, rate_after: float = 0.05) -> None:
        """A row every 10 seconds, each of a card of its own: 5 % flagged in the test's last days, then at another rate."""
        moments = pd.date_range(self.promoted_at - timedelta(days=2), self.promoted_at + timedelta(days=2), freq="10s")
        rates = np.where(moments < self.promoted_at, 0.05, rate_after)
        flags = np.random.default_rng(1).random(len(moments)) < rates
        count = len(moments)
        frame = pd.DataFrame(
            {
                "transaction_id": [f"t{number}" for number in range(count)],
                "event_time": moments.astype("datetime64[us, UTC]"),
                "entity_id": np.arange(count),
                "arm": "candidate",
                "baseline_prediction": pd.array([None] * count, dtype="boolean"),
                "candidate_prediction": pd.array(flags, dtype="boolean"),
                "is_fraud": pd.array([None] * count, dtype="boolean"),
            }
        )
        frame.to_parquet(self.world.systems.settings.feedback_url)

    @property
    def breaches(self) -> dict[str, dict[str, Any]]:
        log = self.world.systems.decision_log
        found = {kind: list(log.records(f"{self.decision_id}:{kind}")) for kind in BreachKind}
        return {str(kind): dict(records[0].payload) for kind, records in found.items() if records}

    @property
    def said(self) -> list[str]:
        return lines(self.world, self.decision_id)

    def record(self, kind: RecordKind) -> dict[str, Any]:
        records = self.world.systems.decision_log.records(self.decision_id)
        return next(dict(record.payload) for record in records if record.kind is kind)


def test_before_any_promotion_nothing_is_watched(world: World) -> None:
    before = world.state
    assert watch_promotion() == "nothing is due"
    assert world.is_still(before)


def test_a_healthy_promotion_is_watched_in_silence_until_the_end_and_then_said_once(promoted: Baking) -> None:
    before, told = promoted.world.state, promoted.said
    assert watch_promotion() == "nothing is due", "two windows do not fit yet"
    promoted.later(3)
    assert watch_promotion() == "no breach"
    assert promoted.said == told
    promoted.later(25)
    for _ in range(2):
        watch_promotion()
    [line] = [line for line in promoted.said if line not in told]
    assert line.startswith("watched for 24 h: no breach. 100.0 % of 1,000 requests, 0 failed, p95 60 ms; 5.")
    assert promoted.record(RecordKind.WATCHED)["missing"] == {}
    assert promoted.world.kinds() == [RecordKind.PROMOTED, RecordKind.WATCHED]
    assert promoted.world.is_still(before)
    assert watch_promotion() == "nothing is due"
    promoted.world.systems.publisher.publish_decision(promoted.decision_id)
    assert promoted.world.page()[promoted.world.test.candidate.name]["status"] == "Promoted (Production)"


def breach_messages(world: World) -> list[dict[str, Any]]:
    """With a button, in the thread and in the channel."""
    found = [message for message in world.slack.messages("C0FRAUD") if Action.REVERT in str(message.get("blocks"))]
    for message in world.slack.messages("C0FRAUD"):
        found += [line for line in world.slack.thread(message["ts"]) if Action.REVERT in str(line.get("blocks"))]
    return list({message["ts"]: message for message in found}.values())


@pytest.mark.parametrize("fault", ["latency", "errors", "flag_rate", "traffic"])
def test_a_breach_is_said_once_with_a_button_and_changes_nothing(promoted: Baking, fault: str) -> None:
    world = promoted.world
    known = {message["ts"] for message in breach_messages(world)}
    promoted.later(3)
    if fault == "traffic":  # somebody edits the weights by hand
        weights = [{"op": "replace", "path": f"/spec/predictors/{place}/traffic", "value": 50} for place in (0, 1)]
        world.kept["api"].patch_namespaced_custom_object(
            *WHERE, "fraud-predictor", weights, _content_type="application/json-patch+json"
        )
        wait_until(lambda: world.systems.serving.readiness().routed == {"fraud-v1": 50, "fraud-v2": 50})
    world.telemetry.p95_ms = 140.0 if fault == "latency" else 60.0
    world.telemetry.errors = 90 if fault == "errors" else 0
    promoted.predictions(0.2 if fault == "flag_rate" else 0.05)
    before = world.state
    assert [watch_promotion(), watch_promotion()] == ["breach", "breach"]
    assert list(promoted.breaches) == [fault]
    words = {"latency": "p95 140 ms", "errors": "failed, usual would be", "flag_rate": "in the test", "traffic": "instead of all"}
    assert words[fault] in promoted.breaches[fault]["found"]
    [message] = [message for message in breach_messages(world) if message["ts"] not in known]
    [button] = next(block["elements"] for block in message["blocks"] if block["type"] == "actions")
    alarm = Alarm.parse(button["value"])
    assert alarm.decision_id == promoted.decision_id
    assert words[fault] in alarm.cause
    assert world.is_still(before)
    promoted.later(25)
    watch_promotion()
    assert any(line.startswith(f"watched for 24 h: breaches: {fault.replace('_', ' ')}") for line in promoted.said)


def wait_until(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(200):
        if is_so():
            return
        pause.wait(0.05)
    raise AssertionError("it did not become so in 10 seconds")


def test_auto_revert_puts_the_baseline_back_and_the_catch_up_follows(promoted: Baking) -> None:
    world = promoted.world
    promoted.policy("auto_revert = true")
    promoted.later(3)
    world.telemetry.p95_ms = 140.0
    assert watch_promotion() == "breach"
    assert world.state.serves_alone("fraud-v1")
    [entry] = world.state.unrecorded
    assert (entry["actor"], entry["reason"]) == (ACTOR, "latency: p95 140 ms is above 100 ms")
    assert promoted.breaches["latency"]["is_reverted"] is True
    assert any("broke a limit and was reverted" in line for line in promoted.said)
    epoch = world.state.epoch
    assert watch_promotion() == "nothing is due"
    assert world.state.epoch == epoch
    rollback_to_baseline(entry["id"], entry["actor"], entry["reason"])
    assert world.registry() == ["Production (champion)", "Archived"]
    assert RecordKind.EMERGENCY_REVERT in world.kinds()


def test_a_promotion_is_recorded_and_watched_also_when_mlflow_fails_right_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision_id, registry, real = world.decide().decision_id, world.systems.registry, world.systems.serving.apply

    def fail(_: Any) -> Any:
        raise OutsideSystemError("MLflow", "a test", retryable=True)

    def apply(state: Any, change: Any, *, dry_run: bool = False) -> Any:
        if change.why.endswith("is accepted"):
            monkeypatch.setattr(registry, "entry", fail)
        return real(state, change, dry_run=dry_run)

    monkeypatch.setattr(world.systems.serving, "apply", apply)
    monkeypatch.setattr("flows.promote_candidate.store_documents", fail_to_document)
    with pytest.raises(OutsideSystemError, match="documents"):
        run(promote_candidate, decision_id)
    [promoted] = [one for one in world.systems.decision_log.records(decision_id) if one.kind is RecordKind.PROMOTED]
    assert "MLflow could not be read" in str(promoted.payload["registry"])
    assert find_promotion.fn()["decision_id"] == decision_id


def fail_to_document(*_: Any) -> None:
    raise OutsideSystemError("MLflow", "the documents", retryable=False)


def test_a_breach_is_recorded_also_when_the_process_died_right_after_its_revert(
    promoted: Baking, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = promoted.world
    promoted.policy("auto_revert = true")
    promoted.later(3)
    world.telemetry.p95_ms = 140.0

    def act(decision_id: str) -> str:
        return " ".join(act_on_breaches.fn(decision_id, {"latency": "p95 140 ms is above 100 ms"}))

    def refuse(*_: Any, **__: Any) -> Any:
        raise OutsideSystemError("the decision log", "a test", retryable=False)

    with monkeypatch.context() as failing:
        failing.setattr(world.systems.decision_log, "append_record", refuse)
        with pytest.raises(OutsideSystemError, match="a test"):
            run(act, promoted.decision_id)
    assert world.state.serves_alone("fraud-v1")
    assert promoted.breaches == {}
    before = world.state
    assert run(act, promoted.decision_id) == "latency"  # the step is tried again
    assert promoted.breaches["latency"]["is_reverted"] is True
    assert world.is_still(before)


def test_an_automatic_revert_leaves_a_newer_test_alone(promoted: Baking, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts between the look at the deployment and the revert."""
    world = promoted.world
    promoted.policy("auto_revert = true")
    promoted.later(3)
    world.telemetry.p95_ms = 140.0
    real, reads = world.systems.serving.read, [0]

    def read() -> Any:
        reads[0] += 1
        if reads[0] == 3:  # found, checked again, and now read to be reverted
            next_test = replace(world.test, test_id="next", baseline=world.test.candidate, candidate=world.test.baseline)
            world.systems.serving.apply(real(), start_test(real(), next_test, {"fraud-v1": 20, "fraud-v2": 80}))
        return real()

    monkeypatch.setattr(world.systems.serving, "read", read)
    watch_promotion()
    assert reads[0] >= 3
    assert world.state.traffic == {"fraud-v1": 20, "fraud-v2": 80}
    assert world.state.unrecorded == ()
    assert promoted.breaches["latency"]["is_reverted"] is False


def test_missing_telemetry_is_said_once_and_is_no_health(promoted: Baking, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> Any:
        raise OutsideSystemError("Prometheus", "answering", retryable=False)

    promoted.later(3)
    told = promoted.said
    with monkeypatch.context() as failing:
        failing.setattr(promoted.world.telemetry, "measure", down)
        assert [watch_promotion(), watch_promotion()] == ["cannot be watched", "cannot be watched"]
    [line] = [line for line in promoted.said if line not in told]
    assert "cannot be watched (measuring): Prometheus failed while answering" in line
    assert "no sign of health" in line


def test_what_was_never_measured_is_said_at_the_end(promoted: Baking) -> None:
    world = promoted.world
    pd.read_parquet(world.systems.settings.feedback_url).iloc[:100].to_parquet(world.systems.settings.feedback_url)
    promoted.later(25)
    watch_promotion()
    [line] = [line for line in promoted.said if line.startswith("watched for")]
    assert "no breach; could not be watched: flag rate (0 of at least 200 predictions are in the feedback)" in line


def baked(promoted: Baking) -> None:
    """Watched to the end, and the retirement is due."""
    promoted.policy("retire_after_hours = 48")
    promoted.later(25)
    assert watch_promotion() == "no breach"
    assert watch_promotion() == "nothing is due"
    promoted.later(48.01)


def test_the_baseline_is_retired_after_its_archive_is_verified_and_once(promoted: Baking) -> None:
    world = promoted.world
    baked(promoted)
    before = world.state
    assert watch_promotion() == "retired"
    after = world.state
    assert after.traffic == {"fraud-v2": 100}
    assert (after.epoch, after.revert_to) == (before.epoch + 1, before.revert_to)
    receipt = world.systems.archive.verify(world.test.baseline)
    assert promoted.record(RecordKind.RETIRED)["archive"]["manifest_sha256"] == receipt.manifest_sha256
    assert watch_promotion() == "nothing is due"
    assert world.is_still(after)
    assert sum("fraud-v1 is retired" in line for line in promoted.said) == 1
    assert shown(f"{promoted.decision_id}-retired") == [("predictors", "fraud-v1 0 %, fraud-v2 100 %", "fraud-v2 100 %")]
    world.systems.publisher.publish_decision(promoted.decision_id)
    assert world.kinds() == [RecordKind.PROMOTED, RecordKind.WATCHED, RecordKind.RETIRED]


def test_a_crash_after_the_patch_of_a_retirement_still_records_it(promoted: Baking, monkeypatch: pytest.MonkeyPatch) -> None:
    baked(promoted)
    with monkeypatch.context() as dying:
        dying.setattr(promoted.world.systems.decision_log, "append_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(BaseException):  # noqa: B017, PT011 - however Prefect reports a killed process
            watch_promotion()
    retired = promoted.world.state
    assert retired.predictor("fraud-v1") is None
    assert watch_promotion() == "retired"
    assert promoted.world.state == retired
    assert promoted.world.kinds()[-1] is RecordKind.RETIRED


@pytest.mark.parametrize("damage", ["gone", "changed", "exchanged"])
def test_without_the_archive_of_the_promotion_nothing_is_retired(promoted: Baking, damage: str) -> None:
    world = promoted.world
    baked(promoted)
    place, s3 = f"{world.test.baseline.name}/1/", boto3.client("s3")
    if damage == "gone":
        s3.delete_object(Bucket="archive", Key=f"{place}manifest.json")
    else:
        s3.put_object(Bucket="archive", Key=f"{place}files/MLmodel", Body=b"other")
    if damage == "exchanged":  # with a manifest that agrees with it
        content = json.loads(s3.get_object(Bucket="archive", Key=f"{place}manifest.json")["Body"].read())
        [file] = [one for one in content["files"] if one["path"] == "MLmodel"]
        file["sha256"], file["size_bytes"] = hashlib.sha256(b"other").hexdigest(), 5
        s3.put_object(Bucket="archive", Key=f"{place}manifest.json", Body=json.dumps(content, indent=1).encode())
    before = world.state
    assert [watch_promotion()[:11], watch_promotion()[:11]] == ["not retired", "not retired"]
    assert world.is_still(before)
    words = {"gone": "no manifest", "changed": "not what was archived", "exchanged": "not the one that was made at the promotion"}
    [line] = [line for line in promoted.said if "is not retired" in line]
    assert words[damage] in line


def test_a_baseline_is_not_retired_after_a_breach_that_nobody_answered(promoted: Baking) -> None:
    promoted.later(3)
    promoted.world.telemetry.p95_ms = 140.0
    assert watch_promotion() == "breach"
    promoted.world.telemetry.p95_ms = 60.0
    baked(promoted)
    assert watch_promotion().startswith("not retired: Verification failed")
    assert promoted.world.state.predictor("fraud-v1") is not None


def test_a_retirement_that_a_newer_change_overtakes_is_obsolete(promoted: Baking) -> None:
    world = promoted.world
    baked(promoted)
    real = world.systems.archive.verify
    world.systems.archive.verify = lambda model: (world.emergency(), real(model))[1]
    assert watch_promotion().startswith("obsolete: fraud-predictor has changed since")
    assert world.state.serves_alone("fraud-v1")


@contextmanager
def needing_artifacts(world: World, files: dict[str, str]) -> Iterator[None]:
    """The baseline's pods start only while its artifacts are in the bucket as they were: Seldon's storage initialiser."""
    stop, operator = threading.Event(), world.kubernetes.operator

    def look() -> None:
        while not stop.wait(0.05):
            (operator.heal_predictor if stored(files) == files else operator.fail_predictor)("fraud-v1")

    operator.fail_predictor("fraud-v1")
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        operator.heal_predictor("fraud-v1")


def stored(files: dict[str, str]) -> dict[str, str]:
    """What is at the address of the baseline's predictor, with SHA-256."""
    s3 = boto3.client("s3")
    found = {item["Key"] for item in s3.list_objects_v2(Bucket="models").get("Contents", [])}
    return {
        path: hashlib.sha256(s3.get_object(Bucket="models", Key=f"x/{path}")["Body"].read()).hexdigest()
        for path in files
        if f"x/{path}" in found
    }


def test_after_a_retirement_an_emergency_restores_predictor_and_artifacts_and_then_switches(
    promoted: Baking, tmp_path: Path
) -> None:
    world = promoted.world
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models")
    folder = world.systems.registry.artifact_files(world.test.baseline, tmp_path / "logged")
    files = {}
    for path in filter(lambda one: one.is_file(), folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        s3.upload_file(str(path), "models", f"x/{name}")
    baked(promoted)
    assert watch_promotion() == "retired"
    for name in files:
        s3.delete_object(Bucket="models", Key=f"x/{name}")
    with needing_artifacts(world, files):
        outcome = revert_traffic(world.systems.serving, revert_id="r7", actor="U0CHI", reason="wrong", at=datetime.now(UTC))
        assert outcome.pending_restore
        assert world.state.traffic == {"fraud-v1": 0, "fraud-v2": 100}
        rollback_to_baseline("r7", "U0CHI", "wrong")
        assert stored(files) == files
        assert world.state.serves_alone("fraud-v1")
        assert {world.kubernetes.route(f"card-{number}") for number in range(200)} == {"fraud-v1"}
    [line] = [line for line in promoted.said if "missing files" in line]
    assert f"{len(files)} missing files of {world.test.baseline} are back at s3://models/x" in line
    assert world.registry() == ["Production (champion)", "Archived"]


def test_a_rehearsal_says_that_the_baseline_is_not_the_tests_any_more(promoted: Baking) -> None:
    state = promoted.world.state
    spec = {**state.predictors[0].spec, "graph": {"name": "fraud-v1", "modelUri": "s3://models/fraud_v3"}}
    anew = replace(state, predictors=(replace(state.predictors[0], spec=spec), *state.predictors[1:]))
    readiness = promoted.world.systems.serving.readiness()
    assert revert_obstacles(state, readiness) == ()
    [obstacle] = revert_obstacles(anew, readiness)
    assert "fraud-v1 was changed since the test started" in obstacle


def test_artifacts_that_cannot_be_restored_are_said_and_hold_nothing_up(promoted: Baking) -> None:
    """Something else lies at the predictor's address: it is not overwritten, and the revert goes on without it."""
    world = promoted.world
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="x/MLmodel", Body=b"another model")
    baked(promoted)
    assert watch_promotion() == "retired"
    world.emergency("r8")
    rollback_to_baseline("r8", "U0CHI", "wrong")
    assert s3.get_object(Bucket="models", Key="x/MLmodel")["Body"].read() == b"another model"
    assert any("could not be restored from the archive" in line and "other content" in line for line in promoted.said)
    assert world.state.serves_alone("fraud-v1")
    assert world.kinds()[-1] is RecordKind.EMERGENCY_REVERT


def test_the_weekly_rehearsal_says_that_a_rollback_would_work_or_what_is_in_its_way(promoted: Baking) -> None:
    world = promoted.world
    before = world.state
    assert rehearse_rollback().startswith("ready, ")
    world.kubernetes.operator.fail_predictor("fraud-v1")
    try:
        wait_until(lambda: not world.systems.serving.readiness().is_up("fraud-v1"))
        assert "fraud-v1 is not ready" in rehearse_rollback()
    finally:
        world.kubernetes.operator.heal_predictor("fraud-v1")
    assert (world.state.generation, world.state.annotations) == (before.generation, before.annotations)
    said = [message["text"] for message in world.slack.messages("C0FRAUD") if "Rollback rehearsed" in message["text"]]
    assert said[-2].startswith("Rollback rehearsed: ready, ")
    assert said[-1].startswith(":warning: Rollback rehearsed: not ready: the predictor fraud-v1 is not ready")
