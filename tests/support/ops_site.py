"""Topics, a database behind a proxy and workers with an endpoint: what a test of operations looks at."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Producer

from schemas.feedback import Feedback, Level, encode_feedback
from support.bars import schema
from support.kafka import TestTopics
from support.probing import Probe
from support.proxy import Proxy
from support.workers import OWN_TOPICS, Group, Worker

SECOND = 10**9


class OpsSite:
    """One deployment of its own; its tick topic has 4 partitions and 1s bars."""

    def __init__(self, topics: TestTopics, store: str, folder: Path, proxy: Proxy | None = None) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            topics(name)
        self.topics, self.prefix, self.bootstrap = topics, topics.prefix, topics.bootstrap
        self.folder, self.store = folder, store
        self.database: Proxy | None = proxy
        self.group = f"{self.prefix}tidegate"
        self.ticks, self.bars = f"{self.prefix}ticks.v1", f"{self.prefix}bars.v1"
        self.bars_group = Group(self.bootstrap, f"{self.group}-bars")
        self.store_group = Group(self.bootstrap, f"{self.group}-store")
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 1, "log_level": 0})
        self.now = time.time_ns() // SECOND * SECOND - 3600 * SECOND
        self._ids = 0

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "broker": self.bootstrap,
            "topic_prefix": self.prefix,
            "group": self.group,
            "store": self.store,
            "http": "127.0.0.1:0",
            "heartbeat": "200ms",
            "checkpoint": "200ms",
            "session_timeout": "6s",
            "drain_timeout": "3s",
        } | more

    def config(self, name: str = "tidegate", **more: Any) -> Path:
        """A file of settings."""
        path = self.folder / f"{name}.toml"
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings(**more).items())
        path.write_text(
            f'{lines}[[ticks]]\ntopic = "{self.ticks}"\nbars = ["1s"]\ngrace = "1s"\nidle = "1h"\n'
            'late = "dead-letter"\nretain = "0s"\n'
        )
        return path

    def worker(self, name: str = "worker", roles: str = "bars,store", **more: Any) -> Worker:
        return Worker(self.folder, name, self.config(name, **more), "--roles", roles)

    def send(self, name: str, value: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
        self._producer.produce(self.prefix + name, value, key=key, partition=partition)
        assert self._producer.flush(10) == 0

    def tick(self, second: float, symbol: str = "A", partition: int = 0, trade_id: int | None = None) -> None:
        """A trade at so many seconds of the site's own time."""
        self._ids += 1
        tick = {
            "symbol": symbol,
            "ts_ns": self.now + int(second * SECOND),
            "price": "1",
            "size": "1",
            "trade_id": self._ids if trade_id is None else trade_id,
        }
        self.send("ticks.v1", json.dumps(tick).encode(), partition)

    def say(self, level: str, partition: int) -> None:
        """What a store says that is none of the workers'."""
        event = Feedback(
            coordinator_id="db:1",
            queue_size=41,
            capacity=48,
            level=Level(level),
            ts=time.time(),
            partition=partition,
            epoch=1,
        )
        self.send("feedback.v1", encode_feedback(event), partition)

    def probe(self, worker: Worker) -> Probe:
        return Probe(worker)


@contextmanager
def ops_site(topics: TestTopics, dsn: str, folder: Path) -> Iterator[OpsSite]:
    """With PostgreSQL, through a proxy."""
    url = urlsplit(dsn)
    with schema(dsn) as own, Proxy(url.hostname or "", url.port or 5432) as proxy:
        yield OpsSite(topics, own.replace(f":{url.port}/", f":{proxy.port}/"), folder, proxy)
