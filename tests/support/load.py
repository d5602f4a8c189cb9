"""A steady load of simulated ticks, and the bars that must come of it."""

from __future__ import annotations

import threading
import time
from typing import Self

from confluent_kafka import Producer

from schemas.trade import instrument
from streams.simulate import SimTick, SimulatedFeed
from support import oracle


class Load:
    """A steady producer of simulated ticks, in a thread; it knows what it sent."""

    def __init__(self, bootstrap: str, topic: str, ticks_per_s: int, instruments: int) -> None:
        self.sent: list[SimTick] = []
        self._topic = topic
        self._rate = ticks_per_s
        self._feed = SimulatedFeed(7, instruments, disorder_ns=500_000_000)
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "socket.timeout.ms": 15_000,  # so that what is measured is not how long it waits itself
                "log_level": 0,  # what is done to the broker is no news
                "enable.idempotence": True,  # a broker that goes makes no duplicates, and changes no order
            }
        )
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - started) * self._rate) - len(self.sent)
            for tick in self._feed.ticks(due, time.time_ns()):
                self._producer.produce(self._topic, tick.encode(), key=tick.key())
                self.sent.append(tick)
            self._producer.poll(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more; all that was sent is acknowledged."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(30) == 0

    def expected(self) -> dict[oracle.Key, oracle.Content]:
        """The 1s and 5s bars that must come of what was sent."""
        ticks = [oracle.Tick(instrument(t.venue, t.symbol), t.ts_ns, t.price, t.size) for t in self.sent]
        return oracle.bars_of(ticks, ("1s", "5s"))
