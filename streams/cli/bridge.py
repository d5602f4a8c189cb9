"""``tidegate bridge``: to and from the event bus of market-data-core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streams.cli.account import print_account
from streams.cli.options import broker_option, config_option
from streams.cli.stopping import Stop
from streams.durations import parse_duration
from streams.ecosystem import pulse_settings
from streams.extras import need
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.ecosystem.pulse import PulseBridge
    from streams.ecosystem.pulse_settings import PulseSettings

F = TypeVar("F", bound=Callable[..., Any])

_LOOK_S = 0.2
_PROGRESS_S = 60.0
_FINISH_S = 10.0


class Hold(click.ParamType):
    """A duration above zero, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; fails as a wrong command line."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(str(value)) / 1e9
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if seconds == 0:
            self.fail("must be more than 0", param, ctx)
        return seconds


class Partitions(click.ParamType):
    """``0,2``."""

    name = "partitions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        """Numbers; fails as a wrong command line."""
        parts = str(value).split(",")
        if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
            self.fail(f"{value!r} are no partitions: write numbers, as 0,2", param, ctx)
        return frozenset(map(int, parts))


def bus_options(function: F) -> F:
    """The options that say where the bus is."""
    for option in reversed(
        (
            click.option(
                "--redis-url",
                metavar="URL",
                help="redis://HOST:PORT/0; a password is better in the variable.  "
                f"[env: REDIS_URL; default: {pulse_settings.REDIS_URL}]",
            ),
            click.option("--namespace", metavar="NS", help="[env: MD_NAMESPACE; default: mdp]"),
            click.option("--stream", metavar="NAME", help="[default: NS.telemetry.feedback]"),
            click.option(
                "--track",
                type=click.Choice(["v1", "v2"]),
                help="Of what is written.  [env: SCHEMA_TRACK; default: v1]",
            ),
        )
    ):
        function = option(function)
    return function


@click.group("bridge")
def command() -> None:
    """Bridge to the event bus of market-data-core, and speak on it for a store that cannot.

    \b
    Examples:
      tidegate bridge pulse
      tidegate bridge release bars-coord
    """


@command.command("pulse")
@bus_options
@click.option("--group", metavar="NAME", help="Consumer group on the bus.  [default: pipeline]")
@click.option(
    "--direction",
    type=click.Choice(["both", "in", "out"]),
    default="both",
    show_default=True,
    help="in: from the bus to Kafka; out: from Kafka to the bus.",
)
@click.option(
    "--partitions",
    type=Partitions(),
    metavar="P,...",
    help="What stores on the bus hold back.  [default: all partitions]",
)
@click.option(
    "--hold",
    "hold_s",
    type=Hold(),
    default=pulse_settings.HOLD_S,
    metavar="DURATION",
    help="For how long a store's soft or hard is repeated, unless it says otherwise.  [default: 10m]",
)
@click.option(
    "--http", metavar="HOST:PORT", help="Answer /metrics, /healthz and /readyz there.  [default: nowhere]"
)
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--log-level", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def pulse(
    config: Path | None, broker: str | None, http: str | None, as_json: bool, log_level: str, **options: Any
) -> None:
    """Let stores that speak on core's event bus (Redis) pause partitions, and tell the bus of Tidegate's stores.

    Runs until SIGTERM or Ctrl-C, then says what it did. Redis and Kafka must be there at the start; later, one
    that is away is waited for. EVENT_BUS_BACKEND, REDIS_URL, MD_NAMESPACE, SCHEMA_TRACK and PULSE_ENABLED are
    those of the ecosystem; flags beat them. What cannot be read goes to the bus's dead letters.

    A store on the bus speaks when its level changes, and never again: its soft or hard is repeated to Kafka
    until it says ok, for as long as --hold. `tidegate bridge release` ends it before. Where a pipeline still
    listens, name another --group: of one group each gets only some entries, and the pipeline needs all.

    \b
    Examples:
      REDIS_URL=redis://:secret@redis:6379/0 tidegate bridge pulse
      tidegate bridge pulse --redis-url redis://redis:6379/0 --broker kafka-1:9092 --hold 30m
      tidegate bridge pulse --direction in --partitions 0,1 --group tidegate
    """
    from streams import logs

    logs.configure(log_level)
    settings = load_settings(config, broker=broker, http=http)
    chosen = pulse_settings.load(**options)
    if not chosen.enabled:
        click.echo("PULSE_ENABLED says no: nothing is bridged", err=True)
        return
    _need_packages()
    stop = Stop()
    with stop.on_signals():
        account = asyncio.run(_run(settings, chosen, stop))
    print_account(account, as_json=as_json)


def _need_packages() -> None:
    # The extra brings both: whoever lacks one is not sent to install twice.
    need("redis", "market_data_core.events", "tidegate bridge")
    need("redis", "redis.asyncio", "tidegate bridge")


async def _run(settings: Settings, chosen: PulseSettings, stop: Stop) -> dict[str, Any]:
    from streams.answering import answering
    from streams.bridge_figures import of_bridge
    from streams.ecosystem.pulse import PulseBridge  # loads core, Redis and the Kafka clients
    from streams.ecosystem.redis_bus import RedisBus

    bus = RedisBus(chosen)
    bridge = PulseBridge(settings, bus, chosen)
    began = time.monotonic()
    figures = partial(of_bridge, bridge.counts, lambda: bridge.lag_s, chosen.stream, chosen.track)
    async with answering(settings.http, bridge.health, figures):
        running = asyncio.create_task(bridge.run())
        progressed, before = began, asdict(bridge.counts)
        while not running.done() and not stop.requested:
            # A plain signal handler has no way to wake the loop.
            await asyncio.wait([running], timeout=_LOOK_S)
            if time.monotonic() - progressed > _PROGRESS_S:
                progressed, counts = time.monotonic(), asdict(bridge.counts)
                if counts != before:
                    _log_progress(bridge)
                    before = counts
        bridge.stop()
        try:
            async with asyncio.timeout(_FINISH_S):
                await running
        except TimeoutError:
            pass  # it was cancelled: what is not acknowledged comes again
    return {"bus": bus.name, **asdict(bridge.counts), "seconds": round(time.monotonic() - began, 1)}


def _log_progress(bridge: PulseBridge) -> None:
    import structlog

    structlog.get_logger(__name__).info("bridge.progress", **bridge.health().details)


@command.command("release")
@click.argument("coordinator")
@bus_options
def release(coordinator: str, **options: Any) -> None:
    """Say on the bus, in a coordinator's name, that it is ok: where its store has died while it was full.

    Everybody on the bus hears it: bridges, which let go of the partitions, and pipelines. A store that lives and
    is still full is heard again only when its level changes.

    \b
    Examples:
      tidegate bridge release bars-coord
      REDIS_URL=redis://:secret@redis:6379/0 tidegate bridge release bars-coord --namespace prod
    """
    chosen = pulse_settings.load(**options)
    _need_packages()
    from streams.ecosystem.pulse_release import release as say_ok

    before = asyncio.run(say_ok(chosen, coordinator))
    click.echo(f"{coordinator} was {before} and is ok")
