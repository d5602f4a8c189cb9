"""What became of the records of a command: those that were refused, and how many there were of each kind."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table

from streams.cli.output import emit, print_table

#: Refused records that are told one by one.
TELL = 5


def tell(text: str, count: int) -> None:
    """Tell the first few on standard error."""
    if count <= TELL:
        click.echo(text, err=True)
    elif count == TELL + 1:
        click.echo("and more, which are only counted", err=True)


def print_account(account: dict[str, Any], *, as_json: bool) -> None:
    """Print the account of a command: one object for machines, a table for people."""
    if as_json:
        emit(json.dumps(account) + "\n")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in account.items():
        if isinstance(value, bool):
            continue
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value))
    print_table(table)


def rates(count: int, seconds: float) -> dict[str, Any]:
    """How long it took, and how many a second."""
    return {"seconds": round(seconds, 3), "per_second": round(count / seconds) if seconds else 0}
