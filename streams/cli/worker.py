"""``tidegate worker``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from streams import logs
from streams.cli.options import broker_option, config_option, store_option
from streams.settings import load_settings


@click.command("worker")
@click.option(
    "--roles", metavar="ROLES", help="bars, store or both, separated by a comma.  [default: bars,store]"
)
@config_option
@broker_option
@store_option
@click.option(
    "--http", metavar="HOST:PORT", help="Answer /metrics, /healthz and /readyz there.  [default: nowhere]"
)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="[default: INFO]")
@click.pass_obj
def command(
    roles_module: Any,
    roles: str | None,
    config: Path | None,
    broker: str | None,
    store: str | None,
    http: str | None,
    log_level: str | None,
) -> None:
    """Run a worker process against a real broker; several of them share the work.

    Settings come from flags, then TIDEGATE_* variables, then the file (tidegate.toml where it is).
    SIGTERM drains what was taken, commits, and leaves.

    \b
    Examples:
      tidegate worker
      tidegate worker --roles bars --broker kafka-1:9092,kafka-2:9092
      TIDEGATE_STORE=postgresql://tidegate@db/market tidegate worker --roles store
      tidegate worker --http 127.0.0.1:9464
    """
    logs.configure(log_level or "INFO")
    flags = {"roles": roles, "broker": broker, "store": store, "http": http, "log_level": log_level}
    settings = load_settings(config, **flags)
    logs.configure(settings.log_level)

    from streams.runtime import serve  # loads Faust, for which a mistake in the settings does not wait

    app = roles_module().compose(settings, lambda: load_settings(config, **flags))
    asyncio.run(serve(app, settings.health_file))
