"""The command line: one command a module, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from schemas.errors import TidegateError
from schemas.version import __version__

COMMANDS = {
    "run": "files in, bars out: the whole loop in one process",
    "demo": "a simulated feed, live in the terminal",
    "worker": "a worker process against a real broker",
    "replay": "files into a ticks topic",
    "feed": "a simulated feed into a ticks topic",
    "bars": "what the store holds",
    "store": "make the tables that a store in PostgreSQL needs, or check them",
    "dlq": "list, show and replay dead letters",
    "status": "who holds which partition back, and how far everybody is",
    "control": "pause, resume or reload the workers of a role",
    "tail": "follow feedback or rates",
    "bridge": "to and from the event bus of market-data-core",
    "state": "show or reset what workers keep of open windows",
    "topics": "compare the broker's topics with the plan, and apply it",
    "registry": "what the schema registry has, and what does not fit",
    "schema": "the JSON Schema of a message",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"streams.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="tidegate")
def cli() -> None:
    """Ticks in, exact bars out, and a slow database that costs latency but never data.

    \b
    Examples:
      tidegate demo --slow-store
      tidegate run trades.csv.gz --bars 1s,1m
      tidegate run trades.jsonl.gz --feed binance --venue BINANCE --json
      tidegate bars --store duckdb:tidegate.duckdb --type 1m
      tidegate worker --roles bars,store --config tidegate.toml
    """


def main(roles: Callable[[], Any]) -> None:
    """Run a command; `roles` gives the module that composes the agents, for the commands that need it.

    Exits with 0, with 1 where something failed (one line says what, a second what to do), with 2
    for a wrong command line, with 130 when interrupted.
    """
    try:
        # Click gives back what `Exit` carried, if a command raised it.
        status = cli(obj=roles, prog_name="tidegate", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.UsageError as exc:
        exc.show()
        sys.exit(2)
    except click.ClickException as exc:
        exc.show()
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("tidegate: interrupted", err=True)
        sys.exit(130)
    except TidegateError as exc:
        click.echo(f"tidegate: {exc}", err=True)
        if exc.hint:
            click.echo(f"  hint: {exc.hint}", err=True)
        sys.exit(1)
    except OSError as exc:
        if not _output_is_lost():
            raise
        click.echo(f"tidegate: standard output: {exc.strerror}", err=True)
        click.echo("  hint: the work itself was done up to there; only its report is cut off", err=True)
        sys.exit(1)


def _output_is_lost() -> bool:
    """Whether standard output takes nothing; what it has not taken is dropped then."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        # Python flushes it once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
