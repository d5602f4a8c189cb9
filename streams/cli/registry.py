"""``tidegate registry``: what the ecosystem's schema registry has of the messages that Tidegate writes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError, RegistryError, SchemaMismatch
from streams.cli.options import config_option
from streams.cli.output import emit, new_table, print_table
from streams.settings import load_settings

if TYPE_CHECKING:
    from streams.registry.core import SchemaRegistry

_url_option = click.option("--url", metavar="URL", help="The registry.  [env: TIDEGATE_REGISTRY_URL]")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("registry")
def command() -> None:
    """Look into the schema registry of the market-data ecosystem.

    \b
    Examples:
      tidegate registry list --url http://registry:8080
      tidegate registry show telemetry.FeedbackEvent
      tidegate registry check
    """


@command.command("list")
@_url_option
@config_option
@_json_option
def list_command(url: str | None, config: Path | None, as_json: bool) -> None:
    """List the schemas that Tidegate asks for, on which track they are, and how old what is known of them is."""
    registry = _opened(url, config)
    rows = [_row(registry, name) for name in registry.schemas()]
    if as_json:
        emit("".join(json.dumps(row) + "\n" for row in rows))
        return
    table = new_table(
        "schema", "track", "version", "age s", "sha256", "Tidegate's messages", right=("age s",)
    )
    for row in rows:
        cells = ["-" if row[name] is None else str(row[name]) for name in ("track", "version", "age_s")]
        fits = "-" if row["track"] is None else "do not fit" if row["errors"] else "fit"
        table.add_row(row["schema"], *cells, (row["sha256"] or "-")[:12], fits)
    print_table(table)
    _tell_error(registry)


@command.command("show")
@click.argument("name")
@_url_option
@config_option
def show_command(name: str, url: str | None, config: Path | None) -> None:
    """Print a schema as the registry has it.

    \b
    Examples:
      tidegate registry show telemetry.FeedbackEvent
    """
    registry = _opened(url, config)
    schemas = registry.schemas()
    if name not in schemas:
        raise ConfigError(f"{name} is not asked for", hint=f"one of {', '.join(schemas)}")
    schema = schemas[name]
    if schema is None:
        raise RegistryError(
            f"schema registry {registry.url} has no {name}", hint="see `tidegate registry list`"
        )
    emit(json.dumps(schema.content, indent=2) + "\n")


@command.command("check")
@_url_option
@config_option
@_json_option
def check_command(url: str | None, config: Path | None, as_json: bool) -> None:
    """Hold what Tidegate writes against the schemas; exits with 1 where something does not fit, or cannot be had.

    \b
    Examples:
      tidegate registry check --url http://registry:8080 --json
    """
    registry = _opened(url, config)
    health = registry.health()
    wrong = {name: registry.wrong(name) for name in registry.schemas() if registry.wrong(name)}
    if as_json:
        emit(json.dumps({"state": health.state, "details": health.details, "errors": wrong}) + "\n")
    else:
        for name, errors in wrong.items():
            for error in errors:
                click.echo(f"{name}: {error}")
        if not wrong and health.state == "healthy":
            click.echo(f"{registry.url}: everything fits")
        _tell_error(registry)
    if wrong or health.state != "healthy":
        raise click.exceptions.Exit(1)


def _opened(url: str | None, config: Path | None) -> SchemaRegistry:
    """The registry, asked once."""
    from streams.registry.core import SchemaRegistry

    settings = load_settings(config, registry_url=url, registry_mode="warn", registry_fail="open")
    registry = SchemaRegistry.of(settings)
    if registry is None:
        raise ConfigError("no schema registry is named", hint="--url, TIDEGATE_REGISTRY_URL or registry_url")

    async def ask() -> None:
        try:
            await registry.start()
        finally:
            await registry.close()

    try:
        asyncio.run(ask())
    except SchemaMismatch as exc:  # told by the commands themselves
        raise RegistryError(str(exc)) from None
    return registry


def _row(registry: SchemaRegistry, name: str) -> dict[str, Any]:
    schema = registry.cache.peek(name)
    return {
        "schema": name,
        "track": schema and schema.track,
        "version": schema and schema.version,
        "age_s": schema and round(registry.cache.age_s(schema), 1),
        "sha256": schema and schema.sha256,
        "errors": registry.wrong(name),
    }


def _tell_error(registry: SchemaRegistry) -> None:
    details = registry.health().details
    if "error" in details:
        click.echo(f"tidegate: schema registry {registry.url}: {details['error']}", err=True)
        click.echo("  hint: what is shown is what was fetched before, if anything", err=True)
