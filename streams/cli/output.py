"""How commands print: tables for people, JSON for machines."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

#: Where output is piped nothing is wrapped at the width of a terminal that is not there.
PIPED_WIDTH = 10_000


def emit(text: str) -> None:
    """Write text to standard output; ends the command in silence, with 0, once nobody reads it any more."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        _leave()


def emit_bytes(value: bytes) -> None:
    """Write bytes to standard output as they are, as `emit` does text."""
    try:
        click.echo(value, nl=False)
    except BrokenPipeError:
        _leave()


def is_read() -> bool:
    """Whether somebody still reads standard output, for commands that wait for long with nothing to write."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # a pipe without readers is told all the same
        return not any(what & select.POLLERR for _, what in poll.poll(0))
    except (OSError, ValueError):  # no file at all
        return True


def _leave() -> NoReturn:
    # Python flushes standard output when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(0)


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without a frame; the columns named in `right` are right aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    return table


def print_table(table: Table) -> None:
    """Print to standard output, as wide as it needs where that is no terminal."""
    out = io.StringIO()
    terminal = Console()
    width = terminal.width if terminal.is_terminal else PIPED_WIDTH
    Console(file=out, width=width, force_terminal=terminal.is_terminal).print(table)
    emit("".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines()))
