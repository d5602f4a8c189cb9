"""Producing with librdkafka: idempotent, acks=all, and a barrier that says when all is durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import ProduceError

#: librdkafka's own default partitioner is another one than Java's and aiokafka's murmur2.
PARTITIONER = "murmur2_random"

DEFAULTS: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    # A broker refuses a batch as a whole if it exceeds the topic's max.message.bytes, which a user may
    # have set low: small batches leave that limit to single records.
    "batch.size": 128 << 10,
    "message.max.bytes": 64 << 20,  # the topic's max.message.bytes decides, not the client
    "compression.type": "lz4",
    "partitioner": PARTITIONER,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 256 << 10,
    # What could not be delivered for this long is an error of the worker, never a dropped record.
    "message.timeout.ms": 300_000,
}


class _Span:
    """The records produced between two barriers: how many were sent, how many are settled."""

    __slots__ = ("sealed", "sent", "settled")

    def __init__(self) -> None:
        self.sent = 0
        self.settled = 0
        self.sealed: asyncio.Future[None] | None = None


class BarrierProducer:
    """A producer whose `barrier` returns once everything produced before it is acknowledged.

    `produce` is called from the event loop's thread only. A record that the broker refused makes
    every later `barrier` raise `ProduceError`: nothing that depended on it may be committed.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._producer = Producer({**DEFAULTS, **config})
        self._left = 0
        self._span = _Span()
        self._unsettled: list[asyncio.Future[None]] = []
        self._failed: ProduceError | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="tidegate-producer", daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: list[tuple[str, bytes]] | None = None,
        on_error: Callable[[KafkaError], None] | None = None,
    ) -> bool:
        """Hand a record to librdkafka; False when its queue is full (await `room` and try again).

        With `on_error` a failure of this record is told there, in the producer's thread, and makes
        no `barrier` raise.
        """
        span = self._span

        def settle(error: KafkaError | None, message: Message) -> None:
            if error is not None and on_error is not None:
                on_error(error)
                error = None
            self._settle(span, error, message)

        kwargs: dict[str, Any] = {"key": key, "headers": headers, "on_delivery": settle}
        if partition >= 0:
            kwargs["partition"] = partition
        try:
            self._producer.produce(topic, value, **kwargs)
        except BufferError:
            return False
        except KafkaException as exc:
            raise ProduceError(f"{topic}[{partition}]: the record was refused: {exc.args[0].str()}") from exc
        span.sent += 1
        return True

    async def send(self, topic: str, value: bytes | None, **kwargs: Any) -> None:
        """`produce`, waiting for room where librdkafka's queue is full."""
        while not self.produce(topic, value, **kwargs):
            await self.room()

    async def room(self) -> None:
        """Wait a moment for librdkafka to send some of its queue."""
        await asyncio.sleep(0.005)

    def _settle(self, span: _Span, error: KafkaError | None, message: Message) -> None:
        with self._lock:
            span.settled += 1
            if error is not None and self._failed is None:
                self._failed = ProduceError(
                    f"{message.topic()}[{message.partition()}]: not delivered: {error.str()}",
                    hint=hint_for(error),
                )
            sealed = span.sealed
            done = sealed is not None and span.settled == span.sent
        if done and sealed is not None:
            sealed.get_loop().call_soon_threadsafe(_resolve, sealed)

    async def barrier(self) -> None:
        """Wait until all that was produced before this call is acknowledged by the broker.

        Raises `ProduceError` if any record ever was not.
        """
        span, self._span = self._span, _Span()
        sealed = asyncio.get_running_loop().create_future()
        with self._lock:
            span.sealed = sealed
            if span.settled == span.sent:
                sealed.set_result(None)
        # A barrier that was given up (a bounded shutdown) leaves its span to the next one.
        self._unsettled = [*(f for f in self._unsettled if not f.done()), sealed]
        await asyncio.gather(*map(asyncio.shield, self._unsettled))
        if self._failed is not None:
            raise self._failed

    def __len__(self) -> int:
        """Records handed over and not yet settled."""
        return self._left if self._producer is None else len(self._producer)

    async def close(self, timeout_s: float = 10.0) -> int:
        """Flush for at most `timeout_s`, stop; gives the number of records left undelivered."""
        if self._producer is not None:
            self._left = int(await asyncio.to_thread(self._producer.flush, timeout_s))
            self._stopping.set()
            await asyncio.to_thread(self._poller.join, 1.0)
            await asyncio.to_thread(self._destroy)
        return self._left

    def _destroy(self) -> None:
        # librdkafka's threads must end before the process does: in the midst of TLS they would crash it.
        self._producer = None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def hint_for(error: KafkaError) -> str:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return "raise max.message.bytes of the topic (`tidegate topics apply` does)"
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return "create the topic: `tidegate topics apply`"
    if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return "the user lacks the right to write to this topic"
    return "is the broker reachable and in health?"
