"""What each guardrail says, word for word: people act on these sentences."""

from __future__ import annotations

import pytest

from flows.domain.counts import ArmCounts, AuditCounts, CardCounts, LabelCounts, PairSelection, QualityCounts
from flows.domain.guardrails import GuardrailName, GuardrailStatus, check_guardrails, nothing_checked
from flows.domain.policy import Policy, load_policy

HEALTHY = {
    "window": ("passed", "14 days of matured exposure, whole weeks, none without transactions"),
    "label_maturity": ("passed", "99.0 % of the fraud labels came within 30 days"),
    "label_coverage": ("passed", "at least 98.8 % of the matured transactions have a label"),
    "sample_ratio": ("passed", "20.0 % of 10,000 cards met the candidate, the policy sends 20 % (p = 1)"),
    "crossover": ("passed", "0.0 % of the cards met both arms"),
    "data_quality": ("passed", "0 of 100,000 rows are doubtful"),
}
NOBODY = ArmCounts(0, 0, 0, 0, 0)
CASES = [
    (14, {}, {}),
    (
        0,
        {
            "baseline": NOBODY,
            "candidate": NOBODY,
            "labels": LabelCounts(0, 0, 0, 0),
            "cards": CardCounts(0, 0, 0),
            "quality": QualityCounts(0, 0, 0, 0, 0),
        },
        {
            "window": ("failed", "0 days of matured exposure are fewer than the 14 that the policy requires"),
            "label_maturity": ("failed", "the feedback reaches to 2026-01-31 00:00 UTC, so no transaction is 30 days old yet"),
            "label_coverage": ("not_checked", "no transaction is matured yet"),
            "sample_ratio": ("not_checked", "there are no cards in the window"),
            "crossover": ("not_checked", "there are no cards in the window"),
            "data_quality": ("not_checked", "there are no rows in the window"),
        },
    ),
    (
        13,
        {
            "labels": LabelCounts(90_000, 80_000, 1000, 51),
            "cards": CardCounts(7700, 2300, 300),
            "quality": QualityCounts(100_000, 101, 102, 103, 104, 105),
        },
        {
            "window": ("failed", "13 days of matured exposure are fewer than the 14 that the policy requires"),
            "label_maturity": (
                "failed",
                "5.1 % of the fraud labels came later than 30 days, so younger numbers are not final",
            ),
            "label_coverage": (
                "failed",
                (
                    "only 88.9 % of the matured transactions that no model flagged have a label; to go on, label a random "
                    'sample of what was not flagged, with label_source = "audit", or score both models on the same transactions '
                    "and label all that either flags"
                ),
            ),
            "sample_ratio": ("failed", "23.0 % of 10,000 cards met the candidate, the policy sends 20 % (p = 1.7e-13)"),
            "crossover": ("failed", "2.9 % of the cards met both arms"),
            "data_quality": (
                "failed",
                (
                    "102 of 100,000 rows repeat a transaction; 103 of 100,000 transactions are labelled both fraud and not; "
                    "104 of 100,000 rows are labelled before they happened; "
                    "101 of 100,000 rows lack an id, a time or a known arm; "
                    "105 of 100,000 rows have an event or a label later than now"
                ),
            ),
        },
    ),
    (
        15,
        {"cards": None, "labels": LabelCounts(9, 9, None, None), "quality": QualityCounts(100_000, 100, 100, 100, None, 100)},
        {
            "window": ("failed", "15 days are no whole weeks, so weekdays would weigh unequally"),
            "label_maturity": ("not_checked", "without label_time nobody can tell how long labels take"),
            "sample_ratio": ("not_checked", "without entity_id the split cannot be tested at the card"),
            "crossover": ("not_checked", "without entity_id cards that met both arms cannot be counted"),
            "data_quality": ("passed", "400 of 100,000 rows are doubtful (label times could not be checked)"),
        },
    ),
    (
        14,
        {
            "labels": LabelCounts(9, 9, 0, 0),
            "candidate": ArmCounts(20_000, 20_000, 18_900, 200, 168),
            "selection": PairSelection(1000, 900, 9000, 9000),
        },
        {
            "label_maturity": ("not_checked", "no fraud has a label time yet"),
            "label_coverage": (
                "failed",
                (
                    "only 94.5 % of the matured transactions served by the candidate have a label; "
                    "labels are not equally complete in both arms: 98.8 % against 94.5 % of the matured transactions"
                ),
            ),
            "data_quality": (
                "failed",
                "the pairs are selected: the candidate scored 90.0 % of what the baseline flagged and 100.0 % of the rest",
            ),
        },
    ),
    (
        14,
        {
            "baseline": ArmCounts(80_000, 80_000, 75_000, 800, 640),
            "labels": LabelCounts(100, 95, 100, 5),
            "cards": CardCounts(7920, 1980, 100),
            "quality": QualityCounts(100_000, 0, 100, 0, 0),
        },
        {
            "label_maturity": ("passed", "95.0 % of the fraud labels came within 30 days"),
            "label_coverage": (
                "failed",
                (
                    "only 93.8 % of the matured transactions served by the baseline have a label; "
                    "labels are not equally complete in both arms: 93.8 % against 99.0 % of the matured transactions"
                ),
            ),
            "sample_ratio": ("passed", "20.0 % of 9,900 cards met the candidate, the policy sends 20 % (p = 1)"),
            "crossover": ("passed", "1.0 % of the cards met both arms"),
            "data_quality": ("passed", "100 of 100,000 rows are doubtful"),
        },
    ),
]


@pytest.mark.parametrize(("days", "changes", "told"), CASES)
def test_a_guardrail_says_what_it_saw(build, days: int, changes: dict, told: dict) -> None:
    found = check_guardrails(build.feedback(**changes), build.window(days), Policy())
    assert [check.name for check in found] == list(GuardrailName)
    assert {check.name.value: (check.status.value, check.reason) for check in found} == {**HEALTHY, **told}


def test_a_day_without_transactions_is_told_beside_what_else_is_wrong(build) -> None:
    days = tuple(build.day(day) for day in range(28) if day != 3)
    window = check_guardrails(build.feedback(days=days), build.window(15), Policy())[0]
    assert window.reason == "15 days are no whole weeks, so weekdays would weigh unequally; no transactions on 1 of 15 days"


def test_counts_alone_leave_every_guardrail_unchecked() -> None:
    found = nothing_checked("counts alone cannot show it")
    assert [(check.name, check.status.value) for check in found] == [(name, "not_checked") for name in GuardrailName]
    assert {check.reason for check in found} == {"counts alone cannot show it"}


FLAGGED_WORDS = 'set labels = "flagged" in the policy (the pairs give the ratio of recalls, not the recalls)'
AUDIT_WORDS = 'set labels = "audit" (the audited sample stands for what was not flagged)'
SAMPLE_WORDS = 'label a random sample of what was not flagged, with label_source = "audit"'
PAIRS_WORDS = ", or score both models on the same transactions and label all that either flags"
PAIRS, ENOUGH, FEW = PairSelection(10, 10, 90, 90), AuditCounts(9_000, 900, 10), AuditCounts(9_000, 900, 9)


@pytest.mark.parametrize(
    ("selection", "labelled", "audits", "told"),
    [  # 1,000 of 2,000 rows are flagged; 95 % of them are 950
        (PAIRS, 950, (), FLAGGED_WORDS),
        (PAIRS, 949, (), SAMPLE_WORDS),
        (PAIRS, 949, (ENOUGH, ENOUGH), AUDIT_WORDS),
        (PAIRS, 949, (ENOUGH, FEW), SAMPLE_WORDS),
        (PAIRS, 950, (ENOUGH,), f"{FLAGGED_WORDS} or {AUDIT_WORDS}"),
        (None, 950, (), SAMPLE_WORDS + PAIRS_WORDS),
        (None, 950, (FEW, ENOUGH), SAMPLE_WORDS + PAIRS_WORDS),
        (None, 949, (ENOUGH, ENOUGH), AUDIT_WORDS),
    ],
)
def test_without_labels_of_the_unflagged_the_way_on_is_told(build, selection, labelled: int, audits: tuple, told: str) -> None:
    arms = ArmCounts(1_000, 1_000, 1_000, 90, 80, 500, 500), ArmCounts(1_000, 1_000, 1_000, 90, 80, 500, labelled - 500)
    found = build.feedback(
        baseline=arms[0], candidate=arms[1], labels=LabelCounts(1_000, 0, 50, 0), selection=selection, audits=audits
    )
    coverage = check_guardrails(found, build.window(), Policy())[2]
    assert coverage.status is GuardrailStatus.FAILED
    assert coverage.reason == f"only 0.0 % of the matured transactions that no model flagged have a label; to go on, {told}"


NEEDS_PAIRS = 'labels = "flagged" needs pairs: score both models on the same transactions'
NEEDS_AUDIT = 'labels = "audit" needs a random sample of what was not flagged, with label_source = "audit"'
COMPLETE = "at least 99.0 % of the matured transactions have a label"


@pytest.mark.parametrize(
    ("labels", "changes", "told"),
    [
        ("all", {"labels": LabelCounts(0, 0, 0, 0)}, "at least 98.8 % of the matured transactions have a label"),
        ("all", {"labels": LabelCounts(1_000, 950, 0, 0)}, "at least 95.0 % of the matured transactions have a label"),
        ("flagged", {"selection": PAIRS}, COMPLETE),
        ("flagged", {"selection": None}, NEEDS_PAIRS),
        ("audit", {"audits": (ENOUGH, AuditCounts(9_000, 1, 0))}, COMPLETE),
        ("audit", {"audits": (ENOUGH, AuditCounts(9_000, 0, 0))}, NEEDS_AUDIT),
        ("audit", {"audits": ()}, NEEDS_AUDIT),
    ],
)
def test_what_the_basis_of_the_labels_needs_is_told(build, labels: str, changes: dict, told: str) -> None:
    baseline, candidate = ArmCounts(80_000, 80_000, 79_000, 800, 640, 1_000, 990), ArmCounts(20_000, 20_000, 19_800, 200, 168)
    found = build.feedback(baseline=baseline, candidate=candidate, **changes)
    assert check_guardrails(found, build.window(), load_policy(f'labels = "{labels}"', "policy.toml"))[2].reason == told
