"""A broker in this process, from librdkafka's mock cluster: the real protocol on loopback, from pip alone.

It keeps at most 5 MiB or 100,000 batches a partition and forgets the oldest, so whoever produces
must be paced by whoever consumes (`Pacer`). It knows no CreateTopics, no configs, no compaction and
no retention, and gives every topic 4 partitions. For demos, `tidegate run` and fast tests; never
for claims about guarantees or speed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaException, Producer

from schemas.errors import BrokerError
from streams.mock_cluster import MockCluster

PARTITIONS = 4

#: Bytes of one partition that may be produced and not yet consumed; the broker forgets at 5 MiB.
IN_FLIGHT_BYTES = 2 << 20


class EmbeddedBroker:
    """One broker on a loopback port, gone when closed or when the process ends."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._broker: MockCluster | _Patient
        try:
            self._broker = MockCluster(topics, PARTITIONS)
        except (OSError, AttributeError):
            # Of a client that is built in another way, as on Windows: the same broker, three seconds slower.
            self._broker = _Patient(topics)
        self.address = self._broker.address

    def close(self) -> None:
        """Stop it; what is on it is gone."""
        self._broker.close()


class _Patient:
    """The mock cluster as the Python client makes it, which waits for three seconds for a group's members."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._producer = Producer(
            {"test.mock.num.brokers": 1, "client.id": "tidegate-embedded", "log_level": 0}
        )
        try:
            brokers = self._producer.list_topics(timeout=10).brokers
            # It makes a topic when somebody asks for it.
            for topic in topics:
                self._producer.list_topics(topic, timeout=10)
        except KafkaException as exc:
            raise BrokerError(f"the embedded broker did not start: {exc.args[0].str()}") from None
        broker = next(iter(brokers.values()))
        self.address = f"{broker.host}:{broker.port}"

    def close(self) -> None:
        del self._producer


class Pacer:
    """Holds a producer back while too much of what it sent has not been consumed."""

    def __init__(self, limit_bytes: int = IN_FLIGHT_BYTES) -> None:
        self._limit = limit_bytes
        self._sizes: defaultdict[int, deque[int]] = defaultdict(deque)
        self._outstanding: defaultdict[int, int] = defaultdict(int)
        self._consumed: defaultdict[int, int] = defaultdict(int)
        self._progress = asyncio.Event()
        self.on_wait: Callable[[], None] = lambda: None

    async def pace(self, partition: int, nbytes: int) -> None:
        """Wait for room for a record of this size, and count it as sent. Call in the order of producing."""
        while self._outstanding[partition] and self._outstanding[partition] + nbytes > self._limit:
            self._progress.clear()
            self.on_wait()
            await self._progress.wait()
        self._sizes[partition].append(nbytes)
        self._outstanding[partition] += nbytes

    def consumed(self, partition: int, offset: int) -> None:
        """Say that everything up to this offset (of a topic that began empty) is consumed."""
        sizes = self._sizes[partition]
        while self._consumed[partition] <= offset and sizes:
            self._outstanding[partition] -= sizes.popleft()
            self._consumed[partition] += 1
        self._progress.set()
