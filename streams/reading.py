"""Reading a topic as far as it goes now: no group is joined, nothing is committed, aborted records are not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.dead_letter import place
from schemas.errors import BrokerError
from streams.broker import cluster_now, confluent_config
from streams.settings import Settings

_REQUEST_S = 10.0
#: A broker that gives nothing for so long, of what it says it has, is not going to.
_SILENCE_S = 30.0
# What librdkafka mends by itself, if the broker comes back in time.
_PASSING = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}
)


class TopicReader:
    """One topic that exists. Raises `BrokerError` where it does not, or where the broker does not answer."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        seen = cluster_now(settings).topics
        if topic not in seen:
            raise BrokerError(
                f"broker {settings.broker} lacks topic {topic}",
                hint="is topic_prefix right? `tidegate topics apply` creates Tidegate's own topics",
            )
        self.partitions = sorted(seen[topic].partitions)
        self._consumer = Consumer(
            {
                **confluent_config(settings),
                # librdkafka only wants the name.
                "group.id": "tidegate-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the one after the last."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=_REQUEST_S
            )
        except KafkaException as exc:
            raise self._failed(partition, exc.args[0]) from None
        return low, high

    def read(
        self,
        partitions: Iterable[int],
        since_ms: int | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        last: int | None = None,
    ) -> Iterator[Message]:
        """The records that are there when this is called, each partition in its order.

        `since_ms` leaves out what came before, but not all of it where clocks ran backwards. `on_progress`
        is told how many offsets are done, of how many. `last` leaves out all but so many offsets of each
        partition, at its end.
        """
        pending = {}
        for partition in partitions:
            low, high = self.bounds(partition)
            first = low if since_ms is None else max(low, self._first_since(partition, since_ms, high))
            if last is not None:
                first = max(first, high - last)
            if first < high:
                pending[partition] = (first, high)
        total = sum(high - first for first, high in pending.values())
        done = 0
        at = {partition: first for partition, (first, _) in pending.items()}
        self._consumer.assign(
            [TopicPartition(self.topic, partition, first) for partition, (first, _) in pending.items()]
        )
        heard = time.monotonic()
        while pending:
            messages = [message for message in self._consumer.consume(1000, 0.05) if not _passes(message)]
            for message in messages:
                partition = message.partition()
                if partition not in pending:
                    continue
                ended = self._ends(message, pending[partition][1])
                upto = pending[partition][1] if ended else message.offset() + 1
                done, at[partition] = done + upto - at[partition], upto
                if ended:
                    del pending[partition]
                    self._consumer.pause([TopicPartition(self.topic, partition)])
                if message.error() is None and message.offset() < upto:
                    yield message
            now = time.monotonic()
            if messages:
                heard = now
                on_progress(done, total)
            elif now - heard > _SILENCE_S:
                raise BrokerError(
                    f"{self.topic}{sorted(pending)}: nothing came for {_SILENCE_S:.0f} s, "
                    f"and {total - done:,} offsets are left",
                    hint="is the broker reachable and in health?",
                )
        self._consumer.unassign()

    def at(self, partition: int, offset: int) -> Message:
        """One record. Raises `BrokerError` that says which offsets there are."""
        if partition not in self.partitions:
            raise BrokerError(
                f"{self.topic} has no partition {partition}", hint=f"it has {_span(self.partitions)}"
            )
        low, high = self.bounds(partition)
        if not low <= offset < high:
            holds = f"holds offsets {low} to {high - 1}" if low < high else "is empty"
            raise BrokerError(f"{place(self.topic, partition, offset)} is not there: the partition {holds}")
        self._consumer.assign([TopicPartition(self.topic, partition, offset)])
        end = time.monotonic() + _SILENCE_S
        while (message := self._consumer.poll(0.05)) is None or _passes(message):
            if time.monotonic() > end:
                raise BrokerError(f"{place(self.topic, partition, offset)}: nothing came")
        if self._ends(message, high) and (message.error() is not None or message.offset() >= high):
            found = "none after it"
        elif message.offset() == offset:
            return message
        else:
            found = f"the next is {place(self.topic, partition, message.offset())}"
        raise BrokerError(
            f"{place(self.topic, partition, offset)} is no record: {found}",
            hint="transactions take offsets for marks of their own",
        )

    def _ends(self, message: Message, high: int) -> bool:
        error = message.error()
        if error is None:
            return bool(message.offset() >= high - 1)
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        raise self._failed(message.partition(), error)

    def _first_since(self, partition: int, since_ms: int, high: int) -> int:
        wanted = TopicPartition(self.topic, partition, since_ms)
        try:
            (found,) = self._consumer.offsets_for_times([wanted], timeout=_REQUEST_S)
        except KafkaException as exc:
            raise self._failed(partition, exc.args[0]) from None
        return int(found.offset) if found.offset >= 0 else high

    def _failed(self, partition: int, error: KafkaError) -> BrokerError:
        return BrokerError(
            f"{self.topic}[{partition}]: cannot be read: {error.str()}",
            hint="may the user read this topic? is the broker in health?",
        )


def _passes(message: Message) -> bool:
    return message.error() is not None and message.error().code() in _PASSING


def _span(partitions: list[int]) -> str:
    return f"{partitions[0]} to {partitions[-1]}" if partitions[1:] else f"{partitions[0]} only"
