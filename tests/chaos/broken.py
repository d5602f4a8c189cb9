"""A worker that is broken on purpose: ``python tests/chaos/broken.py NAME worker --config FILE``.

Each function below takes one guarantee away, and makes the moment wider in which that shows. The product
has no switch for any of it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from faust.types import TP

import streams.app
from agents import app as composition
from agents.__main__ import main
from streams.bars.engine import BarEngine
from streams.lane import Lane
from streams.outlet import Unfenced
from streams.producer import BarrierProducer
from streams.transport import Consumer


def _on_bars_role(change: Callable[[composition.BarsRole, frozenset[str]], None]) -> None:
    """Apply a change to the bars role when it is composed; it is told the names of the tick topics."""
    compose = composition.bars_role

    def composed(settings: Any, **kwargs: Any) -> composition.BarsRole:
        role = compose(settings, **kwargs)
        change(role, frozenset(tick.topic for tick in settings.ticks))
        return role

    composition.bars_role = composed


def _start_at_committed(role: composition.BarsRole, ticks: frozenset[str]) -> None:
    role.app.transport.start_of = lambda tp: None


def offsets_first() -> None:
    """Offsets are committed before bars and state are acknowledged, and are what a new owner starts at."""
    apply, checkpoint = Lane.apply, Lane.checkpoint
    last: dict[int, float] = {}

    def applied(self: Lane, batch: Any, *others: Any) -> Any:
        output = apply(self, batch, *others)
        batch.ack()
        return output

    async def seldom(self: Lane) -> None:
        if time.monotonic() - last.setdefault(self.partition, time.monotonic()) > 6:
            last[self.partition] = time.monotonic()
            await checkpoint(self)

    Lane.apply, Lane.checkpoint = applied, seldom  # type: ignore[method-assign]
    _on_bars_role(_start_at_committed)


def no_offset_guard() -> None:
    """State is restored, and ticks that it contains are applied again."""
    restore = BarEngine.restore

    def forgetful(self: BarEngine, rows: Mapping[str, bytes]) -> None:
        restore(self, rows)
        self.position = -1

    BarEngine.restore = forgetful  # type: ignore[method-assign]
    streams.app.COMMIT_INTERVAL_S = 6.0
    _on_bars_role(_start_at_committed)


def stock_pause() -> None:
    """Partitions are paused as Faust does it: what was fetched of them is dropped, and the gap committed."""
    getmany = Consumer.getmany

    async def stock(self: Consumer, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        async for tp, message in getmany(self, timeout):
            if tp.topic in self.transport.batch_topics:
                await asyncio.sleep(0.03)
                if tp not in self._active_partitions:
                    message.value.ack()
                    continue
            yield tp, message

    def replace(role: composition.BarsRole, ticks: frozenset[str]) -> None:
        def sync() -> None:
            consumer, paused = role.app.consumer, role.valve.paused()
            for tp in [tp for tp in consumer.assignment() if tp.topic in ticks]:
                (consumer.pause_partitions if tp.partition in paused else consumer.resume_partitions)([tp])

        role.app.transport.allowance = lambda tp: None
        role.valve.on_change = sync

    Consumer.getmany = stock  # type: ignore[method-assign]
    _on_bars_role(replace)


def no_fence() -> None:
    """Bars and state are published by a plain producer, which an owner that was given up can go on to use."""

    class Plain(Unfenced):
        def __init__(self, config: Mapping[str, Any], *others: Any) -> None:
            self._plain = BarrierProducer(config)
            super().__init__(self._plain)

        async def close(self) -> None:
            await self._plain.close()

    class Sleeper:
        """Notices that the process was stopped, and is dazed for a while after it."""

        def __init__(self) -> None:
            self._looked = self._until = time.monotonic()
            threading.Thread(target=self._watch, daemon=True).start()

        def _watch(self) -> None:
            while True:
                time.sleep(0.1)
                self.is_dazed()

        def is_dazed(self) -> bool:
            now = time.monotonic()
            if now - self._looked > 2:
                self._until = now + 5
            self._looked = now
            return now < self._until

    def hasty(role: composition.BarsRole, ticks: frozenset[str]) -> None:
        # Early bars are harmless but for who publishes them: they need not wait until all has been read, nor for
        # their second. An owner that wakes up may have been told that it is none before its clock strikes.
        pipeline = role.pipeline
        pipeline._caught_up = lambda tp, offset: True
        release = pipeline.release

        async def at_last() -> None:
            await pipeline.publish_idle()
            await pipeline.checkpoint()
            await release()

        pipeline.release = at_last  # type: ignore[method-assign]

        allowance, sleeper = role.app.transport.allowance, Sleeper()
        # Who wakes up and reads on at once may publish the right bars once more, over its own old ones.
        role.app.transport.allowance = lambda tp: 0 if sleeper.is_dazed() else allowance(tp)

    composition.FencedPair = Plain  # type: ignore[misc,assignment]
    _on_bars_role(hasty)


def nothing() -> None:
    """The control: the same load and the same faults find nothing."""


BROKEN: Mapping[str, Callable[[], None]] = {
    one.__name__: one for one in (offsets_first, no_offset_guard, stock_pause, no_fence, nothing)
}

if __name__ == "__main__":
    BROKEN[sys.argv.pop(1)]()
    main()
