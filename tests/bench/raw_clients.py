"""Nothing but consuming: `python -m bench.raw_clients aiokafka|librdkafka BROKER TOPIC PARTITIONS`.

Prints what it took as JSON. The clock runs from the first records to the last, and what came first is not
counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import aiokafka
from confluent_kafka import Consumer, TopicPartition

from streams.app import build_app
from streams.consumer_thread import FETCH_MAX_WAIT_MS
from streams.settings import Settings


@dataclass
class Lap:
    """Records between the first that came and the last there are."""

    total: int
    first: int = 0
    seen: int = 0
    started: float = 0.0
    cpu: float = 0.0

    def take(self, records: int) -> bool:
        """Count records; whether there are more to come."""
        if records and not self.seen:
            self.first = records
            self.started, self.cpu = time.perf_counter(), time.process_time()
        self.seen += records
        return self.seen < self.total

    def say(self) -> None:
        """Print the measurement."""
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.cpu
        print(json.dumps({"ticks": self.seen - self.first, "seconds": seconds, "cpu_seconds": cpu}))


async def with_aiokafka(broker: str, topic: str, partitions: int) -> None:
    """`getmany` with the fetch settings of Tidegate's transport."""
    conf = build_app(Settings(broker=broker), "bench", frozenset()).conf
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=broker,
        max_poll_records=conf.broker_max_poll_records,
        max_partition_fetch_bytes=conf.consumer_max_fetch_size,
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        check_crcs=conf.broker_check_crcs,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        tps = [aiokafka.TopicPartition(topic, partition) for partition in range(partitions)]
        lap = Lap(sum((await consumer.end_offsets(tps)).values()))
        consumer.assign(tps)
        while lap.take(sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))):
            pass
        lap.say()
    finally:
        await consumer.stop()


def with_librdkafka(broker: str, topic: str, partitions: int) -> None:
    """`consume` with librdkafka's own defaults, but for its queue: when that is full, it rests for a second."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "bench",
            "enable.auto.commit": False,
            "check.crcs": True,
            "queued.min.messages": 1_000_000,
        }
    )
    ends = [
        consumer.get_watermark_offsets(TopicPartition(topic, partition))[1] for partition in range(partitions)
    ]
    lap = Lap(sum(ends))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    while lap.take(len(consumer.consume(10_000, 0.05))):
        pass
    lap.say()
    consumer.close()


if __name__ == "__main__":
    client, broker, topic, partitions = sys.argv[1:]
    if client == "aiokafka":
        asyncio.run(with_aiokafka(broker, topic, int(partitions)))
    else:
        with_librdkafka(broker, topic, int(partitions))
