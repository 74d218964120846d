"""What people are shown in Slack, one of each kind: verdicts made by the rules, every state of a decision, every modal, the Home.

Times and numbers are fixed, so that the same code gives the same pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from flows.domain.ab_test import ABTest, Arm, Model
from flows.domain.action_plan import RegistryEntry, Stage, plan_model_in_charge
from flows.domain.bake import Breach, BreachKind
from flows.domain.counts import AmountCounts, ArmCounts, CardCounts, DayCounts, Design, ModelCounts, Outcomes
from flows.domain.decision import Choice, Claim, Confirmation, Decision, DecisionRequest, Links, Person, due_after
from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind
from flows.domain.evidence import Evidence, plain
from flows.domain.policy import Policy
from flows.domain.sequential import Look
from flows.domain.serving_state import INTENT, OPERATION, REVERT_TO, TEST, UNRECORDED, Predictor, ServingState
from flows.domain.verdict import Verdict, VerdictKind, decide_verdict
from slackbot.authorization import Permission, allowed_ids
from slackbot.messages import rollback_messages, wording
from slackbot.messages.block_kit import Json, SlackMessage, lines, link, mention
from slackbot.messages.breach_message import breach_message
from slackbot.messages.modals import confirm_modal, force_rollback_modal, fraud_rollback_modal, notice_modal, postpone_modal
from slackbot.messages.stakeholder_message import stakeholder_message
from slackbot.messages.status_messages import Known, Overview, home_view, status_message
from slackbot.messages.verdict_message import verdict_message
from slackbot.payloads import AskedQuestion, AskedRollback
from tests.unit.flows.domain.conftest import Builder

NOW = datetime(2026, 3, 16, 3, 0, tzinfo=UTC)
STARTED = NOW - timedelta(days=51)
BASELINE, CANDIDATE = Model("fraud_v1", "3", "fraud-v1"), Model("fraud_v2", "1", "fraud-v2")
TEST_RUN = ABTest("fraud-2026-01", BASELINE, CANDIDATE, STARTED, "run-1")
POLICY = Policy(promoters=("S0PROMOTERS",), rollbackers=("S0ONCALL",), escalation=("S0ONCALL",))
ANA = Person("U0ANA", "ana")
CHIARA = Person("U0CHI", "chiara")
CHANNEL = "C0FRAUD"
MESSAGE_ADDRESS = "https://example.slack.com/archives/C0FRAUD/p1773630000000100"


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing that a person sees: a message (with the lines of its thread), a modal, or the Home.

    `is_private`: an answer that one person alone sees.
    """

    message: SlackMessage | None = None
    view: Json | None = None
    thread: Sequence[str] = ()
    is_private: bool = False

    @property
    def blocks(self) -> Sequence[Json]:
        return self.message.blocks if self.message else (self.view or {})["blocks"]

    @property
    def digest(self) -> str:
        """Changes when anything that is shown changes."""
        text = self.message.text if self.message else ""
        content = json.dumps([text, self.message.blocks if self.message else self.view, self.thread], sort_keys=True)
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


# ---- what the rules say of four tests


def _evidence(days: int, *, baseline: tuple[int, int, int], candidate: tuple[int, int, int], crossed: int = 2_000) -> Evidence:
    """A split of so many days of exposure; each arm by its frauds, how many it caught, and its false alerts."""
    build, arms = Builder(), (baseline, candidate)
    models = [ModelCounts(frauds, caught, caught + false, caught) for frauds, caught, false in arms]

    def by_day(day: int, model: ModelCounts, salt: int) -> ModelCounts:
        caught, false = model.caught // days, (model.alerts - model.true_alerts) // days
        more = (day * salt) % 5 - 2
        return ModelCounts(model.frauds // days, caught + more, caught + more + false, caught + more)

    feedback = build.feedback(
        outcomes=Outcomes(Design.SPLIT, *models),
        baseline=ArmCounts(800_000, 800_000, 790_000, 8_000, 6_400),
        candidate=ArmCounts(200_000, 200_000, 198_000, 2_000, 1_700),
        cards=CardCounts(8_000, crossed, 3),
        amounts=_amounts(models, (790_000, 198_000)),
        days=tuple(DayCounts(day, by_day(day, models[0], 3), by_day(day, models[1], 7), None) for day in range(days)),
    )
    looks = tuple(Look(day, 10_000 * day // days, day / 28) for day in range(14, days + 1, 7))
    return build.evidence(days, feedback=feedback, looks=looks)


def _amounts(models: Sequence[ModelCounts], rows: tuple[int, int]) -> AmountCounts:
    """Each fraud is one of 100.00 on a card of its own."""
    sums, products = [], []
    for model, served in zip(models, rows, strict=True):
        fraud, caught, false = model.frauds, model.caught, model.alerts - model.true_alerts
        sums.append((fraud * 10**4, caught * 10**4))
        products.append(
            (fraud * 10**8, caught * 10**8, 0, fraud * 10**4, caught * 10**8, 0, caught * 10**4, false, false, served)
        )
    (scored, caught), (scored_too, caught_too) = sums
    return AmountCounts(scored + scored_too, scored, caught, scored_too, caught_too, *rows, tuple(products), by_card=True)


@cache
def _judged(kind: VerdictKind) -> tuple[Evidence, Verdict]:
    """Evidence of which the rules really say so."""
    evidence = _EVIDENCE[kind]
    verdict = decide_verdict(evidence, POLICY)
    assert verdict.kind is kind, (kind, verdict)
    return evidence, verdict


_EVIDENCE: Mapping[VerdictKind, Evidence] = {
    VerdictKind.PROMOTE: _evidence(21, baseline=(8000, 6400, 198), candidate=(2000, 1700, 48)),
    VerdictKind.KEEP_BASELINE: _evidence(28, baseline=(8000, 6400, 198), candidate=(2000, 1624, 55)),
    VerdictKind.INCONCLUSIVE: _evidence(14, baseline=(1200, 960, 30), candidate=(300, 256, 8)),
    VerdictKind.NOT_EVALUABLE: _evidence(14, baseline=(8000, 6400, 198), candidate=(2000, 1700, 48), crossed=3_600),
}


def serving(baseline: int = 80, candidate: int = 20, *, without_baseline: bool = False, **annotations: str) -> ServingState:
    """The deployment of the running test, with its rollback point."""
    point = json.dumps({"predictor": "fraud-v1", "spec": {}})
    first = () if without_baseline else (Predictor("fraud-v1", baseline),)
    return ServingState(
        name="fraud-predictor",
        namespace="models",
        resource_version="7",
        generation=1,
        predictors=(*first, Predictor("fraud-v2", candidate)),
        annotations={REVERT_TO: point, TEST: json.dumps(plain(TEST_RUN)), **annotations},
    )


_REGISTRY = (
    RegistryEntry(BASELINE.name, BASELINE.version, Stage.PRODUCTION, ("champion",)),
    RegistryEntry(CANDIDATE.name, CANDIDATE.version, Stage.STAGING, ()),
)


def question(kind: VerdictKind, *, round_: int = 1) -> DecisionRequest:
    """A question about a verdict that the rules have really given."""
    evidence, verdict = _judged(kind)
    target = Arm.CANDIDATE if kind is VerdictKind.PROMOTE else Arm.BASELINE
    planned = [plan_model_in_charge(TEST_RUN, arm, serving(), _REGISTRY, (50, 100)) for arm in (target, Arm.BASELINE)]
    return DecisionRequest(
        test=TEST_RUN,
        round=round_,
        flow_run_id="0197b1f2-0000-7000-8000-000000000000",
        verdict=verdict,
        plan=planned[0],
        rollback_plan=planned[1],
        epoch=3,
        links=Links(
            "https://prefect.example/runs/flow-run/1",
            "https://mlflow.example/#/experiments/1/runs/1",
            "https://grafana.example/d/fraud-ab-test",
            "https://mlflow.example/decision.html",
        ),
        decide_within_hours=72,
        next_look_at=NOW + timedelta(days=7),
        horizon_at=NOW + timedelta(days=14),
        evidence=evidence,
        policy=POLICY,
    )


def decision(kind: VerdictKind, choice: Choice | None = None, *, round_: int = 1) -> Decision:
    """As the log has it, unanswered or answered so."""
    answered_at = NOW - timedelta(minutes=12)
    asked_at = answered_at - timedelta(hours=72) if choice is Choice.EXPIRE else NOW - timedelta(hours=1)
    who = {Choice.EXPIRE: Person("expiry", "nobody"), Choice.FORCE_ROLLBACK: CHIARA}
    reason = {Choice.FORCE_ROLLBACK: "customers are blocked or complain", Choice.EXPIRE: ""}
    claim = None
    if choice is not None:
        due = due_after(question(kind), choice, NOW + timedelta(days=3))
        why = reason.get(choice, "checked with R&D")
        claim = Claim(choice, who.get(choice, ANA), why, answered_at, due)
    return Decision(question(kind, round_=round_), asked_at, asked_at + timedelta(hours=72), claim)


# ---- the gallery

PENDING = {kind: decision(kind) for kind in VerdictKind}
_ASKED = AskedQuestion(
    decision_id=PENDING[VerdictKind.PROMOTE].decision_id,
    evidence=PENDING[VerdictKind.PROMOTE].request.verdict.evidence_digest,
    channel=CHANNEL,
)
_BREACH = Breach(BreachKind.LATENCY, "p95 140 ms is above 100 ms (12,400 requests in 10 minutes)")
_EARLIER = json.dumps([{"id": "r1", "actor": "ana (U0ANA)", "reason": "losses rise", "at": "2026-03-16T02:31:00+00:00"}])
_CAUSE = str(wording.Cause.COMPLAINTS)
_THREAD = (
    "traffic: fraud-v1 80 %, fraud-v2 20 % → fraud-v1 50 %, fraud-v2 50 %",
    "fraud_v2 version 1 serves 50 %: 50.3 % of 41,200 requests, p95 84 ms, errors 0.1 %",
    "traffic: fraud-v1 50 %, fraud-v2 50 % → fraud-v1 0 %, fraud-v2 100 %",
    "fraud_v2 version 1 serves 100 %: 100.0 % of 40,900 requests, p95 85 ms, errors 0.1 %",
    "registry: fraud_v1 v3: Archived (previous); fraud_v2 v1: Production (champion)",
)


_INVESTIGATED = (
    lines(
        (
            "Why fraud_v2 version 1 did not win: the data have drifted since training.",
            "Expected: recall 86.8% on the holdout. Measured: recall 81.2% in production, fraud_v1 80.0%.",
            "Cause 1: The data have drifted since training (explains 6.1 points of recall): amount: median 40 to 68.",
            "Could not be tested: artifact, Evidently's drift report.",
            "Ruled out: scaling, overfitting.",
            "Next: Retrain on weeks that have today's amount, and watch its distribution.",
        )
    ),
    link(
        f"https://mlflow.example/#/experiments/1/runs/{'4f' * 16}/artifacts/investigations/t/root_cause.html", "root-cause report"
    ),
)


def _last_change() -> DecisionRecord:
    moved = {"before": "fraud-v0 50 %, fraud-v1 50 %", "after": "fraud-v0 0 %, fraud-v1 100 %"}
    at = NOW - timedelta(days=41)
    return DecisionRecord(7, RecordKind.PROMOTED, "fraud-2025-12-1", at, {"traffic": moved}, GENESIS, GENESIS)


def _known() -> tuple[Known, ...]:
    kept = replace(
        decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM), request=_earlier(VerdictKind.KEEP_BASELINE, "fraud-2025-10")
    )
    postponed = decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE)
    return (
        Known(decision(VerdictKind.PROMOTE, round_=2), None, MESSAGE_ADDRESS),
        Known(postponed, RecordKind.DECIDED, MESSAGE_ADDRESS),
        Known(kept, RecordKind.BASELINE_KEPT, MESSAGE_ADDRESS),
    )


def _earlier(kind: VerdictKind, test_id: str) -> DecisionRequest:
    asked = question(kind)
    return replace(asked, test=replace(asked.test, test_id=test_id, started_at=STARTED - timedelta(days=90)))


def _refusal() -> SlackMessage:
    allowed = mention(allowed_ids(Permission.DECIDE, POLICY))
    return SlackMessage(
        f"You cannot {Permission.DECIDE}: only {allowed} may do that. {wording.NOTHING_CHANGED} "
        f"What you can do: ask {allowed}, or look at the links in the message."
    )


def _answered() -> dict[str, Shown]:
    """Every state after an answer."""
    promote = decision(VerdictKind.PROMOTE, Choice.CONFIRM)
    came_of_it = {
        "confirmed": (promote, None),
        "promoted": (promote, RecordKind.PROMOTED),
        "undone": (promote, RecordKind.COMPENSATED),
        "superseded": (promote, RecordKind.SUPERSEDED),
        "failed": (promote, RecordKind.FAILED),
        "kept": (decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM), RecordKind.BASELINE_KEPT),
        "extended": (decision(VerdictKind.INCONCLUSIVE, Choice.CONFIRM), None),
        "postponed": (decision(VerdictKind.INCONCLUSIVE, Choice.POSTPONE), None),
        "ended": (decision(VerdictKind.NOT_EVALUABLE, Choice.CONFIRM), RecordKind.BASELINE_KEPT),
        "rollback_forced": (decision(VerdictKind.PROMOTE, Choice.FORCE_ROLLBACK), RecordKind.EMERGENCY_REVERT),
        "expired": (decision(VerdictKind.PROMOTE, Choice.EXPIRE), RecordKind.BASELINE_KEPT),
    }
    threads = {"promoted": _THREAD, "kept": _INVESTIGATED}
    return {
        f"decided_{name}": Shown(verdict_message(decided, POLICY, recorded=[kind] if kind else []), thread=threads.get(name, ()))
        for name, (decided, kind) in came_of_it.items()
    }


def _notices() -> dict[str, Shown]:
    """Breaches, rollbacks, status, refusals: what is said beside a verdict message."""
    split, alone = serving(), serving(100, 0)
    starting = serving(0, 100, without_baseline=True, **{INTENT: "revert:fraud-v1"})
    busy = serving(**{OPERATION: "fraud-2026-01-1", UNRECORDED: _EARLIER})
    where = ("models", "fraud-predictor")
    messages = {
        "breach": breach_message(TEST_RUN, "fraud-2026-01-1", _BREACH, is_reverted=False),
        "breach_reverted": breach_message(TEST_RUN, "fraud-2026-01-1", _BREACH, is_reverted=True),
        "rolled_back": rollback_messages.rolled_back(split, alone, CHIARA.id, _CAUSE),
        "rolled_back_busy": rollback_messages.rolled_back(busy, alone, CHIARA.id, _CAUSE),
        "rolled_back_already": rollback_messages.rolled_back(alone, alone, CHIARA.id, _CAUSE),
        "rolled_back_starting": rollback_messages.rolled_back(
            serving(0, 100, without_baseline=True), starting, CHIARA.id, _CAUSE
        ),
        "rollback_preview": rollback_messages.preview(split),
        "rollback_help": rollback_messages.help_message(),
        "rollback_slow": rollback_messages.still_trying(*where),
        "rollback_unreachable": rollback_messages.unreachable(*where, "Kubernetes failed while reverting the traffic"),
        "rollback_refused": rollback_messages.not_reverted(
            *where, "the deployment has changed since fraud-2026-01-1, so its button does nothing; use /fraud-rollback"
        ),
        "stakeholders_promoted": stakeholder_message(
            TEST_RUN, RecordKind.PROMOTED, decision(VerdictKind.PROMOTE, Choice.CONFIRM)
        ),
        "stakeholders_kept": stakeholder_message(
            TEST_RUN, RecordKind.BASELINE_KEPT, decision(VerdictKind.KEEP_BASELINE, Choice.CONFIRM)
        ),
        "stakeholders_undone": stakeholder_message(
            TEST_RUN, RecordKind.COMPENSATED, decision(VerdictKind.PROMOTE, Choice.CONFIRM)
        ),
        "stakeholders_rolled_back": stakeholder_message(TEST_RUN, RecordKind.EMERGENCY_REVERT),
        "status": status_message(Overview(NOW, serving(), _known(), _last_change())),
        "refused": _refusal(),
        "came_second": SlackMessage(wording.already_decided(decision(VerdictKind.PROMOTE, Choice.CONFIRM))),
        "evidence_changed": SlackMessage(wording.EVIDENCE_CHANGED),
    }
    to_all = ("breach", "breach_reverted", "rolled_back", "rolled_back_busy", "rolled_back_already", "rolled_back_starting")
    return {
        name: Shown(message, is_private=name not in to_all and not name.startswith("stakeholders"))
        for name, message in messages.items()
    }


def _views() -> dict[str, Shown]:
    cause = f"{_BREACH.kind.words}: {_BREACH.found}"
    views = {
        **{f"modal_confirm_{kind.name.lower()}": confirm_modal(asked, _ASKED) for kind, asked in PENDING.items()},
        "modal_postpone": postpone_modal(PENDING[VerdictKind.INCONCLUSIVE], _ASKED, POLICY.postponements),
        "modal_force_rollback": force_rollback_modal(_ASKED),
        "modal_fraud_rollback": fraud_rollback_modal(AskedRollback(channel=CHANNEL)),
        "modal_revert": fraud_rollback_modal(AskedRollback(channel=CHANNEL, decision_id="fraud-2026-01-1"), cause),
        "modal_nothing_done": notice_modal(wording.already_decided(decision(VerdictKind.PROMOTE, Choice.CONFIRM))),
        "home": home_view(Overview(NOW, serving(), _known(), _last_change()), may_decide=True),
        "home_outage": home_view(
            Overview(NOW, "Kubernetes failed while reading the deployment", "the decision log failed while reading"),
            may_decide=False,
        ),
    }
    return {name: Shown(view=view) for name, view in views.items()}


def _two_people() -> dict[str, Shown]:
    """A promotion that two people have to confirm: before the first one, and before the second."""
    asked = decision(VerdictKind.PROMOTE)
    asked = replace(asked, request=replace(asked.request, policy=POLICY.model_copy(update={"two_person": True})))
    half = replace(asked, first_confirmation=Confirmation(ANA, "checked with R&D", NOW - timedelta(minutes=12)))
    return {
        "two_people_asked": Shown(verdict_message(asked, POLICY)),
        "two_people_confirmed_first": Shown(verdict_message(half, POLICY)),
        "modal_two_people_first": Shown(view=confirm_modal(asked, _ASKED)),
        "modal_two_people_second": Shown(view=confirm_modal(half, _ASKED)),
        "told_confirmed_first": Shown(SlackMessage(wording.confirmed_first(half)), is_private=True),
    }


def gallery() -> dict[str, Shown]:
    """Everything, by the name of its picture."""
    verdicts = {f"verdict_{kind.name.lower()}": Shown(verdict_message(asked, POLICY)) for kind, asked in PENDING.items()}
    return {**verdicts, **_answered(), **_two_people(), **_notices(), **_views()}
