"""Which hundredth of the cards a card belongs to: the unit of randomisation of the simulated test and of the router."""

from __future__ import annotations

import hashlib


def split_bucket(entity_id: str) -> int:
    """A stable number 0..99 for a card; the baseline serves the buckets below its traffic share in per cent."""
    return int.from_bytes(hashlib.sha256(entity_id.encode()).digest()[:8], "big") % 100
