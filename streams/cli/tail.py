"""``tidegate tail``: feedback and rates as they come."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from schemas.feedback import Feedback, encode_feedback
from schemas.rate import RateAdjustment, encode_rate
from streams.cli.dlq_view import visible
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit, is_read
from streams.cli.stopping import Stop
from streams.cli.times import iso_ms
from streams.settings import Settings, load_settings

_LOOK_S = 0.2


@click.command("tail")
@click.argument("kind", type=click.Choice(["feedback", "rate"]))
@click.option("--from-beginning", is_flag=True, help="Begin with what the topic still has, not with now.")
@click.option("--partition", type=click.IntRange(0), metavar="N", help="Only this partition.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="End after so many seconds."
)
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, as on the topic.")
def command(
    kind: str,
    from_beginning: bool,
    partition: int | None,
    count: int | None,
    seconds: float | None,
    broker: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Follow how full the stores' queues are (feedback), or what the rate controllers decide (rate).

    A line an event, until it is interrupted, which is no failure. No group is joined and nothing is
    committed, so it changes nothing for others. What cannot be read is told on standard error, and
    skipped. While the broker is away it waits.

    \b
    Examples:
      tidegate tail feedback
      tidegate tail rate --from-beginning --seconds 5
      tidegate tail feedback --partition 3 --count 10
      tidegate tail feedback --json | jq 'select(.level != "ok")'
    """
    from streams import logs

    settings = load_settings(config, broker=broker)
    logs.configure("WARNING")
    line = _JSON[kind] if as_json else _LINES[kind]
    following = _follow(settings, kind, line, from_beginning, partition, count or math.inf)
    stop = Stop()
    with stop.on_signals():
        asyncio.run(_until(stop, following, math.inf if seconds is None else seconds))


async def _follow(
    settings: Settings,
    kind: str,
    line: Callable[[Any], str],
    from_beginning: bool,
    partition: int | None,
    count: float,
) -> None:
    from streams.flow.subscribe import feedback, rates  # loads the Kafka clients, as --help need not

    follow: Callable[..., Any] = {"feedback": feedback, "rate": rates}[kind]
    partitions = None if partition is None else [partition]
    async with aclosing(follow(settings, from_beginning=from_beginning, partitions=partitions)) as events:
        async for event in events:
            emit(line(event) + "\n")
            count -= 1
            if count < 1:
                return


async def _until(stop: Stop, following: Any, seconds: float) -> None:
    """Follow until the end, the signal or the time, or until nobody reads any more."""
    task = asyncio.ensure_future(following)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        while not task.done() and not stop.requested and (left := end - loop.time()) > 0 and is_read():
            # A plain signal handler has no way to wake the loop.
            await asyncio.wait([task], timeout=min(left, _LOOK_S))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def feedback_line(event: Feedback) -> str:
    """Feedback for people."""
    drain = "-" if event.drain_rate is None else f"{event.drain_rate:,.0f}/s"
    dropped = getattr(event, "dropped", 0)
    return _joined(
        iso_ms(event.ts),
        f"partition {event.partition}",
        f"{event.level.value:<4}",
        f"queue {event.queue_size:,}/{event.capacity:,}",
        f"drain {drain}",
        "" if event.scale is None else f"asks for {event.scale:.4g}",
        f"dropped {dropped:,}" if dropped else "",
        f"by {visible(event.coordinator_id)}",
    )


def rate_line(event: RateAdjustment) -> str:
    """A decision for people."""
    what = "paused" if event.scale == 0 else "slowed" if event.scale < 1 else "open"
    return _joined(
        iso_ms(event.ts),
        "all partitions" if event.partition is None else f"partition {event.partition}",
        f"{what:<6}",
        f"scale {event.scale:<4.4g}",
        f"reason {event.reason.value:<4}",
        "" if event.since is None else f"since {iso_ms(event.since)}",
        f"by {'-' if event.coordinator_id is None else visible(event.coordinator_id)}",
        f"provider {visible(event.provider)}",
    )


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


_LINES: dict[str, Callable[[Any], str]] = {"feedback": feedback_line, "rate": rate_line}
_JSON: dict[str, Callable[[Any], str]] = {
    "feedback": lambda event: encode_feedback(event).decode(),
    "rate": lambda event: encode_rate(event).decode(),
}
