from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from flows.domain.errors import PolicyInvalid
from flows.domain.policy import Policy, load_policy

DOCS = Path(__file__).resolve().parents[4] / "docs"


def test_the_documented_policy_holds_every_setting_with_its_default() -> None:
    text = (DOCS / "policy.toml").read_text(encoding="utf-8")
    assert load_policy(text, "policy.toml") == Policy()
    written = set(re.findall(r"^\[?(\w+)", text, flags=re.MULTILINE))
    assert set(Policy.model_fields) <= written


def test_numbers_are_exact_however_they_are_written() -> None:
    for text in ('relative = "0.05"', "relative = 0.05", 'relative = "1/20"'):
        assert load_policy(f"[recall_improvement]\n{text}", "p").recall_improvement.relative == Fraction(1, 20)
    assert load_policy("[latency]\np95_ms = 100", "p").digest == Policy().digest


def test_all_problems_are_told_together() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        load_policy('alpha = 2\nfoo = 1\npostponements = ["later"]\npromoters = ["bob"]\nlooks = [14, "x", 28]', "policy.toml")
    assert len(caught.value.problems) == 5
    assert str(caught.value).startswith("policy.toml: ")
    assert "foo is no setting" in str(caught.value)


def test_contradictions_are_told_beside_wrong_settings() -> None:
    text = "alpha = 2\nwindow_days = {min = 15, max = 30}\nlooks = [21, 16]\n[traffic]\nbaseline = 70"
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(text, "policy.toml")
    told = "\n".join(caught.value.problems)
    for problem in ("alpha", "traffic must sum", "window_days.min must be whole", "window_days.max must be whole"):
        assert problem in told
    for problem in ("looks must be whole weeks", "looks must rise", "last look must be"):
        assert problem in told
    assert len(caught.value.problems) == 7


def test_a_setting_that_is_wrong_by_itself_contradicts_nothing() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        load_policy('looks = [14, "x"]\nwindow_days = {min = 7, max = 21}\n[traffic]\nbaseline = 101', "policy.toml")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["looks.1", "traffic.baseline"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[traffic]\nbaseline = 70", "sum to 100"),
        ("looks = []", "looks"),
        ('two_person = true\npromoters = ["U0ANA"]', "two_person needs two promoters"),
        ("looks = [21, 14, 28]", "looks must rise"),
        ("looks = [14, 21]", "last look"),
        ("looks = [7, 28]", "window_days.min"),
        ("window_days = {min = 30, max = 28}", "must not exceed"),
        ("traffic_steps = [50, 20]", "traffic_steps"),
        ('[columns]\narm = "event_time"', "different names"),
        ("[recall_improvement]\nrelative = true", "must be a number"),
        ('[recall_improvement]\nrelative = "five"', "no number"),
        ('[recall_improvement]\nrelative = "1/0"', "no number"),
        ("[recall_improvement]\nrelative = -1", "negative"),
        ("alpha = 0", "above 0"),
        ("[validity]\nmax_crossover = 2", "share between 0 and 1"),
        ('alpha = "0.51"', "at most 0.5"),
        ("[window_days]\nmin = 13", "window_days.min must be whole weeks"),
        ("window_days = {min = 14, max = 29}\nlooks = [14, 29]", "window_days.max must be whole weeks"),
        ("looks = [14, 22, 28]", "looks must be whole weeks"),
        ("[statistics]\nconfidence = 95", "at least 0.5 and below 1"),
        ('[statistics]\ndesign_effect = "0.9"', "at least 1"),
        ("[statistics]\nsmall_cell = -1", "statistics.small_cell"),
        ("alpha = nan", "number"),
        ("alpha = ", "TOML"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(PolicyInvalid, match=named):
        load_policy(text, "policy.toml")


@pytest.mark.parametrize("promoters", [[], ["U0ANA", "U0BEN"], ["S0PROMOTERS"]])
def test_two_people_may_be_two_or_a_group(promoters: list[str]) -> None:
    assert load_policy(f"two_person = true\npromoters = {promoters}".replace("'", '"'), "p").two_person


def test_a_postponement_is_a_time_or_a_number_of_frauds() -> None:
    offered = ("4 hours", "next friday 17:30", "250 frauds", "1 fraud")
    assert load_policy(f"postponements = {list(offered)}".replace("'", '"'), "p").postponements == offered
    for wrong in ("0 frauds", "frauds", "250 Frauds", "250", "-1 frauds", "tomorrow", "1e3 frauds"):
        with pytest.raises(PolicyInvalid, match="nothing to wait for"):
            load_policy(f'postponements = ["{wrong}"]', "p")


def test_stretches_must_divide_an_hour() -> None:
    with pytest.raises(PolicyInvalid, match="bucket_minutes: must divide an hour"):
        load_policy("[latency]\nbucket_minutes = 7", "policy.toml")


def test_the_digest_names_the_rules() -> None:
    assert Policy().digest == load_policy("alpha = 0.05", "p").digest
    assert Policy().digest != load_policy("alpha = 0.01", "p").digest
