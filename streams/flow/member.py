"""A subscriber's part in its group: where it begins, what it has done, and when that is committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

log = logging.getLogger(__name__)

_COMMIT_EVERY_S = 1.0
#: How long a rebalance, or whoever closes, waits for a commit. aiokafka tries for as long as the broker is away.
_COMMIT_S = 3.0
_RETRY_S = 0.5


class Member(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Seeks what is assigned, and commits what is done: never what has only been fetched.

    A partition of which nothing is committed begins at its end, or at its beginning, and that is committed
    at once. Otherwise a group that loses it in a rebalance would begin anew, and pass over what came since.
    """

    def __init__(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        done: dict[TopicPartition, int],
        *,
        grouped: bool,
        from_beginning: bool,
    ) -> None:
        #: Changes when the partitions are shared anew.
        self.generation = 0
        #: The offset after the last event that is done.
        self._done = done
        self._consumer = consumer
        self._grouped = grouped
        self._from_beginning = from_beginning
        self._uncommitted: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._committed_at = time.monotonic()
        self._sought = asyncio.Event()
        self._failed: KafkaError | None = None

    async def begin(self) -> None:
        """Return once it is known where to go on. The consumer has been started."""
        if not self._grouped:
            self._done |= await self._seek(self._consumer.assignment(), self._done)
            self._sought.set()
        await self._sought.wait()
        self.is_ready()

    def is_ready(self) -> bool:
        """Whether what has just been fetched is from where it should go on. Raises what it failed with."""
        if self._failed is not None:
            raise self._failed
        return self._sought.is_set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Commit what is done, while the group still takes it."""
        self._sought.clear()
        self.generation += 1
        await self.commit()
        self._uncommitted.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Go on after what the group has done."""
        try:
            found = {tp: await self._consumer.committed(tp) for tp in assigned}
            known = {tp: offset for tp, offset in found.items() if offset is not None}
            positions = await self._seek(assigned, known)
            self._uncommitted = {tp: offset for tp, offset in positions.items() if tp not in known}
            await self.commit()
        except KafkaError as exc:  # aiokafka would only log it
            self._failed = exc
        self._sought.set()

    async def _seek(
        self, tps: Collection[TopicPartition], known: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        unknown = [tp for tp in tps if tp not in known]
        bounds = self._consumer.beginning_offsets if self._from_beginning else self._consumer.end_offsets
        positions = {**{tp: known[tp] for tp in tps if tp in known}, **(await _insist(bounds, unknown))}
        for tp, offset in positions.items():
            self._consumer.seek(tp, offset)
        return positions

    def done(self, record: aiokafka.ConsumerRecord, generation: int) -> None:
        """Take note that this event is done, if its partition has been ours since it was fetched."""
        self.done_before(TopicPartition(record.topic, record.partition), record.offset + 1, generation)

    def done_before(self, tp: TopicPartition, offset: int, generation: int) -> None:
        """The same of all events before an offset."""
        if generation == self.generation:
            self._done[tp] = self._uncommitted[tp] = offset

    def commit_at_times(self) -> None:
        """Begin a commit if one is due; nobody waits for it."""
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY_S:
            self._begin_commit()

    async def commit(self) -> None:
        """Commit what is done, and wait for it, but not for long."""
        if self._committing is not None:  # one at a time: the older of two might end last
            await asyncio.wait([self._committing], timeout=_COMMIT_S)
        self._begin_commit()
        if self._committing is not None:
            await asyncio.wait([self._committing], timeout=_COMMIT_S)

    def _begin_commit(self) -> None:
        if self._grouped and self._uncommitted and (self._committing is None or self._committing.done()):
            self._committed_at = time.monotonic()
            self._committing = asyncio.create_task(self._commit(dict(self._uncommitted)))

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            await self._consumer.commit(offsets)
        except KafkaError as exc:
            log.warning("what is done could not be committed, and may come again: %r", exc)
            return
        for tp, offset in offsets.items():
            if self._uncommitted.get(tp) == offset:
                del self._uncommitted[tp]

    def close(self) -> None:
        """Give up what is under way."""
        if self._committing is not None:
            self._committing.cancel()


async def _insist(
    bounds: Callable[..., Awaitable[Any]], tps: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Ask for offsets until the broker answers."""
    while tps:
        try:
            return dict(await bounds(tps))
        except KafkaError as exc:
            if not exc.retriable and not isinstance(exc, KafkaTimeoutError):
                raise
        await asyncio.sleep(_RETRY_S)
    return {}
