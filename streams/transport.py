"""A Faust transport that delivers one event per (partition, fetch) for the topics that want it.

Stock Faust hands records to agents one by one, which costs more than all the work on them; and its
`pause_partitions` skips records that were fetched but not yet yielded. This transport keeps the
aiokafka driver for everything (connections, groups, commits, rebalances) and changes three things:

- the records of a *batch topic* arrive as one `streams.batch.Batch` per partition and fetch. Batch
  topics take no part in Faust's acks: a batch is acknowledged by `Batch.ack`, and only the
  acknowledged prefix of what was delivered is ever committed;
- which partitions are fetched is asked at each fetch (`Valve`, room in the `Ledger`), in one place,
  so that nothing in Faust that re-activates partitions can undo a pause;
- a fetched record is delivered or sought back to, always. Records are stamped with the seek epoch
  of their partition when they are taken from aiokafka: those taken before a seek are dropped,
  because the seek brings them again; all others are delivered. That holds because positions change
  in the consumer's thread only, where records are taken, each together with its epoch; and because
  nothing is taken while a seek is under way, nor of an assignment that was not sought yet.

Invariants that the tests hold: see `tests/integration/test_transport.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, ClassVar, NamedTuple

import aiokafka
import faust
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.batch import Batch, Ledger

SCHEME = "tidegate"

#: How long a fetch may wait at the broker for data: with one fetch in flight per broker this bounds
#: how long a resumed partition waits behind idle ones. Faust's 1.5 s is hard-coded.
FETCH_MAX_WAIT_MS = 50

#: How often a fetch that found nothing asks again what is wanted: a valve that is open part of the
#: time opens by the clock, with nobody to wake the fetch.
RECHECK_S = 0.02


class Fetch(NamedTuple):
    """Records taken from aiokafka, with the seek epoch that each partition had at that moment."""

    records: Mapping[TP, list[Any]]
    epochs: Mapping[TP, int]


class ReadOffsets(defaultdict[TP, int | None]):
    """The offsets that Faust read last, below which it drops records; it knows none of batch topics.

    A batch on its way into a stream while its partition is sought back would set that offset anew,
    and what the seek brings would be dropped.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(lambda: None)
        self._transport = transport

    def __getitem__(self, tp: TP) -> int | None:
        return None if tp.topic in self._transport.batch_topics else super().__getitem__(tp)


class RawSchema(faust.Schema):  # type: ignore[misc]
    """Passes keys and values through: a batch is decoded by whoever works on it."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        return message.value


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that owns the aiokafka consumer."""

    consumer: Consumer
    logger = logging.getLogger("faust.transport.tidegate")  # mode would take this module's

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        # A record that its producer took back is no record.
        consumer._isolation_level = "read_committed"
        return consumer

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        consumer = self._ensure_consumer()
        return await self.call_thread(self._fetch, consumer, timeout)

    async def _fetch(self, consumer: aiokafka.AIOKafkaConsumer, timeout: float) -> Fetch:
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        deadline = monotonic() + timeout
        # Inside this context aiokafka counts the consumer as polling, so that having every
        # partition paused for longer than max.poll.interval does not cost the membership.
        with subscriptions.fetch_context():
            while self.consumer.flow_active:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                if not subscriptions.reassignment_in_progress:
                    wanted = self.consumer.wanted(subscriptions.subscription.assignment)
                    # aiokafka takes an empty set for "all partitions".
                    if wanted and (fetch := await self._take(consumer, wanted)).records:
                        return fetch
                remaining = deadline - monotonic()
                if remaining <= 0:
                    break
                waiter = fetcher._create_fetch_waiter()
                done, _ = await asyncio.wait([waiter], timeout=min(remaining, RECHECK_S))
                if done:
                    waiter.result()  # raises what the coordinator or the broker refused
                else:
                    waiter.cancel()
        return Fetch({}, {})

    async def _take(self, consumer: aiokafka.AIOKafkaConsumer, wanted: set[TP]) -> Fetch:
        """Take what is buffered and move the positions past it; nothing else runs in this thread meanwhile."""
        epochs, taken = self.consumer.seek_epochs, self.consumer.taken
        self.consumer.taking = True
        try:
            records = await consumer._fetcher.fetched_records(
                wanted, timeout=0, max_records=consumer._max_poll_records
            )
            for tp, of_partition in records.items():
                taken[TP(tp.topic, tp.partition)] = of_partition[-1].offset
        finally:
            self.consumer.taking = False
        return Fetch(records, {tp: epochs[tp] for tp in records})

    def wake(self) -> None:
        """Make a waiting fetch look again at which partitions are wanted. From any thread."""
        if self._consumer is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended
                self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = getattr(self._consumer, "_fetcher", None)
        if fetcher is not None:
            for waiter in list(fetcher._fetch_waiters):
                fetcher._notify(waiter)

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(self._seek_to_committed, self._ensure_consumer())

    async def _seek_to_committed(self, consumer: aiokafka.AIOKafkaConsumer) -> dict[TP, int | None]:
        # aiokafka's own leaves a partition without a committed offset where it stands, past
        # whatever was fetched and dropped: such a partition is started again instead.
        subscription = consumer._subscription.subscription
        assignment = subscription.assignment
        committed = {tp: await consumer.committed(tp) for tp in assignment.tps}
        if subscription.assignment is not assignment:
            raise IllegalStateError("the partitions were assigned anew while they were sought")
        fresh = [tp for tp, offset in committed.items() if offset is None]
        self._bump(committed)
        for tp, offset in committed.items():
            if offset is not None:
                consumer.seek(tp, offset)
        if fresh:
            await consumer.seek_to_beginning(*fresh)
        self.consumer.sought = assignment
        return {TP(tp.topic, tp.partition): offset for tp, offset in committed.items()}

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        self._bump(partitions)
        await super()._seek_wait(consumer, partitions)

    def _bump(self, tps: Iterable[Any]) -> None:
        self.consumer.new_epochs(TP(tp.topic, tp.partition) for tp in tps)


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's aiokafka consumer, with batches."""

    transport: Transport
    logger = logging.getLogger("faust.transport.tidegate")  # mode would take this module's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Written in the consumer's thread: the seek epoch of each partition, the offset of the last
        #: record taken in it, whether records are being taken, and the assignment that was sought.
        self.seek_epochs: defaultdict[TP, int] = defaultdict(int)
        self.taken: dict[TP, int] = {}
        self.taking = False
        self.sought: Any = None
        self._epochs = itertools.count(1)
        self._seeks = 0
        self._read_offset = ReadOffsets(self.transport)
        self.ledger = Ledger(self.transport.max_waiting)
        self.ledger.on_room = self.wake

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def wake(self) -> None:
        """Make the fetch in progress look again at which partitions are wanted."""
        self._thread.wake()

    def wanted(self, assignment: Any) -> set[TP]:
        """The partitions to fetch from now. Called in the consumer's thread."""
        if self._seeks:
            # The ledger forgets all of a partition when its seek is done.
            return set()
        batch_topics = self.transport.batch_topics
        is_open, has_room = self.transport.is_open, self.ledger.has_room
        # Faust resumes the flow too early when one rebalance follows another.
        batches = assignment is self.sought and not self.transport.draining
        return {
            tp
            for tp in self._active_partitions.copy()
            if tp.topic not in batch_topics or (batches and is_open(tp) and has_room(tp))
        }

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield what one fetch brought: batches of batch topics, single records of the others."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        fetch: Fetch = await self._thread.getmany(None, timeout)
        batch_topics = self.transport.batch_topics
        track_end_offset = self.app.monitor.track_tp_end_offset
        for tp, records in fetch.records.items():
            tp = TP(tp.topic, tp.partition)
            if not self._is_current(tp, fetch):
                continue
            track_end_offset(tp, self.highwater(tp))
            if tp.topic in batch_topics:
                yield tp, self._to_batch_message(self.ledger.deliver(tp, records))
            else:
                for record in records:
                    if not self._is_current(tp, fetch):
                        break
                    yield tp, self._to_message(tp, record)

    def caught_up(self, tp: TP, offset: int) -> bool:
        """Whether `offset` is the last there is to read of this partition, as far as the broker has told."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(tp) if assignment is not None else None
        if state is None:
            return False
        position, end = state._position, state.lso
        if position is None or end is None or position < end:
            return False
        # In this order: what is being taken moves the position first.
        return not self.taking and self.taken.get(tp, -1) <= offset

    def new_epochs(self, tps: Iterable[TP]) -> None:
        """Void what was taken of these partitions until now."""
        for tp in tps:
            self.seek_epochs[tp] = next(self._epochs)
            self.taken.pop(tp, None)

    def _is_current(self, tp: TP, fetch: Fetch) -> bool:
        # While the flow is stopped a seek is coming: Faust resumes it only after perform_seek.
        return self.flow_active and not self.should_stop and self.seek_epochs[tp] == fetch.epochs[tp]

    def _to_batch_message(self, batch: Batch) -> ConsumerMessage:
        last = batch.records[-1]
        return ConsumerMessage(
            batch.tp.topic,
            batch.tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            (),
            None,
            batch,
            None,
            0,
            0,
            batch.tp,
            generation_id=self.app.consumer_generation_id,
        )

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterable[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        for tp in self.ledger.partitions():
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic in self.transport.batch_topics:
            return self.ledger.committable(tp)
        return super()._new_offset(tp)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _seeking(self) -> Iterator[None]:
        self._seeks += 1
        try:
            yield
        finally:
            self._seeks -= 1

    async def perform_seek(self) -> None:
        with self._seeking():
            await super().perform_seek()
            self.ledger.forget()

    async def seek(self, partition: TP, offset: int) -> None:
        with self._seeking():
            await super().seek(partition, offset)
            self.ledger.forget([partition])

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        with self._seeking():
            await super().seek_wait(partitions)
            self.ledger.forget(partitions)

    async def _seek(self, partition: TP, offset: int) -> None:
        # Faust would seek in this thread, while the other one may be taking records.
        await self._thread.seek_wait({partition: offset})

    def stop_flow(self) -> None:
        # What stands in the queues of streams is thrown away next: nobody will acknowledge it.
        super().stop_flow()
        self.ledger.forget_untaken()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # Only after the callbacks: they acknowledge and commit what they can.
        await super().on_partitions_revoked(revoked)
        self.new_epochs(revoked)
        self.ledger.forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.ledger.forget()
        await super().on_partitions_assigned(assigned, generation_id)


class Transport(driver.Transport):  # type: ignore[misc]
    """The transport behind ``tidegate://HOST:PORT``."""

    Consumer: ClassVar[type[Consumer]] = Consumer

    #: Topics that are delivered in batches; their channels use `RawSchema` and ``acks=False``.
    batch_topics: frozenset[str] = frozenset()
    #: Whether a partition of a batch topic may be fetched now. Called in the consumer's thread.
    is_open: Callable[[TP], bool] = staticmethod(lambda tp: True)
    #: Batches of one partition that may wait to be worked on.
    max_waiting: int = 4
    #: Set when the worker leaves: batch topics are fetched no more.
    draining: bool = False


TRANSPORTS.aliases[SCHEME] = "streams.transport:Transport"
