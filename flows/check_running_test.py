"""The daily health of every running test: a broken split or silent labels are found on day 1, not at the first look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import TypeAdapter

from flows.deployment_names import FINALIZING_FLOW
from flows.domain.ab_test import ABTest
from flows.domain.errors import FeedbackInvalid
from flows.domain.feedback import ExposureWindow
from flows.domain.health import Health, check_health
from flows.steps import step
from flows.wiring import systems
from slackbot.messages.block_kit import escape
from slackbot.prefect_gateway import PrefectGateway

if TYPE_CHECKING:
    from datetime import datetime

    from flows.domain.counts import FeedbackHealth
    from flows.domain.policy import Policy
    from flows.evaluate_ab_test import WindowTelemetry
    from flows.ports import FeedbackSource

Json = dict[str, Any]

_TEST = TypeAdapter(ABTest)


@flow(name="check-running-test", persist_result=True)
def check_running_test(test: ABTest | None = None) -> dict[str, list[str]]:
    """Check one test, or without it each that has an unfinished run of finalize-ab-test (scheduled, suspended or running).

    Returns:
        for each test's id the names of the checks that found a problem.
    """
    tests = [_TEST.dump_python(test, mode="json")] if test else running_tests()
    return {each["test_id"]: check_and_tell(each) for each in tests}


@step("Find the running tests")
def running_tests() -> list[Json]:
    """Each test once, as JSON."""
    runs = PrefectGateway().unfinished_parameters(FINALIZING_FLOW)
    found = [parameters["test"] for parameters in runs if parameters.get("test")]
    return list({test["test_id"]: test for test in found}.values())


@step("Check the test's health")
def check_and_tell(test: Json) -> list[str]:
    """Say in Slack what is broken, once for each problem and day, and keep all that was seen as an artifact."""
    asked, policy = _TEST.validate_python(test), systems().policy
    feedback, window = systems().feedback, exposure_so_far(systems().feedback, asked, systems().decision_log.now())
    days, checks = examine(feedback, systems().window_telemetry(asked), window, policy)
    create_markdown_artifact(key="health", markdown=_report(asked, window, checks, days), description=asked.test_id)
    problems = [check for check in checks if check.is_problem]
    for problem in problems:
        systems().publisher.announce(
            f"health:{asked.test_id}:{window.exposure_days}:{problem.check}", _sentence(asked, window, problem)
        )
    return [str(problem.check) for problem in problems]


def exposure_so_far(feedback: FeedbackSource, test: ABTest, now: datetime) -> ExposureWindow:
    """From the start of the test to the end of what the feedback knows at `now`; a day that has begun counts.

    Raises:
        FeedbackInvalid: the feedback ends before the test began.
    """
    as_of = feedback.watermark(now)
    if as_of < test.started_at:
        raise FeedbackInvalid(f"The feedback ends on {as_of:%Y-%m-%d %H:%M} UTC, before the test {test.test_id} began.")
    return ExposureWindow(test.started_at, (as_of - test.started_at).days + 1, as_of)


def examine(
    feedback: FeedbackSource, telemetry: WindowTelemetry, window: ExposureWindow, policy: Policy
) -> tuple[FeedbackHealth, tuple[Health, ...]]:
    """What the feedback holds by day, and the checks of it; no outcome is read."""
    found = feedback.health(window)
    return found, check_health(found, telemetry.summarise(window, policy), window, policy)


def _sentence(test: ABTest, window: ExposureWindow, problem: Health) -> str:
    name = str(problem.check).replace("_", " ")
    return (
        f":warning: A/B test {escape(test.test_id)}, day {window.exposure_days}: {name} is not as it should be:"
        f" {escape(problem.found)}. The test goes on; repair it or stop it before it wastes its days."
    )


def _report(test: ABTest, window: ExposureWindow, checks: tuple[Health, ...], feedback: FeedbackHealth) -> str:
    words = {True: "**problem**", False: "fine", None: "not checked"}
    lines = [f"# Health of {test.test_id} on day {window.exposure_days}", "", "| Check | | Found |", "|---|---|---|"]
    lines += [f"| {check.check} | {words[check.is_problem]} | {check.found} |" for check in checks]
    lines += ["", "| Day | Arm | Age in days | Transactions | With a label |", "|---|---|---|---|---|"]
    known = (window.as_of - window.start).days
    lines += [
        f"| {day.day} | {day.arm} | {max(0, known - day.day)} | {day.rows:,} | {100 * day.labelled / day.rows:.1f} % |"
        for day in feedback.days
    ]
    return "\n".join(lines)
