"""The bot's only power over production: all traffic back to the baseline.

Kubernetes is all that is needed here. The rest (registry, documents, notices, records) is the work of the flow
`rollback-to-baseline`, which may come later; the SeldonDeployment itself keeps who reverted, when and why until it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapters.serving_seldon import SeldonServing
from flows.emergency_revert import RevertOutcome, revert_traffic, settle

if TYPE_CHECKING:
    from flows.domain.serving_state import ServingState

SLOW_SECONDS = 2.0


class Emergency:
    """The SeldonDeployment of these settings, for reading and for reverting."""

    def __init__(self, *, kubeconfig: Path | None, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self._serving = SeldonServing(kubeconfig=kubeconfig, namespace=namespace, name=name)

    def read(self) -> ServingState:
        return self._serving.read()

    def settle(self) -> None:
        """Move the traffic to a baseline that had to be started again as soon as it is ready, and let a revert arrive."""
        settle(self._serving)

    def revert(
        self, *, revert_id: str, actor: str, reason: str, when_slow: Callable[[], None], only_promoted_by: str = ""
    ) -> RevertOutcome:
        """Revert now; `when_slow` is called once if Kubernetes keeps silent for longer than a person likes to wait.

        Raises:
            Superseded: there is no rollback point, or something newer than the promotion by `only_promoted_by`.
            OutsideSystemError: Kubernetes refused or did not answer in time.
        """
        at = datetime.now(UTC)
        with ThreadPoolExecutor(1, thread_name_prefix="revert") as pool:
            reverting = pool.submit(
                revert_traffic,
                self._serving,
                revert_id=revert_id,
                actor=actor,
                reason=reason,
                at=at,
                only_promoted_by=only_promoted_by,
            )
            if wait([reverting], timeout=SLOW_SECONDS).not_done:
                when_slow()
            return reverting.result()
