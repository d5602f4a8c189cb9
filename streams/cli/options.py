"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings.  [default: tidegate.toml, where it exists]",
)
broker_option = click.option(
    "--broker", metavar="HOST:PORT", help="Bootstrap servers, separated by commas.  [env: TIDEGATE_BROKER]"
)
store_option = click.option(
    "--store",
    metavar="URL",
    help="duckdb:PATH, postgresql://USER@HOST/DB or market-data-store+postgresql://USER@HOST/DB.  "
    "[env: TIDEGATE_STORE]",
)
