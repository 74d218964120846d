"""The smallest flow that asks a person: a process of its own runs it, as `fraud-ab serve` runs the real one.

It writes what it does to a journal, a file that it finds where other tests name their experiment, and dies or hangs on request,
once, just before it marks an answer as carried out. With HELD_RUNS the process of a run gets no farther than this file.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from flows.ask_a_person import mark_as_carried_out, schedule_reminders, wait_for_answer
from flows.domain.ab_test import ABTest, Arm
from flows.domain.action_plan import ActionPlan
from flows.domain.counts import Design, ModelCounts, Outcomes
from flows.domain.decision import DecisionRequest, Links, NextStep, next_step
from flows.domain.evidence import Evidence
from flows.domain.policy import Policy
from flows.domain.verdict import decide_verdict
from flows.execution import leased_run
from flows.steps import step
from flows.wiring import systems

TEST = TypeAdapter(ABTest)
if os.environ.get("HELD_RUNS") and __name__ != "__main__":
    threading.Event().wait()


def request(test: ABTest, round_number: int, flow_run_id: str) -> DecisionRequest:
    evidence = Evidence(counted=Outcomes(Design.SPLIT, ModelCounts(1000, 800, 900, 820), ModelCounts(1000, 860, 950, 865)))
    return DecisionRequest(
        test=test,
        round=round_number,
        flow_run_id=flow_run_id,
        verdict=decide_verdict(evidence, Policy()),
        plan=ActionPlan(Arm.CANDIDATE, (100,), ()),
        rollback_plan=ActionPlan(Arm.BASELINE, (100,), ()),
        epoch=1,
        links=Links(),
        decide_within_hours=72,
        next_look_at=None,
    )


@flow(name="ask", persist_result=True)
def ask(test: dict[str, Any]) -> str:
    with leased_run():
        return _ask(test, test["experiment_run_id"])


def _ask(test: dict[str, Any], journal: str) -> str:
    for round_number in count(1):
        decision_id = open_question(test, round_number, journal)
        schedule_reminders(decision_id)
        decision = wait_for_answer(decision_id)
        assert decision.claim is not None
        act(decision_id, journal, decision.claim.choice)
        die_if_asked(journal)
        mark_as_carried_out(decision_id, flow_run.run_count)
        if next_step(decision.request.verdict.kind, decision.claim.choice) is not NextStep.EVALUATE_AGAIN:
            return decision.claim.choice
    raise AssertionError


@step("open the question")
def open_question(test: dict[str, Any], round_number: int, journal: str) -> str:
    write(journal, f"asked {round_number}")
    return systems().decision_log.open(request(TEST.validate_python(test), round_number, flow_run.get_id() or "")).decision_id


@step("act")
def act(decision_id: str, journal: str, choice: str) -> None:
    write(journal, f"acted {decision_id} {choice}")


def write(journal: str, line: str) -> None:
    with Path(journal).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def die_if_asked(journal: str) -> None:
    trap = Path(f"{journal}.trap")
    if trap.exists():
        hangs = trap.read_text(encoding="utf-8") == "hang"
        trap.unlink()
        write(journal, "hangs" if hangs else "died")
        if hangs:
            threading.Event().wait()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    ask.serve(name=sys.argv[1], pause_on_shutdown=False, print_starting_message=False)
