"""How much slower a worker is that makes five bar types than one that makes 1m bars.

    python -m tests.bench.bar_types

Two workers read the same ticks of a topic of Apache Kafka in turns, each the whole path with its default settings.
A market of 10,000 ticks a second of event time has 21 ticks in a 1s bar: nearly all that is made are 1s bars.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench, tidegate
from bench.feed import INSTRUMENTS, prefill

ONE = ("1m",)
FIVE = ("1s", "1m", "5m", "1h", "1d")
TARGET = 2.0


def rates(ticks: int, per_second: int, runs: int) -> dict[Sequence[str], list[float]]:
    """Ticks a second of each lap."""
    found: dict[Sequence[str], list[float]] = {ONE: [], FIVE: []}
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        bench = Bench(broker.address, Path(folder))
        with bench.topics("ticks") as topics:
            filled = prefill(broker.address, f"{topics.prefix}ticks", ticks, per_second, INSTRUMENTS)
            for lap in range(runs):
                for bar_types, laps in found.items():
                    laps.append(tidegate(bench, filled, bar_types).rate)
                    line = f"{lap + 1}/{runs} {', '.join(bar_types)}: {laps[-1]:,.0f} ticks/s"
                    print(line, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bar_types",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ticks", type=int, default=3_000_000, help="to read in each lap (%(default)s)")
    parser.add_argument("--rate", type=int, default=10_000, help="ticks a second of event time (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="laps of each (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = rates(options.ticks, options.rate, options.runs)
    ratio = median(found[ONE]) / median(found[FIVE])
    if options.json:
        laps = {", ".join(bar_types): [round(rate) for rate in laps] for bar_types, laps in found.items()}
        print(json.dumps({"ticks_per_second": laps, "five_bar_types_to_one": round(ratio, 2)}, indent=2))
        return
    print(f"{'bar types':<20}{'min':>10}{'median':>10}{'max':>10} ticks/s")
    for bar_types, laps in found.items():
        figures = "".join(f"{figure:>10,.0f}" for figure in (min(laps), median(laps), max(laps)))
        print(f"{', '.join(bar_types):<20}{figures}")
    print(f"\nfive bar types take {ratio:.2f} times as long as one; target: at most {TARGET:g}")


if __name__ == "__main__":
    main()
