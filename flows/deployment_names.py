"""What the Prefect deployments are called by which flows, bot and command line find each other."""

from __future__ import annotations

FINALIZING_FLOW = "finalize-ab-test"
FINALIZE = f"{FINALIZING_FLOW}/fraud"
FOLLOW_UP = "rollback-to-baseline/fraud"
INVESTIGATE = "investigate-candidate/fraud"
REMINDER = "remind-pending-decision/fraud"
