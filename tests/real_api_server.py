"""The real Kubernetes API server of the shared folder: custom resources only, so no pods, Deployments or VirtualServices.

Who tests a change of production there brings the `LittleOperator`, which says of a change that it has arrived.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client, config

from deployments.sandbox.traffic_split import split_bucket

ROOT = Path(__file__).parents[1]
ROLE = ROOT / "k8s" / "base" / "promoter-role.yaml"
SHARED = Path(os.environ.get("FRAUD_AB_SHARED", ROOT.parent / "shared")) / "kubernetes"
MISSING = f"needs the real API server of {SHARED}/start (FRAUD_AB_SHARED)"
CUSTOM_RESOURCES_ONLY = "the real API server of the shared folder serves custom resources only"
SELDON_DEPLOYMENTS = ("machinelearning.seldon.io", "v1", "models", "seldondeployments")
START_SECONDS, SERVED_SECONDS, CALL_SECONDS = 90, 20.0, 5
LATE_SECONDS = 0.02


def is_here() -> bool:
    return (SHARED / "start").exists()


@dataclass(frozen=True)
class RealApiServer:
    """A running one with Seldon's definition; `promoter` is the kubeconfig of the restricted user."""

    admin: Path
    promoter: Path


@contextmanager
def running(folder: Path) -> Generator[RealApiServer]:
    """Start it below `folder` with the project's own role for the promoter; it is gone after the block."""
    shutil.copy(SHARED / "start", folder / "start")  # which takes the role from its own folder
    shutil.copy(ROLE, folder / "role-promoter.yaml")
    for name in ("crdserver.xz", "tokens.csv"):
        (folder / name).symlink_to(SHARED / name)
    data = folder / "data"
    subprocess.run([folder / "start", "0", data], check=True, capture_output=True, timeout=START_SECONDS)
    try:
        admin = data / "kubeconfig"
        settings = yaml.safe_load(admin.read_text())
        settings["users"][0]["user"] = {"token": (SHARED / "tokens.csv").read_text().partition(",")[0]}
        promoter = folder / "promoter"
        promoter.write_text(yaml.safe_dump(settings))
        definition = yaml.load((SHARED / "crd-webhook.yaml").read_text(), Loader=yaml.CSafeLoader)
        connection = config.new_client_from_config(str(admin))
        client.ApiextensionsV1Api(connection).create_custom_resource_definition(definition)
        _wait_until_served(client.CustomObjectsApi(connection))
        yield RealApiServer(admin, promoter)
    finally:
        os.kill(int((data / "pid").read_text()), signal.SIGTERM)


def _wait_until_served(api: client.CustomObjectsApi) -> None:
    deadline, pause = time.monotonic() + SERVED_SECONDS, threading.Event()
    while True:
        try:
            api.list_namespaced_custom_object(*SELDON_DEPLOYMENTS, _request_timeout=CALL_SECONDS)
        except client.ApiException as error:  # established a moment before it is served
            if time.monotonic() > deadline:
                raise TimeoutError(f"Seldon's definition is not served after {SERVED_SECONDS:g} s") from error
            pause.wait(0.05)
        else:
            return


class LittleOperator:
    """What Seldon's operator does as far as the API shows it, a moment late: traffic follows the spec, then the status says so.

    It works through the API as an admin and routes cards by the last spec that it has seen.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._api: Any = client.CustomObjectsApi(config.new_client_from_config(str(kubeconfig)))
        self._arrived: dict[str, tuple[str, int, dict[str, int]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="little-operator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(CALL_SECONDS)

    def route(self, card: str, name: str = "fraud-predictor") -> str:
        """The predictor that serves this card.

        Raises:
            LookupError: no traffic has arrived yet.
        """
        bucket, below = split_bucket(card), 0
        for predictor, weight in self._arrived[name][2].items():
            below += weight
            if bucket < below:
                return predictor
        raise LookupError(f"no predictor of {name} takes live traffic")

    def _run(self) -> None:
        while not self._stopping.wait(LATE_SECONDS):
            found = self._api.list_namespaced_custom_object(*SELDON_DEPLOYMENTS, _request_timeout=CALL_SECONDS)["items"]
            for one in found:
                self._follow(one)

    def _follow(self, found: dict[str, Any]) -> None:
        metadata, live = found["metadata"], [one for one in found["spec"]["predictors"] if not one.get("shadow")]
        seen = (metadata["uid"], metadata["generation"])
        if self._arrived.get(metadata["name"], ("", 0))[:2] == seen:
            return
        weights = {one["name"]: 100 if len(live) == 1 else one.get("traffic", 0) for one in live}
        self._arrived[metadata["name"]] = (*seen, weights)
        status = {"state": "Available", "conditions": [{"type": "Ready", "status": "True"}]}
        options = {"_content_type": "application/merge-patch+json", "_request_timeout": CALL_SECONDS}
        try:
            self._api.patch_namespaced_custom_object_status(*SELDON_DEPLOYMENTS, metadata["name"], {"status": status}, **options)
        except client.ApiException as error:
            if error.status != 404:  # deleted since
                raise
