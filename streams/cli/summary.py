"""The summary of a run: an object for machines, a table for people."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

_ROWS = {
    "ticks_read": "ticks read",
    "ticks_accepted": "  in bars",
    "dead_lettered": "  dead-lettered",
    "duplicates": "  duplicates",
    "dropped": "  dropped by policy",
    "late": "late (among the above)",
    "ignored": "messages without a trade",
    "refused_lines": "lines too long for a record",
}


def print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print the summary to standard output."""
    if as_json:
        click.echo(json.dumps(summary))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, label in _ROWS.items():
        if summary[name] or name in ("ticks_read", "ticks_accepted"):
            table.add_row(label, f"{summary[name]:,}")
    for bar_type, count in summary["bars"].items():
        table.add_row(f"{bar_type} bars stored", f"{count:,}")
    if summary["bars_refused"]:
        table.add_row("bars refused by the store", f"{summary['bars_refused']:,}")
    table.add_row("pauses", f"{summary['pauses']:,}")
    table.add_row("seconds", f"{summary['seconds']:,.1f}")
    table.add_row("ticks per second", f"{summary['ticks_per_second']:,}")
    Console().print(table)
    click.echo("every tick is accounted for" if summary["accounted"] else "NOT every tick is accounted for")
