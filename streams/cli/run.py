"""``tidegate run``: files in, bars out, the whole loop in one process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import signal
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click
from pydantic import ValidationError

from schemas.codecs import FEEDS
from schemas.dead_letter import DeadLetter
from schemas.errors import ConfigError
from streams import logs
from streams.bars.types import Late, Record
from streams.cli.progress import FileProgress
from streams.cli.summary import print_summary
from streams.settings import TickTopic
from streams.sources import MAX_LINE_BYTES, Keyer, Source, guess_feed

if TYPE_CHECKING:
    from streams.loop import Loop

#: Refused and dead-lettered lines that are told one by one; the rest is counted.
TELL = 5

#: Nobody waits for single bars here, and every transaction has its price: the store waits until it has a whole
#: one, or until the input has ended.
LINGER_NS = 5 * 10**9


@click.command("run")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--feed", type=click.Choice(FEEDS), help="Shape of the lines.  [default: by the file's ending]")
@click.option("--venue", default="", help="Venue of the instruments, where the lines name none.")
@click.option(
    "--bars", "bar_types", default="1s,1m", show_default=True, help="Bar types: any of Ns, Nm, Nh, Nd."
)
@click.option("--grace", default="2s", show_default=True, help="How much later than others a tick may come.")
@click.option("--late", default="revise", show_default=True, type=click.Choice([late.value for late in Late]))
@click.option("--retain", default="5m", show_default=True, help="How long a closed bar can be revised.")
@click.option("--dedupe", default="6m", show_default=True, help="How long a trade id is remembered, or off.")
@click.option(
    "--max-future", default="10s", show_default=True, help="How far ahead of its receipt a tick may be."
)
@click.option(
    "--store",
    default="duckdb:tidegate.duckdb",
    show_default=True,
    metavar="URL",
    help="duckdb:PATH or postgresql://USER@HOST/DB.",
)
@click.option(
    "--broker",
    default="embedded",
    show_default=True,
    metavar="HOST:PORT",
    help="embedded, or bootstrap servers.",
)
@click.option(
    "--dead-letters",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write refused ticks here as JSON lines, with their bytes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--log-level", default="WARNING", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.pass_obj
def command(roles: Any, /, **options: Any) -> None:
    """Read files of ticks, publish them to topics of this run, build bars, store them.

    SOURCE is a CSV file (symbol,ts_ns,recv_ns,price,size,trade_id,side,cond) or a file with one
    message a line, plain or gzip; - is standard input. Exits with 0 only if every tick is accounted
    for: in a bar, dead-lettered, a duplicate, or dropped by the policy that --late names.

    \b
    Examples:
      tidegate run trades.csv.gz
      tidegate run btc.jsonl.gz eth.jsonl.gz --feed binance --venue BINANCE --bars 1s,1m,1h
      zcat trades.csv.gz | tidegate run - --feed csv --store postgresql://me@localhost/market --json
      tidegate run trades.csv --broker 127.0.0.1:9092
    """
    logs.configure(options["log_level"])
    sources = [Source(name) for name in options["sources"]]
    feed = options["feed"] or guess_feed(list(options["sources"]))
    tick = _tick_topic(feed, options)
    try:
        summary = asyncio.run(_run(roles(), sources, tick, options))
    except asyncio.CancelledError:  # SIGTERM
        raise KeyboardInterrupt from None
    print_summary(summary, as_json=options["as_json"])
    if not summary["accounted"]:
        raise click.exceptions.Exit(1)


def _tick_topic(feed: str, options: dict[str, Any]) -> TickTopic:
    try:
        return TickTopic(
            feed=feed,
            venue=options["venue"],
            bars=tuple(name.strip() for name in options["bar_types"].split(",") if name.strip()),
            grace=options["grace"],
            late=options["late"],
            retain=options["retain"],
            dedupe=options["dedupe"],
            max_future=options["max_future"],
            # The end of the input closes what is open; until then nothing is published early.
            idle=366 * 86400 * 10**9,
            source=_source_label(options["sources"]),
        )
    except ValidationError as exc:
        first = exc.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else "bars"
        raise ConfigError(
            f"--{where.replace('_', '-')}: {str(first['msg']).removeprefix('Value error, ')}"
        ) from None


def _source_label(names: tuple[str, ...]) -> str:
    """The source that bars name: the same for the same content, so that a second run changes nothing.

    Of an edited file the store refuses the bars that it holds already, rather than mix the two.
    """
    if "-" in names:
        return f"run:stdin#{time.time_ns()}"
    digest = hashlib.sha256()
    for name in names:
        with Path(name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    more = f"+{len(names) - 1}" if names[1:] else ""
    return f"run:{Path(names[0]).name}{more}#{digest.hexdigest()[:16]}"


async def _run(roles: Any, sources: list[Source], tick: TickTopic, options: dict[str, Any]) -> dict[str, Any]:
    from streams.loop import whole_loop  # with Faust, which a mistake on the command line does not wait for
    from streams.runtime import GC_THRESHOLD

    gc.set_threshold(GC_THRESHOLD)
    # As asyncio has it for SIGINT: what is open is closed, and the topics of this run are deleted.
    body = cast("asyncio.Task[Any]", asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, body.cancel)
    with contextlib.ExitStack() as stack:
        refused = _Refused(stack, options["dead_letters"])
        progress = stack.enter_context(FileProgress(sources, "ticks"))
        async with whole_loop(
            roles, tick, broker=options["broker"], store_url=options["store"], write_linger=LINGER_NS
        ) as loop:
            loop.bars.pipeline.on_dead_letter = refused.dead_letter
            await _publish(loop, sources, Keyer(tick.feed, tick.venue), refused, progress)
            await loop.finish(lambda: progress.update(loop.applied, "storing"))
            seconds = time.monotonic() - loop.started
        if loop.store.writer.dead_lettered:
            click.echo(
                f"{loop.store.writer.dead_lettered:,} bars were refused by the store: it holds them from another "
                "source, such as an earlier version of the file; name another one with --store",
                err=True,
            )
        return summarise(loop, refused.lines, seconds)


async def _publish(
    loop: Loop, sources: list[Source], keyer: Keyer, refused: _Refused, progress: FileProgress
) -> None:
    from streams.pipeline import SOURCE_HEADER

    for source in sources:
        for line in source.lines():
            if line.value is None:
                refused.too_long(line.file, line.number, line.size)
            elif not keyer.is_header(line):
                key, problem = keyer.key(line.value)
                headers = [(SOURCE_HEADER, f"{line.file}:{line.number}".encode())] if problem else None
                await loop.publish(line.value, key, headers)
            if not loop.published % 1000:
                progress.update(loop.applied)
                await asyncio.sleep(0)


class _Refused:
    """Tells of refused lines and dead letters: the first few on standard error, all to a file if asked."""

    def __init__(self, stack: contextlib.ExitStack, path: Path | None) -> None:
        self.lines = 0
        self.letters = 0
        self._file: IO[str] | None = None
        if path is not None:
            try:
                self._file = stack.enter_context(path.open("w"))
            except OSError as exc:
                raise ConfigError(f"--dead-letters {path}: {exc.strerror}") from None

    def too_long(self, file: str, number: int, size: int) -> None:
        self.lines += 1
        self._tell(
            f"{file}:{number}: a line of {size:,} bytes; a record holds {MAX_LINE_BYTES:,}", self.lines
        )

    def dead_letter(self, record: Record, letter: DeadLetter) -> None:
        self.letters += 1
        where = letter.source or f"ticks[{letter.partition}]@{letter.offset}"
        self._tell(f"{where}: {letter.reason.value}: {letter.detail}", self.letters)
        if self._file is not None:
            value = None if record.value is None else base64.b64encode(record.value).decode()
            key = None if record.key is None else record.key.decode("utf-8", "replace")
            fields = {name: getattr(letter, name) for name in letter.__struct_fields__}
            try:
                self._file.write(json.dumps({**fields, "key": key, "value_base64": value}) + "\n")
                self._file.flush()
            except OSError as exc:
                with contextlib.suppress(OSError):  # it would be written again at the end
                    self._file.close()
                raise ConfigError(f"--dead-letters {self._file.name}: {exc.strerror}") from None

    def _tell(self, text: str, count: int) -> None:
        if count <= TELL:
            click.echo(f"refused {text}", err=True)
        elif count == TELL + 1:
            click.echo("refused more; --dead-letters FILE keeps all of them", err=True)


def summarise(loop: Loop, refused_lines: int, seconds: float) -> dict[str, Any]:
    counts = loop.bars.pipeline.counts
    writer = loop.store.writer
    balanced = counts.ticks == counts.accepted + counts.dead_lettered + counts.duplicates + counts.dropped
    return {
        "ticks_read": counts.ticks,
        "ticks_accepted": counts.accepted,
        "dead_lettered": counts.dead_lettered,
        "late": counts.late,
        "duplicates": counts.duplicates,
        "dropped": counts.dropped,
        "ignored": counts.ignored,
        "refused_lines": refused_lines,
        "bars": loop.stored(),
        "bars_refused": writer.dead_lettered,
        "pauses": loop.bars.throttle.pauses,
        "seconds": round(seconds, 3),
        "ticks_per_second": round(counts.ticks / seconds) if seconds else 0,
        "accounted": balanced and not refused_lines and not writer.dead_lettered,
    }
