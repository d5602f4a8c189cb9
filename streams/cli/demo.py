"""``tidegate demo``: a simulated feed through the whole loop, live in the terminal."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.bar import Bar
from schemas.trade import instrument
from streams import logs
from streams.cli.demo_view import View
from streams.cli.run import summarise
from streams.cli.summary import print_summary
from streams.settings import TickTopic
from streams.simulate import SimTick, SimulatedFeed
from streams.store.base import BarQuery, open_store
from streams.store.slow import SlowStore

if TYPE_CHECKING:
    from streams.loop import Loop

BARS = ("1s", "5s")
STEP_S = 0.05

#: With --slow-store: the queue of the store and what it takes while it is slow, per instrument, and
#: for which part of the demo it is slow. Every second closes 1.2 bars of an instrument.
QUEUE_BARS = 4
SLOW_BARS_PER_S = 0.3
SLOW_FROM, SLOW_UNTIL = 0.1, 0.65


@click.command("demo")
@click.option(
    "--seconds", type=click.FloatRange(2, 3600), help="How long.  [default: 15, and 30 with --slow-store]"
)
@click.option("--slow-store", is_flag=True, help="Make the store slow for a while, and see what happens.")
@click.option(
    "--rate", default=2000, show_default=True, type=click.IntRange(1, 50_000), help="Ticks per second."
)
@click.option("--instruments", default=12, show_default=True, type=click.IntRange(1, 500))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same prices.")
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as one JSON object.")
@click.pass_obj
def command(roles: Any, /, **options: Any) -> None:
    """Run a simulated feed of several instruments through broker, bars, store and feedback.

    Everything is real but the feed: Kafka's protocol (an embedded broker), DuckDB in a temporary
    file, and the agents that a worker runs. At the end the bars in the store are compared with an
    independent computation from what was sent.

    \b
    Examples:
      tidegate demo
      tidegate demo --slow-store
      tidegate demo --seconds 60 --rate 20000 --json
    """
    logs.configure("ERROR")
    options["seconds"] = options["seconds"] or (30.0 if options["slow_store"] else 15.0)
    summary = asyncio.run(_demo(roles(), options))
    if not options["as_json"]:
        click.echo()
    print_summary(summary, as_json=options["as_json"])
    if not options["as_json"]:
        click.echo(
            f"{summary['bars_equal']:,} of {summary['bars_expected']:,} bars equal an independent computation"
        )
    if not summary["accounted"] or summary["bars_equal"] != summary["bars_expected"]:
        raise click.exceptions.Exit(1)


async def _demo(roles: Any, options: dict[str, Any]) -> dict[str, Any]:
    from streams.loop import whole_loop  # loads Faust, as --help need not

    tick = TickTopic(bars=BARS, idle=366 * 86400 * 10**9)
    feed = SimulatedFeed(options["seed"], options["instruments"], disorder_ns=5 * 10**8, duplicates=0.01)
    sent: list[SimTick] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-demo-") as folder:
        url = f"duckdb:{Path(folder) / 'bars.duckdb'}"
        store = SlowStore(open_store(url), None)
        capacity = QUEUE_BARS * options["instruments"]
        overrides = {"queue_capacity": capacity, "write_batch": 5} if options["slow_store"] else {}
        async with whole_loop(roles, tick, broker=None, store_url=url, store=store, **overrides) as loop:
            view = View(loop, options["as_json"])
            loop.store.writer.on_written = view.wrap(loop.store.writer.on_written)
            with view:
                await _feed(loop, feed, sent, store, view, options)
                store.bars_per_second = None
                await loop.finish(view.update)
                view.update(force=True)
            seconds = time.monotonic() - loop.started
            stored = [bar async for bars in store.read(BarQuery()) for bar in bars]
        expected = _recompute(sent)
        equal = sum(_content(bar) == expected.get((bar.instrument, bar.type, bar.start_ns)) for bar in stored)
        return {
            **summarise(loop, 0, seconds),
            "bars_expected": len(expected),
            "bars_equal": equal if len(stored) == len(expected) else min(equal, len(expected) - 1),
        }


async def _feed(
    loop: Loop,
    feed: SimulatedFeed,
    sent: list[SimTick],
    store: SlowStore,
    view: View,
    options: dict[str, Any],
) -> None:
    seconds, rate = options["seconds"], options["rate"]
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds:
        slow = options["slow_store"] and SLOW_FROM <= elapsed / seconds < SLOW_UNTIL
        store.bars_per_second = SLOW_BARS_PER_S * options["instruments"] if slow else None
        view.note = "the store is slow" if slow else ""
        for one in feed.ticks(max(0, int(elapsed * rate) - len(sent)), time.time_ns()):
            sent.append(one)
            await loop.publish(one.encode(), instrument(one.venue, one.symbol).encode())
        view.update()
        await asyncio.sleep(STEP_S)


def _content(bar: Bar) -> tuple[Any, ...]:
    return (*map(Decimal, (bar.open, bar.high, bar.low, bar.close, bar.volume)), bar.trade_count)


def _recompute(sent: list[SimTick]) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    """The bars by the plainest computation there is: sort, group, Decimal; nothing of the engine in it."""
    seen: set[tuple[str, str, Any]] = set()
    windows: defaultdict[tuple[str, str, int], list[tuple[Decimal, Decimal]]] = defaultdict(list)
    for one in sorted(sent, key=lambda t: t.ts_ns):  # stable: inside one timestamp, the order of sending
        identity = (one.venue, one.symbol, one.trade_id)
        if one.trade_id is not None and identity in seen:
            continue
        seen.add(identity)
        for name in BARS:
            step = int(name[:-1]) * 10**9
            key = (instrument(one.venue, one.symbol), name, one.ts_ns // step * step)
            windows[key].append((Decimal(one.price), Decimal(one.size)))
    return {
        key: (
            trades[0][0],
            max(p for p, _ in trades),
            min(p for p, _ in trades),
            trades[-1][0],
            sum((s for _, s in trades), Decimal(0)),
            len(trades),
        )
        for key, trades in windows.items()
    }
