"""Memory over an hour of load: the resident size of an engine after each ten minutes of event time.

    python -m tests.bench.hour

What is remembered is bounded by event time (trade ids for six minutes, closed bars for five), so an hour of the
market can be read as fast as it goes. Codec, engine, bars and state rows, one process, no Kafka.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from itertools import islice
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.pure import EPOCH_NS, SECOND, batches, engine, market, records, spec, take
from streams.runtime import GC_THRESHOLD

BATCH = 5_000
TEN_MINUTES_NS = 600 * SECOND


def main() -> None:
    """Measure, and print a line for every ten minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=1_000, help="ticks a second of event time (%(default)s)")
    parser.add_argument("--minutes", type=int, default=60, help="of event time (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    gc.set_threshold(GC_THRESHOLD)  # as in a worker
    made, process = engine(spec("1s", "1m")), psutil.Process()
    ticks = market(options.rate * 60 * options.minutes, options.rate, 500, 100_000_000)
    figures, taken, bars, next_ns = [], 0, 0, EPOCH_NS + TEN_MINUTES_NS
    began = time.monotonic()
    if not options.json:
        print("minutes       ticks      bars  resident MB")
    while batch := records(islice(ticks, BATCH)):
        for record in batch:
            record.offset += taken
        bars += sum([take(made, part) for part in batches(batch, BATCH)])
        taken += len(batch)
        if taken % (20 * BATCH) == 0:
            made.changed()
        if (batch[-1].timestamp - 1000) * 10**6 >= next_ns - SECOND:
            gc.collect()
            minutes = (next_ns - EPOCH_NS) // (60 * SECOND)
            figures.append((minutes, taken, bars, round(process.memory_info().rss / 1e6, 1)))
            next_ns += TEN_MINUTES_NS
            if not options.json:
                print(f"{minutes:>7}{taken:>12,}{bars:>10,}{figures[-1][3]:>13,.1f}", flush=True)
    if options.json:
        print(
            json.dumps([dict(zip(("minutes", "ticks", "bars", "mb"), row, strict=True)) for row in figures])
        )
    else:
        print(f"in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
