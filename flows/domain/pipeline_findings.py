"""Findings about the pipeline: the artifact, the version that is served, latency and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.domain.criteria import CriterionStatus, points
from flows.domain.drift import Severity
from flows.domain.findings import Finding, FindingStatus, Hypothesis, not_testable
from flows.domain.guardrails import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.domain.criteria import Criterion
    from flows.domain.recalls import Replayed

OTHER_ANSWERS = 0.01  # of the frauds; rounding alone makes some of the answers differ
LEAST_OTHERS = 20  # other answers, fewer of which do not show that another model was measured


@dataclass(frozen=True, slots=True)
class Answers:
    """The registered model on the `frauds` as they were served: `different` answers were not what was served, and the recall
    that it would have had (None: no fraud has both)."""

    frauds: int
    different: int
    replayed: Replayed

    @property
    def are_same(self) -> bool:
        """Whether no more of them differ than rounding explains."""
        return self.different < OTHER_ANSWERS * self.frauds


def find_artifact(manifest: Mapping[str, str] | None, artifact: Mapping[str, str] | None, answers: Answers | None) -> Finding:
    """Whether the served files are those of the test's start.

    Args:
        manifest: SHA-256 by relative path, as noted when the test began.
        artifact: the same of what is served now.
        answers: the intact model's answers beside the served ones.
    """
    if manifest is None or artifact is None:
        return not_testable(Hypothesis.ARTIFACT, "The manifest and the served files' digests are needed to compare them.")
    named = {path: _difference(manifest.get(path), artifact.get(path)) for path in sorted(manifest.keys() | artifact.keys())}
    wrong = {path: what for path, what in named.items() if what}
    if not wrong:
        said = f"All {len(manifest)} files of the artifact are as the manifest has them."
        return Finding(Hypothesis.ARTIFACT, FindingStatus.NOT_SUPPORTED, said, ("files that differ", 0))
    # what lies beside the noted files, and changes no answer, has changed no measurement
    is_harmless = manifest.keys() <= artifact.keys() - wrong.keys() and answers is not None and answers.are_same
    said = "; ".join(f"{path} {what}" for path, what in wrong.items()) + f".{_answer_words(answers)}"
    return Finding(
        Hypothesis.ARTIFACT,
        FindingStatus.SUPPORTED,
        said,
        ("files that differ", len(wrong)),
        answers.replayed.explained if answers else None,
        Severity.MILD if is_harmless else Severity.SEVERE,
        "Find out who added files, and restore the archived artifact."
        if is_harmless
        else "Restore the archived artifact and repeat the test: another model than the candidate was measured.",
        {"files": wrong},
    )


def _difference(wanted: str | None, found: str | None) -> str:
    if found is None:
        return "is missing"
    if wanted is None:
        return "was not registered"
    return "" if wanted == found else "is not the file that was registered"


def _answer_words(answers: Answers | None) -> str:
    if answers is None:
        return ""
    if not answers.different:
        return " The registered model answers on all frauds as was served."
    change = points((answers.replayed.gained - answers.replayed.lost) / answers.replayed.frauds)
    share = percent(answers.different / answers.frauds)
    return f" The registered model answers otherwise on {share} of the frauds, and its recall is {change} from what was served."


def find_served_version(
    registered: str | None, served: str | None, answers: Answers | None, *, is_artifact_intact: bool
) -> Finding:
    """Whether the served answers are those of the model that the registry names.

    Args:
        registered, served: the version (or address) in the registry and in the serving containers. Another one is harmless where
            the answers are known to be the same.
        answers: the registered model's answers beside the served ones.
        is_artifact_intact: whether the digests agree or are unknown; else other answers have their reason already.
    """
    if (registered is None or served is None) and answers is None:
        return not_testable(Hypothesis.SERVED_VERSION, "Neither the served version nor served answers to compare are known.")
    is_other = registered is not None and served is not None and registered != served
    names = [version or "an unknown version" for version in (registered, served)]
    said = f"The registry names {names[0]}, served is {names[1]}.{_answer_words(answers)}"
    effect = ("versions that differ", float(is_other))
    if answers is not None:
        effect = ("share of other answers", answers.different / answers.frauds)
    if (answers is not None and answers.are_same) or not (is_other or (answers is not None and is_artifact_intact)):
        return Finding(Hypothesis.SERVED_VERSION, FindingStatus.NOT_SUPPORTED, said, effect)
    is_few = not is_other and answers is not None and answers.different < LEAST_OTHERS
    said += " So few other answers do not show that another model was measured." if is_few else ""
    return Finding(
        Hypothesis.SERVED_VERSION,
        FindingStatus.SUPPORTED,
        said,
        effect,
        answers.replayed.explained if answers else None,
        Severity.MILD if is_few else Severity.SEVERE,
        "Serve the registered version and repeat the test: another model than the candidate was measured."
        if is_other
        else "Find out what answered: other files, another threshold, or other features than those that were logged.",
        {"registered": registered, "served": served},
    )


def find_latency(criterion: Criterion | None) -> Finding:
    """Whether the candidate answered too slowly, by the verdict's own criterion."""
    return _from_criterion(Hypothesis.LATENCY, criterion, "Look at the slow hours in the latency panel: what is looked up then?")


def find_errors(criterion: Criterion | None) -> Finding:
    """Whether the candidate failed more often, by the verdict's own criterion."""
    return _from_criterion(Hypothesis.ERRORS, criterion, "Look at the failed requests' logs of the candidate's containers.")


def _from_criterion(hypothesis: Hypothesis, criterion: Criterion | None, next_step: str) -> Finding:
    if criterion is None or criterion.status is CriterionStatus.NOT_CHECKED:
        return not_testable(hypothesis, criterion.reason if criterion else "Latency and errors of both arms were not measured.")
    if criterion.status is CriterionStatus.UNDECIDED:
        return not_testable(hypothesis, f"The verdict left it undecided: {criterion.reason}.")
    is_bad = criterion.status is CriterionStatus.FAILED
    return Finding(
        hypothesis,
        FindingStatus.SUPPORTED if is_bad else FindingStatus.NOT_SUPPORTED,
        criterion.reason,
        None if criterion.observed is None else (f"observed ({criterion.unit})", criterion.observed),
        severity=Severity.SEVERE if is_bad else Severity.NONE,
        next_step=next_step if is_bad else "",
    )
