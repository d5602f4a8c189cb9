"""``tidegate topics``: the broker's topics against the plan in topics.toml."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit, new_table, print_table
from streams.settings import load_settings
from streams.topicplan import (
    ActualTopic,
    Change,
    Create,
    Differs,
    PlannedTopic,
    SetConfig,
    check_replication,
    compare,
    default_file,
    read_plan,
    uneven,
)
from streams.topics import Topics

if TYPE_CHECKING:
    from streams.admin import TopicAdmin

file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The plan.  [default: the one that comes with Tidegate]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("topics")
def command() -> None:
    """Compare the broker's topics with the plan, and make them so.

    The plan is a TOML file; `tidegate topics show` prints the one that comes with Tidegate, to start
    from. The names in it get topic_prefix ("md."). No topic is ever deleted and no partition count
    changed: where those differ, you are told what to do.

    \b
    Examples:
      tidegate topics plan
      tidegate topics apply --broker kafka-1:9092
      tidegate topics show > topics.toml
      tidegate topics plan --file topics.toml --check
    """


@dataclass(frozen=True, slots=True)
class _Comparison:
    file: Path
    broker: str
    admin: TopicAdmin
    plan: list[PlannedTopic]
    actual: dict[str, ActualTopic]
    changes: list[Change]
    uneven: dict[str, int]

    @property
    def as_planned(self) -> bool:
        return not self.changes and not self.uneven


@command.command("plan")
@file_option
@broker_option
@config_option
@json_option
@click.option("--check", is_flag=True, help="Exit with 1 unless the broker is as planned.")
def plan_command(
    file: Path | None, broker: str | None, config: Path | None, as_json: bool, check: bool
) -> None:
    """Show what `apply` would do, and change nothing.

    \b
    Examples:
      tidegate topics plan
      tidegate topics plan --file topics.toml --broker kafka-1:9092 --check
    """
    seen = _compare(file, broker, config)
    _report(seen, as_json=as_json)
    if check and not seen.as_planned:
        raise click.exceptions.Exit(1)


@command.command("apply")
@file_option
@broker_option
@config_option
@json_option
def apply_command(file: Path | None, broker: str | None, config: Path | None, as_json: bool) -> None:
    """Create missing topics, set settings that differ.

    May be repeated: where the broker is as planned, nothing is done. Exits with 1 if the broker
    refused something; what differs and is never changed is reported, with 0.

    \b
    Examples:
      tidegate topics apply
      tidegate topics apply --file topics.toml --broker kafka-1:9092,kafka-2:9092
    """
    seen = _compare(file, broker, config)
    check_replication(seen.changes, seen.admin.brokers)
    if any(isinstance(change, Create) and change.topic.name in seen.uneven for change in seen.changes):
        raise ConfigError(
            f"nothing was created, as these topics must have equal partition counts: {_counts(seen)}",
            hint="set partitions under [defaults] of the file to what the tick topics have; "
            "`tidegate topics show` prints a file to start from",
        )
    failed = seen.admin.apply(seen.changes)
    _report(seen, as_json=as_json, failed=failed)
    if failed:
        raise click.exceptions.Exit(1)


@command.command("show")
@file_option
def show_command(file: Path | None) -> None:
    """Print the plan's file, to start one of your own from.

    \b
    Example:
      tidegate topics show > topics.toml
    """
    path = file or default_file()
    read_plan(path, "")
    emit(path.read_text(encoding="utf-8"))


def _compare(file: Path | None, broker: str | None, config: Path | None) -> _Comparison:
    from streams.admin import TopicAdmin  # loads the Kafka client, as --help need not

    settings = load_settings(config, broker=broker)
    path = file or default_file()
    plan = read_plan(path, settings.topic_prefix)
    admin = TopicAdmin(settings)
    ticks = [tick.topic for tick in settings.ticks]
    actual = admin.read(dict.fromkeys([*(topic.name for topic in plan), *ticks]))
    changes = compare(plan, actual)
    counts = uneven(plan, actual, Topics(settings.topic_prefix), ticks)
    return _Comparison(path, settings.broker, admin, plan, actual, changes, counts)


def _report(seen: _Comparison, *, as_json: bool, failed: dict[str, str] | None = None) -> None:
    if as_json:
        rows = [_as_object(change, failed) for change in seen.changes]
        head = {"broker": seen.broker, "file": str(seen.file), "as_planned": seen.as_planned}
        emit(json.dumps({**head, "changes": rows, "uneven": seen.uneven}) + "\n")
    else:
        _print_changes(seen, failed)
    for name, reason in (failed or {}).items():
        click.echo(f"tidegate: {name}: {reason}", err=True)
    for change in seen.changes:
        if isinstance(change, Differs):
            click.echo(f"not changed: {change.what} of {change.name}: {change.advice}", err=True)
    if seen.uneven:
        click.echo(f"workers will refuse these unequal partition counts: {_counts(seen)}", err=True)


def _print_changes(seen: _Comparison, failed: dict[str, str] | None) -> None:
    table = new_table("topic", "action", "what")
    changed = set()
    for change in seen.changes:
        name = change.topic.name if isinstance(change, Create) else change.name
        changed.add(name)
        table.add_row(name, _action(change, failed), "\n".join(_lines(change)))
    for topic in seen.plan:
        if topic.name not in changed:
            table.add_row(topic.name, "as planned", "")
    print_table(table)


def _action(change: Change, failed: dict[str, str] | None) -> str:
    match change:
        case Differs():
            return "differs"
        case Create(topic):
            name, todo, done = topic.name, "create", "created"
        case SetConfig(name):
            todo, done = "set config", "config set"
    if failed is None:
        return todo
    return "FAILED" if name in failed else done


def _lines(change: Change) -> list[str]:
    match change:
        case Create(topic):
            config = [f"{key} = {value}" for key, value in topic.config.items()]
            return [f"{topic.partitions} partitions, replication {topic.replication}", *config]
        case SetConfig(_, settings):
            return [f"{key}: {'?' if old is None else old} → {new}" for key, (old, new) in settings.items()]
        case Differs(_, what, actual, planned):
            return [f"{what}: {actual}, planned {planned} (not changed)"]


def _as_object(change: Change, failed: dict[str, str] | None) -> dict[str, Any]:
    match change:
        case Create(topic):
            counts = {"partitions": topic.partitions, "replication": topic.replication}
            row = {"topic": topic.name, "action": "create", **counts, "config": topic.config}
        case SetConfig(name, settings):
            values = {key: {"is": old, "planned": new} for key, (old, new) in settings.items()}
            row = {"topic": name, "action": "set-config", "config": values}
        case Differs(name, what, actual, planned):
            return {"topic": name, "action": "differs", "what": what, "is": actual, "planned": planned}
    if failed is not None:
        row["error"] = failed.get(str(row["topic"]))
    return row


def _counts(seen: _Comparison) -> str:
    return ", ".join(f"{name} {count}" for name, count in seen.uneven.items())
