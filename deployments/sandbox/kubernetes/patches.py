"""Bodies: decoding that refuses unknown and duplicate fields, and the two kinds of patch that custom resources take.

Field validation is always strict here; the real server is strict only when asked, as the product and kubectl do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

from deployments.sandbox.kubernetes import responses
from deployments.sandbox.kubernetes.responses import JSON, ApiError
from deployments.sandbox.kubernetes.store import Kind

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


class _DuplicateField(Exception):
    pass


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> JSON:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise _DuplicateField(f'strict decoding error: duplicate field "{key}"')
    return dict(pairs)


def _unknown(kind: Kind, new: JSON) -> str:
    unknown = ", ".join(f'unknown field "{field}"' for field in sorted(kind.unknown_fields(new)))
    return unknown and f"strict decoding error: {unknown}"


def decode_object(body: bytes, kind: Kind) -> JSON:
    """The object of a create or replace; raises 400 for what is none."""
    refused = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    try:
        new = json.loads(body, object_pairs_hook=_refuse_duplicates)
    except _DuplicateField as error:
        raise responses.bad_request(f"{refused}{error}") from error
    except ValueError as error:
        raise responses.bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    if not isinstance(new, dict) or (new.get("apiVersion"), new.get("kind")) != (kind.api_version, kind.kind):
        raise responses.bad_request(f"the object provided is unrecognized (must be of type {kind.kind})")
    if not new.get("metadata", {}).get("name"):
        raise responses.invalid(kind.kind, kind.group, "", [("metadata.name", "FieldValueRequired", "Required value")])
    if unknown := _unknown(kind, new):
        raise responses.bad_request(f"{refused}{unknown}")
    return new


def prepare_patch(content_type: str, body: bytes, kind: Kind) -> Callable[[JSON], JSON]:
    """How to change a stored object; raises 400 or 415 when the body is no patch of the declared type."""
    if content_type not in (JSON_PATCH, MERGE_PATCH):
        raise ApiError(415, "UnsupportedMediaType", f"accepted media types include: {JSON_PATCH}, {MERGE_PATCH}")
    try:
        patch = json.loads(body, object_pairs_hook=_refuse_duplicates)
    except _DuplicateField as error:
        raise _invalid_patch(str(error)) from error
    except ValueError as error:
        raise responses.bad_request(f"error decoding patch: {error}") from error
    apply = _json_patch(patch) if content_type == JSON_PATCH else _merge_patch(patch)

    def edit(stored: JSON) -> JSON:
        patched = apply(stored)
        wrong, right = patched["metadata"].get("name"), stored["metadata"]["name"]
        if wrong != right:
            raise responses.bad_request(f"the name of the object ({wrong}) does not match the name on the URL ({right})")
        if problem := _unknown(kind, patched):
            raise _invalid_patch(problem)
        return patched

    return edit


def _invalid_patch(why: str) -> ApiError:
    details = {"causes": [{"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": "patch"}]}
    return ApiError(422, "Invalid", f' "" is invalid: patch: Invalid value: {why}', details)


def _json_patch(operations: Any) -> Callable[[JSON], JSON]:
    if not isinstance(operations, list):
        raise responses.bad_request("error decoding patch: json: cannot unmarshal object into Go value of type []jsonPatchOp")
    try:
        patch = jsonpatch.JsonPatch(operations)
    except (jsonpatch.InvalidJsonPatch, JsonPointerException) as error:
        raise responses.bad_request(f"invalid operation: {error}") from error

    def apply(stored: JSON) -> JSON:
        try:
            return patch.apply(stored)
        except (jsonpatch.JsonPatchException, JsonPointerException) as error:
            raise responses.patch_rejected() from error

    return apply


def _merge_patch(patch: Any) -> Callable[[JSON], JSON]:
    if not isinstance(patch, dict):
        wanted = "Go value of type map[string]interface {}"
        raise responses.bad_request(f"error decoding patch: json: cannot unmarshal array into {wanted}")
    return lambda stored: _merged(stored, patch)


def _merged(target: Any, patch: JSON) -> JSON:
    merged: JSON = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value) if isinstance(value, dict) else value
    return merged
