"""What Slack sends, read strictly: nothing of it is believed before it has been parsed here.

A button's value names the decision and the digest of the evidence that its message shows, so that a press counts for exactly what
the person saw. Values are versioned: a button of an older release that means something else is refused and not guessed at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from flows.domain.errors import FraudABError

MAX_INPUT_CHARACTERS = 500

SlackId = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{1,30}$")]
UserId = Annotated[str, StringConstraints(pattern=r"^[UW][A-Z0-9]{1,30}$")]
"""A person's, never a group's: the policy names both in one list."""
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
DecisionId = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class PayloadInvalid(FraudABError):
    """Slack sent something that this release did not make; it is not acted upon."""


class _Incoming(BaseModel):
    """Part of a payload: unknown fields are Slack's own business; an error never repeats the input."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Raises `PayloadInvalid`."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise PayloadInvalid(_not_ours(error)) from None


class _Carried(BaseModel):
    """What we gave to Slack and get back; as JSON in a button's value or a modal's metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    v: Literal[1] = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `PayloadInvalid`: forged, malformed, or made by another release."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PayloadInvalid(_not_ours(error)) from None

    def to_json(self) -> str:
        return self.model_dump_json()


class Question(_Carried):
    """What a button of a verdict message stands for: a decision, and the evidence that was shown with it."""

    decision_id: DecisionId
    evidence: Digest


class AskedQuestion(Question):
    """A question in a modal's metadata, with the channel in which an answer to the person is shown."""

    channel: SlackId

    @classmethod
    def of(cls, question: Question, channel: str) -> Self:
        return cls(decision_id=question.decision_id, evidence=question.evidence, channel=channel)


class Alarm(_Carried):
    """What the button of a breach stands for: the decision that has put the model in charge, and what was found."""

    decision_id: DecisionId
    cause: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INPUT_CHARACTERS)]


class AskedRollback(_Carried):
    """The metadata of the modal of the slash command; opened by the button of a breach, it reverts that promotion only."""

    channel: SlackId
    decision_id: DecisionId | None = None


class _User(_Incoming):
    id: UserId
    name: str = ""
    username: str = ""


class _Channel(_Incoming):
    id: SlackId


class _Pressed(_Incoming):
    value: Annotated[str, StringConstraints(max_length=2000)]


class Origin(_Incoming):
    """Who acted, and where the answer can be shown to them; a command's form has flat names."""

    user: _User
    channel: _Channel
    response_url: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        if not isinstance(body, Mapping) or "command" not in body:
            return body
        user = {"id": body.get("user_id"), "name": body.get("user_name", "")}
        return {**body, "user": user, "channel": {"id": body.get("channel_id")}}


class Press(Origin):
    """A button of a message was pressed."""

    trigger_id: str
    actions: Annotated[tuple[_Pressed, ...], Field(min_length=1, max_length=1)]

    @property
    def question(self) -> Question:
        return Question.parse(self.actions[0].value)

    @property
    def alarm(self) -> Alarm:
        return Alarm.parse(self.actions[0].value)


class _Option(_Incoming):
    value: Annotated[str, StringConstraints(max_length=150)]


class _Entered(_Incoming):
    value: Annotated[str, StringConstraints(max_length=3000)] | None = None
    selected_option: _Option | None = None


class _State(_Incoming):
    values: Mapping[str, Mapping[str, _Entered]] = {}


class _Modal(_Incoming):
    id: str
    private_metadata: Annotated[str, StringConstraints(max_length=3000)]
    state: _State = _State()


class Submission(_Incoming):
    """A modal was submitted."""

    user: _User
    view: _Modal

    def entered(self, field: str) -> str:
        """What was typed or chosen in an input; empty when nothing was."""
        entered = self.view.state.values.get(field, {}).get(field, _Entered())
        return (entered.selected_option.value if entered.selected_option else entered.value or "").strip()

    @property
    def press_id(self) -> str:
        """The same for a submission that Slack delivers twice."""
        return _short_digest(self.view.id)


class SlashCommand(Origin):
    """A slash command was typed."""

    trigger_id: str
    text: Annotated[str, StringConstraints(max_length=4000)] = ""

    @property
    def press_id(self) -> str:
        return _short_digest(self.trigger_id)


class _Opened(_Incoming):
    user: UserId
    tab: str = ""


class HomeOpened(_Incoming):
    """Somebody opened the app's tabs; `is_home` is false for the messages beside it."""

    event: _Opened

    @property
    def is_home(self) -> bool:
        return self.event.tab == "home"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _not_ours(error: ValidationError) -> str:
    fields = sorted({".".join(str(part) for part in item["loc"]) or "value" for item in error.errors(include_input=False)})
    return (
        f"this was not made by this release of the app ({', '.join(fields)}), so nothing has been done: "
        "use the buttons of the newest message, or /fraud-rollback"
    )
