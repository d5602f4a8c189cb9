"""Core's event bus on Kafka: a stream is a topic, a group a consumer group, an envelope a record.

    async with KafkaEventBus("kafka-1:9092", create_partitions=4) as bus:
        await bus.publish("mdp.telemetry.feedback", event, key=event.coordinator_id)
        async for envelope in bus.subscribe("mdp.telemetry.feedback", group="pipeline", consumer="w1"):
            try:
                await handle(envelope.payload)
            except Exception as exc:
                await bus.fail("mdp.telemetry.feedback", envelope.id, str(exc))
            else:
                await bus.ack("mdp.telemetry.feedback", envelope.id)

What is promised:

- A group gets each event at least once, also what was published before there was a group; two groups each get all.
- An event that is neither acknowledged nor failed comes again: to another consumer of the group when this one is
  gone or the partitions are shared anew, and to the same one after `redeliver_after_s`. `Once` applies it once.
- Acknowledgements may come in any order; committed is what has nothing unacknowledged before it, once a second and
  when the subscription ends. So a crash brings again what was acknowledged after the oldest that was not.
- A consumer has at most `max_in_hand` events that are not done; no more are given until some are.
- What is failed, or cannot be read, is in STREAM.dlq with its key, its bytes and the headers `reason`,
  `original_id`, `group` before it counts as done.
- Events of one key come in order, as long as nothing comes again.
- A broker that goes away is waited for. At the start it must be there, with the topics: `BrokerError` otherwise.

An id is ``topic[partition]@offset``; as delivered it names the group, too: ``topic[partition]@offset#group``, since
core's `ack` and `fail` do not. Needs the extra ``core``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import ConsumerRecord
from pydantic import BaseModel

from schemas.dead_letter import place
from schemas.errors import BadRecord, BrokerError, ConfigError
from streams.broker import cluster
from streams.ecosystem.core import EventEnvelope
from streams.ecosystem.envelopes import Track
from streams.ecosystem.event_codec import EventCodec
from streams.ecosystem.group_reader import GroupReader, envelope_id
from streams.ecosystem.new_topics import create_missing
from streams.ecosystem.sender import ACK_S, Sender
from streams.settings import Settings, load_settings

log = logging.getLogger(__name__)

_STREAM = re.compile(r"[A-Za-z0-9._-]{1,245}", re.ASCII)
_ID = re.compile(r"([A-Za-z0-9._-]+)\[(\d{1,9})\]@(\d{1,18})(?:#(.+))?", re.ASCII | re.DOTALL)
_HEALTH_S = 2.0


class KafkaEventBus:
    """Core's `EventBus`. `broker` is HOST:PORT (all else, such as logins, from ``TIDEGATE_*``), or whole settings.

    `create_partitions` makes streams that are not there, with so many partitions, and their dead-letter topics;
    without it they are errors. `models` are read by their schema ids, besides core's telemetry. A consumer that
    dies is missed after `session_timeout_s`; a broker that does not acknowledge, after `publish_timeout_s`.
    """

    def __init__(
        self,
        broker: str | Settings,
        *,
        track: Track = "v1",
        models: Mapping[str, type[BaseModel]] | None = None,
        create_partitions: int | None = None,
        redeliver_after_s: float = 60.0,
        max_in_hand: int = 1000,
        session_timeout_s: float = 10.0,
        publish_timeout_s: float = ACK_S,
    ) -> None:
        self._settings = load_settings(broker=broker) if isinstance(broker, str) else broker
        self._codec = EventCodec(track, models)
        self._create_partitions = create_partitions
        self._redeliver_after_s = redeliver_after_s
        self._max_in_hand = max_in_hand
        self._session_timeout_s = session_timeout_s
        self._sender = Sender(self._settings, publish_timeout_s)
        self._readers: list[GroupReader] = []
        self._there: set[str] = set()

    async def publish(self, stream: str, value: BaseModel, *, key: str | None = None) -> str:
        """Return the id, ``topic[partition]@offset``, when all in-sync replicas have the event.

        Raises `BrokerError`: it was not acknowledged, but may be in the stream all the same.
        """
        data, key = self._codec.encode(value, key)
        await self._check(stream)
        sent = await self._sender.send(stream, data, key=None if key is None else key.encode())
        return place(sent.topic, sent.partition, sent.offset)

    async def subscribe(
        self, stream: str, *, group: str, consumer: str
    ) -> AsyncGenerator[EventEnvelope[Any], None]:
        """Events as they come, for this consumer of the group. Leaving the loop leaves the group."""
        _check_group(self._settings, group)
        await self._check(stream)
        reader = GroupReader(
            self._settings,
            stream,
            group,
            consumer,
            self._codec,
            self._bury,
            redeliver_after_s=self._redeliver_after_s,
            max_in_hand=self._max_in_hand,
            session_timeout_s=self._session_timeout_s,
        )
        self._readers.append(reader)
        try:
            async with contextlib.aclosing(reader.read()) as envelopes:
                async for envelope in envelopes:
                    yield envelope
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    async def ack(self, stream: str, envelope_id: str) -> None:
        """The event is done. Raises BadRecord where this bus has not delivered it.

        One that has gone to another consumer meanwhile is logged, and comes again there.
        """
        at, reader = self._reader(stream, envelope_id)
        if reader is not None:
            reader.done(at.partition, at.offset)

    async def fail(self, stream: str, envelope_id: str, reason: str) -> None:
        """The event cannot be handled: it is done once it is in STREAM.dlq. Raises BadRecord, BrokerError."""
        at, reader = self._reader(stream, envelope_id)
        if reader is not None:
            await self._bury(reader.record(at.partition, at.offset), reader.group, reason)
            reader.done(at.partition, at.offset)

    async def health(self) -> Mapping[str, str]:
        """Whether the broker answers, in core's words. Never raises."""
        about = {"backend": "kafka", "broker": self._settings.broker}
        try:
            brokers = (await cluster(self._settings, _HEALTH_S)).brokers
        except BrokerError as exc:
            return {**about, "status": "error", "error": str(exc), "hint": exc.hint}
        return {
            **about,
            "status": "ok",
            "brokers": str(len(brokers)),
            "subscriptions": str(len(self._readers)),
        }

    async def close(self) -> None:
        """End all subscriptions, committing what is done, and close the connections. May be repeated."""
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.close() for reader in readers))
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _check(self, stream: str) -> None:
        """Raise `BrokerError` unless the stream and its dead-letter topic are there, or can be made."""
        if stream in self._there:
            return
        if _STREAM.fullmatch(stream) is None:
            raise ConfigError(
                f"stream {stream!r} is no name of a topic",
                hint="up to 245 letters, digits, dots, dashes and underscores, such as mdp.telemetry.feedback",
            )
        topics = (await cluster(self._settings)).topics
        missing = [topic for topic in (stream, dead_letters_of(stream)) if topic not in topics]
        if missing and self._create_partitions is None:
            raise BrokerError(
                f"broker {self._settings.broker} lacks {' and '.join(missing)}",
                hint="make it with create_partitions=4, or with Kafka's own "
                f"`kafka-topics.sh --create --topic {missing[0]}`",
            )
        if missing:
            await create_missing(self._settings, missing, self._create_partitions or 1)
        self._there.add(stream)

    def _reader(self, stream: str, envelope_id: str) -> tuple[_Place, GroupReader | None]:
        """Where the event is, and who has it in hand."""
        at = _Place.parse(stream, envelope_id)
        subscribed = [
            reader for reader in self._readers if reader.stream == stream and at.group in (None, reader.group)
        ]
        if not subscribed:
            raise BadRecord(
                f"{envelope_id} was not delivered by this bus: it has no such subscription",
                hint="acknowledge on the bus object that delivered it, while its subscription runs",
            )
        if at.group is None and len({reader.group for reader in subscribed}) > 1:
            raise BadRecord(
                f"{envelope_id} is with several groups",
                hint="ids as they are delivered name the group; those that publish returns do not",
            )
        holding = [reader for reader in subscribed if reader.holds(at.partition, at.offset)]
        if not holding:
            log.info("%s is not in hand: it is done already, or comes again elsewhere", envelope_id)
        return at, holding[0] if holding else None

    async def _bury(self, record: ConsumerRecord, group: str, reason: str) -> None:
        headers = [
            ("reason", reason.encode()),
            ("original_id", envelope_id(record, group).encode()),
            ("group", group.encode()),
        ]
        await self._sender.send(
            dead_letters_of(record.topic),
            # aiokafka sends no record without both.
            b"" if record.key is None and record.value is None else record.value,
            key=record.key,
            headers=[*((name, value) for name, value in record.headers), *headers],
        )


def dead_letters_of(stream: str) -> str:
    """As core's Redis adapter names it."""
    return f"{stream}.dlq"


def _check_group(settings: Settings, group: str) -> None:
    if group in (f"{settings.group}-bars", f"{settings.group}-store"):
        raise ConfigError(f"{group} is the group of the workers", hint="choose a name of your own")
    if not group:
        raise ConfigError("a subscription needs a group")


class _Place(NamedTuple):
    partition: int
    offset: int
    group: str | None

    @classmethod
    def parse(cls, stream: str, envelope_id: str) -> _Place:
        match = _ID.fullmatch(envelope_id)
        if match is None or match[1] != stream:
            raise BadRecord(
                f"{envelope_id!r} is no id of an event of {stream}",
                hint=f"ids are such as {stream}[0]@17#group",
            )
        return cls(int(match[2]), int(match[3]), match[4])
