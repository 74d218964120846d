"""The objects of the cluster with their versions and the history that watches read: what etcd and the registry do together."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deployments.sandbox.kubernetes import responses
from deployments.sandbox.kubernetes.responses import JSON, ApiError, Cause

FIRST_REVISION = 1000  # not the number of objects, and versions from before the start are too old


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource: its names, what clients may do with it, and how its objects are checked."""

    group: str
    version: str
    plural: str
    kind: str
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    find_problems: Callable[[JSON], list[Cause]] = field(default=lambda _: [])
    unknown_fields: Callable[[JSON], list[str]] = field(default=lambda _: [])

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


@dataclass(frozen=True, slots=True)
class Event:
    """One change: ADDED, MODIFIED or DELETED, with the object as it is then."""

    revision: int
    kind: Kind
    type: str
    thing: JSON


class ObjectStore:
    """All objects, each change under one lock, with one monotonic revision as in the real server."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str, str], JSON] = {}
        self._events: list[Event] = []
        self._revision = FIRST_REVISION
        self._listeners: list[Callable[[], object]] = []

    def find(self, kind: Kind, namespace: str, name: str) -> JSON | None:
        with self._lock:
            return copy.deepcopy(self._objects.get((kind.plural, namespace, name)))

    def read(self, kind: Kind, namespace: str, name: str) -> JSON:
        found = self.find(kind, namespace, name)
        if found is None:
            raise responses.not_found(kind.plural, kind.group, name)
        return found

    def list(self, kind: Kind, namespace: str = "") -> tuple[list[JSON], int]:
        """The objects (of all namespaces without one) by name, and the revision at which this list is exact."""
        with self._lock:
            keys = sorted(key for key in self._objects if key[0] == kind.plural and namespace in ("", key[1]))
            return [copy.deepcopy(self._objects[key]) for key in keys], self._revision

    def create(self, kind: Kind, namespace: str, new: JSON, *, dry_run: bool = False) -> JSON:
        with self._lock:
            name = new["metadata"]["name"]
            if self.find(kind, namespace, name):
                raise ApiError(409, "AlreadyExists", f'{kind.plural}.{kind.group} "{name}" already exists', {"name": name})
            self._check(kind, new)
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            system = {"namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": created}
            new = {**new, "metadata": new["metadata"] | system}
            new.pop("status", None)
            return new if dry_run else self._commit(kind, "ADDED", new)

    def change(
        self, kind: Kind, namespace: str, name: str, edit: Callable[[JSON], JSON], *, part: str = "", dry_run: bool = False
    ) -> JSON:
        """Replace an object by what `edit` makes of it; `part` is "" for all but the status, or "status" for that alone."""
        with self._lock:
            before = self.read(kind, namespace, name)
            after = edit(copy.deepcopy(before))
            self._check_version(kind, before, after)
            kept, new = (before, after) if part == "status" else (after, before)
            after = {**kept, "status": new.get("status")} if "status" in new else {k: v for k, v in kept.items() if k != "status"}
            self._check(kind, after)
            after["metadata"] = _carry_metadata(before, after)
            if after == before:
                return before
            return after if dry_run else self._commit(kind, "MODIFIED", after)

    def delete(self, kind: Kind, namespace: str, name: str, *, dry_run: bool = False) -> JSON:
        with self._lock:
            before = self.read(kind, namespace, name)
            return before if dry_run else self._commit(kind, "DELETED", before)

    def events_after(self, kind: Kind, revision: int) -> list[Event]:
        """What happened to objects of a kind since a revision; raises 410 when that is no longer known."""
        with self._lock:
            if revision < FIRST_REVISION:
                raise ApiError(410, "Expired", f"too old resource version: {revision} ({FIRST_REVISION})")
            return [event for event in self._events if event.revision > revision and event.kind is kind]

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` after every change until the returned function is called."""
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [other for other in self._listeners if other is not listener]

        return stop

    def _commit(self, kind: Kind, change: str, thing: JSON) -> JSON:
        self._revision += 1
        thing = {**thing, "metadata": thing["metadata"] | {"resourceVersion": str(self._revision)}}
        key = (kind.plural, thing["metadata"]["namespace"], thing["metadata"]["name"])
        if change == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = thing
        self._events.append(Event(self._revision, kind, change, thing))
        for listener in self._listeners:
            listener()
        return copy.deepcopy(thing)

    @staticmethod
    def _check(kind: Kind, new: JSON) -> None:
        if causes := kind.find_problems(new):
            raise responses.invalid(kind.kind, kind.group, new["metadata"]["name"], causes)

    @staticmethod
    def _check_version(kind: Kind, before: JSON, after: JSON) -> None:
        """The fence of every change: the version must be given and be the one that is stored."""
        name, version = before["metadata"]["name"], after["metadata"].get("resourceVersion")
        if not version:
            cause = ("metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update")
            raise responses.invalid(kind.plural, kind.group, name, [cause])
        if version != before["metadata"]["resourceVersion"]:
            raise responses.conflict(kind.plural, kind.group, name)


def _carry_metadata(before: JSON, after: JSON) -> JSON:
    """System fields are the server's; the generation counts changes of the spec alone; empty maps are not kept."""
    system = {key: before["metadata"][key] for key in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion")}
    system["generation"] = before["metadata"]["generation"] + (before.get("spec") != after.get("spec"))
    given = {key: value for key, value in after["metadata"].items() if value or key not in ("annotations", "labels")}
    return given | system
