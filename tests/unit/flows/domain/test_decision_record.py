"""The chain of decision records shows every later change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.decision_record import GENESIS, DecisionRecord, RecordKind, first_broken_link, record_hash

START = datetime(2026, 11, 1, tzinfo=UTC)


def chain(payloads: list[dict[str, Any]]) -> list[DecisionRecord]:
    records: list[DecisionRecord] = []
    for number, payload in enumerate(payloads, start=1):
        link: dict[str, Any] = {
            "sequence": number,
            "kind": RecordKind.DECIDED,
            "decision_id": f"autumn-{number}",
            "at": START + timedelta(minutes=number),
            "payload": payload,
            "previous_hash": records[-1].hash if records else GENESIS,
        }
        records.append(DecisionRecord(**link, hash=record_hash(**link)))
    return records


def test_a_whole_chain_has_no_broken_link() -> None:
    assert first_broken_link([]) is None
    assert first_broken_link(chain([{}, {"choice": "confirm"}, {"ü": [1, None, 0.1]}])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"choice": "confirm"}},
        {"decision_id": "winter-2"},
        {"kind": RecordKind.PROMOTED},
        {"at": START},
        {"hash": "sha256:" + "1" * 64},
        {"previous_hash": GENESIS},
        {"sequence": 7},
    ],
)
def test_a_changed_record_is_found(change: dict[str, Any]) -> None:
    records = chain([{"choice": "expire"}] * 3)
    records[1] = replace(records[1], **change)
    assert first_broken_link(records) == records[1]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_missing_record_is_found(gone: int) -> None:
    records = chain([{}, {}, {}])
    del records[gone]
    assert first_broken_link(records) == records[gone]


def test_a_record_that_was_rewritten_with_its_own_hash_breaks_the_next_one() -> None:
    records, forged = chain([{"choice": "expire"}] * 3), chain([{"choice": "confirm"}] * 3)
    assert first_broken_link([records[0], replace(forged[1], previous_hash=records[0].hash), records[2]]) is not None
    assert first_broken_link([forged[0], *records[1:]]) == records[1]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none(), max_size=5))
def test_the_order_of_a_payload_does_not_matter(payload: dict[str, Any]) -> None:
    turned = dict(reversed(payload.items()))
    assert chain([payload])[0].hash == chain([turned])[0].hash
