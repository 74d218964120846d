"""The whole story of one A/B test: evaluate, ask a person, carry the answer out; or wait and evaluate again.

One flow run per test. It is executed from the top after every wait and every crash: what was done comes back from the steps'
results, what was answered from the decision log, and nothing else may steer it.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from flows.ask_a_person import mark_as_carried_out, schedule_reminders, wait_for_answer
from flows.documents import document_answer
from flows.domain.ab_test import ABTest, Arm
from flows.domain.action_plan import plan_model_in_charge
from flows.domain.decision import Choice, Decision, DecisionRequest, Links, NextStep, next_step
from flows.domain.decision_record import RecordKind
from flows.domain.errors import PromotionUndone
from flows.domain.evidence import Evidence
from flows.domain.feedback import looks_on_the_clock
from flows.domain.verdict import Verdict
from flows.evaluate_ab_test import evaluate
from flows.execution import leased_run, tell_failure
from flows.production_steps import COMPENSATED
from flows.promote_candidate import promote_candidate
from flows.reports.charts import chart_in_words, recall_and_precision_chart
from flows.rollback_to_baseline import keep_baseline
from flows.steps import step
from flows.telling import redraw, show_picture
from flows.wiring import systems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.domain.sequential import Look

Json = dict[str, Any]

_TEST = TypeAdapter(ABTest)


@flow(name="finalize-ab-test", persist_result=True, flow_run_name="{test.test_id}", on_failure=[tell_failure])
def finalize_ab_test(test: ABTest) -> dict[str, object]:
    """Decide the A/B test and carry the decision out.

    Returns:
        the last decision's id, verdict, choice and what became of it, and the number of rounds.

    Raises:
        PromotionUndone: the promotion failed and everything was put back. The run ends as failed, so that people see it, and its
            retry is another attempt.
    """
    with leased_run():
        return _decide(test)


def _decide(test: ABTest) -> dict[str, object]:
    carried_out = None
    for round_number in count(1):
        evaluation = evaluate_round(_TEST.dump_python(test, mode="json"), round_number)
        decision_id = open_decision(evaluation, round_number)
        post_verdict(decision_id)
        show_chart(decision_id)
        schedule_reminders(decision_id)
        if carried_out is not None:
            mark_as_carried_out(
                carried_out, flow_run.run_count
            )  # an answer "evaluate again" is carried out when the next question is asked
        decision = wait_for_answer(decision_id)
        redraw_answered(decision_id)
        outcome = _carry_out(decision)
        if outcome is not None:
            mark_as_carried_out(decision_id, flow_run.run_count)
            if outcome == COMPENSATED:
                raise _undone(decision_id)
            return _summary(decision, round_number, outcome)
        document_answer(decision_id)
        carried_out = decision_id
    raise AssertionError("the rounds never end by themselves")


def _carry_out(decision: Decision) -> str | None:
    """What became of the answer; None when the test is to be evaluated again."""
    match next_step(decision.request.verdict.kind, _choice(decision)):
        case NextStep.PROMOTE_CANDIDATE:
            return promote_candidate(decision.decision_id)
        case NextStep.KEEP_BASELINE:
            return keep_baseline(decision.decision_id)
        case NextStep.EVALUATE_AGAIN:
            return None


@step("Evaluate the feedback")
def evaluate_round(test: Json, round_number: int) -> Json:
    """Evidence and verdict as JSON, with the test; the numbers also as an artifact of the run."""
    asked = _TEST.validate_python(test)
    log, feedback = systems().decision_log, systems().feedback
    looks = _looks_before(log.decisions(asked.test_id), round_number)
    found = evaluate(feedback, systems().window_telemetry(asked), systems().policy, asked.started_at, log.now(), looks)
    text = "\n\n".join([f"# {found.verdict.kind}", *found.verdict.reasons])
    create_markdown_artifact(key="verdict", markdown=text, description=f"Round {round_number}")
    return {"test": test, "evidence": found.evidence.to_json(), "verdict": found.verdict.to_json()}


@step("Open the decision")
def open_decision(evaluation: Json, round_number: int) -> str:
    """Store the question with everything that a person is shown. Returns the decision's id."""
    test = _TEST.validate_python(evaluation["test"])
    evidence, verdict = Evidence.from_json(evaluation["evidence"]), Verdict.from_json(evaluation["verdict"])
    policy, log, serving = systems().policy, systems().decision_log, systems().serving.read()
    registry = tuple(systems().registry.entry(model) for model in test.models)
    answers = [earlier.claim.choice for earlier in log.decisions(test.test_id) if earlier.claim]
    next_look_at, horizon_at = looks_on_the_clock(evidence.window, policy, log.now())
    request = DecisionRequest(
        test=test,
        round=round_number,
        flow_run_id=flow_run.get_id() or "",
        verdict=verdict,
        plan=plan_model_in_charge(test, _in_charge_after(verdict), serving, registry, (*policy.traffic_steps, 100)),
        rollback_plan=plan_model_in_charge(test, Arm.BASELINE, serving, registry, (100,)),
        epoch=serving.epoch,
        policy=policy,
        links=_links(test),
        decide_within_hours=policy.decide_within_hours,
        next_look_at=next_look_at,
        horizon_at=horizon_at,
        postponements_left=max(0, policy.max_postponements - answers.count(Choice.POSTPONE)),
        evidence=evidence,
    )
    return log.open(request).decision_id


@step("Post the verdict")
def post_verdict(decision_id: str) -> None:
    """If Slack is down the reconciler posts it; reminders and expiry must not wait for that."""
    redraw(decision_id)


@step("Show the chart")
def show_chart(decision_id: str) -> None:
    request = systems().decision_log.read(decision_id).request
    chart = recall_and_precision_chart(request)
    if chart is not None:
        show_picture(decision_id, "chart", chart, chart_in_words(request))


@step("Redraw the message with the answer")
def redraw_answered(decision_id: str) -> None:
    """What was decided is carried out, whether Slack can show it or not."""
    redraw(decision_id)


def _in_charge_after(verdict: Verdict) -> Arm:
    """Whose model a confirmation puts in charge."""
    return Arm.CANDIDATE if next_step(verdict.kind, Choice.CONFIRM) is NextStep.PROMOTE_CANDIDATE else Arm.BASELINE


def _looks_before(decisions: Sequence[Decision], round_number: int) -> tuple[Look, ...]:
    """The looks that the latest earlier round has taken; what was seen was spent, whichever run saw it."""
    rounds = [decision.request for decision in decisions if decision.request.round < round_number]
    latest = max(rounds, key=lambda request: request.round, default=None)
    return latest.evidence.looks if latest is not None and latest.evidence is not None else ()


def _links(test: ABTest) -> Links:
    return Links(
        prefect_run=_run_url(),
        mlflow_run=systems().registry.run_url(test),
        dashboard=systems().settings.dashboard_url,
    )


def _run_url() -> str:
    base = systems().settings.prefect_ui_url.rstrip("/")
    return f"{base}/runs/flow-run/{flow_run.get_id()}" if base else flow_run.get_flow_run_ui_url() or ""


def _undone(decision_id: str) -> PromotionUndone:
    records = systems().decision_log.records(decision_id)
    why = [str(record.payload["why"]) for record in records if record.kind is RecordKind.COMPENSATED][-1:]
    until = f"{systems().decision_log.read(decision_id).deadline:%Y-%m-%d %H:%M} UTC"
    return PromotionUndone(
        f"the promotion was undone and the baseline serves. Why: {'; '.join(why)}. "
        f"Retry this run in Prefect until {until} to try it again under the same decision"
    )


def _choice(decision: Decision) -> Choice:
    if decision.claim is None:
        raise ValueError(f"{decision.decision_id} has no answer yet")
    return decision.claim.choice


def _summary(decision: Decision, rounds: int, outcome: str) -> dict[str, object]:
    return {
        "decision_id": decision.decision_id,
        "verdict": str(decision.request.verdict.kind),
        "choice": str(_choice(decision)),
        "outcome": outcome,
        "rounds": rounds,
    }
