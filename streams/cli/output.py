"""How commands print: tables for people, JSON for machines."""

from __future__ import annotations

import io

import click
from rich.console import Console
from rich.table import Table

#: Where output is piped nothing is wrapped at the width of a terminal that is not there.
PIPED_WIDTH = 10_000


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without a frame; the columns named in `right` are right aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    return table


def print_table(table: Table) -> None:
    """Print to standard output, as wide as it needs where that is no terminal."""
    console = Console()
    if not console.is_terminal:
        # Not by rich: it ends the process with 1 when the reader of a pipe has gone.
        console = Console(file=io.StringIO(), width=PIPED_WIDTH)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
