"""Ticks a second of one Tidegate bars worker, beside a stock Faust agent and raw clients.

    python -m tests.bench
    python -m tests.bench --peers       # and Quix Streams, Bytewax and Pathway

The whole path: consume, decode, build exact 1s and 1m bars, produce them (acks=all), with the state changelog
and dead letters on. Each contender reads topics that were filled before, in a process of its own whose start
is not timed. Bars are checked after each lap: if one is wrong, there are no figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from bench.bars import check_equal
from bench.broker import Broker, bench_broker
from bench.contenders import Bench, Lap, aiokafka, librdkafka, stock, tidegate
from bench.feed import INSTRUMENTS, Prefilled, prefill
from bench.peers.run import PEERS, Peer, PeerError, run_peer
from bench.report import Report, Result, write_markdown

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

Run = Callable[[Bench, Prefilled], Lap]


def main() -> None:
    """Measure, and print the table."""
    options = _options()
    with bench_broker() as broker, tempfile.TemporaryDirectory() as folder:
        bench = Bench(broker.address, Path(folder))
        reports = [_measure(bench, broker, options, per_second) for per_second in options.rate]
    if options.json:
        print(json.dumps([report.figures() for report in reports], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(report.text() for report in reports))
    if options.markdown:
        write_markdown(options.markdown, [report.markdown() for report in reports])


def _measure(bench: Bench, broker: Broker, options: argparse.Namespace, per_second: int) -> Report:
    busy = psutil.cpu_percent(1.0) / 100
    with bench.topics("ticks", "fewer.ticks") as topics:
        _say(f"{options.ticks:,} ticks for the fast, {options.stock_ticks:,} for the stock agent ...")
        market = per_second, options.instruments
        many = prefill(broker.address, f"{topics.prefix}ticks", options.ticks, *market)
        few = prefill(broker.address, f"{topics.prefix}fewer.ticks", options.stock_ticks, *market)
        contenders: list[tuple[Result, Run, Prefilled]] = [
            (Result("Tidegate bars worker", many.ticks), tidegate, many),
            (Result("stock Faust agent", few.ticks), stock, few),
            (Result("raw aiokafka", many.ticks), aiokafka, many),
            (Result("raw librdkafka", many.ticks), librdkafka, many),
        ]
        for lap in range(options.runs):
            for result, run, filled in contenders:
                result.laps.append(run(bench, filled))
                _say(f"{lap + 1}/{options.runs} {result.name}: {result.laps[-1].rate:,.0f} ticks/s")
        _say("the same ticks for Tidegate as for the stock agent ...")
        check_equal(tidegate(bench, few).bars, contenders[1][0].laps[-1].bars)
        report = Report(broker.description, many, [result for result, _, _ in contenders], busy)
    if options.peers:
        _measure_peers(bench, report, options, per_second)
    return report


def _measure_peers(bench: Bench, report: Report, options: argparse.Namespace, per_second: int) -> None:
    with bench.topics("peer.ticks") as topics:
        _say(f"{options.peer_ticks:,} ticks for the peers ...")
        market = per_second, options.instruments
        filled = prefill(bench.bootstrap, f"{topics.prefix}peer.ticks", options.peer_ticks, *market)
        results = {peer: Result(peer.name, filled.ticks) for peer in PEERS}
        failed: dict[Peer, str] = {}
        for lap in range(options.runs):
            for peer, result in results.items():
                if peer in failed:
                    continue
                try:
                    result.laps.append(run_peer(peer, bench, filled))
                    _say(f"{lap + 1}/{options.runs} {peer.name}: {result.laps[-1].rate:,.0f} ticks/s")
                except PeerError as error:
                    failed[peer] = str(error)
                    _say(f"{peer.name}: {error}")
    for peer, result in results.items():
        if peer in failed:
            report.notes.append(f"{peer.name}: no figure: {failed[peer]}")
        else:
            report.results.append(result)
            report.notes.append(f"{peer.name} ({', '.join(peer.requirements)}): {peer.differs}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=5, help="laps of each contender (%(default)s)")
    parser.add_argument("--ticks", type=int, default=2_000_000, help="ticks to read (%(default)s)")
    parser.add_argument("--stock-ticks", type=int, default=100_000, help="for the stock agent (%(default)s)")
    parser.add_argument(
        "--peers", action="store_true", help="other stream processors, too; installs them into a cache"
    )
    parser.add_argument("--peer-ticks", type=int, default=500_000, help="for each peer (%(default)s)")
    parser.add_argument(
        "--rate",
        type=int,
        nargs="+",
        default=[100_000, 10_000],
        help="how busy the market is: ticks a second of event time, which decides how many bars there are; "
        "several give a table each (%(default)s: a busy one, and the backlog of a quiet one)",
    )
    parser.add_argument(
        "--instruments", type=int, default=INSTRUMENTS, help="that the market has (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, a list of tables")
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=PAGE,
        help="write the tables into this page as well (docs/benchmarks.md)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
