"""What a tick costs by the shape of the work, and what is kept of it: the pure path, one process, no Kafka.

    python -m tests.bench.shape

CPU time of codec and engine, bars and state rows encoded, in microseconds a tick: by the number of instruments, of
windows that are open at a time (the ticks of a feed are as far out of order as the grace allows), and of bar types.
All feeds have the same number of ticks after a first one of each instrument, and the second half of each is
measured, in batches as a worker gets them and in small ones, with a checkpoint as often as a busy worker makes one.
A bar costs as much as several ticks, and more instruments make more bars: hence the last column, and a second table
by instruments, of markets that are as much slower or busier as makes about the same number of bars. What the first
tick of an instrument costs, once, is told apart.

Memory is what `tracemalloc` counts for the engine alone: the same feed with and without the thing that is priced,
divided by how many of them are kept.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.pure import EPOCH_NS, PureRecord, batches, engine, market, records, spec, take
from streams.bars.engine import BarEngine
from streams.bars.types import BarSpec, Late
from streams.runtime import GC_THRESHOLD
from streams.simulate import SimTick, symbols

SECOND = 10**9
BATCHES = (7_500, 100)
INSTRUMENTS = (10, 500, 5_000, 50_000)
OPEN_S = (1, 10, 60)

#: Ticks a second at which so many instruments make about 160 bars of 1,000 ticks.
EQUAL_BARS = {10: 60, 500: 1_900, 5_000: 12_000, 50_000: 125_000}
#: Ticks from one checkpoint to the next, and to the first one.
CHECKPOINT = 100_000

FIVE = ("1s", "1m", "5m", "1h", "1d")
PER_SECOND = 10_000


class Shape(NamedTuple):
    """A feed and what is made of it."""

    table: str
    name: str
    spec: BarSpec
    instruments: int = 500
    disorder_ns: int = 100_000_000
    per_second: int = PER_SECOND


class Cost(NamedTuple):
    """CPU time, microseconds a tick."""

    table: str
    name: str
    batch: int
    low: float
    median: float
    high: float
    bars_per_1000: int


class Size(NamedTuple):
    """Memory of one thing that is kept."""

    name: str
    kept: int
    bytes: float


def shapes() -> list[Shape]:
    """All that is measured for time."""
    return [
        *(Shape("instruments", f"{n:,}", spec("1s", "1m"), instruments=n) for n in INSTRUMENTS),
        *(
            Shape("instruments, equal", f"{n:,}", spec("1s", "1m"), instruments=n, per_second=rate)
            for n, rate in EQUAL_BARS.items()
        ),
        *(
            Shape(
                "open windows",
                f"grace {n}s",
                spec("1s", "1m", grace_ns=n * SECOND),
                disorder_ns=n * SECOND,
            )
            for n in OPEN_S
        ),
        Shape("bar types", "1m", spec("1m")),
        Shape("bar types", ", ".join(FIVE), spec(*FIVE)),
    ]


def shape_costs(shape: Shape, ticks: int, runs: int) -> list[Cost]:
    """In batches of each size."""
    gc.set_threshold(GC_THRESHOLD)  # as in a worker
    feed = records(
        chain(
            firsts(shape.instruments), market(ticks, shape.per_second, shape.instruments, shape.disorder_ns)
        )
    )
    return [cost(shape, feed, len(feed) - ticks // 2, batch, runs) for batch in BATCHES]


def firsts(instruments: int) -> list[SimTick]:
    """A tick of each instrument, a minute before all others."""
    ts_ns = EPOCH_NS - 60 * SECOND
    return [SimTick(symbol, "BENCH", ts_ns, "61837.63", "0.021", 0, "buy") for symbol in symbols(instruments)]


def cost(shape: Shape, feed: list[PureRecord], begin: int, batch: int, runs: int) -> Cost:
    """A feed from that tick on, some times over."""
    took, bars, measured = [], 0, len(feed) - begin
    for _ in range(runs):
        made = engine(shape.spec)
        follow(made, batches(feed[:begin], max(BATCHES)))
        made.changed()
        gc.collect()
        parts = batches(feed[begin:], batch)
        started = time.process_time()
        bars = follow(made, parts)
        took.append((time.process_time() - started) / measured * 1e6)
    return Cost(
        shape.table, shape.name, batch, min(took), median(took), max(took), round(bars / measured * 1000)
    )


def follow(made: BarEngine, parts: Sequence[Sequence[Any]]) -> int:
    """Apply batches, with a checkpoint now and then; the number of bars."""
    bars = since = 0
    for part in parts:
        bars += take(made, part)
        since += len(part)
        if since >= CHECKPOINT:
            since = 0
            made.changed()
    return bars


def first_costs(instruments: int, runs: int) -> list[float]:
    """The first tick of each of so many instruments and the checkpoint after, CPU time in microseconds a tick."""
    gc.set_threshold(GC_THRESHOLD)
    feed, took = records(firsts(instruments)), []
    for _ in range(runs):
        made, parts = engine(spec("1s", "1m")), batches(feed, max(BATCHES))
        gc.collect()
        started = time.process_time()
        follow(made, parts)
        made.changed()
        took.append((time.process_time() - started) / instruments * 1e6)
    return sorted(took)


def sizes() -> list[Size]:
    """An open bar, a closed one that can be revised, and a trade id that is remembered."""
    # Neither is made of the other; and many, because the table of open bars doubles when it is full.
    many = 10_000
    two, three = spec("2d", "3d", dedupe_ns=None), spec("3d", dedupe_ns=None)
    open_ticks = _each(many, lambda n: 0, 1)
    open_bar = _grown(two, open_ticks) - _grown(three, open_ticks)

    instruments = 1_000
    one = spec("1d", dedupe_ns=None)
    closing = _each(instruments, lambda n: n * SECOND, 60)
    retaining = spec("1s", dedupe_ns=None)
    closed = _grown(retaining, closing) - _grown(replace(retaining, late=Late.DROP), closing)
    # Of 60 seconds, three are within the grace of two and open in both.
    kept = instruments * 57

    # More than the log has room for before it grows, or ids are entered in books.
    each = 200
    ids = _each(instruments, lambda n: n, each)
    remembered = _grown(spec("1d"), ids) - _grown(one, ids)
    return [
        Size("an open bar", many, open_bar / many),
        Size("a closed bar that can be revised", kept, closed / kept),
        Size("a trade id", instruments * each, remembered / (instruments * each)),
    ]


def _each(instruments: int, at_ns: Callable[[int], int], ticks: int) -> list[PureRecord]:
    """`ticks` of each instrument, the n-th `at_ns(n)` after the beginning; ids as venues give them."""
    return records(
        SimTick(f"S{i}", "BENCH", EPOCH_NS + at_ns(n), "61837.63", "0.021", 3_735_683_259 + n, "buy")
        for n in range(ticks)
        for i in range(instruments)
    )


def _grown(settings: BarSpec, feed: Sequence[PureRecord]) -> int:
    """Bytes that an engine holds after a feed."""
    take(engine(settings), list(feed))  # what is made once, such as memos, is there before
    parts = batches(feed, max(BATCHES))
    gc.collect()
    tracemalloc.start()
    try:
        made = engine(settings)
        for part in parts:
            take(made, part)
        made.changed()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def main() -> None:
    """Measure, and print the tables."""
    options = _options()
    costs: list[Cost] = []
    # Each in a process of its own: what one leaves behind would slow the next.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for shape in shapes():
            for row in pool.submit(shape_costs, shape, options.ticks, options.runs).result():
                costs.append(row)
                if not options.json:
                    _show(costs)
        first = pool.submit(first_costs, max(INSTRUMENTS), options.runs).result()
    memory = sizes()
    ratio = _ratio(costs)
    if options.json:
        figures = {
            "cpu_us_per_tick": [row._asdict() for row in costs],
            "first_tick_us": [round(one, 2) for one in first],
            "bytes": [size._asdict() for size in memory],
            "five_bar_types_to_one": round(ratio, 2),
        }
        print(json.dumps(figures, indent=2))
        return
    print(f"\nthe first tick of an instrument costs {median(first):.1f} µs, its place in the state included")
    print(
        f"\nfive bar types cost {ratio:.2f} times one here; of a whole worker: python -m tests.bench.bar_types"
    )
    print(f"\n{'kept':<33}{'of them':>8}  {'bytes':>6}")
    for size in memory:
        print(f"{size.name:<33}{size.kept:>8,}  {size.bytes:>6,.0f}")


def _ratio(costs: list[Cost]) -> float:
    """Five bar types to one, in a worker's batches."""
    one, five = (row.median for row in costs if row.table == "bar types" and row.batch == max(BATCHES))
    return five / one


def _show(costs: list[Cost]) -> None:
    row = costs[-1]
    if len(costs) == 1 or costs[-2].table != row.table:
        print(
            f"\n{row.table:<20}{'batch':>6}  {'min':>6}  {'median':>6}  {'max':>6} µs/tick  {'bars/1000 ticks':>15}"
        )
    print(
        f"{row.name:<20}{row.batch:>6,}  {row.low:>6.2f}  {row.median:>6.2f}  {row.high:>6.2f}          "
        f"{row.bars_per_1000:>15}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.shape",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ticks", type=int, default=400_000, help="of each feed (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each line (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
