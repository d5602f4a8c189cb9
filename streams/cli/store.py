"""``tidegate store``: the tables that a store in PostgreSQL needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError, TidegateError
from streams.cli.options import config_option, store_option
from streams.cli.output import emit, new_table, print_table
from streams.settings import load_settings
from streams.store.base import open_store, redact

if TYPE_CHECKING:
    from streams.store.survey import Finding

TIMEOUT_S = 60.0


@click.group("store")
def command() -> None:
    """Make the tables that the store needs, and look at those that are there.

    \b
    Examples:
      tidegate store init --dry-run
      tidegate store init --store market-data-store+postgresql://me@localhost/market
      tidegate store check
    """


@command.command("init")
@store_option
@config_option
@click.option("--dry-run", is_flag=True, help="Print the SQL of what is missing, and change nothing.")
def init_command(store: str | None, config: Path | None, dry_run: bool) -> None:
    """Make the tables that are not there. What is there stays as it is.

    Plain PostgreSQL will do; where TimescaleDB is installed, tables of market-data-store become
    hypertables. It may be repeated, and run while workers work.

    \b
    Examples:
      tidegate store init
      tidegate store init --dry-run | psql market
      tidegate store init --store 'market-data-store+postgresql://me@localhost/market?tenant=UUID'
    """
    url = _url(store, config)
    made, findings = asyncio.run(_init(url, dry_run))
    if dry_run:
        return
    for finding in findings:
        click.echo(f"{finding.table}: {_said(finding, made)}")
    _exit_for(findings)


@command.command("check")
@store_option
@config_option
def check_command(store: str | None, config: Path | None) -> None:
    """Say what is missing or different in the store's tables; the exit status is 1 if anything is.

    \b
    Examples:
      tidegate store check
      tidegate store check --store market-data-store+postgresql://me@localhost/market
    """
    findings = asyncio.run(_check(_url(store, config)))
    table = new_table("table", "state")
    for finding in findings:
        table.add_row(finding.table, _said(finding, []))
    print_table(table)
    _exit_for(findings)


def _url(store: str | None, config: Path | None) -> str:
    url = load_settings(config, store=store).store.get_secret_value()
    open_store(url)  # or the error for a URL that is none, or an extra that is missing
    if url.startswith("duckdb:"):
        raise ConfigError(
            f"{url} makes its table by itself", hint="only stores in PostgreSQL have tables to be made before"
        )
    return url


async def _init(url: str, dry_run: bool) -> tuple[list[str], list[Finding]]:
    from streams.store.survey import make, missing, needed, survey

    _, shapes = needed(url)
    async with _connection(url) as connection:
        if dry_run:
            for shape in await missing(connection, shapes):
                emit(f"-- {shape.name}\n{shape.ddl.strip()}\n\n")
            return [], []
        made = await make(connection, shapes)
        return made, await survey(connection, shapes)


async def _check(url: str) -> list[Finding]:
    from streams.store.survey import needed, survey

    async with _connection(url) as connection:
        return await survey(connection, needed(url)[1])


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Any]:
    from streams.store.postgres_errors import explain
    from streams.store.postgres_session import connect, hang_up
    from streams.store.survey import needed

    name, dsn = redact(url), needed(url)[0]
    try:
        connection = await connect(dsn, name, read_only=False, timeout_s=TIMEOUT_S)
        try:
            yield connection
        finally:
            await hang_up(connection)
    except (TidegateError, click.exceptions.Exit):
        raise
    except Exception as error:
        raise explain(error, name) from error


def _said(finding: Finding, made: list[str]) -> str:
    if finding.problem:
        return finding.problem
    return "made" if finding.table in made else "as it must be"


def _exit_for(findings: list[Finding]) -> None:
    wrong = [finding for finding in findings if finding.problem]
    if not wrong:
        return
    if any(not finding.exists for finding in wrong):
        click.echo("  hint: tidegate store init makes what is missing", err=True)
    if any(finding.exists for finding in wrong):
        click.echo(
            "  hint: a table that is there is never altered: alter it, or name another database, or another "
            "schema with ?search_path=SCHEMA",
            err=True,
        )
    raise click.exceptions.Exit(1)
