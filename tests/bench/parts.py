"""Where a microsecond goes: the parts of a bars worker's work on a tick, one after the other in one thread.

    python -m tests.bench.parts

CPU time in microseconds a tick, of 1s and 1m bars of 500 instruments: parsing fetched bytes to records, reading the
records as trades and folding them (which a worker does in a thread of its own for large batches), judging and
closing windows, the bytes of bars, and those of state rows at a checkpoint. In batches as a worker gets them when
it catches up, and in small ones, as it gets them when it has. What is not in it: socket, event loop and Faust,
and librdkafka; the difference to the CPU time in the table of `python -m tests.bench` is theirs, and that of two
threads that share caches and one interpreter.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.pure import EPOCH_NS, engine, market, packed, records, spec, unpacked
from schemas.bar import bar_key, encode_bar

BATCHES = (7_500, 100)
PARTS = ("parse", "read", "apply", "bars", "state")

#: Ticks between two checkpoints: what a second brings.
CHECKPOINT = 200_000


def measure(fetched: list[bytes], size: int) -> dict[str, float]:
    """Microseconds a tick, by part; the first quarter warms up."""
    made = engine(spec("1s", "1m"))
    spent = dict.fromkeys(PARTS, 0.0)
    counted, since = 0, 0
    clock = time.thread_time
    for number, data in enumerate(fetched):
        if number == len(fetched) // 4:
            spent, counted = dict.fromkeys(PARTS, 0.0), 0
        times = [clock()]
        batch = unpacked(data)
        times.append(clock())
        intake = made.read(batch)
        times.append(clock())
        bars = made.apply(batch, EPOCH_NS, intake).bars
        times.append(clock())
        for bar in bars:
            bar_key(bar)
            encode_bar(bar)
        times.append(clock())
        counted, since = counted + size, since + size
        if since >= CHECKPOINT:
            since = 0
            made.changed()
        times.append(clock())
        for part, start, end in zip(PARTS, times, times[1:], strict=False):
            spent[part] += end - start
    return {part: seconds / counted * 1e6 for part, seconds in spent.items()}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=600_000, help="in each run (%(default)s)")
    parser.add_argument("--rate", type=int, default=10_000, help="ticks a second of event time (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="the median of so many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    gc.disable()  # a worker has it look seldom
    ticks = records(market(options.ticks, options.rate, 500, 100_000_000))
    figures = {}
    for size in BATCHES:
        fetched = packed(ticks, size)
        runs = [measure(fetched, size) for _ in range(options.runs)]
        figures[size] = {part: round(median(run[part] for run in runs), 3) for part in PARTS}
        gc.collect()
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'batches of':>10}" + "".join(f"{part:>9}" for part in PARTS) + f"{'total':>9}  µs/tick")
    for size, parts in figures.items():
        print(
            f"{size:>10,}"
            + "".join(f"{parts[part]:>9.2f}" for part in PARTS)
            + f"{sum(parts.values()):>9.2f}"
        )


if __name__ == "__main__":
    main()
