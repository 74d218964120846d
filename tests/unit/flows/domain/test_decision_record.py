"""The chain of decision records shows every later change."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.decision import Choice, NextStep, next_step
from flows.domain.decision_record import (
    GENESIS,
    DecisionRecord,
    Investigation,
    RecordKind,
    chain_problems,
    is_lost,
    latest_investigation,
    latest_outcome,
    lost_records,
    noted_files,
    record_hash,
    reverts_after,
)
from flows.domain.verdict import VerdictKind

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
    assert str(records[1]) in chain_problems(records)[0]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_missing_record_is_found(gone: int) -> None:
    records = chain([{}, {}, {}])
    del records[gone]
    assert str(records[gone]) in chain_problems(records)[0]


def test_a_record_that_was_rewritten_with_its_own_hash_breaks_the_next_one() -> None:
    records, forged = chain([{"choice": "expire"}] * 3), chain([{"choice": "confirm"}] * 3)
    assert chain_problems([records[0], replace(forged[1], previous_hash=records[0].hash), records[2]]) != ()
    assert str(records[1]) in chain_problems([forged[0], *records[1:]])[0]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none(), max_size=5))
def test_the_order_of_a_payload_does_not_matter(payload: dict[str, Any]) -> None:
    turned = dict(reversed(payload.items()))
    assert chain([payload])[0].hash == chain([turned])[0].hash


def test_what_is_whole_has_no_problems() -> None:
    assert chain_problems([]) == ()
    assert chain_problems(chain([{}, {"choice": "confirm"}, {"ü": [1, None, 0.1]}])) == ()


def test_a_tampered_record_is_named() -> None:
    records = chain([{"choice": "expire"}] * 3)
    records[1] = replace(records[1], payload={"choice": "confirm"})
    [problem] = chain_problems(records)
    assert problem.startswith("record 2 (autumn-2, decided) was changed after it was written")
    assert records[1].recomputed_hash in problem


def test_a_record_that_was_replaced_with_a_hash_of_its_own_is_named_by_the_next_one() -> None:
    records = chain([{"choice": "expire"}] * 3)
    forged = chain([{"choice": "expire"}, {"choice": "confirm"}])[1]
    [problem] = chain_problems([records[0], forged, records[2]])
    assert problem.startswith("record 2 (autumn-2, decided) was replaced: record 3 (autumn-3, decided) was written after another")


def test_a_log_whose_records_were_swapped_in_the_table_is_named_with_their_places() -> None:
    records = chain([{}, {"a": 1}, {"b": 2}, {}])
    records[1], records[2] = replace(records[2], sequence=2), replace(records[1], sequence=3)
    problems = chain_problems(records)
    assert "record 2 (autumn-3, decided) was written as record 3: the log was re-ordered." in problems
    assert "record 3 (autumn-2, decided) was written as record 2: the log was re-ordered." in problems


def test_an_export_whose_records_were_swapped_is_named_with_what_each_was_written_after() -> None:
    records = chain([{}, {"a": 1}, {"b": 2}])
    first, second = chain_problems([records[0], records[2], records[1]])
    assert first.startswith(
        "record 3 (autumn-3, decided) was written after record 2 (autumn-2, decided), but stands after record 1"
    )
    assert second.startswith(
        "record 2 (autumn-2, decided) was written after record 1 (autumn-1, decided), but stands after record 3"
    )
    assert first.endswith("the log was re-ordered.")


def test_a_log_that_was_turned_round_is_named_from_its_first_record() -> None:
    first, second = chain_problems(list(reversed(chain([{}, {"a": 1}]))))
    assert first.startswith(
        "record 2 (autumn-2, decided) was written after record 1 (autumn-1, decided), but stands at the begin"
    )
    assert second.startswith("record 1 (autumn-1, decided) was written first, but stands after record 2 (autumn-2, decided)")


def test_missing_records_are_named_by_their_numbers() -> None:
    records = chain([{}] * 5)
    assert chain_problems(records[1:]) == ("record 1 is missing before record 2 (autumn-2, decided).",)
    assert chain_problems([*records[:1], *records[3:]]) == ("records 2 to 3 are missing before record 4 (autumn-4, decided).",)


def test_a_beginning_that_was_forged_is_named() -> None:
    [record] = chain([{}])
    link = {name: getattr(record, name) for name in ("sequence", "kind", "decision_id", "at", "payload")}
    other = DecisionRecord(**link, previous_hash="sha256:x", hash=record_hash(**link, previous_hash="sha256:x"))
    assert chain_problems([other]) == (
        "The beginning was replaced: record 1 (autumn-1, decided) was written after another one (sha256:x).",
    )


def test_a_record_that_was_removed_at_the_end_leaves_a_whole_chain_and_is_named_by_an_earlier_copy() -> None:
    records = chain([{}, {}, {"choice": "confirm"}])
    assert chain_problems(records[:2]) == ()
    assert lost_records(records[:2], records) == (
        "record 3 (autumn-3, decided) was written 2026-11-01 00:03:00 UTC, and is not in the log: it was removed or replaced.",
    )
    assert lost_records(records, records[:2]) == ()


@given(st.permutations(range(5)), st.integers(0, 3))
def test_no_other_order_and_no_gap_is_taken_for_whole(order: list[int], gone: int) -> None:
    records = chain([{"number": number} for number in range(5)])
    assert (chain_problems([records[place] for place in order]) == ()) == (order == sorted(order))
    assert chain_problems([record for place, record in enumerate(records) if place != gone])


def test_a_record_comes_back_from_json() -> None:
    [record] = chain([{"ü": [1, None, 0.1]}])
    assert DecisionRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    with pytest.raises(KeyError):
        DecisionRecord.from_json({})


def test_the_latest_investigation_is_found_and_is_no_outcome() -> None:
    found = [Investigation((line,), ({"status": "supported"},), "runs:/r/x") for line in ("first", "second")]
    records = [replace(record, kind=RecordKind.INVESTIGATED) for record in chain([one.to_payload() for one in found])]
    assert latest_investigation([*records, *chain([{}])]) == found[1]
    assert latest_investigation(chain([{}])) is None
    assert latest_outcome([RecordKind.BASELINE_KEPT, RecordKind.INVESTIGATED]) is RecordKind.BASELINE_KEPT


def test_a_test_is_lost_by_its_evidence_or_by_somebody_and_not_by_silence() -> None:
    ends = {(kind, choice) for kind in VerdictKind for choice in Choice if next_step(kind, choice) is NextStep.KEEP_BASELINE}
    lost = {(kind, choice) for kind, choice in ends if is_lost(RecordKind.BASELINE_KEPT, kind, choice)}
    silence_or_unknown = {(kind, Choice.EXPIRE) for kind in VerdictKind if kind is not VerdictKind.KEEP_BASELINE}
    assert ends - lost == silence_or_unknown | {(VerdictKind.NOT_EVALUABLE, Choice.CONFIRM)}


def test_a_candidate_that_was_put_back_is_lost_where_there_is_evidence_to_look_into() -> None:
    lost = {kind for kind in RecordKind if is_lost(kind, VerdictKind.PROMOTE, Choice.CONFIRM)}
    assert lost == {RecordKind.COMPENSATED, RecordKind.EMERGENCY_REVERT}
    assert is_lost(RecordKind.EMERGENCY_REVERT, VerdictKind.INCONCLUSIVE, None), "the question was still open"
    assert not is_lost(RecordKind.EMERGENCY_REVERT, None, None)


def test_of_each_stored_file_the_last_record_counts() -> None:
    told: list[dict[str, Any]] = [{"files": {"a.md": "1", "b.png": "2"}}, {"files": {"a.md": "3"}}, {"files": {"a.md": "4"}}]
    one, two, other = (replace(record, kind=RecordKind.DOCUMENTED, decision_id="decisions/t-1") for record in chain(told))
    other = replace(other, decision_id="decisions/t-2")
    assert noted_files([one, two, other], "decisions/t-1") == {"a.md": (two, "3"), "b.png": (one, "2")}
    assert noted_files([replace(one, decision_id="t-1", kind=RecordKind.DECIDED)], "t-1") == {}
    assert not RecordKind.DOCUMENTED.is_outcome


def test_the_emergencies_of_a_decision_are_those_that_name_it() -> None:
    told = [{"decision_id": "t-1"}, {"decision_id": "t-2"}, {}]
    one, other, none = (replace(record, kind=RecordKind.EMERGENCY_REVERT) for record in chain(told))
    assert reverts_after("t-1", [one, other, none, replace(one, kind=RecordKind.WATCHED)]) == [one]
