"""The policy: what a win requires, how the test is watched, and who may decide. Reviewed, versioned, its digest in every record.

Numbers that a gate compares are exact fractions: in floats `0.84 / 0.80 - 1 < 0.05`, and a candidate at the edge would lose.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from flows.domain.errors import PolicyInvalid

if TYPE_CHECKING:
    from collections.abc import Collection

_POSTPONEMENT = re.compile(
    r"\d+ (second|minute|hour|day|week)s?|[1-9]\d{0,8} frauds?|"
    r"(tomorrow|next (mon|tues|wednes|thurs|fri|satur|sun)day) ([01]\d|2[0-3]):[0-5]\d"
)


def _exact(value: object) -> Fraction:
    """`"0.05"`, `0.05` and `1/20` are all exactly 1/20: a float is read as it is written."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal, Fraction)):
        raise ValueError('must be a number, best written as a string such as "0.05"')
    try:
        return value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is no number") from error


def _share(value: Fraction) -> Fraction:
    if not 0 <= value <= 1:
        raise ValueError("must be a share between 0 and 1")
    return value


def _positive(value: Fraction) -> Fraction:
    if value <= 0:
        raise ValueError("must be above 0")
    return value


def _not_negative(value: Fraction) -> Fraction:
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _divides_an_hour(value: int) -> int:
    if value < 1 or 60 % value:
        raise ValueError("must divide an hour, such as 5 or 15")
    return value


def _postponement(value: str) -> str:
    if not _POSTPONEMENT.fullmatch(value):
        written = '"4 hours", "3 days", "tomorrow 09:00", "next monday 09:00" or "250 frauds"'
        raise ValueError(f"{value!r} is nothing to wait for; write {written}")
    return value


def _at_most_half(value: Fraction) -> Fraction:
    if value > Fraction(1, 2):
        raise ValueError("must be at most 0.5")
    return value


def _between_half_and_one(value: Fraction) -> Fraction:
    if not Fraction(1, 2) <= value < 1:
        raise ValueError("must be at least 0.5 and below 1")
    return value


def _at_least_one(value: Fraction) -> Fraction:
    if value < 1:
        raise ValueError("must be at least 1")
    return value


Exact = Annotated[Fraction, BeforeValidator(_exact), PlainSerializer(str)]
Share = Annotated[Exact, AfterValidator(_share)]
Positive = Annotated[Exact, AfterValidator(_positive)]
NotNegative = Annotated[Exact, AfterValidator(_not_negative)]
SlackId = Annotated[str, Field(pattern=r"^[UWS][A-Z0-9]{2,}$", description="a Slack user (U…, W…) or user group (S…) id")]
Percent = Annotated[int, Field(ge=0, le=100)]


class Margin(StrEnum):
    """Which value must reach the required improvement: the measured one, or the lower end of its interval."""

    POINT = "point"
    LOWER_BOUND = "lower_bound"


class Sides(StrEnum):
    """Whether a precision that rises beyond the band fails as well."""

    TWO = "two"
    LOWER = "lower"


class TelemetryKind(StrEnum):
    """What must be measured before anything is promoted."""

    LATENCY = "latency"
    ERRORS = "errors"


class WantedDesign(StrEnum):
    """How the models are compared: pairs wherever both scored a transaction, or one way only."""

    AUTO = "auto"
    PAIRED = "paired"
    SPLIT = "split"


class LabelBasis(StrEnum):
    """What is labelled: every transaction, what a model flagged (pairs only), or that and a random audit of the rest."""

    ALL = "all"
    FLAGGED = "flagged"
    AUDIT = "audit"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecallImprovement(_Part):
    relative: NotNegative = Fraction(1, 20)


class PrecisionBand(_Part):
    absolute: Positive = Fraction(1, 100)
    sides: Sides = Sides.TWO


class WindowDays(_Part):
    min: int = Field(default=14, ge=1)
    max: int = Field(default=28, ge=1)


class Statistics(_Part):
    """How intervals and tests are computed: the confidence of what is shown and of what rules a requirement out before the
    horizon, how probable a win the outlook plans for, and when a test gives way to a more careful one."""

    confidence: Annotated[Exact, AfterValidator(_between_half_and_one)] = Fraction(95, 100)
    power: Annotated[Exact, AfterValidator(_between_half_and_one)] = Fraction(80, 100)
    design_effect: Annotated[Exact, AfterValidator(_at_least_one)] = Fraction(105, 100)
    small_cell: int = Field(default=10, ge=0)


class MinCounts(_Part):
    """Frauds and alerts of each model: in the window, in a week that is compared with others, and among what was audited."""

    frauds: int = Field(default=30, ge=1)
    alerts: int = Field(default=30, ge=1)
    in_a_week: int = Field(default=10, ge=1)
    audited_frauds: int = Field(default=10, ge=1)


class Latency(_Part):
    """The share of requests that must be within `p95_ms`, and what a sustained breach is: so many full buckets in a row, each
    over the limit (or with more errors) at `bucket_p_value`."""

    p95_ms: Positive = Fraction(100)
    share: Share = Fraction(95, 100)
    bucket_minutes: Annotated[int, AfterValidator(_divides_an_hour)] = 5
    bucket_requests: int = Field(default=200, ge=1)
    bucket_p_value: Share = Fraction(1, 100)
    sustained_buckets: int = Field(default=3, ge=1)

    @property
    def bucket_seconds(self) -> int:
        return self.bucket_minutes * 60


class ErrorRate(_Part):
    """The candidate's share of failed requests may exceed the baseline's by this much."""

    excess: NotNegative = Fraction(1, 200)


class Validity(_Part):
    """Limits of the guardrails: shares 0..1, and the p-values below which the sample ratio, equal shares and equal weeks are
    not believed; shares that differ by less than `unequal_shares` are equal enough."""

    min_label_coverage: Share = Fraction(95, 100)
    max_late_labels: Share = Fraction(5, 100)
    sample_ratio_p_value: Share = Fraction(1, 1000)
    unequal_shares: Share = Fraction(1, 100)
    unequal_p_value: Share = Fraction(1, 1000)
    max_crossover: Share = Fraction(1, 100)
    max_bad_rows: Share = Fraction(1, 1000)
    min_telemetry_coverage: Share = Fraction(95, 100)
    max_label_silence_days: int = Field(default=7, ge=1)


class Traffic(_Part):
    """Per cent of the requests that each arm serves during the test."""

    baseline: Percent = 80
    candidate: Percent = 20


class FeedbackColumns(_Part):
    """What the feedback's columns are called in your table."""

    transaction_id: str = "transaction_id"
    event_time: str = "event_time"
    entity_id: str = "entity_id"
    amount: str = "amount"
    arm: str = "arm"
    baseline_prediction: str = "baseline_prediction"
    candidate_prediction: str = "candidate_prediction"
    is_fraud: str = "is_fraud"
    label_time: str = "label_time"
    label_source: str = "label_source"
    latency_ms: str = "latency_ms"
    error: str = "error"


class Policy(_Part):
    """Everything that rules a test; the defaults are the requirement's own numbers."""

    recall_improvement: RecallImprovement = RecallImprovement()
    margin: Margin = Margin.POINT
    precision_band: PrecisionBand = PrecisionBand()
    alpha: Annotated[Positive, AfterValidator(_at_most_half)] = Fraction(1, 20)
    design: WantedDesign = WantedDesign.AUTO
    labels: LabelBasis = LabelBasis.ALL
    window_days: WindowDays = WindowDays()
    looks: tuple[int, ...] = (14, 21, 28)
    label_maturity_days: int = Field(default=30, ge=0)
    feedback_delay_hours: float = Field(default=0, ge=0)
    min_counts: MinCounts = MinCounts()
    statistics: Statistics = Statistics()
    latency: Latency = Latency()
    error_rate: ErrorRate = ErrorRate()
    required_telemetry: tuple[TelemetryKind, ...] = (TelemetryKind.LATENCY, TelemetryKind.ERRORS)
    validity: Validity = Validity()
    traffic: Traffic = Traffic()
    traffic_steps: tuple[Annotated[int, Field(ge=1, le=99)], ...] = ()
    watch_minutes: float = Field(default=10, ge=0)
    bake_hours: float = Field(default=24, ge=0)
    auto_revert: bool = False
    flag_rate_change: Positive = Fraction(1, 2)
    retire_after_hours: float = Field(default=0, ge=0)
    max_postponements: int = Field(default=3, ge=0)
    postponements: tuple[Annotated[str, AfterValidator(_postponement)], ...] = (
        "4 hours",
        "tomorrow 09:00",
        "3 days",
        "next monday 09:00",
    )
    decide_within_hours: float = Field(default=72, gt=0)
    false_positive_cost: NotNegative = Fraction(0)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    promoters: tuple[SlackId, ...] = ()
    rollbackers: tuple[SlackId, ...] = ()
    escalation: tuple[SlackId, ...] = ()
    two_person: bool = False
    initiator_may_promote: bool = True
    columns: FeedbackColumns = FeedbackColumns()

    @model_validator(mode="after")
    def _hangs_together(self, info: ValidationInfo) -> Policy:
        wrong: Collection[str] = info.context or ()
        problems = [text for text, settings, is_wrong in self._contradictions() if is_wrong and not {*settings} & {*wrong}]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _contradictions(self) -> list[tuple[str, tuple[str, ...], bool]]:
        """Each with the settings that it is about: where one of them is wrong by itself, nothing more is said of it."""
        first, last, looks = self.window_days.min, self.window_days.max, self.looks
        names = list(self.columns.model_dump().values())
        weeks = "must be whole weeks (7, 14, 21, …), so that every weekday counts alike"
        window = "window_days"
        return [
            ("traffic must sum to 100", ("traffic",), self.traffic.baseline + self.traffic.candidate != 100),
            ("window_days.min must not exceed window_days.max", (window,), first > last),
            (f"window_days.min {weeks}", (window,), first % 7 != 0),
            (f"window_days.max {weeks}", (window,), last % 7 != 0),
            (f"looks {weeks}", ("looks",), any(look % 7 for look in looks)),
            ("looks must rise and must not be empty", ("looks",), not looks or any(b <= a for a, b in pairwise(looks))),
            (f"the last look must be window_days.max ({last})", ("looks", window), bool(looks) and looks[-1] != last),
            (f"no look may come before window_days.min ({first})", ("looks", window), bool(looks) and looks[0] < first),
            ("traffic_steps must rise", ("traffic_steps",), any(b <= a for a, b in pairwise(self.traffic_steps))),
            (
                "retire_after_hours must not be below bake_hours (0: the baseline's predictor stays)",
                ("retire_after_hours", "bake_hours"),
                0 < self.retire_after_hours < self.bake_hours,
            ),
            (
                "two_person needs two promoters, or a user group of them",
                ("two_person", "promoters"),
                self.two_person and len(set(self.promoters)) == 1 and not self.promoters[0].startswith("S"),
            ),
            ("columns must all have different names", ("columns",), len(set(names)) != len(names)),
        ]

    @property
    def is_shadow(self) -> bool:
        """Whether the candidate serves nobody: it scores a copy of the traffic."""
        return self.traffic.candidate == 0

    @property
    def digest(self) -> str:
        """SHA-256 over the policy's canonical form: the same rules have the same digest however they are written."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def load_policy(text: str, source: str) -> Policy:
    """Read a policy from TOML.

    Args:
        text: the file's content; a setting left out keeps its default.
        source: the file's name, for messages.

    Raises:
        PolicyInvalid: it is no TOML, or settings are unknown, wrong or contradict each other; every problem is listed.

    Example:
        >>> load_policy('alpha = "0.01"', "policy.toml").alpha
        Fraction(1, 100)
    """
    try:
        settings = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PolicyInvalid(source, [f"this is not valid TOML: {error}"]) from error
    try:
        return Policy.model_validate(settings)
    except ValidationError as error:
        raise PolicyInvalid(source, _problems(error, settings)) from error


def _problems(error: ValidationError, settings: dict[str, Any]) -> list[str]:
    """Settings that are wrong, and contradictions between the others, which are only looked for when all settings are right."""
    problems = [sentence for item in error.errors() for sentence in _sentences(item["loc"], item["type"], item["msg"])]
    wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    if wrong:
        try:
            Policy.model_validate({name: settings[name] for name in settings.keys() - wrong}, context=wrong)
        except ValidationError as more:
            problems += _problems(more, {})
    return problems


def _sentences(place: tuple[int | str, ...], kind: str, message: str) -> list[str]:
    setting = ".".join(str(part) for part in place)
    if kind == "extra_forbidden":
        return [f"{setting} is no setting of the policy"]
    lines = message.removeprefix("Value error, ").splitlines()
    return [f"{setting}: {text}" for text in lines] if setting else lines
