"""Interleavings of fetches, seeks and rebalances that are too rare to meet on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer import subscription_state as aiokafka
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import IllegalStateError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.structs import TopicPartition
from faust.types import TP

from schemas.errors import BrokerError
from streams import consumer_thread
from streams.app import build_app, finish
from streams.fetch.unpack import Kept
from streams.settings import load_settings
from streams.transport import Consumer
from support.fetched import record_batches

P0, P1, P2 = (TP("ticks", p) for p in range(3))
EVENTS = TP("events", 0)


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    timestamp_type: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None
    value: bytes | None = None
    checksum: int | None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


class Partition:
    """What aiokafka knows of a partition."""

    def __init__(self, end: int) -> None:
        self._position: int | None = 0
        self.lso: int | None = end


class Assignment(dict[TP, Partition]):
    """Assigned partitions; known by identity."""

    state_value = dict.get

    @property
    def tps(self) -> frozenset[TP]:
        return frozenset(self)


class Kafka:
    """As much of an aiokafka consumer as the transport touches, on logs of ten records each in memory."""

    _closed = False
    _max_poll_records = None

    def __init__(self, *tps: TP) -> None:
        self.committed: dict[TP, int] = {}
        self.reassignment_in_progress = False
        self.before_answer = lambda: None  # what happens while the committed offsets are on their way
        self.subscription = SimpleNamespace(assignment=None)
        self._subscription = self._fetcher = self._subscriptions = self._coordinator = self
        self._fetch_waiters: set[Any] = set()
        self._records: dict[TP, Any] = {}
        self.assign(*tps)

    def assign(self, *tps: TP) -> None:
        self.partitions = self.subscription.assignment = Assignment({tp: Partition(10) for tp in tps})

    def assignment(self) -> frozenset[TP]:
        return self.partitions.tps

    def highwater(self, tp: TP) -> int:
        return 10

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def fetch_context(self) -> Iterator[None]:
        yield

    async def fetched_records(self, wanted: set[TP], timeout: float, max_records: int | None) -> Any:
        records = {}
        for tp in sorted(wanted & self.partitions.keys()):
            state = self.partitions[tp]
            if state._position is not None and state._position < 10:
                records[tp] = [Record(*tp, offset) for offset in range(state._position, 10)]
                state._position = 10
        return records

    def seek(self, tp: TP, offset: int) -> None:
        if tp not in self.partitions:
            raise IllegalStateError(tp)
        self.partitions[tp]._position = offset

    async def seek_to_beginning(self, *tps: TP) -> None:
        for tp in tps:
            self.seek(tp, 0)

    async def position(self, tp: TP) -> int | None:
        return self.partitions[tp]._position

    async def fetch_committed_offsets(self, tps: frozenset[TP]) -> Any:
        await asyncio.sleep(0)
        self.before_answer()
        return {tp: SimpleNamespace(offset=self.committed[tp]) for tp in tps if tp in self.committed}


class Buffered(Kafka):
    """The same with what a real fetcher has at hand."""

    def __init__(self, *tps: TP) -> None:
        super().__init__(*tps)
        self._wait_consume_future = None
        self.buffers = aiokafka.Assignment([TopicPartition(*tp) for tp in tps])

    fetched_records = Fetcher.fetched_records

    def _notify(self, future: None) -> None:
        """Nothing more is fetched here."""

    def is_assigned(self, tp: TP) -> bool:
        return tp in self.partitions

    def hold(self, tp: TP, data: bytes) -> None:
        """Records of a partition from its beginning on."""
        tp = TopicPartition(*tp)
        self.buffers.state_value(tp).seek(0)
        packed = PartitionRecords(tp, Kept(data), None, 0, None, None, True, READ_COMMITTED)
        self._records[tp] = FetchResult(tp, assignment=self.buffers, partition_records=packed, backoff=0)


def consumer_of(*tps: TP, kind: type[Kafka] = Kafka) -> tuple[Consumer, Any]:
    """A consumer of these partitions, of which those of `ticks` come in batches, not yet sought."""
    app = build_app(load_settings(None, group="unit"), "t", frozenset({"ticks"}))
    consumer: Consumer = app.consumer
    kafka = kind(*tps)
    consumer._thread._consumer = kafka
    consumer._thread.thread_loop.close()
    # The thread's work is done in this one, at the point where it would be waited for.
    consumer._thread.call_thread = lambda work, *args, **kwargs: work(*args, **kwargs)
    consumer._set_active_tps(set(tps))
    return consumer, kafka


async def ready(*tps: TP, kind: type[Kafka] = Kafka) -> tuple[Consumer, Any]:
    """The same, sought."""
    consumer, kafka = consumer_of(*tps, kind=kind)
    await consumer.perform_seek()
    return consumer, kafka


async def fetched(consumer: Consumer) -> dict[TP, list[int]]:
    """The offsets that one fetch delivers."""
    delivered: dict[TP, list[int]] = {}
    async for tp, message in consumer.getmany(0):
        records = message.value.records if tp.topic == "ticks" else [message]
        delivered.setdefault(tp, []).extend(record.offset for record in records)
    return delivered


WHOLE = list(range(10))


async def test_a_fetch_delivers_batches_of_batch_topics_and_single_records_of_others() -> None:
    consumer, _ = await ready(P0, EVENTS)
    messages = [message async for _, message in consumer.getmany(0)]
    assert [message.offset for message in messages if message.tp == EVENTS] == WHOLE
    [batch] = [message for message in messages if message.tp == P0]
    assert [record.offset for record in batch.value.records] == WHOLE
    assert batch.offset == 9


async def buffered(*tps: TP, **config: Any) -> tuple[Consumer, Buffered]:
    """One whose batches are read from the bytes that were fetched."""
    consumer, kafka = await ready(*tps, kind=Buffered)
    consumer.transport.raw_topics = frozenset({"ticks"})
    return consumer, kafka


async def test_an_error_of_one_partition_costs_no_records_of_another() -> None:
    consumer, kafka = await buffered(P0, P1)
    for tp in (P0, P1):
        kafka.hold(tp, b"".join(record_batches([Record(*tp, offset, value=b"x") for offset in range(3)])))
    kafka._records[TopicPartition(*P1)] = FetchError(error=TopicAuthorizationFailedError("ticks"), backoff=0)
    with pytest.raises(TopicAuthorizationFailedError):
        await fetched(consumer)
    assert kafka.buffers.state_value(TopicPartition(*P0)).position == 0
    assert await fetched(consumer) == {P0: [0, 1, 2]}
    assert not kafka._records


async def test_what_is_said_about_ticks_is_heard_before_those_of_the_same_fetch() -> None:
    consumer, kafka = await buffered(P0, EVENTS)
    for tp in (P0, EVENTS):
        kafka.hold(tp, b"".join(record_batches([Record(*tp, offset, value=b"x") for offset in range(2)])))
    assert [tp async for tp, _ in consumer.getmany(0)] == [EVENTS, EVENTS, P0]


async def test_a_share_of_what_was_fetched_is_taken_and_the_rest_waits() -> None:
    consumer, kafka = await buffered(P0)
    kafka.hold(P0, b"".join(record_batches([Record(*P0, offset, value=b"x") for offset in range(5)])))
    consumer.transport.allowance = lambda tp: 2
    assert [await fetched(consumer) for _ in range(4)] == [{P0: [0, 1]}, {P0: [2, 3]}, {P0: [4]}, {}]


async def test_the_most_records_of_a_poll_hold_for_batches_too() -> None:
    consumer, kafka = await buffered(P0)
    kafka.hold(P0, b"".join(record_batches([Record(*P0, offset, value=b"x") for offset in range(5)])))
    kafka._max_poll_records = 4
    assert [await fetched(consumer) for _ in range(2)] == [{P0: [0, 1, 2, 3]}, {P0: [4]}]


async def test_messages_without_a_timestamp_are_a_batch() -> None:
    consumer, kafka = await buffered(P0)
    builder = LegacyRecordBatchBuilder(0, 0, 1 << 20)
    builder.append(0, None, b"key", b"value")
    kafka.hold(P0, bytes(builder.build()))
    assert await fetched(consumer) == {P0: [0]}


async def test_what_was_taken_before_a_seek_is_dropped_because_the_seek_brings_it_again() -> None:
    consumer, _ = await ready(P0, P1, P2)
    delivering = consumer.getmany(0)
    tp, _ = await anext(delivering)
    assert tp == P0
    await consumer.seek(P1, 4)
    assert [tp async for tp, _ in delivering] == [P2]
    assert await fetched(consumer) == {P1: [4, 5, 6, 7, 8, 9]}


async def test_single_records_taken_before_a_seek_are_dropped_in_mid_delivery() -> None:
    consumer, _ = await ready(EVENTS)
    delivering = consumer.getmany(0)
    await anext(delivering)
    await consumer.seek_wait({EVENTS: 7})
    assert [message async for _, message in delivering] == []
    assert await fetched(consumer) == {EVENTS: [7, 8, 9]}


async def test_returning_to_what_is_committed_starts_again_where_nothing_is() -> None:
    consumer, kafka = await ready(P0, P1)
    kafka.committed[P0] = 6
    delivering = consumer.getmany(0)
    await anext(delivering)
    await consumer.perform_seek()
    assert [tp async for tp, _ in delivering] == []
    assert await fetched(consumer) == {P0: [6, 7, 8, 9], P1: WHOLE}


async def test_what_is_delivered_after_a_seek_is_not_forgotten_with_what_was_before_it() -> None:
    consumer, kafka = await ready(P0)
    taken_meanwhile: list[Any] = []
    kafka.before_answer = lambda: taken_meanwhile.append(consumer.wanted(kafka.partitions))
    await consumer.perform_seek()
    assert taken_meanwhile == [{}], "while a seek is under way nothing is taken"
    assert consumer.wanted(kafka.partitions) == {P0: None}
    await fetched(consumer)
    assert consumer.ledger.in_flight(P0) == 1


async def test_batches_of_an_assignment_that_was_not_sought_are_not_wanted() -> None:
    consumer, kafka = consumer_of(P0, EVENTS)
    assert await fetched(consumer) == {EVENTS: WHOLE}
    await consumer.perform_seek()
    assert await fetched(consumer) == {P0: WHOLE, EVENTS: WHOLE}
    kafka.assign(P0, EVENTS)
    assert await fetched(consumer) == {EVENTS: WHOLE}


async def test_a_seek_that_another_assignment_overtakes_says_so_and_opens_nothing() -> None:
    consumer, kafka = consumer_of(P0)
    kafka.before_answer = lambda: kafka.assign(P0, P1)
    with pytest.raises(IllegalStateError):
        await consumer.perform_seek()
    assert await fetched(consumer) == {}


async def test_committed_offsets_that_do_not_come_are_an_error() -> None:
    consumer, kafka = consumer_of(P0)
    consumer.app.conf.broker_request_timeout = 0.01

    async def never(tps: Any) -> Any:
        await asyncio.Event().wait()

    kafka.fetch_committed_offsets = never  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="could not be read"):
        await consumer.perform_seek()


async def test_what_was_taken_of_a_revoked_partition_is_dropped_even_if_the_flow_goes_on() -> None:
    consumer, _ = await ready(P0, P1)
    delivering = consumer.getmany(0)
    await anext(delivering)
    consumer.new_epochs({P0, P1})  # which a revocation ends with
    assert [tp async for tp, _ in delivering] == []


async def test_what_was_taken_of_a_partition_that_is_given_up_is_not_waited_for() -> None:
    consumer, _ = await ready(P0, P1, P2)
    delivering = consumer.getmany(0)
    await anext(delivering)
    consumer.app.give_up(tp for tp in (P0, P1))
    assert [tp async for tp, _ in delivering] == [P2]
    assert [consumer.ledger.in_flight(tp) for tp in (P0, P1, P2)] == [0, 0, 1]


async def test_what_was_taken_is_dropped_where_a_seek_comes_while_it_is_asked_where_another_log_begins() -> (
    None
):
    consumer, kafka = await ready(P0, P1)
    consumer.transport.allowance = lambda tp: None if tp == P0 else 5
    fetched_records = kafka.fetched_records

    async def gone(wanted: set[TP], **kwargs: Any) -> Any:
        if wanted == {P1} <= kafka.partitions.keys():
            raise OffsetOutOfRangeError({P1: 0})
        return await fetched_records(wanted, **kwargs)

    async def rebalance(tps: Any) -> dict[TP, int]:
        kafka.assign(P0)
        await consumer.perform_seek()
        return {P1: 3}

    kafka.fetched_records = gone  # type: ignore[method-assign]
    kafka.beginning_offsets = kafka.end_offsets = rebalance  # type: ignore[attr-defined]
    assert await fetched(consumer) == {}, "the seek brings it again"
    assert await fetched(consumer) == {P0: WHOLE}


async def test_nothing_is_delivered_while_the_flow_is_stopped() -> None:
    consumer, _ = await ready(P0, P1)
    delivering = consumer.getmany(0)
    await anext(delivering)
    consumer.stop_flow()
    assert [tp async for tp, _ in delivering] == []
    assert consumer.ledger.idle(), "the batch that no agent got is not waited for"


async def test_a_worker_that_leaves_takes_no_more_batches() -> None:
    consumer, _ = await ready(P0, EVENTS)
    consumer.transport.draining = True
    assert await fetched(consumer) == {EVENTS: WHOLE}


async def test_a_closed_valve_leaves_records_where_they_are() -> None:
    consumer, kafka = await ready(P0, P1)
    consumer.transport.is_open = lambda tp: tp != P0
    assert await fetched(consumer) == {P1: WHOLE}
    assert kafka.partitions[P0]._position == 0
    consumer.transport.is_open = lambda tp: True
    assert await fetched(consumer) == {P0: WHOLE}


async def test_faust_reads_on_below_the_offset_it_read_last() -> None:
    consumer, _ = await ready(P0, EVENTS)
    # A batch that was on its way into its stream when its partition was sought back.
    consumer._read_offset[P0] = consumer._read_offset[EVENTS] = 9
    assert consumer._read_offset[P0] is None
    assert consumer._read_offset[EVENTS] == 9


@pytest.mark.parametrize(
    ("position", "end", "taken", "taking", "answer"),
    [
        (10, 10, 9, False, True),
        (12, 12, 9, False, True),  # the marker of a transaction is behind the last record
        (10, 12, 9, False, False),  # there is more to fetch
        (10, 10, 9, True, False),  # something is being taken, and the position is past it already
        (20, 20, 19, False, False),  # something was taken and is on its way
        (10, None, 9, False, False),  # the broker has not told yet
        (None, 10, 9, False, False),  # being sought
    ],
)
async def test_caught_up_is_when_nothing_is_left_to_read_or_on_its_way(
    position: int | None, end: int | None, taken: int, taking: bool, answer: bool
) -> None:
    consumer, kafka = await ready(P0)
    kafka.partitions[P0]._position, kafka.partitions[P0].lso = position, end
    consumer.taken[P0], consumer.taking = taken, taking
    assert consumer.caught_up(P0, 9) is answer


async def test_a_partition_of_somebody_else_is_never_caught_up() -> None:
    consumer, _ = await ready(P0)
    assert not consumer.caught_up(P1, 9)


async def test_a_fetch_tells_what_it_took_and_a_seek_takes_that_back() -> None:
    consumer, _ = await ready(P0)
    await fetched(consumer)
    assert consumer.caught_up(P0, 9)
    assert not consumer.caught_up(P0, 8)
    await consumer.seek(P0, 5)
    assert not consumer.caught_up(P0, 9), "there is something to take again"


async def test_only_acknowledged_batches_are_offered_for_commit() -> None:
    consumer, _ = await ready(P0, P1, EVENTS)
    batches = [message.value async for tp, message in consumer.getmany(0) if tp.topic == "ticks"]
    batches[0].ack()
    assert [tp for tp in consumer._filter_tps_with_pending_acks() if tp.topic == "ticks"] == [P0]
    assert consumer._new_offset(P0) == 10
    assert consumer._new_offset(P1) is None
    assert list(consumer._filter_tps_with_pending_acks({"other"})) == []


async def test_finishing_commits_what_was_acknowledged_while_another_commit_was_under_way() -> None:
    consumer, _ = await ready(P0)
    committed: list[dict[TP, int]] = []

    async def commit(offsets: dict[TP, int]) -> bool:
        committed.append(offsets)
        return True

    async def nothing() -> None: ...

    consumer._thread.commit = commit
    consumer._commit_fut = under_way = asyncio.get_running_loop().create_future()
    async for _, message in consumer.getmany(0):
        message.value.ack()
    finishing = asyncio.ensure_future(finish(consumer.app, nothing, 1))
    await asyncio.sleep(0.02)
    consumer._commit_fut = None
    under_way.set_result(None)
    await finishing
    assert committed == [{P0: 10}]


async def test_a_commit_that_the_broker_does_not_answer_is_given_up_and_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer, kafka = await ready(P0)
    monkeypatch.setattr(consumer_thread, "COMMIT_S", 0.01)
    answers, begun = asyncio.Event(), []

    async def commit(offsets: Any) -> None:
        begun.append(offsets)
        await answers.wait()

    kafka.commit = commit  # type: ignore[attr-defined]
    async for _, message in consumer.getmany(0):
        message.value.ack()
    for _ in range(3):
        assert not await asyncio.wait_for(consumer.commit(), 5)
    assert len(begun) == 1, "none that could end after its successor, and set offsets back"
    answers.set()
    async with asyncio.timeout(5):
        while not await consumer.commit():  # noqa: ASYNC110  the first may be ending
            await asyncio.sleep(0)
    assert len(begun) == 2


async def test_a_role_subscribes_without_the_second_that_faust_leaves_to_tables() -> None:
    consumer, _ = consumer_of(P0)
    tables = consumer.app.tables
    slept: list[float] = []

    async def sleep(seconds: float, **kwargs: Any) -> None:
        slept.append(seconds)

    tables.sleep = sleep
    try:
        await tables.on_start()
        await asyncio.wait_for(tables.wait_until_tables_registered(), 5)
        assert tables.recovery.started
        assert slept == []
    finally:
        await tables.recovery.stop()
