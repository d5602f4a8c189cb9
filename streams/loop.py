"""The whole loop in one process, on topics of its own: what `tidegate run` and `tidegate demo` drive."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from schemas.bar import Bar
from schemas.errors import BrokerError
from streams.broker import cluster_now, confluent_config
from streams.embedded import PARTITIONS, EmbeddedBroker, Pacer
from streams.producer import BarrierProducer
from streams.runtime import crash_of, crashed, running
from streams.settings import Settings, TickTopic, load_settings
from streams.topics import Topics

#: How long a run waits for a database that it has reached: somebody sits before it.
PATIENCE_S = 15.0

#: How long the store waits for more bars when the input has ended: they are all on their way.
LAST_LINGER_S = 0.02

#: After a crash. A run that succeeds has nothing left to drain.
DRAIN_NS = 2 * 10**9

_TOPIC_CONFIG = {"max.message.bytes": str(2 << 20)}


def partition_for(key: bytes, partitions: int = PARTITIONS) -> int:
    """The partition of a key, as Java's and aiokafka's default partitioner have it (murmur2)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class Loop:
    """Publishes records to its own ticks topic and knows when all of them have become stored bars."""

    def __init__(self, settings: Settings, roles: Any, *, embedded: bool, store: Any = None) -> None:
        self.settings = settings
        self.tick_topic = settings.ticks[0].topic
        self.published = 0
        self.started = 0.0
        self.keys_of: defaultdict[str, set[int]] = defaultdict(set)
        self._ticks = Pacer()
        self._bars = Pacer()
        self._sent = [0] * PARTITIONS
        self._stored = [0] * PARTITIONS
        self._partitions: dict[bytes, int] = {}
        self._paced = embedded
        self.bars = roles.bars_role(settings, pace=self._bars.pace if embedded else None, keep_state=False)
        self.store = roles.store_role(settings, store=store, patience_s=PATIENCE_S)
        self.bars.pipeline.on_applied = self._ticks.consumed
        # Whoever makes bars waits for room, and so there will be no more for the store to wait for.
        self._bars.on_wait = self.store.writer.hurry
        self.store.writer.on_stored = self._stored_upto
        self.store.writer.on_written = self._remember
        self._producer = BarrierProducer(confluent_config(settings))

    async def publish(
        self, value: bytes, key: bytes | None, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """Publish one tick record; waits while the loop is behind."""
        if key is None:
            partition = self.published % PARTITIONS
        else:
            partition = self._partitions.get(key, -1)
            if partition < 0:
                partition = self._partitions[key] = partition_for(key)
        if self._paced:
            await self._ticks.pace(partition, len(value))
        await self._producer.send(self.tick_topic, value, key=key, partition=partition, headers=headers)
        self._sent[partition] += 1
        self.published += 1

    def lag(self) -> list[int]:
        """Records published and not yet applied, by partition."""
        position = self.bars.pipeline.position
        return [
            sent - 1 - position(TP(self.tick_topic, partition)) for partition, sent in enumerate(self._sent)
        ]

    @property
    def applied(self) -> int:
        """Records that have been applied to the bar engines."""
        return self.published - sum(self.lag())

    async def finish(self, tick: Callable[[], None] = lambda: None) -> None:
        """The input has ended: wait until all of it is applied, close every bar, wait for the store."""
        await self._producer.barrier()
        pipeline = self.bars.pipeline
        await self._until(lambda: self.applied >= self.published, tick)
        await pipeline.close()
        self.hurry()
        await self._until(lambda: sum(self._stored) >= pipeline.published, tick)

    def hurry(self) -> None:
        """No more is to come: have the store wait for nothing from now on but what is on its way."""
        self.store.writer.linger_s = min(self.store.writer.linger_s, LAST_LINGER_S)
        self.store.writer.hurry()

    async def _until(self, condition: Callable[[], bool], tick: Callable[[], None]) -> None:
        while not condition():
            tick()
            await asyncio.sleep(0.01)

    def _stored_upto(self, partition: int, offset: int) -> None:
        # By offsets, not by counting: after a rebalance the broker delivers again what was not committed.
        self._stored[partition] = max(self._stored[partition], offset + 1)
        self._bars.consumed(partition, offset)

    def _remember(self, bars: list[Bar]) -> None:
        for bar in bars:
            self.keys_of[bar.type].add(hash((bar.instrument, bar.start_ns)))

    def stored(self) -> dict[str, int]:
        """Distinct bars acknowledged by the store, per type, shortest type first."""
        order = [bar_type.name for bar_type in self.settings.ticks[0].spec.bar_types]
        return {name: len(self.keys_of[name]) for name in order}

    async def close(self) -> None:
        """Stop producing; what could not be sent is dropped with the run."""
        await self._producer.close(1.0)


@contextlib.asynccontextmanager
async def whole_loop(
    roles: Any,
    tick: TickTopic,
    *,
    broker: str | None,
    store_url: str,
    store: Any = None,
    **overrides: Any,
) -> AsyncIterator[Loop]:
    """Bring up broker (``embedded`` or None for our own), topics and both roles; take them down after.

    A crash of an agent is raised inside the body as soon as it awaits.
    """
    prefix = f"tidegate-{uuid.uuid4().hex[:8]}."
    topics = Topics(prefix)
    tick = tick.model_copy(update={"topic": f"{prefix}ticks.v1", "framing": "none"})
    names = [tick.topic, topics.bars, topics.dead_letters, topics.feedback, topics.rate, topics.state]
    own = EmbeddedBroker(names) if broker in (None, "embedded") else None
    settings = load_settings(
        None,
        broker=own.address if own else broker,
        group=prefix.rstrip("."),
        topic_prefix=prefix,
        ticks=(tick,),
        store=store_url,
        overflow="block",  # a file can wait, and whoever reads it whole accounts for all of it
        drain_timeout=DRAIN_NS,
        registry_url="",  # nobody else reads what a run says
        bars_format="json",
        **({"security_protocol": "PLAINTEXT", "session_timeout": 6 * 10**9} if own else {}),
        **overrides,
    )
    admin = None if own else await asyncio.to_thread(_create, settings, names)
    loop = None
    try:
        loop = Loop(settings, roles, embedded=own is not None, store=store)
        async with running(loop.bars.app, loop.store.app), _raising(loop.bars.app, loop.store.app):
            loop.started = time.monotonic()
            try:
                yield loop
            finally:
                loop.hurry()
    finally:
        if loop is not None:
            await loop.close()
        if admin is not None:
            await asyncio.to_thread(_delete, admin, names)
        if own is not None:
            own.close()


@contextlib.asynccontextmanager
async def _raising(*apps: Any) -> AsyncIterator[None]:
    body = cast("asyncio.Task[None]", asyncio.current_task())
    reason: list[BaseException] = []

    async def watch() -> None:
        reason.append(await crashed(*apps))
        body.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
        if reason:  # told in the moment in which the body ended: the cancellation is on its way
            await asyncio.sleep(0)
        if (crash := crash_of(*apps)) is not None:  # in the last moment: nobody has looked since
            raise crash
    except asyncio.CancelledError:
        if reason:
            body.uncancel()
            raise reason[0] from None
        raise
    finally:
        watcher.cancel()


def _create(settings: Settings, names: list[str]) -> AdminClient:
    replication = min(3, len(cluster_now(settings).brokers))
    admin = AdminClient(confluent_config(settings))
    new = [NewTopic(name, PARTITIONS, replication, config=_TOPIC_CONFIG) for name in names]
    try:
        for future in admin.create_topics(new).values():
            future.result(30)
    except KafkaException as exc:
        raise BrokerError(
            f"broker {settings.broker} did not create topics for this run: {exc.args[0].str()}",
            hint="the user must be allowed to create and delete topics named tidegate-*",
        ) from None
    return admin


def _delete(admin: AdminClient, names: list[str]) -> None:
    for future in admin.delete_topics(names).values():
        with contextlib.suppress(KafkaException):
            future.result(30)
