"""How long a worker takes to go on where another one ended, by the number of instruments.

    python -m tests.bench.recovery

A worker reads ticks of all instruments and is stopped; another takes its four partitions over. The time is the
worker's own: from the assignment until everything is restored and fetching begins, fencing included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.broker import bench_broker
from bench.contenders import Bench
from bench.feed import PARTITIONS
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker

SECOND = 10**9
MINUTE_S = 60


def main() -> None:
    """Measure, and print a line for each number of instruments."""
    options = _options()
    figures = []
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        bench = Bench(broker.address, Path(folder))
        for instruments in options.instruments:
            figures.append(_measure(bench, instruments, options.ticks, options.runs))
            if not options.json:
                _show(figures[-1], head=len(figures) == 1)
    if options.json:
        print(json.dumps(figures, indent=2))


def _measure(bench: Bench, instruments: int, ticks: int, runs: int) -> dict[str, Any]:
    with bench.topics("ticks", *OWN_TOPICS) as topics:
        ticks_topic, group = f"{topics.prefix}ticks", topics.prefix.rstrip(".")
        sent = _prefill(bench.bootstrap, ticks_topic, instruments, ticks)
        config = bench.folder / "recovery.toml"
        config.write_text(
            f'broker = "{bench.bootstrap}"\ngroup = "{group}"\ntopic_prefix = "{topics.prefix}"\n'
            f'drain_timeout = "120s"\n[[ticks]]\ntopic = "{ticks_topic}"\nbars = ["1s", "1m"]\n'
        )
        committed = Group(bench.bootstrap, f"{group}-bars").committed
        with Worker(bench.folder, "first", config, "--roles", "bars") as worker:
            until(lambda: sum(committed(ticks_topic, PARTITIONS)) == sent, 600, "all is read", 0.2)
            worker.stop(150)
        taken_over = [_take_over(bench.folder, config, run) for run in range(runs)]
    return {
        "instruments": instruments,
        "rows": taken_over[0]["rows"],
        "bytes": taken_over[0]["bytes"],
        "seconds": sorted(event["fenced_s"] + event["read_s"] + event["restored_s"] for event in taken_over),
    }


def _take_over(folder: Path, config: Path, run: int) -> dict[str, Any]:
    with Worker(folder, f"next-{run}", config, "--roles", "bars") as worker:
        event: dict[str, Any] = until(lambda: worker.events("partitions.taken_over"), 300, "it goes on")[0]
        worker.stop(60)
        return event


def _prefill(bootstrap: str, topic: str, instruments: int, ticks: int) -> int:
    """`ticks` trades an instrument, spread over a minute, all in the past."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 500_000}
    )
    start_ns = (time.time_ns() // SECOND - 5 * MINUTE_S) * SECOND
    for n in range(ticks):
        ts_ns = start_ns + n * MINUTE_S * SECOND // ticks
        for instrument in range(instruments):
            value = (
                f'{{"symbol":"S{instrument}","ts_ns":{ts_ns + instrument},"recv_ns":{ts_ns + instrument},'
                f'"price":"61837.63","size":"0.021","trade_id":{n}}}'
            )
            while True:
                try:
                    producer.produce(topic, value, partition=instrument % PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError(f"{topic}: the broker did not take all ticks within 60 s")
    return instruments * ticks


def _show(figure: dict[str, Any], head: bool) -> None:
    if head:
        print(f"{'instruments':>11}  {'rows':>7}  {'MB':>6}  {'min s':>6}  {'median':>6}  {'max':>6}")
    low, middle, high = figure["seconds"][0], median(figure["seconds"]), figure["seconds"][-1]
    print(
        f"{figure['instruments']:>11,}  {figure['rows']:>7,}  {figure['bytes'] / 1e6:>6.1f}  "
        f"{low:>6.2f}  {middle:>6.2f}  {high:>6.2f}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--instruments", type=int, nargs="+", default=[1_000, 10_000, 50_000], help="(%(default)s)"
    )
    parser.add_argument("--ticks", type=int, default=20, help="of each instrument (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="times that it is taken over (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
