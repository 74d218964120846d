"""The world for faults of real processes: the embedded stack with `fraud-ab serve` and the bot, and one small test after another.

Every process is the product's own and none has a hook: what happens to it comes from outside, when something is seen in Slack,
in Prefect, on the SeldonDeployment or in the records. Models and feedback are small: the time goes into the processes.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
import pandas as pd
import psutil

from deployments.sandbox.demo_person import answer
from deployments.sandbox.fault_proxy import Choose, HttpFaultProxy
from deployments.sandbox.feedback_database import FeedbackDatabase
from deployments.sandbox.installed_test import deploy, wait_until_ready
from deployments.sandbox.kubernetes import SandboxKubernetes
from deployments.sandbox.kubernetes.router import NothingServedError
from deployments.sandbox.live_traffic import LiveTraffic
from deployments.sandbox.processes import START_SECONDS
from deployments.sandbox.slack import SandboxSlack
from deployments.sandbox.stack import EmbeddedStack
from flows.domain.ab_test import ABTest, Model
from flows.domain.action_plan import Stage
from flows.domain.decision import Choice, Decision
from flows.domain.decision_record import RecordKind
from flows.domain.errors import OutsideSystemError
from flows.domain.evidence import plain
from flows.domain.serving_state import ServingState
from flows.settings import Settings, load_settings
from flows.start_ab_test import start_ab_test
from flows.wiring import Systems
from slackbot.publisher import message_key
from tests.feedback_tables import START, feedback_frame

T = TypeVar("T")

CHANNEL = "C0FRAUD"
STARTED_AT = datetime.fromisoformat(START.isoformat())
KNOWN_UNTIL = STARTED_AT + timedelta(days=52)  # the second of three looks has matured, so that it can be postponed
EXAMPLE = pd.DataFrame({"amount": [1.0, 900.0, 3.0]})
LOOK_SECONDS, WATCH_CLOSELY_SECONDS = 0.2, 0.05
API_SECONDS = 10
DEPLOYMENT_SECONDS = 90.0
POLICY = """\
watch_minutes = {watch_minutes}
postponements = ["5 seconds"]
promoters = ["U0ANA"]
rollbackers = ["U0CHI"]
"""


class NotSeen(RuntimeError):
    """What was waited for did not come."""


@dataclass(frozen=True, slots=True)
class Story:
    """One test and the flow run that decides it."""

    test: ABTest
    run_id: str
    round: int = 1

    @property
    def decision_id(self) -> str:
        return f"{self.test.test_id}-{self.round}"

    def next_round(self) -> Story:
        return replace(self, round=self.round + 1)


class ProcessWorld:
    """Everything that a case needs to see, to do and to break."""

    def __init__(self, stack: EmbeddedStack, kubernetes: SandboxKubernetes, slack: SandboxSlack) -> None:
        self.stack, self.kubernetes, self.slack = stack, kubernetes, slack
        self.systems = Systems(load_settings(Settings))
        self._prefect = httpx.Client(base_url=f"{stack.prefect_url}/api", timeout=API_SECONDS)
        self._model_uri, self._experiment = _log_model(self.systems.settings.mlflow_tracking_uri)
        self._deploy()
        self._database = FeedbackDatabase(self.systems.settings.feedback_url)
        self.let(candidate_win=True)
        self._day = 0
        self.traffic = self._new_traffic(_feedback())

    def close(self) -> None:
        self.traffic.stop()
        self._prefect.close()

    # ---- what is done ---------------------------------------------------------------------------------------------

    def let(self, *, candidate_win: bool) -> None:
        """Which model catches more frauds, from the next evaluation on."""
        self._database.load(_feedback(candidate_wins=candidate_win))

    def slow_down(self, added_ms: float) -> None:
        """From now on every request takes so much longer; live traffic goes on one day later."""
        self.traffic.stop()
        frame = _feedback()
        self._day += 1
        self.traffic = self._new_traffic(frame.assign(latency_ms=frame["latency_ms"] + added_ms))

    def _new_traffic(self, frame: pd.DataFrame) -> LiveTraffic:
        arms = {"fraud-v1": "baseline", "fraud-v2": "candidate"}
        now = KNOWN_UNTIL + self._day * timedelta(days=1)
        traffic = LiveTraffic(self._database, frame, route=self._route, arms=arms, now=now)
        traffic.start()
        return traffic

    def _route(self, card: str) -> str:
        """As the router does; while the deployment is made anew, requests wait."""
        while True:
            with contextlib.suppress(NothingServedError):
                return self.kubernetes.route(card)
            time.sleep(WATCH_CLOSELY_SECONDS)

    def new_story(self) -> Story:
        """Two new models, a SeldonDeployment on which the baseline serves alone, a test of them, and its flow run."""
        import mlflow

        name = f"t{uuid.uuid4().hex[:8]}"
        models = [Model(f"fraud_{arm}_{name}", "1", f"fraud-{arm}") for arm in ("v1", "v2")]
        for model in models:
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints a line for each registered version
                mlflow.register_model(self._model_uri, model.name)
        run = mlflow.MlflowClient().create_run(self._experiment).info.run_id
        test = ABTest(name, models[0], models[1], STARTED_AT, run)
        self._deploy()
        self.systems.registry.set_in_charge(test.baseline)
        self.systems.registry.set_stage(test.candidate, Stage.STAGING)
        start_ab_test(self.systems.serving, test, self.systems.policy)
        wait_until_ready(self.systems.serving)
        return Story(test, self._start_run(test))

    def _deploy(self) -> None:
        deploy(self.systems, dict.fromkeys(("fraud-v1", "fraud-v2"), self._model_uri))

    def _start_run(self, test: ABTest) -> str:
        from slackbot.prefect_gateway import PrefectGateway

        def start() -> str:
            gateway = PrefectGateway()
            return gateway.start_run("finalize-ab-test/fraud", {"test": plain(test)}, idempotency_key=test.test_id)

        return self.until(start, "the deployment finalize-ab-test/fraud", DEPLOYMENT_SECONDS).rsplit("/", 1)[-1]

    def press(self, story: Story, choice: Choice) -> None:
        """As Ana in Slack, as soon as the question is there; the flow run may still be on its way to wait for it."""
        self.until(lambda: self.systems.outbox.find(message_key(story.decision_id)), f"the question {story.decision_id}")
        answer(self.slack, choice)
        self.until(lambda: not self.decision(story).is_pending, f"the answer to {story.decision_id}")

    def set_watch(self, minutes: float) -> None:
        """How long every process that starts from now on watches a shift."""
        file = self.systems.settings.policy_file
        if file is None:
            raise LookupError("the stack has no policy file")
        file.write_text(POLICY.format(watch_minutes=minutes), encoding="utf-8")

    def retry_in_prefect(self, story: Story, *, force: bool) -> None:
        """What the Retry button of Prefect's page sends: the old page does not force the state, the new one does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        answer = self.prefect(f"flow_runs/{story.run_id}/set_state", {"state": state, "force": force})
        if answer["status"] != "ACCEPT":
            raise NotSeen(f"Prefect did not accept the retry: {answer}")

    def kill_run(self, story: Story) -> None:
        """SIGKILL to the flow run's own process."""
        process = self.process_of(story)
        if process is None or self.decision(story).consumed_at is not None:
            raise NotSeen("the run was over before it could be killed")
        process.kill()

    def lose_machine(self, story: Story) -> None:
        """The runner and every flow run's process at once; then the runner is started again."""
        if self.process_of(story) is None:
            raise NotSeen("the run was over before its machine could be lost")
        serve = self.stack.child("serve")
        serve.lose()
        serve.start_again()

    def await_prefect(self) -> None:
        self.stack.child("prefect").wait_until(f"{self.stack.prefect_url}/api/health", seconds=START_SECONDS)

    # ---- what is seen ---------------------------------------------------------------------------------------------

    def until(self, look: Callable[[], T | None], what: str, seconds: float = 90.0, *, pause: float = LOOK_SECONDS) -> T:
        """Look again and again until there is something true; what is away for a moment is not there yet."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, OutsideSystemError):
                if found := look():
                    return found
            time.sleep(pause)
        raise NotSeen(f"waited {seconds:g} s for {what}")

    def state(self) -> ServingState:
        return self.systems.serving.read()

    def decision(self, story: Story) -> Decision:
        return self.systems.decision_log.read(story.decision_id)

    def kinds(self, story: Story) -> list[RecordKind]:
        return [record.kind for record in self.systems.decision_log.records(story.decision_id)]

    def thread(self, story: Story) -> list[str]:
        """The lines under the question in Slack."""
        posted = self.systems.outbox.find(message_key(story.decision_id))
        return [str(reply["text"]) for reply in self.slack.thread(posted.ts)] if posted else []

    def prefect(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._prefect.request("GET" if body is None else "POST", path, json=body).raise_for_status().json()

    def run_state(self, story: Story) -> str:
        """The name of the flow run's state in Prefect."""
        return str(self.prefect(f"flow_runs/{story.run_id}")["state"]["name"])

    def run_message(self, story: Story) -> str:
        """What Prefect's page says of the run's state."""
        return str(self.prefect(f"flow_runs/{story.run_id}")["state"]["message"])

    def executions(self, story: Story) -> int:
        """How often the flow run was begun."""
        return int(self.prefect(f"flow_runs/{story.run_id}")["run_count"])

    def is_in_task(self, story: Story, name: str) -> bool:
        """Whether Prefect shows this step of the run as Running."""
        wanted = {"flow_runs": {"id": {"any_": [story.run_id]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        return any(str(task["name"]).startswith(name) for task in self.prefect("task_runs/filter", wanted))

    def process_of(self, story: Story) -> psutil.Process | None:
        """The process that executes the flow run: Prefect tells it by its environment which run it is."""
        for process in psutil.Process(self.stack.child("serve").process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == story.run_id:
                    return process
        return None


@contextlib.contextmanager
def process_world(mlflow_meets: Choose | None = None) -> Generator[ProcessWorld]:
    """Start everything; stop it with everything that it started. Meanwhile this process's environment is the stack's.

    Args:
        mlflow_meets: what happens to each request to MLflow; None: nothing stands before it.
    """
    from prefect.context import refresh_global_settings_context

    stack, before, ends = EmbeddedStack(), dict(os.environ), contextlib.ExitStack()
    try:
        stack.start()
        if mlflow_meets is not None:
            proxy = ends.enter_context(HttpFaultProxy(stack.mlflow_url, mlflow_meets))
            stack.environment["MLFLOW_TRACKING_URI"] = proxy.url
        (stack.folder / "policy.toml").write_text(POLICY.format(watch_minutes=0), encoding="utf-8")
        os.environ.update(stack.environment)
        refresh_global_settings_context()
        stack.start_product()
        if stack.kubernetes is None or stack.slack is None:
            raise LookupError("these cases break what they run on: unset KUBECONFIG and SLACK_BOT_TOKEN")
        world = ProcessWorld(stack, stack.kubernetes, stack.slack)
        ends.callback(world.close)
        yield world
    finally:
        ends.close()
        stack.stop()
        os.environ.clear()
        os.environ.update(before)
        refresh_global_settings_context()


def _feedback(*, candidate_wins: bool = True) -> pd.DataFrame:
    """One model catches more frauds and neither has a false alarm, so that few rows decide; labels as far as they are known."""
    frame = feedback_frame(12_000)
    frame["entity_id"] = frame["entity_id"].astype(str)
    frame.loc[~frame["is_fraud"].astype(bool), ["baseline_prediction", "candidate_prediction"]] = False
    frame.loc[frame["label_time"] > pd.Timestamp(KNOWN_UNTIL), ["is_fraud", "label_time", "label_source"]] = None
    if not candidate_wins:
        names = {"baseline_prediction": "candidate_prediction", "candidate_prediction": "baseline_prediction"}
        frame = frame.rename(columns=names)
    return frame


def _log_model(tracking_uri: str) -> tuple[str, str]:
    """The address of a tiny model in MLflow, and the experiment of the tests."""
    import mlflow
    import mlflow.sklearn as flavor
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.MlflowClient().create_experiment("process-faults")
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1], mlflow.start_run(experiment_id=experiment):
        logged = flavor.log_model(
            LogisticRegression().fit(EXAMPLE, [0, 1, 0]),
            name="model",
            signature=infer_signature(EXAMPLE, [0, 1, 0]),
            input_example=EXAMPLE,
            pip_requirements=["scikit-learn"],
        )
    return str(logged.model_uri), str(experiment)
