"""A consumer of a stream in a group: gives events, and commits those that are done, in whatever order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiokafka
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from schemas.dead_letter import place
from schemas.errors import BadRecord, BrokerError
from streams.ecosystem.core import EventEnvelope
from streams.ecosystem.event_codec import EventCodec
from streams.ecosystem.in_hand import InHand
from streams.flow.member import Member
from streams.flow.source import Source, close
from streams.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 200
_BATCH = 100
_RETRY_S = 1.0


def envelope_id(record: ConsumerRecord, group: str) -> str:
    """The same at each delivery to a group."""
    return f"{place(record.topic, record.partition, record.offset)}#{group}"


class GroupReader:
    """One subscription. `refuse` dead-letters a record that is no event, and returns when that is durable."""

    def __init__(
        self,
        settings: Settings,
        stream: str,
        group: str,
        consumer: str,
        codec: EventCodec,
        refuse: Callable[[ConsumerRecord, str, str], Awaitable[None]],
        *,
        redeliver_after_s: float,
        max_in_hand: int,
        session_timeout_s: float,
    ) -> None:
        self.stream = stream
        self.group = group
        self._codec = codec
        self._refuse = refuse
        self._redeliver_after_s = redeliver_after_s
        self._max_in_hand = max_in_hand
        self._broker = settings.broker
        self._source = Source(
            settings,
            stream,
            group,
            True,  # what was published before there was a group is for it, too
            None,
            client_id=consumer,
            session_timeout_ms=round(session_timeout_s * 1000),
            heartbeat_interval_ms=round(session_timeout_s * 1000 / 5),
        )
        self._in_hand: InHand[int, ConsumerRecord] = InHand()
        self._generation = -1
        self._at: tuple[aiokafka.AIOKafkaConsumer, Member] | None = None
        self._closed = False

    async def read(self) -> AsyncGenerator[EventEnvelope[Any], None]:
        """Events, until it is closed. Raises `BrokerError` where it cannot begin, or may not read."""
        begun = False
        while not self._is_closed():
            self._at = consumer, member = self._source.consumer()
            try:
                await consumer.start()
                await member.begin()
                begun = True
                while not self._is_closed():
                    async for envelope in self._round(consumer, member):
                        yield envelope
                    member.commit_at_times()
            except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as exc:
                raise BrokerError(
                    f"broker {self._broker} does not let this user read {self.stream}: {exc}",
                    hint="it needs Read on the topic and on the group",
                ) from None
            except (KafkaError, ConsumerStoppedError, OSError) as exc:
                if self._is_closed():
                    return
                if not begun:
                    raise BrokerError(
                        f"broker {self._broker}: {self.stream} cannot be read: {exc!r}",
                        hint="is the broker in health?",
                    ) from None
                log.warning("%s cannot be read: %r; trying again", self.stream, exc)
            finally:
                await self._leave()
            await asyncio.sleep(_RETRY_S)

    async def _round(
        self, consumer: aiokafka.AIOKafkaConsumer, member: Member
    ) -> AsyncGenerator[EventEnvelope[Any], None]:
        """What was fetched, and what has been in hand for too long."""
        room = self._max_in_hand - len(self._in_hand)
        if room > 0:
            consumer.resume(*consumer.paused())
        else:
            consumer.pause(*consumer.assignment())
        # Polled all the same, as a member that does not poll is put out of the group.
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=max(1, min(room, _BATCH)))
        # In this very step, for a rebalance may be between the assignment and the seek.
        generation = member.generation if member.is_ready() else -1
        if generation != self._generation:
            self._generation = generation
            self._in_hand.clear()
        for record in (record for records in batches.values() for record in records):
            if member.generation != generation:
                return  # the partitions have been shared anew: what is not done comes again
            self._in_hand.give(record.partition, record.offset, record, time.monotonic())
            try:
                envelope = self._envelope(record)
            except BadRecord as exc:
                where = place(record.topic, record.partition, record.offset)
                log.warning("%s is dead-lettered: %s", where, exc)
                await self._refuse(record, self.group, str(exc))
                self.done(record.partition, record.offset)
            else:
                yield envelope
        for partition, offset, record in self._in_hand.overdue(time.monotonic() - self._redeliver_after_s):
            if member.generation != generation:
                return
            self._in_hand.give(partition, offset, record, time.monotonic())
            yield self._envelope(record)

    def _envelope(self, record: ConsumerRecord) -> EventEnvelope[Any]:
        envelope = self._codec.decode(record.value)
        envelope.id = envelope_id(record, self.group)
        return envelope

    def holds(self, partition: int, offset: int) -> bool:
        """Whether the event is with this consumer, which is still to say that it is done."""
        return self._at is not None and self._is_ours() and self._in_hand.holds(partition, offset)

    def record(self, partition: int, offset: int) -> ConsumerRecord:
        """The record of an event that it holds."""
        return self._in_hand.event(partition, offset)

    def done(self, partition: int, offset: int) -> None:
        """Take note; committed within about a second, once all before it is done."""
        if self._at is None or not self._is_ours():
            return
        _, member = self._at
        before = self._in_hand.done(partition, offset)
        if before is not None:
            member.done_before(TopicPartition(self.stream, partition), before, self._generation)
        member.commit_at_times()

    def _is_ours(self) -> bool:
        return self._at is not None and self._at[1].generation == self._generation

    def _is_closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        """Commit what is done and leave the group. May be repeated."""
        self._closed = True
        await self._leave()

    async def _leave(self) -> None:
        at, self._at = self._at, None
        if at is not None:
            await close(*at)
