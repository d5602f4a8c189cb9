"""``tidegate bars``: what the store holds."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from schemas.bar import Bar, encode_bar
from streams.bars.types import BarType
from streams.cli.bar_table import BarTable
from streams.cli.options import config_option, store_option
from streams.cli.output import emit
from streams.cli.times import Instant
from streams.settings import load_settings
from streams.store.base import BarQuery, open_store

CSV_COLUMNS = (
    "symbol",
    "type",
    "start_ns",
    "end_ns",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "turnover",
    "vwap",
    "trade_count",
    "buy_volume",
    "sell_volume",
    "revision",
    "final",
)


def _bar_type(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else BarType.parse(value).name
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command("bars")
@store_option
@click.option("--symbol", metavar="S", help="Only this symbol, as the feed writes it.")
@click.option("--venue", metavar="V", help="Only this venue.")
@click.option("--type", "bar_type", metavar="TYPE", callback=_bar_type, help="Only this type, such as 1m.")
@click.option("--from", "start_ns", type=Instant(), help="Starting at this time or later.")
@click.option("--to", "end_ns", type=Instant(), help="Starting before this time.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N of these, by start.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="json is one object a line, as on the bars topic.",
)
@config_option
def command(
    store: str | None, config: Path | None, style: str, start_ns: int | None, end_ns: int | None, **query: Any
) -> None:
    """Print bars from the store, ordered by symbol, type and start.

    A time is an ISO date or time, UTC where it names no zone, or ns since the epoch. The store is
    that of the settings where --store names none. A DuckDB file can be read while no worker has it
    open.

    \b
    Examples:
      tidegate bars --type 1m --last 20
      tidegate bars --symbol BTCUSDT --type 1h --from 2024-08-08 --to 2024-08-09
      tidegate bars --store postgresql://me@localhost/market --format csv > bars.csv
      tidegate bars --type 1m --format json | jq .vwap
    """
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise click.UsageError("--from must be before --to, which is exclusive")
    query["type"], query["newest"] = query.pop("bar_type"), query.pop("last")
    url = load_settings(config, store=store).store.get_secret_value()
    printer = {"table": BarTable, "csv": _csv_printer, "json": _json_printer}[style]()
    if not asyncio.run(_print(url, BarQuery(start_ns=start_ns, end_ns=end_ns, **query), printer)):
        click.echo("no bars match", err=True)


async def _print(url: str, query: BarQuery, printer: Callable[[list[Bar]], str]) -> int:
    store = open_store(url, read_only=True)
    count = 0
    try:
        await store.open()
        # Both stores read by a generator, which holds a cursor until it is closed.
        async with aclosing(store.read(query)) as batches:  # type: ignore[type-var]
            async for bars in batches:
                count += len(bars)
                emit(printer(bars))
        if not count:
            emit(printer([]))
    finally:
        await store.close()
    return count


def _csv_printer() -> Callable[[list[Bar]], str]:
    header: list[tuple[str, ...]] = [CSV_COLUMNS]

    def text(bars: list[Bar]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows(header)
        header.clear()
        writer.writerows(csv_row(bar) for bar in bars)
        return out.getvalue()

    return text


def csv_row(bar: Bar) -> list[str | int]:
    """The fields of `CSV_COLUMNS`; an absent vwap is empty."""
    values = [getattr(bar, name) for name in CSV_COLUMNS[:-1]]
    return ["" if value is None else value for value in values] + ["true" if bar.final else "false"]


def _json_printer() -> Callable[[list[Bar]], str]:
    return lambda bars: "".join(encode_bar(bar).decode() + "\n" for bar in bars)
