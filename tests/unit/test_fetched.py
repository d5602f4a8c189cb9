"""Records that stay bytes until one is asked for are those that aiokafka's parser makes, or none at all."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.codecs.spans import Spans
from schemas.replay import REPLAY_HEADER
from streams.bars.records import records_of
from streams.fetch import fetched
from support.fetched import record_batches

HEAD = 61
T0 = 1_723_161_600_000


@dataclass(frozen=True)
class Rec:
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


texts = st.one_of(st.none(), st.binary(max_size=200))
timestamps = st.one_of(st.none(), st.integers(0, 2**62), st.integers(T0, T0 + 100))
headers = st.lists(st.tuples(st.text(max_size=5), texts), max_size=2).map(tuple)


@st.composite
def logs(draw) -> list[Rec]:
    offset = draw(st.sampled_from([0, 5, 2**40]))
    found = []
    for timestamp, key, value, own in draw(
        st.lists(
            st.tuples(timestamps, texts, texts, st.one_of(st.just(()), headers)), min_size=1, max_size=12
        )
    ):
        found.append(Rec(offset, timestamp, key, value, own))
        offset += draw(st.sampled_from([1, 1, 1, 1000]))
    return found


def told(record) -> tuple:
    return record.offset, record.timestamp, record.key, record.value, tuple(record.headers)


def parsed(batches) -> list[tuple]:
    """As aiokafka reads them. Raises whatever it raises."""
    return [told(record) for batch in batches for record in MemoryRecords(bytes(batch)).next_batch()]


@settings(deadline=None)
@given(logs(), st.integers(0, 4))
def test_every_record_is_what_the_parser_makes_of_it(log, compression) -> None:
    batches = record_batches(log, compression=compression)
    found = fetched.read(batches)
    assert list(map(told, found)) == parsed(batches)
    assert found.offsets == [record.offset for record in found]
    assert found.timestamps == [record.timestamp for record in found]
    assert list(found.values) == [record.value for record in found]
    assert [found.values[i] for i in range(len(found))] == list(found.values)
    assert list(found.heads(5)) == [value and value[:5] for value in found.values]
    known = [record.timestamp for record in log]
    assert found.earliest_ns() == (None if None in known else min(known) * 10**6)


@settings(deadline=None)
@given(logs(), st.slices(12))
def test_a_slice_has_the_records_of_that_slice(log, cut) -> None:
    found = fetched.read(record_batches(log))
    cut = slice(cut.start, cut.stop)
    assert list(map(told, found[cut])) == list(map(told, found))[cut]
    assert list(found[cut].values) == list(found.values)[cut]


@settings(deadline=None)
@given(logs(), st.integers(-1, 3000))
def test_what_comes_after_an_offset_is_the_same_of_objects(log, offset) -> None:
    found = fetched.read(record_batches(log))
    after = [record.offset for record in found if record.offset > offset]
    assert found.after(offset).offsets == records_of(log).after(offset).offsets == after


@settings(deadline=None, max_examples=500)
@given(
    logs(),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
)
@example([Rec(0, T0, None, b"x", ())], [(0, 127)], 0)
@example([Rec(0, T0, None, None, (("", b""),))], [(5, 128)], 0)
@example([Rec(0, T0, None, b"x", ())], [(0, 255)], 0)
def test_broken_bytes_are_never_read_in_another_way(log, changes, cut) -> None:
    """A checksum keeps them away; who forges one as well gets what the parser makes of it, or is refused by it."""
    batches = []
    for batch in record_batches(log):
        data = bytearray(batch)
        for at, byte in changes:
            at = 57 + at % (len(data) - 57)  # how many there are, and the records themselves
            data[at] = byte
        del data[max(HEAD, len(data) - cut) :]
        struct.pack_into(">i", data, 8, len(data) - 12)
        batches.append(memoryview(bytes(data)))
    found = fetched.read(batches)
    if found is not None:
        try:
            expected = parsed(batches)
        except UnicodeDecodeError:  # in the name of a header, which is no reason to stop
            return
        assert list(map(told, found)) == expected


def test_the_name_of_a_header_that_is_no_text_stops_nobody() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, T0, b"k", b"v", [("name", b"x")])
    batch = bytes(builder.build()).replace(b"name", b"n\xffme")
    [record] = fetched.read([memoryview(batch)])
    assert record.headers == (("n\\xffme", b"x"),)


@pytest.mark.parametrize("flagged", [(), (1,), (0, 2)])
def test_replays_are_found_among_other_headers(flagged) -> None:
    log = [
        Rec(n, T0, None, b"v", (("trace", b"1"), *[(REPLAY_HEADER, b"x")] * (n in flagged))) for n in range(3)
    ]
    for records in (fetched.read(record_batches(log)), records_of(log)):
        assert (records.may_be_replays, records.replays()) == (bool(flagged), frozenset(flagged))


def test_the_name_of_that_header_in_a_value_is_no_header() -> None:
    log = [Rec(0, T0, None, REPLAY_HEADER.encode(), (("trace", b"1"),))]
    assert fetched.read(record_batches(log)).replays() == frozenset()


def test_bytes_that_are_cut_off_within_the_head_are_left_to_the_parser() -> None:
    [batch] = record_batches([Rec(0, T0, None, b"v", ())])
    assert fetched.read([batch[:50]]) is None


def test_a_number_of_more_than_64_bits_is_left_to_the_parser() -> None:
    [batch] = record_batches([Rec(0, T0, b"k", b"v", ())])
    key = bytes(batch).replace(b"\x02k", b"\x82" + 8 * b"\x80" + b"\x02k")
    longer = bytearray(key)
    longer[61] += 2 * 9  # zigzag: nine bytes more
    struct.pack_into(">i", longer, 8, len(longer) - 12)
    assert fetched.read([memoryview(bytes(longer))]) is None


def test_a_codec_that_nobody_knows_is_left_to_the_parser() -> None:
    [batch] = record_batches([Rec(0, T0, None, b"v", ())])
    data = bytearray(batch)
    data[22] = 7
    assert fetched.read([memoryview(bytes(data))]) is None
    data[22] = 4
    assert fetched.read([memoryview(bytes(data))]) is None, "no zstd"


@pytest.mark.parametrize("values", [[], [None], [b""], [b"a", None, b"", b"bc"]])
def test_values_side_by_side_are_the_values(values) -> None:
    spans = Spans.of(values)
    assert list(spans) == values
    assert [spans[i] for i in range(len(spans))] == values
    assert list(spans[1:]) == values[1:]
    assert Spans.of(spans) is spans
