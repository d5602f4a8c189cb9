"""A store that says of its queue what a test wants it to say."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Self

from confluent_kafka import KafkaException, Producer

from schemas.feedback import Feedback, Level, encode_feedback


class Coordinator:
    """Publishes feedback: once by `say`, and again and again of what was said last while it is entered."""

    def __init__(
        self, bootstrap: str, topic: str, name: str = "test-store", heartbeat_s: float = 0.5, epoch: int = 1
    ) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0, "message.timeout.ms": 5000}
        )
        self._topic, self._name, self._heartbeat_s, self._epoch = topic, name, heartbeat_s, epoch
        self._levels: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def say(self, levels: Mapping[int, str]) -> None:
        """Publish a level for each of these partitions, and return when the broker has it."""
        self._levels = {**self._levels, **levels}
        for partition, level in levels.items():
            self.send(encode_feedback(self.feedback(partition, level)), partition)
        assert self._producer.flush(10) == 0

    def feedback(self, partition: int, level: str, ts: float | None = None) -> Feedback:
        """What it would say."""
        return Feedback(
            coordinator_id=self._name,
            queue_size=5,
            capacity=10,
            level=Level(level),
            ts=time.time() if ts is None else ts,
            partition=partition,
            epoch=self._epoch,
        )

    def send(self, value: bytes | None, partition: int) -> None:
        """Publish anything."""
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException:
                return  # the topic is gone: nobody hears it

    def flush(self) -> None:
        """Return when the broker has all of it."""
        assert self._producer.flush(30) == 0

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            for partition, level in self._levels.items():
                self.send(encode_feedback(self.feedback(partition, level)), partition)
            self._producer.poll(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(5)
