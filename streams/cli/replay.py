"""``tidegate replay``: files into a ticks topic that exists."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from schemas.codecs import FEEDS
from schemas.errors import ConfigError, TidegateError
from schemas.trade import instrument
from streams.cli.account import print_account, rates, tell
from streams.cli.options import broker_option, config_option
from streams.cli.progress import FileProgress
from streams.cli.stopping import Stop
from streams.pace import Pace, by_event_time
from streams.settings import Settings, TickTopic, load_settings
from streams.sources import MAX_LINE_BYTES, Keyer, Line, Source, guess_feed

if TYPE_CHECKING:
    from streams.cli.publishing import Publisher

_ALIASES = {"jsonl": "tidegate"}
_SPEED = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)x?", re.ASCII)


class Speed(click.ParamType):
    """``10x``, or ``max`` (None)."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The multiple of the recorded pace; fails as a wrong command line."""
        if value is None or value == "max":
            return None
        match = _SPEED.fullmatch(value)
        if match is None or not float(match[1]):
            self.fail(
                f"{value!r} is no speed: write max, or a multiple of the recorded pace such as 10x",
                param,
                ctx,
            )
        return float(match[1])


@click.command("replay")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--topic", required=True, metavar="T", help="The topic, by its full name; it must exist.")
@click.option(
    "--feed",
    type=click.Choice(FEEDS),
    help="Shape of the lines.  [default: what the settings say of the topic, else by the file's ending]",
)
@click.option("--venue", help="Venue of the instruments.  [default: what the settings say of the topic]")
@click.option(
    "--speed",
    type=Speed(),
    default="max",
    show_default=True,
    metavar="10x|max",
    help="A multiple of the recorded pace, by event time, or as fast as it goes.",
)
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def command(
    sources: tuple[str, ...], config: Path | None, broker: str | None, as_json: bool, **options: Any
) -> None:
    """Publish files of ticks to a topic, line by line, as they are, keyed by instrument.

    SOURCE is a CSV file (symbol,ts_ns,recv_ns,price,size,trade_id,side,cond) or a file with one
    message a line, plain or gzip; - is standard input. Several files are published one after the
    other; with a speed, beside each other by event time. Records carry the current time as their
    timestamp, so that the topic's retention does not delete history on arrival.

    Interrupted, it waits for what was sent and says how much that was. Exits with 1 if a line or a
    record was refused, with 130 if interrupted.

    \b
    Examples:
      tidegate replay btc.jsonl.gz eth.jsonl.gz --topic md.ticks.v1
      tidegate replay trades.csv.gz --topic md.csv.v1 --feed csv --venue KRAKEN --speed 60x
      zcat day.jsonl.gz | head -1000 | tidegate replay - --topic md.ticks.v1 --json
    """
    settings = load_settings(config, broker=broker)
    replay = Replay([Source(name) for name in sources], settings, sources, **options)
    stop = Stop()
    with stop.on_signals():
        asyncio.run(replay.run(stop))
    print_account(replay.account(stop.requested), as_json=as_json)
    if replay.error is not None:
        raise replay.error
    if stop.requested:
        click.echo("tidegate: interrupted; what is counted above is published", err=True)
        raise click.exceptions.Exit(130)
    if replay.refused:
        raise click.exceptions.Exit(1)


class _Tick(NamedTuple):
    """A line, and what was read from it."""

    line: Line
    key: bytes | None
    ts_ns: int | None
    problem: str


class Replay:
    """The lines of some files on their way to a topic."""

    def __init__(
        self,
        sources: list[Source],
        settings: Settings,
        names: tuple[str, ...],
        *,
        topic: str,
        feed: str | None,
        venue: str | None,
        speed: float | None,
    ) -> None:
        configured = settings.plain_tick_topic(topic)
        self.error: TidegateError | None = None
        self.unreadable = 0
        self._read = 0
        self._sources = sources
        self._settings = settings
        self._topic = topic
        self._speed = speed
        self._publisher: Publisher | None = None
        if venue is None:
            venue = configured.venue if configured else ""
        self._keyer = Keyer(choose_feed(feed, list(names), configured), venue)

    @property
    def refused(self) -> int:
        """Lines and records that were refused."""
        return self._publisher.refused if self._publisher else 0

    async def run(self, stop: Stop) -> None:
        """Publish until the files end or a signal comes; what ends it early is kept in `error`."""
        from streams.cli.publishing import open_publisher  # loads the Kafka client, as --help need not

        self._publisher = publisher = await open_publisher(self._settings, self._topic)
        try:
            with FileProgress(self._sources, "lines") as progress:
                try:
                    await self._publish(publisher, stop, progress)
                except TidegateError as exc:  # a damaged file: what came before it counts
                    self.error = exc
                progress.update(self._read, "waiting for the broker")
                await publisher.settle()
        except TidegateError as exc:
            self.error = self.error or exc
        finally:
            await publisher.close()

    async def _publish(self, publisher: Publisher, stop: Stop, progress: FileProgress) -> None:
        from streams.pipeline import SOURCE_HEADER

        pace = Pace(self._speed) if self._speed is not None else None
        for tick in stop.reading(self._ticks()):
            line = tick.line
            self._read += 1
            origin = f"{line.file}:{line.number}"
            if line.value is None:
                publisher.refuse(
                    f"{origin}: a line of {line.size:,} bytes; a record holds {MAX_LINE_BYTES:,}"
                )
                continue
            if pace is not None and tick.ts_ns is not None:
                wait_s = pace.wait_s(tick.ts_ns, time.monotonic())
                if wait_s > 0:
                    progress.update(self._read)
                    await stop.sleep(wait_s)
                    if stop.requested:
                        self._read -= 1
                        return
            headers = None
            if tick.problem:
                self.unreadable += 1
                tell(f"no tick in {origin}: {tick.problem}", self.unreadable)
                headers = [(SOURCE_HEADER, origin.encode())]
            await publisher.publish(line.value, tick.key, origin, headers)
            if not self._read % 1000:
                progress.update(self._read)
                await asyncio.sleep(0)

    def _ticks(self) -> Iterator[_Tick]:
        files = [self._lines(source) for source in self._sources]
        if self._speed is None:
            return (tick for file in files for tick in file)
        return by_event_time(files, lambda tick: tick.ts_ns)

    def _lines(self, source: Source) -> Iterator[_Tick]:
        for line in source.lines():
            if line.value is None:
                yield _Tick(line, None, None, "")
            elif not self._keyer.is_header(line):
                trade, problem = self._keyer.first(line.value)
                if trade is None:
                    yield _Tick(line, None, None, problem)
                else:
                    yield _Tick(line, instrument(trade.venue, trade.symbol).encode(), trade.ts_ns, "")

    def account(self, interrupted: bool) -> dict[str, Any]:
        """What became of the lines; those without a tick are published too, and workers dead-letter them."""
        publisher = self._publisher
        published = publisher.published if publisher else 0
        return {
            "topic": self._topic,
            "lines_read": self._read,
            "published": published,
            "refused": self.refused,
            "without_a_tick": self.unreadable,
            **rates(published, publisher.seconds if publisher else 0.0),
            "interrupted": interrupted,
        }


def choose_feed(asked: str | None, names: list[str], configured: TickTopic | None) -> str:
    """The feed that was asked for, else the topic's, else the one of the files' endings.

    Raises ConfigError where the endings say that the topic's workers could read none of the lines.
    """
    guess = guess_feed(names)
    if asked is not None or configured is None:
        return asked or guess
    bare = [name.removesuffix(".gz").lower() for name in names]
    is_csv = guess == "csv"
    is_json = all(name.endswith((".jsonl", ".ndjson", ".json")) for name in bare)
    feed = _ALIASES.get(configured.feed, configured.feed)
    if (is_csv and feed != "csv") or (is_json and feed == "csv"):
        what = "CSV" if is_csv else "JSON"
        raise ConfigError(
            f"{configured.topic} carries the feed {configured.feed}, and the files are {what}",
            hint=f'publish them to a topic with feed = "{guess}" in tidegate.toml, or say --feed {guess} '
            "if its workers read that",
        )
    return configured.feed
