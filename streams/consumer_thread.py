"""The thread that owns the aiokafka consumer: all that takes records and moves positions happens in it.

The rest of the transport, and its promises, are in `streams.transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import aiokafka
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.fetch.unpack import unpack

if TYPE_CHECKING:
    from streams.transport import Consumer

#: How long a fetch may wait at the broker for data: with one fetch in flight per broker this bounds
#: how long a resumed partition waits behind idle ones. Faust's 1.5 s is hard-coded.
FETCH_MAX_WAIT_MS = 50

#: While records flow, the broker waits so long for so many bytes: each batch costs something, and at tens of
#: thousands of ticks a second a fetch that takes what there is would bring a handful. A backlog is sent at once.
GATHER_MS, GATHER_BYTES = 10, 64 << 10

#: How often topics are looked at: one that was made anew, or has more partitions, is not noticed by itself.
METADATA_MS = 30_000

#: How long aiokafka waits before it tries again what failed.
RETRY_BACKOFF_MS = 250

#: How long a commit of offsets may take. What it did not commit, the next one does.
COMMIT_S = 5.0

#: How long leaving the group may take; the broker sees to it by itself when the session has ended.
LEAVE_S = 5.0

#: How often a fetch that found nothing asks again what is wanted: a valve that is open part of the
#: time opens by the clock, with nobody to wake the fetch.
RECHECK_S = 0.02


#: How often it is asked where the logs end of which something waits to be taken: until it is, nothing is fetched.
LOOK_S = 1.0


class Fetch(NamedTuple):
    """Records taken from aiokafka, with the seek epoch that each partition had at that moment."""

    records: Mapping[TP, Sequence[Any]]
    epochs: Mapping[TP, int]


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's thread, with fetches that ask what is wanted, and seeks that void what was taken before."""

    consumer: Consumer
    _committing: asyncio.Future[bool] | None = None
    _looking: asyncio.Task[None] | None = None
    _looked_at = -inf
    _got_some_at = -inf
    logger = logging.getLogger("faust.transport.tidegate")  # mode would take this module's

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = self.consumer.transport.isolation_level
        consumer._client._metadata_max_age_ms = METADATA_MS
        # Faust does not let it be set; aiokafka's tasks would try ten times a second each while a broker is away.
        consumer._retry_backoff_ms = RETRY_BACKOFF_MS
        consumer._client._retry_backoff = RETRY_BACKOFF_MS / 1000
        # A position that the log does not hold is a loss to be told, not one to be passed over.
        consumer._auto_offset_reset = "none"
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

    async def _take(self, consumer: aiokafka.AIOKafkaConsumer, wanted: Mapping[TP, int | None]) -> Fetch:
        """Take what is buffered and move positions past it; nothing else runs in this thread meanwhile."""
        epochs, taken, fetcher = self.consumer.seek_epochs, self.consumer.taken, consumer._fetcher
        self.consumer.taking = True
        records: dict[TP, Sequence[Any]] = {}
        offsets: dict[TP, int] = {}
        gone: Mapping[Any, int] = {}
        try:
            raw = {tp: room for tp, room in wanted.items() if tp.topic in self.consumer.transport.raw_topics}
            # First what failed, so that no records are lost with it.
            for tp in [tp for tp in raw if tp in fetcher._records and unpack(fetcher._records[tp]) is None]:
                await fetcher.fetched_records({tp}, timeout=0)
            # aiokafka takes an empty set for "all partitions".
            if unlimited := {tp for tp, room in wanted.items() if room is None and tp not in raw}:
                records |= await fetcher.fetched_records(
                    unlimited, timeout=0, max_records=consumer._max_poll_records
                )
            for tp, room in wanted.items():
                if room is not None and tp not in raw:
                    records |= await fetcher.fetched_records({tp}, timeout=0, max_records=room)
            # Ticks last, so that what is said about them in the same fetch is heard before they are worked on.
            for tp, room in raw.items():
                if run := _take_run(fetcher, tp, consumer._max_poll_records if room is None else room):
                    records[tp] = run
        except NoOffsetForPartitionError:
            pass  # told of a partition that has been sought since
        except OffsetOutOfRangeError as exc:
            gone = exc.args[0]
        finally:
            for tp, of_partition in records.items():
                last = of_partition[-1].offset
                offsets[tp] = last - taken.get(tp, of_partition[0].offset - 1)
                taken[TP(tp.topic, tp.partition)] = last
            self.consumer.taking = False
        fetch = Fetch(records, {tp: epochs[tp] for tp in records})
        for tp, offset in gone.items():  # this takes time, in which what was taken may be sought back
            await self._leap(consumer, tp, offset)
        self._tell(consumer, offsets)
        self._look(consumer)
        self._gather(consumer._fetcher, bool(records))
        return fetch

    def _tell(self, consumer: aiokafka.AIOKafkaConsumer, offsets: Mapping[TP, int]) -> None:
        """Say of each partition of a batch topic what was taken of it, and where its log ends."""
        transport, assignment = self.consumer.transport, consumer._subscription.subscription.assignment
        if assignment is None:
            return
        for tp in assignment.tps:
            state = assignment.state_value(tp)
            if tp.topic in transport.batch_topics and state._position is not None and state.lso is not None:
                transport.on_taken(TP(*tp), offsets.get(tp, 0), state.lso, state._position)

    def _look(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Ask now and then where the logs end that are not fetched meanwhile; nobody waits for it."""
        now = monotonic()
        if now - self._looked_at < LOOK_S or (self._looking is not None and not self._looking.done()):
            return
        if tps := [
            tp for tp in consumer._fetcher._records if tp.topic in self.consumer.transport.batch_topics
        ]:
            self._looked_at = now
            self._looking = asyncio.create_task(self._see_ends(consumer, tps))

    async def _see_ends(self, consumer: aiokafka.AIOKafkaConsumer, tps: list[Any]) -> None:
        assignment = consumer._subscription.subscription.assignment
        try:
            ends = await consumer.end_offsets(tps)
        except KafkaError:
            return  # fetches fail then, too, and say so
        for tp, end in ends.items():
            state = assignment and assignment.state_value(tp)
            if state is not None and state.lso is not None:
                state.lso = max(state.lso, end)

    def _gather(self, fetcher: Any, got_some: bool) -> None:
        """Let the broker gather records while they flow; the first one after a pause comes at once."""
        now = monotonic()
        if got_some:
            self._got_some_at = now
        flowing = now - self._got_some_at < FETCH_MAX_WAIT_MS / 1000
        fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = (
            (GATHER_MS, GATHER_BYTES) if flowing else (FETCH_MAX_WAIT_MS, 1)
        )

    async def _leap(self, consumer: aiokafka.AIOKafkaConsumer, tp: Any, offset: int) -> None:
        """Go on where the log does, if those who want its records can do without those that are gone."""
        first, end = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
        assignment = consumer._subscription.subscription.assignment
        state = assignment and assignment.state_value(tp)
        if state is None or not state.has_valid_position or state.position != offset:
            return  # sought or revoked meanwhile
        # The epoch stays: what was taken before is still to be delivered.
        consumer.seek(
            tp, self.consumer.transport.on_gap(TP(tp.topic, tp.partition), offset, first[tp], end[tp])
        )

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # aiokafka tries for as long as the broker is away, and who revokes or stops waits for it. It is left
        # to it: cancelled, its request would go on all the same, and fail with nobody to hear of it. None is
        # begun beside it, for it might end after that one, and set offsets back.
        if self._committing is not None and not self._committing.done():
            return False
        self._committing = commit = asyncio.ensure_future(super()._commit(offsets))
        commit.add_done_callback(_hear)
        done, _ = await asyncio.wait([commit], timeout=COMMIT_S)
        return bool(done) and bool(commit.result())

    async def on_thread_stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        # Where the broker is away aiokafka stumbles over what it cancels, and mode waits a minute for us.
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(LEAVE_S):
                await super().on_thread_stop()

    def rejoin(self) -> None:
        """Have the group share its partitions anew. From any thread."""

        def request() -> None:
            if (consumer := self._consumer) is not None and consumer._coordinator is not None:
                consumer._coordinator.request_rejoin()

        with contextlib.suppress(RuntimeError):  # the thread has ended
            self.thread_loop.call_soon_threadsafe(request)

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
        found = await consumer._coordinator.fetch_committed_offsets(assignment.tps)
        if subscription.assignment is not assignment:
            raise IllegalStateError("the partitions were assigned anew while they were sought")
        self._bump(assignment.tps)
        fresh = []
        starts = {tp: self.consumer.transport.start_of(TP(tp.topic, tp.partition)) for tp in assignment.tps}
        for tp, start in starts.items():
            if start is None and tp in found:
                start = found[tp].offset
            if start is not None:
                consumer.seek(tp, start)
            else:
                fresh.append(tp)
        if fresh:
            await consumer.seek_to_beginning(*fresh)
        self.consumer.sought = assignment
        return {
            TP(tp.topic, tp.partition): found[tp].offset if tp in found else None for tp in assignment.tps
        }

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        self._bump(partitions)
        await super()._seek_wait(consumer, partitions)

    def _bump(self, tps: Iterable[Any]) -> None:
        self.consumer.new_epochs(TP(tp.topic, tp.partition) for tp in tps)


def _hear(task: asyncio.Future[bool]) -> None:
    """Asyncio complains of exceptions that nobody asked for."""
    if not task.cancelled():
        task.exception()


def _take_run(fetcher: Any, tp: TP, room: int | None) -> Sequence[Any]:
    """At most so many records of those that were fetched, as one run: for aiokafka a run is a record."""
    result = fetcher._records.get(tp)
    unpacked = unpack(result)
    if unpacked is None:
        return ()
    unpacked.room = room
    runs = result.getall(1)
    if unpacked.is_empty or not result.has_more():  # as `fetched_records` does: more may be fetched
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)
    return runs[0] if runs else ()
