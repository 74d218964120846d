"""Every error this project raises on purpose, as one small tree.

A caller catches the branch it can act on. Each message is a finished sentence that tells its reader what is wrong and what
to do. Adapters wrap their client's errors in `OutsideSystemError` with `raise … from`; flows retry only what is `retryable`.
"""

from collections.abc import Sequence
from functools import partial


class FraudABError(Exception):
    """The root: whatever we raise on purpose is one of these."""


class NotEnoughEvidence(FraudABError):
    """A number was asked for that the data at hand cannot give; missing is not zero."""


class EvidenceChanged(FraudABError):
    """The evidence is no longer the one that the person saw, so their decision does not apply to it."""


class NotAuthorized(FraudABError):
    """This person may not do this; the message says who may."""


class AlreadyDecided(FraudABError):
    """This round has its decision already, or its deadline has passed; `decision` is the decision as it is."""

    def __init__(self, message: str, decision: object = None) -> None:
        self.decision = decision
        super().__init__(message)


class PostponementRefused(FraudABError):
    """This postponement is not allowed; the decision is still pending."""


class ConfirmationRefused(FraudABError):
    """This person may not confirm this promotion, or not again; the decision is still pending."""


class UnknownDecision(FraudABError):
    """No decision has this id: the message or command is from another test or another installation."""


class Superseded(FraudABError):
    """A newer decision or an emergency has taken over; this process stops without touching anything more."""


class PreflightFailed(FraudABError):
    """A promotion may not begin; everything that is in the way is listed together. Nothing was changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: a task's error may travel between processes."""
        return type(self), (self.problems,)


class PromotionUndone(FraudABError):
    """The promotion failed and everything was put back; the message says why, and whether it may be tried again."""


class StartRefused(FraudABError):
    """This test must not start as it is; everything that speaks against it is listed together, and nothing was changed."""


class SettingsInvalid(FraudABError):
    """Settings are missing or wrong; all problems are listed together."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(f"{source}: {'; '.join(self.problems)}")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: a task's error may travel between processes."""
        return type(self), (self.source, self.problems)


class PolicyInvalid(SettingsInvalid):
    """The policy cannot be used; all problems are listed together."""


class FeedbackInvalid(FraudABError):
    """The feedback or the counts cannot be used; the message names the file or table and the column or row."""


class DataInvalid(FraudABError):
    """A table of features cannot be used; the message names the file or table and the column."""


class OutsideSystemError(FraudABError):
    """A system outside this process failed or refused while we were doing something with it."""

    def __init__(self, system: str, doing: str, *, retryable: bool) -> None:
        self.system = system
        self.doing = doing
        self.retryable = retryable
        super().__init__(f"{system} failed while {doing}" + (" (worth another try)" if retryable else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: a task's error may travel between processes."""
        return partial(type(self), self.system, self.doing, retryable=self.retryable), ()


class Conflict(OutsideSystemError):
    """Somebody else changed the object between our read and our write; read it again before deciding anything."""

    def __init__(self, system: str, doing: str, *, retryable: bool = True) -> None:
        super().__init__(system, doing, retryable=retryable)
