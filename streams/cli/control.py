"""``tidegate control``: what operators ask of workers, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from streams.cli.dlq_view import visible
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit, new_table, print_table
from streams.cli.times import iso_ms
from streams.settings import ROLES, load_settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group("control")
def command() -> None:
    """Pause, resume or reload the workers of a role, and show who did what.

    An action is published on the control topic. Every worker of the role obeys, those that start later too: a
    pause holds, through restarts and rebalances, until it is resumed. Each worker answers, and the answers are
    kept on the audit topic.

    \b
    Examples:
      tidegate control pause bars
      tidegate control pause store --partition 3
      tidegate control resume bars
      tidegate control reload bars --worker db-1:4711
      tidegate control log
    """


def asking(function: F) -> F:
    """What all actions have in common."""
    for option in reversed(
        (
            click.argument("role", type=click.Choice(ROLES)),
            click.option("--worker", metavar="HOST:PID", help="Only this worker, as `control log` names it."),
            click.option(
                "--wait",
                "wait_s",
                type=click.FloatRange(0),
                default=10.0,
                show_default=True,
                metavar="S",
                help="How long to wait for answers, seconds.",
            ),
            broker_option,
            config_option,
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        )
    ):
        function = option(function)
    return function


_partition = click.option("--partition", type=click.IntRange(0), metavar="N", help="Only this partition.")


@command.command("pause")
@asking
@_partition
def pause(**options: Any) -> None:
    """Stop a role: bars consume no ticks, or stores no bars. What was taken is finished.

    Ticks and bars wait in Kafka, whose retention goes on. Paused workers stay in their groups, and are ready.
    """
    _ask("pause", **options)


@command.command("resume")
@asking
@_partition
def resume(**options: Any) -> None:
    """End a pause. The last word about a partition counts, whether it names the partition or the whole role.

    What a store asks for meanwhile holds as before.
    """
    _ask("resume", **options)


@command.command("reload")
@asking
def reload(**options: Any) -> None:
    """Have workers read their settings file again.

    They go on by policy, scale_ok, scale_soft, scale_hard, soft, hard, hysteresis, heartbeat, write_linger and
    log_level. Where anything else has changed, they refuse, and change nothing.
    """
    _ask("reload", partition=None, **options)


def _ask(
    action: str,
    role: str,
    partition: int | None,
    worker: str | None,
    wait_s: float,
    broker: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    from streams.asking import ask, new_control  # loads the Kafka client, as --help need not

    asked = ask(load_settings(config, broker=broker), new_control(action, role, partition, worker), wait_s)
    if as_json:
        found = {
            "action": msgspec.to_builtins(asked.control),
            "answers": [msgspec.to_builtins(answer) for answer in asked.answers],
            "silent": asked.silent,
        }
        emit(json.dumps(found) + "\n")
    else:
        for answer in asked.answers:
            emit(_line(answer.worker, answer.result.status, answer.result.detail))
        if asked.silent:
            workers = "1 worker has" if asked.silent == 1 else f"{asked.silent} workers have"
            emit(f"{workers} not answered within {wait_s:g} s; the action is on the topic\n")
        elif not asked.answers:
            emit(f"no worker of {role} is running: {_later(action)}\n")
    if not asked.is_done:
        raise click.exceptions.Exit(1)


def _later(action: str) -> str:
    return "there is nobody to reload" if action == "reload" else "it holds for those that start"


def _line(*cells: str | None) -> str:
    return "  ".join(visible(cell) for cell in cells if cell) + "\n"


@command.command("log")
@click.option(
    "--last", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="So many answers."
)
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, as on the topic.")
def log(last: int, broker: str | None, config: Path | None, as_json: bool) -> None:
    """Show who asked what, when, and what each worker made of it."""
    from streams.asking import audits

    found = audits(load_settings(config, broker=broker), last)
    if as_json:
        emit("".join(f"{json.dumps(msgspec.to_builtins(audit))}\n" for audit in found))
        return
    table = new_table("when", "who", "what", "worker", "result", "detail")
    for audit in found:
        what = f"{audit.action.value} {audit.target}"
        if audit.partition is not None:
            what += f"[{audit.partition}]"
        cells = (
            iso_ms(audit.ts),
            audit.actor,
            what,
            audit.worker,
            audit.result.status,
            audit.result.detail or "",
        )
        table.add_row(*map(_cell, cells))
    print_table(table)


def _cell(text: str) -> Any:
    from rich.text import Text  # as text, for a table takes brackets for colours

    return Text(visible(text))
