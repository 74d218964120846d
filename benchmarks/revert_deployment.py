"""What `make bench-emergency` compares with: the same revert as the flow of a deployment, served with default settings."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from flows.adapters.serving_seldon import SeldonServing
from flows.emergency_revert import revert_traffic


@flow(name="revert-by-deployment")
def revert_by_deployment(revert_id: str) -> None:
    serving = SeldonServing(kubeconfig=Path(os.environ["KUBECONFIG"]), namespace="models", name="fraud-predictor")
    revert_traffic(serving, revert_id=revert_id, actor="bench", reason="a measurement", at=datetime.now(UTC))


if __name__ == "__main__":
    revert_by_deployment.serve(name="bench", print_starting_message=False)
