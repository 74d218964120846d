"""The SeldonDeployment's manifest as text: weights, shadow flags and predictors as they serve, everything else as it was written.

Only the characters of what changes are replaced, found by the YAML parser's marks, so that comments, order and layout stay. What
the edited text says is then compared with what it should say; a layout that cannot be edited so is refused, never guessed at.
"""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from flows.domain.errors import SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.domain.serving_state import Predictor, ServingState

KIND = "SeldonDeployment"


@dataclass(frozen=True, slots=True)
class _Edit:
    """Replace the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def manifest_as_served(text: str, state: ServingState, path: str) -> str:
    """Make a manifest say what serves now; the same text when it does already.

    Args:
        text: the file, with one or more YAML documents.
        state: what serves.
        path: the file's name, for people.

    Raises:
        SettingsInvalid: the file is no YAML, does not hold this SeldonDeployment once, or cannot be edited as it is laid out.
    """
    try:
        wanted = _expected(text, state)
        root = _find(text, state)
        edited = _apply(text, _edits(text, root, state))
        if list(yaml.safe_load_all(edited)) != wanted:
            raise SettingsInvalid(path, ["it cannot be edited in place: write its predictors as a block list, one field a line"])
    except yaml.YAMLError as error:
        raise SettingsInvalid(path, [f"it is no plain YAML: {' '.join(str(error).split())}"]) from error
    except (LookupError, TypeError) as error:
        raise SettingsInvalid(path, [f"it must hold {KIND} {state.namespace}/{state.name} once, with its predictors"]) from error
    return edited


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that only one of the texts has, without their indentation: of the first, of the second."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    old, new = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in ("- ", "+ "))
    return "; ".join(old), "; ".join(new)


def _expected(text: str, state: ServingState) -> list[Any]:
    """The documents as they should read afterwards."""
    documents = list(yaml.safe_load_all(text))
    found = [one for one in documents if _is_ours(one, state)]
    if len(found) != 1:
        raise LookupError
    ours = found[0]
    written = {one["name"]: one for one in ours["spec"]["predictors"]}
    kept = [_as_serving(one, predictor) for name, one in written.items() if (predictor := state.predictor(name))]
    added = [_as_serving(dict(one.spec), one) for one in state.predictors if one.name not in written]
    ours["spec"]["predictors"] = kept + added
    return documents


def _is_ours(document: Any, state: ServingState) -> bool:
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return False
    metadata = document.get("metadata") or {}
    is_there = metadata.get("namespace", state.namespace) == state.namespace
    return metadata.get("name") == state.name and is_there


def _as_serving(written: dict[str, Any], predictor: Predictor) -> dict[str, Any]:
    shadow = {"shadow": predictor.shadow} if predictor.shadow != bool(written.get("shadow")) else {}
    return {**written, "traffic": predictor.traffic, **shadow}


def _find(text: str, state: ServingState) -> yaml.SequenceNode:
    """The list of predictors, with its marks."""
    for root, document in zip(yaml.compose_all(text, yaml.SafeLoader), yaml.safe_load_all(text), strict=True):
        found = _value(_value(root, "spec"), "predictors") if _is_ours(document, state) else None
        if isinstance(found, yaml.SequenceNode):
            return found
    raise LookupError


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _edits(text: str, predictors: yaml.SequenceNode, state: ServingState) -> Iterator[_Edit]:
    names: set[str] = set()
    for node in predictors.value:
        name = _value(node, "name")
        if name is None:
            raise LookupError
        names.add(name.value)
        predictor = state.predictor(name.value)
        if predictor is None:
            yield _Edit(node.start_mark.index - node.start_mark.column, _end_of_lines(text, node), "")
            continue
        yield from _set(text, node, name, "traffic", str(predictor.traffic))
        shadow = _value(node, "shadow")
        if predictor.shadow != (shadow is not None and yaml.safe_load(shadow.value) is True):
            yield from _set(text, node, name, "shadow", str(predictor.shadow).lower())
    for predictor in state.predictors:
        if predictor.name not in names:
            yield _append(text, predictors, predictor)


def _set(text: str, node: yaml.MappingNode, name: yaml.Node, key: str, value: str) -> Iterator[_Edit]:
    """Replace a field's value, or write the field behind the name."""
    found = _value(node, key)
    if found is not None:
        yield _Edit(found.start_mark.index, found.end_mark.index, value)
    elif node.flow_style:
        yield _Edit(name.end_mark.index, name.end_mark.index, f", {key}: {value}")
    else:
        yield _insert_after(text, name, f"{' ' * node.start_mark.column}{key}: {value}\n")


def _append(text: str, predictors: yaml.SequenceNode, predictor: Predictor) -> _Edit:
    written = yaml.safe_dump([_as_serving(dict(predictor.spec), predictor)], sort_keys=False, allow_unicode=True)
    return _insert_after(text, predictors, textwrap.indent(written, " " * predictors.start_mark.column))


def _insert_after(text: str, node: yaml.Node, lines: str) -> _Edit:
    end = _end_of_lines(text, node)
    return _Edit(end, end, lines if text[:end].endswith("\n") else f"\n{lines}")


def _end_of_lines(text: str, node: yaml.Node) -> int:
    """Where the line begins that follows a node's last one; comments behind it are not the node's."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    newline = text.find("\n", node.end_mark.index - (node.end_mark.column == 0))
    return len(text) if newline < 0 else newline + 1


def _apply(text: str, edits: Iterator[_Edit]) -> str:
    for edit in sorted(edits, key=lambda one: one.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
