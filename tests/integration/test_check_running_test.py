"""The daily health check on simulated tests as a Prefect run: what is broken is in Slack on day 1, what is well is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Scheduled

from deployments.sandbox.prefect_server import PrefectServer
from deployments.sandbox.simulator import SimulatedTest, simulate_test
from deployments.sandbox.slack import SandboxSlack
from flows.adapters.feedback_ibis import IbisFeedback
from flows.adapters.telemetry_feedback import FeedbackTelemetry
from flows.check_running_test import check_running_test, examine, exposure_so_far
from flows.domain.ab_test import ABTest, Model
from flows.domain.counts import CardCounts, LabelledDay
from flows.domain.errors import FeedbackInvalid
from flows.domain.feedback import ExposureWindow
from flows.domain.health import HealthCheck
from flows.domain.policy import Policy
from flows.finalize_ab_test import finalize_ab_test
from flows.wiring import systems
from tests.feedback_tables import START, feedback_frame, written

if TYPE_CHECKING:
    from uuid import UUID

SEED = 7
LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Any time after everything that the feedback holds."""
POLICY = Policy()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def won(cache: Path) -> SimulatedTest:
    return simulate_test("win", SEED, cache=cache)


def ab_test_of(simulated: SimulatedTest) -> ABTest:
    models = Model("fraud_v1", "1", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2")
    return ABTest(simulated.scenario.name, *models, simulated.test_start, "run")


def known_after(simulated: SimulatedTest, days: float, folder: Path) -> str:
    return written(simulated.feedback(simulated.test_start + timedelta(days=days)), folder, f"{days:g}.parquet")


@pytest.fixture
def slack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxSlack]:
    with SandboxSlack() as server:
        for name, value in {
            "SLACK_BOT_TOKEN": server.bot_token,
            "SLACK_API_URL": server.api_url,
            "MLFLOW_TRACKING_URI": "unused",
            "FRAUD_AB_SLACK_CHANNEL": "C0FRAUD",
            "FRAUD_AB_DECISION_LOG_URL": f"sqlite:///{tmp_path / 'log.db'}",
            "FRAUD_AB_FEEDBACK_URL": str(tmp_path / "1.parquet"),
            "FRAUD_AB_LIFECYCLE_REPOSITORY": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        systems.cache_clear()
        yield server
        systems.cache_clear()


@pytest.fixture(scope="module")
def prefect(prefect_server: PrefectServer) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: f"{prefect_server.url}/api"}):
        yield


def schedule_finalizing(test: ABTest) -> UUID:
    """What starting a test leaves in Prefect: a run of finalize-ab-test for the day of the first look."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run(finalize_ab_test, parameters={"test": test}, state=Scheduled()).id


def test_a_split_bug_is_in_slack_on_day_1_and_said_once_a_day(
    prefect: None, slack: SandboxSlack, cache: Path, tmp_path: Path
) -> None:
    simulated = simulate_test("split-bug", SEED, cache=cache)
    known_after(simulated, 1, tmp_path)
    run_id = schedule_finalizing(ab_test_of(simulated))
    assert check_running_test() == {"split-bug": ["sample_ratio", "crossover"]}
    texts = [message["text"] for message in slack.messages("C0FRAUD")]
    assert len(texts) == 2
    assert "day 1: sample ratio is not as it should be" in texts[0]
    check_running_test()
    assert len(slack.messages("C0FRAUD")) == 2
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["health"])))
        assert "| sample_ratio | **problem** |" in str(artifacts[0].data)
        client.set_flow_run_state(run_id, Completed(), force=True)
    assert check_running_test() == {}


def test_a_healthy_test_is_not_mentioned(prefect: None, slack: SandboxSlack, won: SimulatedTest, tmp_path: Path) -> None:
    known_after(won, 1, tmp_path)
    assert check_running_test(ab_test_of(won)) == {"win": []}
    assert slack.messages("C0FRAUD") == []


@pytest.mark.parametrize("days", [0.5, 1, 2, 7, 14, 28, 35, 58])
def test_a_healthy_test_raises_no_alarm_on_any_day(days: float, won: SimulatedTest, tmp_path: Path) -> None:
    source = known_after(won, days, tmp_path)
    feedback = IbisFeedback(source, POLICY)
    window = exposure_so_far(feedback, ab_test_of(won), LATER)
    _, checks = examine(feedback, FeedbackTelemetry(source, POLICY), window, POLICY)
    assert [check for check in checks if check.is_problem is not False] == []


def test_a_slow_candidate_is_found_within_days(cache: Path, tmp_path: Path) -> None:
    source = known_after(simulate_test("slow-candidate", SEED, cache=cache), 2, tmp_path)
    feedback = IbisFeedback(source, POLICY)
    start = feedback.first_event().replace(hour=0, minute=0, second=0)
    window = ExposureWindow(start, 2, feedback.watermark(LATER))
    _, checks = examine(feedback, FeedbackTelemetry(source, POLICY), window, POLICY)
    assert [check.check for check in checks if check.is_problem] == [HealthCheck.LATENCY]


def test_the_feedbacks_health_is_what_pandas_counts(tmp_path: Path) -> None:
    frame = feedback_frame(3_000)
    frame.loc[frame.index % 3 == 0, ["is_fraud", "label_time"]] = None
    frame.loc[frame.index % 50 == 0, "arm"] = "candidate"
    end = START + pd.Timedelta(days=5)
    found = IbisFeedback(written(frame, tmp_path), POLICY).health(
        ExposureWindow(START.to_pydatetime(), 5, (START + pd.Timedelta(days=60)).to_pydatetime())
    )
    rows = frame[frame.event_time < end]
    day = (rows.event_time - START).dt.days + 1
    expected = rows.groupby([day.rename("day"), "arm"]).is_fraud.agg(["size", "count"])
    assert found.days == tuple(LabelledDay(arm, d, int(r["size"]), int(r["count"])) for (d, arm), r in expected.iterrows())
    arms = rows.groupby("entity_id").arm.agg(lambda one: "/".join(sorted(set(one)))).value_counts()
    assert found.cards == CardCounts(arms["baseline"], arms["candidate"], arms["baseline/candidate"])
    assert found.last_label_days == (START + pd.Timedelta(days=60) - rows.label_time.max().floor("s")).days


def test_feedback_from_before_the_test_is_refused(won: SimulatedTest, tmp_path: Path) -> None:
    frame = feedback_frame(100)
    frame["label_time"] = pd.Series(pd.NaT, index=frame.index, dtype="datetime64[us, UTC]")
    frame["event_time"] -= pd.Timedelta(days=900)
    with pytest.raises(FeedbackInvalid, match="before the test win began"):
        exposure_so_far(IbisFeedback(written(frame, tmp_path), POLICY), ab_test_of(won), LATER)
