"""What the API server answers when it refuses: Status objects, worded as the real server words them."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]
Cause = tuple[str, str, str]
"""One wrong field: the field's path, Kubernetes' reason (`FieldValueInvalid`), its message."""


class ApiError(Exception):
    """A refusal with its HTTP status; `as_status` is the body that clients get."""

    def __init__(self, code: int, reason: str, message: str, details: JSON | None = None) -> None:
        self.code, self.reason, self.details = code, reason, details
        super().__init__(message)

    def as_status(self) -> JSON:
        status: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code}
        return (
            status | {"message": str(self), "reason": self.reason} | ({} if self.details is None else {"details": self.details})
        )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def not_found(resource: str, group: str, name: str) -> ApiError:
    details = {"name": name, "group": group, "kind": resource}
    return ApiError(404, "NotFound", f'{resource}.{group} "{name}" not found', details)


def conflict(resource: str, group: str, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    details = {"name": name, "group": group, "kind": resource}
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {resource}.{group} "{name}": {why}', details)


def invalid(kind: str, group: str, name: str, causes: list[Cause]) -> ApiError:
    """422 that lists every wrong field."""
    texts = [f"{field}: {message}" for field, _, message in causes]
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: JSON = {"name": name, "group": group, "kind": kind}
    details["causes"] = [{"field": field, "reason": reason, "message": message} for field, reason, message in causes]
    return ApiError(422, "Invalid", f'{kind}.{group} "{name}" is invalid: {listed}', details)


def patch_rejected() -> ApiError:
    """A json-patch whose test failed or whose path does not exist; the real server says no more than this."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})
