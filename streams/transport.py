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

Invariants that the tests hold: see `tests/system/test_transport*.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import faust
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from schemas.errors import BrokerError
from streams.batch import Batch, Ledger
from streams.consumer_thread import ConsumerThread, Fetch

SCHEME = "tidegate"


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

    def rejoin(self) -> None:
        """Have the group share its partitions anew: what this worker holds is given back and taken over afresh."""
        self._thread.rejoin()

    def wake(self) -> None:
        """Make the fetch in progress look again at which partitions are wanted."""
        self._thread.wake()

    def wanted(self, assignment: Any) -> dict[TP, int | None]:
        """The partitions to take records of now, and how many; None is any number. From the consumer's thread."""
        if self._seeks:
            # The ledger forgets all of a partition when its seek is done.
            return {}
        batch_topics = self.transport.batch_topics
        is_open, has_room = self.transport.is_open, self.ledger.has_room
        # Faust resumes the flow too early when one rebalance follows another.
        batches = assignment is self.sought and not self.transport.draining
        wanted: dict[TP, int | None] = {}
        for tp in self._active_partitions.copy():
            if tp.topic not in batch_topics:
                wanted[tp] = None
            elif batches and is_open(tp) and has_room(tp) and (room := self.transport.allowance(tp)) != 0:
                wanted[tp] = room
        return wanted

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
                batch = self.ledger.deliver(tp, records)
                self.transport.on_batch(batch)
                yield tp, self._to_batch_message(batch)
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
            (-1 if last.timestamp is None else last.timestamp) / 1000.0,
            0,
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
        if tp.topic in self.transport.untracked_topics:
            return None
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

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        committed: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not committed:
            for tp in offsets:  # Faust takes them for committed, and would not try again
                self._committed_offset.pop(tp, None)
        return committed

    async def perform_seek(self) -> None:
        # Faust gives up at the request timeout without a word, and the worker would idle for ever.
        timeout_s = self.app.conf.broker_request_timeout * 0.9
        with self._seeking():
            try:
                async with asyncio.timeout(timeout_s):
                    await super().perform_seek()
            except TimeoutError:
                raise BrokerError(
                    f"the committed offsets of {self.app.conf.id} could not be read for {timeout_s:.0f} s",
                    hint="is the broker reachable and in health?",
                ) from None
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
    #: Those of them whose records need no topic, partition or sizes: see `streams.fetch`.
    raw_topics: frozenset[str] = frozenset()
    #: Called with each batch before an agent gets it, to begin what can be done beside the event loop.
    on_batch: Callable[[Batch], None] = staticmethod(lambda batch: None)
    #: Those of them whose offsets are not committed, for a topic that is deleted would keep all others from it.
    untracked_topics: frozenset[str] = frozenset()
    #: Whether a partition of a batch topic may be fetched now. Called in the consumer's thread.
    is_open: Callable[[TP], bool] = staticmethod(lambda tp: True)
    #: How many records of such a partition may be taken now; None is any number. From the consumer's thread, too.
    allowance: Callable[[TP], int | None] = staticmethod(lambda tp: None)
    #: Called there with how many offsets were taken, where the log ends as far as is known, and the position.
    on_taken: Callable[[TP, int, int, int], None] = staticmethod(lambda tp, offsets, end, position: None)
    #: Batches of one partition that may wait to be worked on.
    max_waiting: int = 4
    #: Whether records of transactions that are not committed are read: "read_committed" or "read_uncommitted".
    isolation_level: str = "read_committed"
    #: Where to start reading an assigned partition; None: at its committed offset, or else its beginning.
    #: Called in the consumer's thread, as is the next.
    start_of: Callable[[TP], int | None] = staticmethod(lambda tp: None)
    #: What to do about a position that the log does not hold: raise, or give the offset to go on at.
    on_gap: Callable[[TP, int, int, int], int] = staticmethod(
        lambda tp, position, first, end: first if position < first else end
    )
    #: Set when the worker leaves: batch topics are fetched no more.
    draining: bool = False


TRANSPORTS.aliases[SCHEME] = "streams.transport:Transport"
