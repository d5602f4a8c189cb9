"""The load: a market with every flaw that feeds have, and a little garbage."""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Self

from confluent_kafka import Producer

from recorded import TICKS
from streams.simulate import SimulatedFeed

#: Event time is behind the clock, so that every window is over by the clock when the load stops: what is
#: still open is then published without waiting for the minute to end.
SHIFT_NS = 65 * 10**9
DISORDER_NS = 800_000_000
#: Shares of the ticks: held back beyond the grace, sent twice with a pause, sent twice in a row.
LATE, AGAIN, TWICE = 0.004, 0.002, 0.002
HELD_S = (2.0, 14.0)
GARBAGE_PER_S = 2.0
#: Of so many in a row all go to one partition: large batches of the others are read as columns meanwhile.
GARBAGE_RUN = 60
#: The header that says so; a worker does not look at it.
GARBAGE = "chaos-garbage"

Outgoing = tuple[str, bytes, bytes]


def _garbage(n: int) -> bytes:
    """A record that no tick is; `n` makes each another one."""
    tick = {"symbol": f"G{n}", "ts_ns": time.time_ns(), "price": "1", "size": "1"}
    return (
        f"garbage {n}".encode(),
        json.dumps({**tick, "price": "a lot"}).encode(),
        json.dumps({**tick, "size": "-1"}).encode(),
        json.dumps({**tick, "ts_ns": 17}).encode(),
        b"",
    )[n % 5]


def recordings() -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of recorded spot trades, two instruments side by side; none where there are no files."""
    folder = TICKS / "binance_ws_20240808"
    if not folder.exists():
        return
    streams = [
        [(f"SPOT:{symbol.upper()}".encode(), line) for day in (8, 9) for line in _lines(folder, symbol, day)]
        for symbol in ("btcusdt", "ethusdt")
    ]
    for pair in itertools.zip_longest(*streams):
        yield from filter(None, pair)


def _lines(folder: object, symbol: str, day: int) -> list[bytes]:
    with gzip.open(f"{folder}/spot_{symbol}_2024080{day}.trades.jsonl.gz") as file:
        return [line.rstrip(b"\n") for line in file]


class FlawedLoad:
    """Ticks at a steady rate from a thread, until it is stopped. The log holds all that it sent."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        recorded_topic: str,
        *,
        seed: int,
        ticks_per_s: int,
        recorded_per_s: int,
        instruments: int,
        duplicates: bool = True,
    ) -> None:
        #: Records by topic, garbage included.
        self.sent: dict[str, int] = {topic: 0, recorded_topic: 0}
        self.garbage = 0
        self.error: BaseException | None = None
        self._topics = (topic, recorded_topic)
        self._rates = (ticks_per_s, recorded_per_s)
        self._rng = random.Random(seed)
        self._feed = SimulatedFeed(seed, instruments, disorder_ns=DISORDER_NS, duplicates=TWICE * duplicates)
        self._again = AGAIN * duplicates
        self._recorded = recordings()
        self._held: list[tuple[float, int, Outgoing]] = []
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            started = time.monotonic()
            while not self._stop.wait(0.02):
                self._send_due(time.monotonic() - started)
            for _, _, held in sorted(self._held):
                self._send(held)
        except BaseException as exc:  # told by whoever waits for the load
            self.error = exc

    def _send_due(self, elapsed_s: float) -> None:
        (topic, recorded_topic), (rate, recorded_rate) = self._topics, self._rates
        due = int(elapsed_s * rate) - self.sent[topic]
        if due > 0:
            for tick in self._feed.ticks(due, time.time_ns() - SHIFT_NS):
                self._with_flaws((topic, tick.key(), tick.encode()))
        for key, line in itertools.islice(
            self._recorded, max(0, int(elapsed_s * recorded_rate) - self.sent[recorded_topic])
        ):
            self._with_flaws((recorded_topic, key, line), late=0.0)
        while self.garbage < elapsed_s * GARBAGE_PER_S:
            self.garbage += 1
            key = b"garbage %d" % (self.garbage // GARBAGE_RUN)
            self._send((topic, key, _garbage(self.garbage)), headers=[(GARBAGE, b"")])
        while self._held and self._held[0][0] <= time.monotonic():
            self._send(heapq.heappop(self._held)[2])
        self._producer.poll(0)

    def _with_flaws(self, out: Outgoing, late: float = LATE) -> None:
        dice = self._rng.random()
        if dice < late + self._again:
            due = time.monotonic() + self._rng.uniform(*HELD_S)
            heapq.heappush(self._held, (due, next(self._numbers), out))
        if dice >= late:
            self._send(out)

    def _send(self, out: Outgoing, headers: list[tuple[str, bytes]] | None = None) -> None:
        topic, key, value = out
        while True:
            try:
                self._producer.produce(topic, value, key=key, headers=headers)
                break
            except BufferError:
                self._producer.poll(0.1)
        self.sent[topic] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def stop(self) -> None:
        """Send what was held back, and no more; all of it is acknowledged."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        if left := self._producer.flush(60):
            raise TimeoutError(f"the broker did not take {left} ticks in 60 s: no fault is at work now")
