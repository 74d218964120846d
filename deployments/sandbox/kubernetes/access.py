"""Who may do what: users by bearer token, and the rules of a Role applied as the API server applies them."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.sandbox.kubernetes.responses import JSON, ApiError


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as authorisation sees it; namespace and name are empty where the request has none."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


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
