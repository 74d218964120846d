"""The TOML file that `fraud-ab start` begins a test from."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.domain.ab_test import ABTest, Model
from flows.domain.errors import SettingsInvalid


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class WantedModel(_Part):
    """One model version and the predictor that serves it."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    predictor: str = Field(min_length=1)

    def model(self) -> Model:
        return Model(self.name, self.version, self.predictor)


class WantedTest(_Part):
    """A test as somebody wants it; without `experiment_run` a run is opened in `experiment`."""

    test_id: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    baseline: WantedModel
    candidate: WantedModel
    experiment: str = Field(default="fraud-ab-tests", min_length=1)
    experiment_run: str = ""
    started_at: datetime | None = None
    initiator: str = Field(default="", pattern=r"^([UW][A-Z0-9]{2,})?$")

    @model_validator(mode="after")
    def _are_two(self) -> WantedTest:
        if self.baseline.predictor == self.candidate.predictor:
            raise ValueError("baseline and candidate name the same predictor")
        if (self.baseline.name, self.baseline.version) == (self.candidate.name, self.candidate.version):
            raise ValueError("baseline and candidate name the same model version")
        return self

    def test(self, now: datetime) -> ABTest:
        """Begun now, unless the file says when; a time without a zone is UTC."""
        begin = self.started_at or now
        begin = begin.replace(tzinfo=UTC) if begin.tzinfo is None else begin.astimezone(UTC)
        models = self.baseline.model(), self.candidate.model()
        return ABTest(self.test_id, *models, begin, self.experiment_run, self.initiator)


def read_wanted_test(file: Path) -> WantedTest:
    """Read the file.

    Raises:
        SettingsInvalid: it cannot be read, is no TOML, or something in it is missing or wrong; every problem is listed.
    """
    try:
        return WantedTest.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsInvalid(str(file), [f"it cannot be read: {error.strerror}"]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(str(file), [f"this is not valid TOML: {error}"]) from error
    except ValidationError as error:
        problems = [_sentence(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise SettingsInvalid(str(file), problems) from error


def _sentence(place: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, place))
    match kind:
        case "missing":
            return f"{name} is missing"
        case "extra_forbidden":
            return f"{name} is no setting of a test"
        case "string_pattern_mismatch" if name == "initiator":
            return f"{name} must be a Slack user id, such as U024BE7LH"
        case "string_pattern_mismatch":
            return f"{name} must be at most 63 lower-case letters, digits and inner hyphens"
        case "value_error":
            return message.removeprefix("Value error, ")
        case _:
            return f"{name}: {message[:1].lower()}{message[1:]}"
