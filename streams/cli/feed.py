"""``tidegate feed``: a simulated feed into a ticks topic."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.checks import check_venue
from schemas.errors import BadTick, ConfigError, TidegateError
from streams.cli.account import print_account, rates
from streams.cli.options import broker_option, config_option
from streams.cli.stopping import Stop
from streams.durations import parse_duration
from streams.settings import Settings, load_settings
from streams.simulate import VENUE, SimulatedFeed

if TYPE_CHECKING:
    from streams.cli.obeying import Scales
    from streams.cli.publishing import Publisher

_STEP_S = 0.05
_SETTLE_S = 1.0
_MAX_RATE = 200_000
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(?:/s)?", re.ASCII)


class Rate(click.ParamType):
    """``500`` or ``500/s``."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Ticks per second; fails as a wrong command line."""
        match = _RATE.fullmatch(str(value))
        if match is None or not 0 < float(match[1]) <= _MAX_RATE:
            self.fail(
                f"{value!r} is no rate: write ticks per second, at most {_MAX_RATE:,}, as 500/s", param, ctx
            )
        return float(match[1])


class Lag(click.ParamType):
    """A duration of at most a second, in ns."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; fails as a wrong command line."""
        try:
            lag_ns = 0 if value == "0" else parse_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if lag_ns > 10**9:
            self.fail(f"{value!r} is more than a second", param, ctx)
        return lag_ns


@click.command("feed")
@click.option("--topic", required=True, metavar="T", help="The topic, by its full name; it must exist.")
@click.option(
    "--rate",
    type=Rate(),
    default="500/s",
    show_default=True,
    metavar="N/s",
    help="Ticks per second, all in all.",
)
@click.option("--instruments", default=8, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="How long.  [default: until stopped]"
)
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same prices.")
@click.option(
    "--venue", help=f"Venue of the instruments.  [default: the topic's in the settings, else {VENUE}]"
)
@click.option(
    "--disorder",
    type=Lag(),
    default="500ms",
    show_default=True,
    metavar="DURATION",
    help="How far behind later ticks some arrive; up to 1s.",
)
@click.option(
    "--duplicates",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of ticks that are sent twice.",
)
@click.option(
    "--obey",
    is_flag=True,
    help="Send each partition's ticks at the scale that the rate topic tells of it, not at full rate.",
)
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def command(config: Path | None, broker: str | None, as_json: bool, **options: Any) -> None:
    """Publish simulated ticks, in Tidegate's own JSON, with the current time as their event time.

    Many share a millisecond and some arrive out of order, as on a real venue. Runs until SIGTERM or
    Ctrl-C, then waits for what was sent and says how much that was. A broker that is away is waited
    for, up to a minute; what was not sent meanwhile is not made up for.

    With --obey it follows the rate topic of the workers (topic_prefix and group are those of the settings):
    of a partition at scale 0.5 every other tick is sent, of a paused one none. What is held back is
    counted, and is not sent later. Each change is told on standard error.

    \b
    Examples:
      tidegate feed --topic md.ticks.v1
      tidegate feed --topic md.ticks.v1 --rate 20000/s --instruments 200 --seconds 60 --json
      tidegate feed --topic md.ticks.v1 --duplicates 0.01 --disorder 1s
      tidegate feed --topic md.ticks.v1 --rate 2000/s --obey
    """
    settings = load_settings(config, broker=broker)
    venue = _venue(settings, options["topic"], options["venue"])
    feed = SimulatedFeed(
        options["seed"],
        options["instruments"],
        disorder_ns=options["disorder"],
        duplicates=options["duplicates"],
        venue=venue,
        # A feed that is started again must not repeat ids: its ticks would be taken for duplicates.
        first_id=time.time_ns() // 1000,
    )
    stop = Stop()
    with stop.on_signals():
        account, error = asyncio.run(
            _run(
                settings,
                options["topic"],
                feed,
                options["rate"],
                options["seconds"],
                stop,
                obey=options["obey"],
            )
        )
    print_account(account, as_json=as_json)
    if error is not None:
        raise error
    if account["refused"]:
        raise click.exceptions.Exit(1)


def _venue(settings: Settings, topic: str, asked: str | None) -> str:
    configured = settings.plain_tick_topic(topic)
    if configured is not None and configured.feed not in ("tidegate", "jsonl"):
        raise ConfigError(
            f"{topic} carries the feed {configured.feed}, and simulated ticks are Tidegate's own JSON",
            hint='name a topic with feed = "tidegate"',
        )
    venue = asked if asked is not None else (configured.venue if configured else "") or VENUE
    try:
        return check_venue(venue)
    except BadTick as exc:
        raise ConfigError(exc.detail) from None


async def _run(
    settings: Settings,
    topic: str,
    feed: SimulatedFeed,
    rate: float,
    seconds: float | None,
    stop: Stop,
    *,
    obey: bool,
) -> tuple[dict[str, Any], TidegateError | None]:
    from streams.cli.publishing import open_publisher  # loads the Kafka client, as --help need not

    publisher = await open_publisher(settings, topic)
    error: TidegateError | None = None
    scales: Scales | None = None
    try:
        async with contextlib.AsyncExitStack() as stack:
            if obey:
                from streams.cli.obeying import obeying

                following = obeying(settings, topic, lambda line: click.echo(line, err=True))
                scales = await stack.enter_async_context(following)
            await _publish(publisher, feed, rate, seconds, stop, scales)
        await publisher.settle()
    except TidegateError as exc:
        error = exc
    finally:
        await publisher.close()
    account = {
        "topic": topic,
        "published": publisher.published,
        "refused": publisher.refused,
        "duplicates": feed.duplicated,
        **({} if scales is None else {"held_back": scales.held_back}),
        **rates(publisher.published, publisher.seconds),
    }
    return account, error


async def _publish(
    publisher: Publisher,
    feed: SimulatedFeed,
    rate: float,
    seconds: float | None,
    stop: Stop,
    scales: Scales | None,
) -> None:
    started = last = settled = time.monotonic()
    due = 0.0
    while not stop.requested:
        now = time.monotonic()
        if seconds is not None and now - started >= seconds:
            # What the end of the last step owes.
            now = started + seconds
        # What could not be sent while the broker was away is not sent in one burst afterwards.
        due += min(max(0.0, now - last), 2 * _SETTLE_S) * rate
        last = now
        ticks = feed.ticks(int(due), time.time_ns())
        due -= len(ticks)
        for tick in ticks:
            key = tick.key()
            partition = -1 if scales is None else scales.admit(key)
            if partition is not None:
                await publisher.publish(tick.encode(), key, "the simulated feed", partition=partition)
        if scales is not None:
            scales.look()
        if seconds is not None and now - started >= seconds:
            return
        if now - settled >= _SETTLE_S:
            await publisher.settle()
            settled = now
        await stop.sleep(_STEP_S)
