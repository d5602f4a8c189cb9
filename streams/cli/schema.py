"""``tidegate schema``: the JSON Schema of a message."""

from __future__ import annotations

import json

import click

from schemas.contracts import SCHEMAS
from streams.cli.output import emit

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.command("schema")
@click.argument("name", required=False, metavar="[NAME]", type=click.Choice(list(SCHEMAS)))
def command(name: str | None) -> None:
    """Print the JSON Schema of a message, or the names of all messages.

    \b
    Examples:
      tidegate schema
      tidegate schema tick
      tidegate schema bar > bar.schema.json
    """
    if name is None:
        emit("".join(f"{each}\n" for each in SCHEMAS))
        return
    schema = {"$schema": _DIALECT, **SCHEMAS[name].model_json_schema()}
    emit(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
