"""Following feedback and rates from one's own program: dashboards, alerts, producers that can slow down.

    async with feedback("kafka-1:9092", group="my-dashboard") as events:
        async for event in events:
            print(event.partition, event.level, event.queue_size)

What is promised:

- With a `group`, each event is given at least once to the group, however often its subscribers stop and
  start. An event is done when the next one is asked for; what is done is committed once a second, and when
  the subscriber closes. Subscribers of one group share the partitions.
- Without a group each subscriber gets everything, and remembers nothing.
- Events of a partition come in their order. Between partitions there is none.
- Subscribers know nothing of each other: one that fails, or takes its time, keeps nothing from others.
- What cannot be read is skipped, counted (`Subscription.skipped`) and logged with its place; never raised.
- A broker that goes away is waited for. At the start it must be there: `BrokerError` otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from types import TracebackType
from typing import Generic, Self, TypeVar

import aiokafka
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from schemas.dead_letter import place
from schemas.errors import BadRecord, BrokerError, ConfigError
from schemas.feedback import Feedback, decode_feedback
from schemas.rate import RateAdjustment, decode_rate
from streams.flow.source import Source, close
from streams.settings import Settings, load_settings
from streams.topics import Topics

# Not structlog: unless it is set up, as workers do, it prints to standard output, which is the subscriber's.
log = logging.getLogger(__name__)

Event = TypeVar("Event", bound=Feedback | RateAdjustment)

_POLL_MS = 500
#: Until this many are done the rest of the batch is only in memory, and is dropped at a rebalance.
_BATCH = 200
_RETRY_S = 1.0
_LOG_EVERY_S = 1.0


def feedback(
    broker: str | Settings,
    *,
    group: str | None = None,
    from_beginning: bool = False,
    partitions: Collection[int] | None = None,
) -> Subscription[Feedback]:
    """Follow how full the stores' queues are.

    `broker` is HOST:PORT (everything else, such as TLS and logins, comes from ``TIDEGATE_*`` and
    tidegate.toml, as for workers), or whole settings. A group goes on after what it has done; a new one, or
    none, begins with what comes from now on, or with what the topic still has. Without a group it can be
    limited to some `partitions`.
    """
    return _subscribe(broker, "feedback", _feedback, group, from_beginning, partitions)


def rates(
    broker: str | Settings,
    *,
    group: str | None = None,
    from_beginning: bool = False,
    partitions: Collection[int] | None = None,
) -> Subscription[RateAdjustment]:
    """Follow what the rate controllers decide; see `feedback`."""
    return _subscribe(broker, "rate", _rate, group, from_beginning, partitions)


class Subscription(Generic[Event]):
    """Events as they come, by ``async for``. Made by `feedback` and `rates`.

    It begins at the first event that is asked for; ``async with`` begins at once, and closes for sure.
    Where an ``async for`` is the only one that holds it, leaving the loop closes it, too: by break, by an
    error, or when the task is cancelled.
    """

    def __init__(self, events: AsyncGenerator[Event | None, None], skips: Skips) -> None:
        # Nothing that the generator holds refers to this object: it is closed when this one is forgotten.
        self._events: AsyncGenerator[Event | None, None] = events
        self._skips = skips

    @property
    def skipped(self) -> int:
        """How many records could not be read."""
        return self._skips.count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while (event := await anext(self._events)) is None:
            pass
        return event

    async def aclose(self) -> None:
        """Commit what is done, leave the group, close the connections. May be repeated."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        await anext(self._events)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Skips:
    """Counts what could not be read, and says so: each of a few, and of a flood one a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._clock = clock
        self._silent_until = 0.0

    def add(self, where: str, why: str) -> None:
        """Count one."""
        self.count += 1
        if (now := self._clock()) >= self._silent_until:
            self._silent_until = now + _LOG_EVERY_S
            log.warning("%s is skipped (%d so far): %s", where, self.count, why)


def _feedback(record: aiokafka.ConsumerRecord) -> Feedback:
    event = decode_feedback(record.value)
    if event.partition != record.partition:  # the rate controllers ignore it, too
        raise BadRecord(f"it speaks of partition {event.partition}")
    return event


def _rate(record: aiokafka.ConsumerRecord) -> RateAdjustment:
    return decode_rate(record.value)


def _subscribe(
    broker: str | Settings,
    name: str,
    decode: Callable[[aiokafka.ConsumerRecord], Event],
    group: str | None,
    from_beginning: bool,
    partitions: Collection[int] | None,
) -> Subscription[Event]:
    settings = load_settings(broker=broker) if isinstance(broker, str) else broker
    if group is not None and partitions is not None:
        raise ConfigError("a group shares all partitions: name a group or partitions, not both")
    if group in (f"{settings.group}-bars", f"{settings.group}-store"):
        raise ConfigError(f"{group} is the group of the workers", hint="choose a name of your own")
    topic: str = getattr(Topics(settings.topic_prefix), name)
    skips = Skips()
    source = Source(settings, topic, group, from_beginning, partitions)
    return Subscription(_follow(source, decode, skips), skips)


async def _follow(
    source: Source, decode: Callable[[aiokafka.ConsumerRecord], Event], skips: Skips
) -> AsyncGenerator[Event | None, None]:
    """None once it has begun, then the events."""
    await source.check()
    begun = False
    while True:
        consumer, member = source.consumer()
        try:
            await consumer.start()
            await member.begin()
            if not begun:
                begun = True
                yield None
            while True:
                batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
                # In this very step, for a rebalance may be between the assignment and the seek.
                generation = member.generation if member.is_ready() else -1
                for record in (record for records in batches.values() for record in records):
                    if member.generation != generation:
                        break  # the partitions have been shared anew: what is not done comes again
                    try:
                        event = decode(record)
                    except BadRecord as exc:
                        skips.add(place(record.topic, record.partition, record.offset), str(exc))
                    else:
                        yield event
                    member.done(record, generation)
                    member.commit_at_times()
                member.commit_at_times()
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as exc:
            raise BrokerError(
                f"broker {source.settings.broker} does not let this user read {source.topic}: {exc}",
                hint="it needs Read on the topic and on the group",
            ) from None
        except (KafkaError, OSError) as exc:
            if not begun:
                raise BrokerError(
                    f"broker {source.settings.broker}: {source.topic} cannot be read: {exc!r}",
                    hint="is the broker in health?",
                ) from None
            log.warning("%s cannot be read: %r; trying again", source.topic, exc)
        finally:
            await close(consumer, member)
        await asyncio.sleep(_RETRY_S)
