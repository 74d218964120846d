"""The counts file: tables from papers and what-if questions, as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from flows.domain.counts import Design, ModelCounts, Outcomes, Overlap
from flows.domain.errors import FeedbackInvalid

Count = Annotated[int, Field(ge=0, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Frauds(_Part):
    both: Count
    baseline_only: Count
    candidate_only: Count
    neither: Count


class _Alerts(_Part):
    true: Count
    all: Count

    @model_validator(mode="after")
    def _no_more_true_than_all(self) -> _Alerts:
        if self.true > self.all:
            raise ValueError(f"{self.true} true alerts cannot be among {self.all} alerts")
        return self


class _Flagged(_Part):
    baseline: _Alerts
    candidate: _Alerts


class _Paired(_Part):
    design: Literal["paired"]
    frauds: _Frauds
    flagged: _Flagged

    def outcomes(self) -> Outcomes:
        frauds = Overlap(**self.frauds.model_dump())
        total = frauds.total
        flagged = self.flagged
        baseline = ModelCounts(total, frauds.both + frauds.baseline_only, flagged.baseline.all, flagged.baseline.true)
        candidate = ModelCounts(total, frauds.both + frauds.candidate_only, flagged.candidate.all, flagged.candidate.true)
        return Outcomes(Design.PAIRED, baseline, candidate, frauds=frauds)


class _Arm(_Part):
    true_positives: Count
    false_negatives: Count
    false_positives: Count

    def counts(self) -> ModelCounts:
        caught = self.true_positives
        return ModelCounts(caught + self.false_negatives, caught, caught + self.false_positives, caught)


class _Split(_Part):
    design: Literal["split"]
    baseline: _Arm
    candidate: _Arm

    def outcomes(self) -> Outcomes:
        return Outcomes(Design.SPLIT, self.baseline.counts(), self.candidate.counts())


def parse_counts(text: str, source: str) -> Outcomes:
    """Read a counts file's content.

    Raises:
        FeedbackInvalid: it is no JSON or not of this shape; the first wrong entry is named.
    """
    adapter: TypeAdapter[_Paired | _Split] = TypeAdapter(Annotated[_Paired | _Split, Field(discriminator="design")])
    try:
        return adapter.validate_json(text).outcomes()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in {"paired", "split"})
        message = first["msg"].removeprefix("Value error, ")
        raise FeedbackInvalid(f"{source}: {f'{place}: ' if place else ''}{message}.") from error
