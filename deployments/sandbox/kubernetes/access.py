"""Who may do what: users by bearer token, and the rules of a Role applied as the API server applies them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deployments.sandbox.kubernetes.responses import JSON, ApiError

_RESOURCE = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?P<part>/.+)?)?/?"
)
_VERBS = {"GET": ("list", "get"), "POST": ("create", "create"), "PUT": ("update", "update"), "PATCH": ("patch", "patch")}
_DELETIONS = ("deletecollection", "delete")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as authorisation sees it; namespace and name are empty where the request has none."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def attempt_on_path(method: str, path: str) -> Attempt | None:
    """What a request on a resource that the sandbox does not serve asks for; None for a path of no resource."""
    found = _RESOURCE.fullmatch(path)
    if found is None:
        return None
    verb = _VERBS.get(method, _DELETIONS)[found["name"] is not None]
    resource = found["resource"] + (found["part"] or "")
    return Attempt(verb, found["group"] or "", resource, found["namespace"] or "", found["name"] or "")


@dataclass(frozen=True, slots=True)
class User:
    """A user; `role` is a Role object, None means that everything is allowed."""

    name: str
    token: str
    role: JSON | None = None

    def may(self, attempt: Attempt) -> bool:
        if self.role is None:
            return True
        is_here = attempt.namespace == self.role["metadata"]["namespace"]
        return is_here and any(
            attempt.group in rule["apiGroups"]
            and attempt.resource in rule["resources"]
            and attempt.verb in rule["verbs"]
            and attempt.name in rule.get("resourceNames", [attempt.name])
            for rule in self.role["rules"]
        )

    def require(self, attempt: Attempt) -> None:
        """Raises the real server's 403."""
        if self.may(attempt):
            return
        plural = attempt.resource.partition("/")[0]
        named = f' "{attempt.name}"' if attempt.name else ""
        where = f'in the namespace "{attempt.namespace}"' if attempt.namespace else "at the cluster scope"
        what = f'resource "{attempt.resource}" in API group "{attempt.group}"'
        message = f'{plural}.{attempt.group}{named} is forbidden: User "{self.name}" cannot {attempt.verb} {what} {where}'
        details = {"group": attempt.group, "kind": plural} | ({"name": attempt.name} if attempt.name else {})
        raise ApiError(403, "Forbidden", message, details)
