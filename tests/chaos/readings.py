"""What the topics and the store really hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from chaos.expected import Version, content_of
from schemas.bar import decode_bar
from support.oracle import Content, Key

PARTITIONS = 4


class Follower:
    """Reads a topic from its beginning to its end, as often as it is asked, and goes on where it was."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos",  # no group is joined: librdkafka only wants the name
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        self._next = dict.fromkeys(range(PARTITIONS), 0)

    def new(self, timeout_s: float = 60.0) -> Iterator[Message]:
        """What has come since the last time, up to the last stable offset."""
        self._consumer.assign([TopicPartition(self.topic, p, o) for p, o in self._next.items()])
        pending = set(self._next)
        deadline = time.monotonic() + timeout_s
        while pending:
            for message in self._consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    self._next[message.partition()] = message.offset() + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    pending.discard(message.partition())
                else:
                    raise RuntimeError(f"{self.topic}: {error}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.topic}{sorted(pending)} could not be read in {timeout_s:.0f} s")

    def span(self) -> int:
        """Offsets in use: records that are there, that compaction took, and marks of transactions."""
        return sum(
            self._consumer.get_watermark_offsets(TopicPartition(self.topic, p), timeout=10)[1]
            for p in range(PARTITIONS)
        )

    def close(self) -> None:
        self._consumer.close()


class BarsTopic:
    """The bars topic as a reader of committed records sees it; of each key the last record counts."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bars: dict[Key, Version] = {}
        self.records = 0
        self.repeated: list[str] = []
        """Versions of bars that came twice."""
        self._seen: set[tuple[Key, int, int, bool]] = set()
        self._follower = Follower(bootstrap, topic)

    def read(self) -> dict[Key, Version]:
        """Catch up."""
        for message in self._follower.new():
            self.records += 1
            bar = decode_bar(message.value())
            key = (bar.instrument, bar.type, bar.start_ns)
            assert message.key() == f"{bar.instrument}|{bar.type}|{bar.start_ns}".encode()
            identity = (key, bar.last_offset, bar.revision, bar.final)
            if identity in self._seen:
                self.repeated.append(
                    f"{message.topic()}[{message.partition()}]@{message.offset()} {identity}"
                )
            self._seen.add(identity)
            content = content_of(bar)
            self.bars[key] = Version(content, bar.last_offset, bar.revision, bar.final)
        return self.bars

    def span(self) -> int:
        return self._follower.span()

    def close(self) -> None:
        self._follower.close()


_COLUMNS = (
    "instrument, type, start_ns, open, high, low, close, volume, trade_count, last_offset, revision, final"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the store is."""

    bars: int
    newest_ns: tuple[int, ...]
    """Start of the newest 1s bar of each partition that has one."""


class StoreView:
    """The table, by plain SQL, past the proxies."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def bars(self) -> dict[Key, Version]:
        """All bars; empty while there is no table."""
        rows = self._query(f"SELECT {_COLUMNS} FROM bars") or []
        return {(r[0], r[1], r[2]): Version(Content(*r[3:9]), *r[9:12]) for r in rows}

    def progress(self, topic: str) -> Progress | None:
        """None while the database or the table is not there."""
        rows = self._query(
            "SELECT source_topic, source_partition, count(*), max(start_ns) FILTER (WHERE type = '1s') "
            "FROM bars GROUP BY 1, 2"
        )
        if rows is None:
            return None
        return Progress(sum(r[2] for r in rows), tuple(r[3] or 0 for r in rows if r[0] == topic))

    def _query(self, sql: str) -> list[Any] | None:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return asyncio.run(self._run(sql))
        return None

    async def _run(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self._dsn, timeout=5)
        try:
            return list(await connection.fetch(sql, timeout=30))
        finally:
            await connection.close(timeout=5)
