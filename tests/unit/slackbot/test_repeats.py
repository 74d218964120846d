"""What is delivered again is known for twice as long as a signature is believed."""

from __future__ import annotations

from slack_bolt import BoltResponse

from slackbot.repeats import KEEP_SECONDS, Answers

PRESS = {"type": "block_actions", "trigger_id": "1.2.a", "user": {"id": "U0ANA"}}
UPDATED = BoltResponse(status=200, body={"response_action": "update"})


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_first_answer_is_the_one_that_is_given_again() -> None:
    answers = Answers()
    assert answers.given(PRESS) is None
    assert answers.note(PRESS, UPDATED)
    assert not answers.note(dict(reversed(PRESS.items())), BoltResponse(status=200))
    assert answers.given(PRESS) is UPDATED


def test_another_press_is_not_a_repetition() -> None:
    answers = Answers()
    answers.note(PRESS, UPDATED)
    assert answers.note({**PRESS, "trigger_id": "1.2.b"}, UPDATED)
    assert answers.note({**PRESS, "user": {"id": "U0BEN"}}, UPDATED)


def test_answers_are_forgotten_when_no_signature_is_believed_any_more() -> None:
    clock = Clock()
    answers = Answers(clock)
    answers.note(PRESS, UPDATED)
    clock.seconds = KEEP_SECONDS - 1
    assert not answers.note(PRESS, UPDATED)
    answers.note({"trigger_id": "later"}, UPDATED)
    clock.seconds = KEEP_SECONDS + 1
    assert answers.note({"trigger_id": "much later"}, UPDATED)
    assert answers.given(PRESS) is None
    assert answers.given({"trigger_id": "later"}) is UPDATED
