"""Versions, history and listeners of the object store."""

from typing import Any

import pytest

from deployments.sandbox.kubernetes.kinds import DEPLOYMENTS, VIRTUAL_SERVICES
from deployments.sandbox.kubernetes.responses import ApiError
from deployments.sandbox.kubernetes.store import ObjectStore


def thing(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_versions_are_shared_by_all_objects_and_only_rise() -> None:
    store = ObjectStore()
    versions = [int(store.create(DEPLOYMENTS, "n", thing(name))["metadata"]["resourceVersion"]) for name in "abc"]
    changed = store.change(DEPLOYMENTS, "n", "a", lambda found: {**found, "spec": {"replicas": 2}})
    versions.append(int(changed["metadata"]["resourceVersion"]))
    versions.append(int(store.delete(DEPLOYMENTS, "n", "b")["metadata"]["resourceVersion"]))
    assert versions == sorted(set(versions))
    assert [item["metadata"]["name"] for item in store.list(DEPLOYMENTS, "n")[0]] == ["a", "c"]


def test_what_is_read_is_a_copy() -> None:
    store = ObjectStore()
    store.create(DEPLOYMENTS, "n", thing(replicas=1))
    store.read(DEPLOYMENTS, "n", "a")["spec"]["replicas"] = 9
    assert store.read(DEPLOYMENTS, "n", "a")["spec"] == {"replicas": 1}


def test_history_is_told_per_kind_and_nothing_from_before_the_start() -> None:
    store = ObjectStore()
    _, since = store.list(DEPLOYMENTS)
    store.create(DEPLOYMENTS, "n", thing())
    store.create(VIRTUAL_SERVICES, "n", thing())
    store.delete(DEPLOYMENTS, "n", "a")
    assert [event.type for event in store.events_after(DEPLOYMENTS, since)] == ["ADDED", "DELETED"]
    with pytest.raises(ApiError, match="too old resource version") as caught:
        store.events_after(DEPLOYMENTS, since - 1)
    assert caught.value.code == 410
    assert store.events_after(DEPLOYMENTS, store.list(DEPLOYMENTS)[1]) == []


def test_listeners_hear_of_changes_until_they_stop() -> None:
    store, heard = ObjectStore(), []
    stop = store.listen(lambda: heard.append(1))
    store.create(DEPLOYMENTS, "n", thing())
    store.change(DEPLOYMENTS, "n", "a", lambda found: found)  # changes nothing, so nobody is told
    assert len(heard) == 1
    stop()
    store.delete(DEPLOYMENTS, "n", "a")
    assert len(heard) == 1
