"""Fetched bytes give the same records and the same position as aiokafka makes of them, in less time."""

import gc
import struct
import weakref
from itertools import chain
from types import SimpleNamespace

import pytest
from aiokafka.consumer.fetcher import (
    READ_COMMITTED,
    READ_UNCOMMITTED,
    FetchError,
    FetchResult,
    PartitionRecords,
)
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

import streams.fetch.unpack
from streams.consumer_thread import _take_run
from streams.fetch.unpack import Kept, load, unpack

TP = TopicPartition("ticks", 3)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


@pytest.fixture(autouse=True, params=["parser", "columns"])
def reader(request, monkeypatch) -> None:
    """Records of aiokafka's parser, as before columns are loaded, and those that are read at once."""
    monkeypatch.setattr(streams.fetch.unpack, "_fetched", None)
    if request.param == "columns":
        load()


def packed(base: int, records: int, *, compression=NONE, producer=-1, transactional=False, gaps=()) -> bytes:
    """A batch at an offset; what is in `gaps` was compacted away."""
    builder = DefaultRecordBatchBuilder(2, compression, transactional, producer, 0, 0, 1 << 20)
    for n in range(records):
        if n not in gaps:
            headers = [("source", b"file:%d" % n)] if n % 3 == 0 else []
            builder.append(n, 1_723_161_600_000 + n, b"key" if n % 2 else None, b"value %d" % n, headers)
    return based(bytes(builder.build()), base)


def based(batch: bytes, base: int) -> bytes:
    return struct.pack(">q", base) + batch[8:]


def abort_marker(base: int, producer: int) -> bytes:
    return marker(base, producer, 0)


def commit_marker(base: int, producer: int) -> bytes:
    return marker(base, producer, 1)


def marker(base: int, producer: int, kind: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, NONE, True, producer, 0, 0, 1 << 20)
    builder.append(0, 1_723_161_600_000, struct.pack(">hh", 0, kind), b"\0\0\0\0\0\0", [])
    batch = bytearray(builder.build())
    attributes = struct.unpack_from(">h", batch, 21)[0] | 0x20
    struct.pack_into(">h", batch, 21, attributes)
    struct.pack_into(">I", batch, 17, crc_of(bytes(batch[21:])))
    return based(bytes(batch), base)


def crc_of(data: bytes) -> int:
    from aiokafka.record.util import calc_crc32c_py

    return calc_crc32c_py(data)


def both(data: bytes, start=0, isolation=READ_UNCOMMITTED, aborted=None) -> tuple[list, list, int, int]:
    """What aiokafka reads and what we do, and where each goes on."""
    made = [
        PartitionRecords(TP, Kept(data), aborted and list(aborted), start, None, None, True, isolation)
        for _ in range(2)
    ]
    result = object.__new__(FetchResult)
    result._partition_records = made[1]
    unpack(result)
    ours = result._partition_records
    found = [
        [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]
        for records in (made[0], chain.from_iterable(ours))
    ]
    return *found, made[0].next_fetch_offset, ours.next_fetch_offset


def assert_same(*args, **kwargs) -> list:
    theirs, ours, their_next, our_next = both(*args, **kwargs)
    assert ours == theirs
    assert our_next == their_next
    return ours


@pytest.mark.parametrize("compression", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_batches_of_any_compression(compression) -> None:
    data = packed(0, 5, compression=compression) + packed(5, 7, compression=compression)
    assert [record[0] for record in assert_same(data)] == list(range(12))


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_old_producers(magic) -> None:
    builder = LegacyRecordBatchBuilder(magic, GZIP, 1 << 20)
    for n in range(4):
        builder.append(n, 1_723_161_600_000, b"key", b"value %d" % n)
    assert len(assert_same(bytes(builder.build()))) == 4


def test_a_position_within_a_batch() -> None:
    assert [record[0] for record in assert_same(packed(10, 5), start=13)] == [13, 14]


def test_offsets_that_were_compacted_away() -> None:
    data = packed(0, 6, gaps={0, 2, 5}) + packed(20, 3)
    assert [record[0] for record in assert_same(data, start=1)] == [1, 3, 4, 20, 21, 22]


def test_a_batch_of_which_nothing_is_left() -> None:
    emptied = packed(0, 2, gaps={0, 1})
    last_offset_delta = struct.pack(">i", 4)
    data = emptied[:23] + last_offset_delta + emptied[27:]
    data = data[:17] + struct.pack(">I", crc_of(data[21:])) + data[21:]
    assert assert_same(data) == []


@pytest.mark.parametrize("isolation", [READ_COMMITTED, READ_UNCOMMITTED])
def test_transactions_that_were_taken_back(isolation) -> None:
    data = (
        packed(0, 3, producer=7, transactional=True)
        + packed(3, 2, producer=8, transactional=True)
        + abort_marker(5, 7)
        + packed(6, 2, producer=7, transactional=True)
        + packed(8, 1)
    )
    offsets = [record[0] for record in assert_same(data, isolation=isolation, aborted=[(7, 0)])]
    taken_back = [] if isolation == READ_COMMITTED else [0, 1, 2]
    assert offsets == [*taken_back, 3, 4, 6, 7, 8]


def test_a_broken_batch_is_an_error() -> None:
    data = bytearray(packed(0, 3))
    data[-3] ^= 1
    with pytest.raises(CorruptRecordException, match="ticks"):
        both(bytes(data))
    result = object.__new__(FetchResult)
    result._partition_records = PartitionRecords(
        TP, Kept(bytes(data)), None, 0, None, None, True, READ_UNCOMMITTED
    )
    unpack(result)
    with pytest.raises(CorruptRecordException, match="ticks"):
        list(result._partition_records)
    assert result._partition_records.next_fetch_offset == 0


shapes = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 6), st.sampled_from([NONE, LZ4])), min_size=1, max_size=5
)


def in_a_row(batches) -> bytes:
    """Batches with gaps between and in them; of some there is nothing left."""
    data, base = b"", 0
    for gap, count, compression in batches:
        data += packed(base + gap, count, compression=compression, gaps={gap})
        base += gap + count
    return data


def batches_of() -> st.SearchStrategy[bytes]:
    return shapes.map(in_a_row)


@settings(deadline=None)
@given(shapes, st.integers(0, 20))
def test_any_batches_from_any_position(batches, start) -> None:
    data = in_a_row(batches)
    gap, count, _ = batches[0]
    if start < gap + count:
        assert_same(data, start=start)
    else:  # no broker begins before the batch that is asked for; aiokafka would give what is before `start`, too
        whole, _, end, _ = both(data)
        _, ours, _, our_next = both(data, start=start)
        assert ours == [record for record in whole if record[0] >= start]
        assert our_next == max(start, end)


def test_what_is_left_off_is_gone_on_with() -> None:
    result = object.__new__(FetchResult)
    data = packed(0, 4) + packed(4, 4)
    result._partition_records = PartitionRecords(TP, Kept(data), None, 0, None, None, True, READ_UNCOMMITTED)
    unpack(result)
    ours = result._partition_records
    ours.room = 3
    assert [record.offset for record in next(ours)] == [0, 1, 2]
    assert (ours.next_fetch_offset, ours.is_empty) == (3, False)
    ours.room = None
    assert [record.offset for run in ours for record in run] == [3, 4, 5, 6, 7]
    assert (ours.next_fetch_offset, ours.is_empty) == (8, True)


@pytest.mark.parametrize("taken", [2, 4])
def test_what_was_fetched_is_let_go_at_once(taken) -> None:
    """Not when the garbage collector looks for cycles, which is seldom."""
    result = object.__new__(FetchResult)
    fetched = Kept(packed(0, 4))
    packed_records = PartitionRecords(TP, fetched, None, 0, None, None, True, READ_UNCOMMITTED)
    result._partition_records = packed_records
    kept = weakref.ref(packed_records)
    gc.disable()
    try:
        unpack(result).room = taken
        del packed_records
        assert len(next(result._partition_records)) == taken
        del result._partition_records
        assert kept() is None
    finally:
        gc.enable()


def test_what_was_taken_already_stays_taken() -> None:
    result = object.__new__(FetchResult)
    result._partition_records = None
    unpack(result)
    assert result._partition_records is None


def test_what_is_being_read_is_not_wrapped_again() -> None:
    result = object.__new__(FetchResult)
    result._partition_records = PartitionRecords(
        TP, Kept(packed(0, 4)), None, 0, None, None, True, READ_UNCOMMITTED
    )
    unpack(result)
    ours = result._partition_records
    unpack(result)
    assert result._partition_records is ours
    assert [record.offset for run in ours for record in run] == [0, 1, 2, 3]


def test_an_error_that_was_fetched_is_raised_as_before() -> None:
    failed = FetchError(error=CorruptRecordException("broken"), backoff=0)
    unpack(failed)
    with pytest.raises(CorruptRecordException, match="broken"):
        failed.check_raise()


@st.composite
def transactions(draw) -> tuple[bytes, list[tuple[int, int]]]:
    """What producers wrote in turns, and what a broker tells of those transactions that were taken back."""
    data, base = b"", 0
    begun: dict[int, int] = {}
    aborted = []
    for producer, count, ends, committed, compression in draw(
        st.lists(
            st.tuples(
                st.sampled_from([-1, 7, 8, 9]),
                st.integers(0, 3),
                st.booleans(),
                st.booleans(),
                st.sampled_from([NONE, NONE, GZIP]),
            ),
            max_size=12,
        )
    ):
        if count:
            data += packed(
                base, count, producer=producer, transactional=producer > 0, compression=compression
            )
            if producer > 0:
                begun.setdefault(producer, base)
            base += count
        if ends and producer > 0:
            data += (commit_marker if committed else abort_marker)(base, producer)
            first = begun.pop(producer, None)
            if not committed and first is not None:
                aborted.append((producer, first))
            base += 1
    return data, aborted


@settings(deadline=None)
@given(transactions(), st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]), st.integers(0, 9))
def test_any_transactions_from_any_position(log, isolation, start) -> None:
    data, aborted = log
    start = min(
        start, struct.unpack_from(">i", data, 23)[0] if data else 0
    )  # in the first batch, as brokers begin
    assert_same(data, start=start, isolation=isolation, aborted=aborted)


def test_what_the_broker_dates_has_its_date() -> None:
    batch = bytearray(packed(0, 3))
    struct.pack_into(">h", batch, 21, 0x08)
    struct.pack_into(">q", batch, 35, 1_800_000_000_000)
    struct.pack_into(">I", batch, 17, crc_of(bytes(batch[21:])))
    assert {record[1] for record in assert_same(bytes(batch))} == {1_800_000_000_000}


def test_records_with_nothing_in_them() -> None:
    builder = DefaultRecordBatchBuilder(2, NONE, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 0, None, None, [])
    builder.append(1, 0, b"", b"", [("", b""), ("none", None)])
    assert [record[2:] for record in assert_same(bytes(builder.build()))] == [
        (None, None, ()),
        (b"", b"", (("", b""), ("none", None))),
    ]


def fetcher_of(data: bytes, start: int = 0, aborted=None, isolation=READ_COMMITTED) -> SimpleNamespace:
    """As much of a fetcher as is asked for, with one fetch; and the partition's state."""
    assignment = Assignment([TP])
    state = assignment.state_value(TP)
    state.seek(start)
    records = PartitionRecords(TP, Kept(data), aborted and list(aborted), start, None, None, True, isolation)
    result = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
    asked: list[object] = []
    return SimpleNamespace(
        _records={TP: result}, _notify=asked.append, _wait_consume_future="more", state=state, asked=asked
    )


async def taken(data: bytes, *most: int | None, start: int = 0, ours: bool) -> list[object]:
    """What a consumer gets that takes so many records at a time, and its position after each time."""
    fetcher = fetcher_of(data, start)
    state, result = fetcher.state, fetcher._records[TP]
    found: list[object] = []
    for count in most:
        if not result.has_more():
            break
        try:
            records = _take_run(fetcher, TP, count) if ours else result.getall(count)
            found.append(([record.offset for record in records], state.position))
        except CorruptRecordException:
            found.append(("corrupt", state.position))
    return found


@settings(deadline=None)
@given(
    st.one_of(transactions(), batches_of().map(lambda data: (data, []))),
    st.lists(st.one_of(st.none(), st.integers(1, 9)), max_size=12),
    st.integers(0, 5),
)
async def test_taken_a_few_at_a_time_each_comes_once(log, rooms, start) -> None:
    data, aborted = log
    start = min(start, struct.unpack_from(">i", data, 23)[0] if data else 0)
    theirs, _, end, _ = both(data, start=start, isolation=READ_COMMITTED, aborted=aborted)
    fetcher = fetcher_of(data, start, aborted)
    found: list[tuple[object, ...]] = []
    for room in [*rooms, None, None]:
        run = _take_run(fetcher, TP, room)
        assert room is None or len(run) <= room
        found += [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in run]
        assert found == theirs[: len(found)]
        behind = theirs[len(found)][0] if len(found) < len(theirs) else end
        assert (found[-1][0] + 1 if found else start) <= fetcher.state.position <= behind
        assert fetcher.asked == ([] if fetcher._records else ["more"]), (
            "more is fetched once all of it is taken"
        )
    assert found == theirs
    assert fetcher.state.position == end
    assert not fetcher._records


async def test_a_broken_batch_after_some_were_taken_is_an_error_that_moves_nothing() -> None:
    fetcher = fetcher_of(packed(0, 3) + packed(3, 2) + BROKEN_AT_5)
    assert [r.offset for r in _take_run(fetcher, TP, 2)] == [0, 1]
    assert [r.offset for r in _take_run(fetcher, TP, 2)] == [2]
    assert [r.offset for r in _take_run(fetcher, TP, 2)] == [3, 4]
    with pytest.raises(CorruptRecordException):
        _take_run(fetcher, TP, 2)
    assert fetcher.state.position == 5
    assert list(_take_run(fetcher, TP, 2)) == []
    assert (fetcher.state.position, fetcher.asked) == (5, ["more"])


async def test_what_was_fetched_before_a_seek_is_not_given() -> None:
    fetcher = fetcher_of(packed(0, 4) + packed(4, 4))
    assert [r.offset for r in _take_run(fetcher, TP, 2)] == [0, 1]
    fetcher.state.seek(6)
    assert list(_take_run(fetcher, TP, None)) == []
    assert (fetcher.state.position, fetcher.asked) == (6, ["more"])


async def test_old_messages_a_few_at_a_time() -> None:
    builder = LegacyRecordBatchBuilder(1, NONE, 1 << 20)
    for n in range(4):
        builder.append(n, 1_723_161_600_000, b"key", b"value %d" % n)
    fetcher = fetcher_of(bytes(builder.build()))
    assert [[r.offset for r in _take_run(fetcher, TP, 3)] for _ in range(3)] == [[0, 1, 2], [3], []]
    assert fetcher.state.position == 4


async def test_the_name_of_a_header_that_is_no_text_stops_nobody(reader) -> None:
    builder = DefaultRecordBatchBuilder(2, NONE, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1_723_161_600_000, b"key", b"value", [("name", b"x")])
    batch = bytearray(bytes(builder.build()).replace(b"name", b"n\xffme"))
    struct.pack_into(">I", batch, 17, crc_of(bytes(batch[21:])))
    [record] = _take_run(fetcher_of(bytes(batch)), TP, None)
    assert record.headers == (("n\\xffme", b"x"),)


BROKEN, BROKEN_AT_5 = (packed(base, 3)[:-3] + b"???" for base in (3, 5))


@pytest.mark.parametrize("data", [BROKEN + packed(6, 3), packed(0, 3) + BROKEN + packed(6, 3)])
@pytest.mark.parametrize("start", [0, 3])
async def test_what_is_behind_a_broken_batch_is_not_taken(data, start) -> None:
    theirs = await taken(data, None, None, None, start=start, ours=False)
    assert theirs[0] == ("corrupt", start)
    assert await taken(data, None, None, None, start=start, ours=True) == theirs


async def test_a_consumer_that_takes_all_is_where_the_fetch_ends() -> None:
    data = packed(0, 4) + packed(4, 6, gaps={5}) + commit_marker(10, 7)
    assert await taken(data, None, ours=True) == await taken(data, None, ours=False)
    assert (await taken(data, None, ours=True))[0][1] == 11


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 8])
async def test_a_consumer_that_takes_a_few_at_a_time_gets_each_once(most) -> None:
    data = packed(0, 4) + packed(4, 4) + commit_marker(8, 7)
    found = await taken(data, *[most] * 20, ours=True)
    assert [offset for offsets, _ in found for offset in offsets] == list(range(8))
    assert found[-1][1] == 9
