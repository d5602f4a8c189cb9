"""What the bars role does with batches, without a broker."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from faust.types import TP

from schemas.bar import Bar, decode_bar
from schemas.dead_letter import HEADER, decode_dead_letter
from streams.batch import Batch, Ledger
from streams.pipeline import SOURCE_HEADER, BarsPipeline
from streams.settings import TickTopic
from streams.topics import Topics

TICKS = TP("ticks", 0)
BASE = 1_723_161_240 * 10**9


class Record(NamedTuple):
    offset: int
    value: bytes
    headers: Any = ()
    key: bytes | None = None
    timestamp: int = BASE // 10**6


class Producer:
    """Keeps what was produced; everything is durable at once."""

    def __init__(self) -> None:
        self.out: list[tuple[str, bytes, Any]] = []

    def produce(self, topic: str, value: bytes, *, headers: Any = None, **where: Any) -> bool:
        self.out.append((topic, value, headers))
        return True

    async def barrier(self) -> None:
        """Nothing is under way."""

    def bars(self) -> list[Bar]:
        return [decode_bar(value) for topic, value, _ in self.out if topic == "md.bars.v1"]


def pipeline_of(producer: Producer, **options: Any) -> BarsPipeline:
    topic = TickTopic(topic="ticks", feed="csv", bars=("1m",))
    return BarsPipeline([topic], Topics(), producer, clock=lambda: BASE, **options)  # type: ignore[arg-type]


def batch(first: int, last: int) -> Batch:
    lines = {n: f"A,{BASE + n},,{10 + n},1,{n},buy,".encode() for n in range(first, last + 1)}
    return Ledger().deliver(TICKS, [Record(n, b"rubbish" if n == 3 else line) for n, line in lines.items()])


def test_without_state_what_comes_again_after_a_rebalance_counts_once() -> None:
    async def run() -> tuple[BarsPipeline, Producer]:
        pipeline = pipeline_of(producer := Producer(), keep_state=False)
        await pipeline.process(batch(0, 5))
        pipeline.revoke({TICKS})
        await pipeline.process(batch(2, 3))
        assert pipeline.position(TICKS) == 5
        await pipeline.process(batch(4, 9))
        await pipeline.close()
        return pipeline, producer

    pipeline, producer = asyncio.run(run())
    assert (pipeline.counts.ticks, pipeline.counts.accepted, pipeline.counts.dead_lettered) == (10, 9, 1)
    (bar,) = producer.bars()
    assert (bar.trade_count, bar.volume, bar.open, bar.close) == (9, "9", "10", "19")


def test_a_header_without_a_value_is_no_obstacle_to_a_dead_letter() -> None:
    async def run() -> Producer:
        pipeline = pipeline_of(producer := Producer())
        record = Record(0, b"rubbish", headers=[(SOURCE_HEADER, None), ("other", None)])
        await pipeline.process(Ledger().deliver(TICKS, [record]))
        return producer

    ((topic, value, headers),) = asyncio.run(run()).out
    assert (topic, value, len(headers)) == ("md.ticks.dlq.v1", b"rubbish", 3)
    assert decode_dead_letter(dict(headers)[HEADER]).source is None
