"""``tidegate state``: what workers keep of open windows, and how a topic is started afresh."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.dead_letter import place
from schemas.errors import BrokerError, ConfigError
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit, new_table, print_table
from streams.cli.progress import CountProgress
from streams.settings import Settings, load_settings
from streams.topics import Topics

if TYPE_CHECKING:
    from streams.state_topic import PartitionState

_NUMBERS = ("position", "instruments", "rows", "bytes")


@click.group("state")
def command() -> None:
    """Show what workers keep of open windows, and delete it where a tick topic starts afresh.

    \b
    Examples:
      tidegate state show
      tidegate state reset --topic md.ticks.v1
    """


@command.command("show")
@click.option("--topic", metavar="T", help="Only this tick topic.")
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def show_command(topic: str | None, broker: str | None, config: Path | None, as_json: bool) -> None:
    """Show how far each tick partition is in the state, and how much there is of it.

    The position is the offset of the last tick that is in the state: a worker goes on after it.

    \b
    Examples:
      tidegate state show
      tidegate state show --topic md.ticks.v1 --json
    """
    settings = load_settings(config, broker=broker)
    states = [state for state in _read(settings) if topic in (None, state.topic)]
    rows = [_row(state) for state in states]
    if as_json:
        emit("".join(json.dumps(row) + "\n" for row in rows))
    elif rows:
        table = new_table("ticks", *_NUMBERS, "version", right=_NUMBERS)
        for row in rows:
            numbers = ["-" if row[name] is None else f"{row[name]:,}" for name in _NUMBERS]
            versions = ", ".join("unreadable" if v is None else str(v) for v in row["versions"])
            table.add_row(f"{row['topic']}[{row['partition']}]", *numbers, versions)
        print_table(table)
    if not rows:
        click.echo("no state" if topic is None else f"no state of {topic}", err=True)


@command.command("reset")
@click.option("--topic", required=True, metavar="T", help="The tick topic.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def reset_command(topic: str, yes: bool, broker: str | None, config: Path | None, as_json: bool) -> None:
    """Delete the state of a tick topic, for instance when the topic was deleted and made anew.

    All workers of the bars group must be stopped. Afterwards they read the topic from the offset that
    the group has committed, or from its beginning where there is none. What was open is forgotten: a
    bar that had begun is made of the ticks from there on, and trade ids are not remembered.

    \b
    Examples:
      tidegate state show --topic md.ticks.v1
      tidegate state reset --topic md.ticks.v1
      tidegate state reset --topic md.ticks.v1 --yes --json
    """
    from streams.state_topic import wipe  # loads the Kafka client, as --help need not

    settings = load_settings(config, broker=broker)
    states = [state for state in _read(settings) if state.topic == topic]
    _refuse_if_live(settings)
    if states and not yes:
        _ask(settings, topic, states)
    deleted = asyncio.run(wipe(settings, topic)) if states else {}
    if as_json:
        partitions = {str(partition): count for partition, count in sorted(deleted.items())}
        emit(json.dumps({"topic": topic, "rows": sum(deleted.values()), "partitions": partitions}) + "\n")
    elif deleted:
        click.echo(f"deleted {sum(deleted.values()):,} rows of {topic}, in {len(deleted)} partitions")
    if not deleted:
        click.echo(f"no state of {topic}: nothing was deleted", err=True)


def _read(settings: Settings) -> list[PartitionState]:
    from streams.reading import TopicReader
    from streams.state_topic import read_state

    with (
        TopicReader(settings, Topics(settings.topic_prefix).state) as reader,
        CountProgress("reading state") as progress,
    ):
        return read_state(reader, on_progress=progress.update)


def _row(state: PartitionState) -> dict[str, Any]:
    return {
        "topic": state.topic,
        "partition": state.partition,
        "position": state.position,
        "instruments": state.instruments,
        "rows": len(state.rows),
        "bytes": state.size,
        "versions": state.versions,
    }


def _refuse_if_live(settings: Settings) -> None:
    from streams.state_topic import members

    group = f"{settings.group}-bars"
    live = members(settings, group)
    if live:
        raise BrokerError(
            f"group {group} is at work, and would go on from what is deleted: {', '.join(live)}",
            hint="stop its workers first; one that was killed leaves after session_timeout",
        )


def _ask(settings: Settings, topic: str, states: list[PartitionState]) -> None:
    for state in states:
        at = "an unknown offset" if state.position is None else place(topic, state.partition, state.position)
        count = "an unknown number of" if state.instruments is None else f"{state.instruments:,}"
        click.echo(f"{at}: {count} instruments in {len(state.rows):,} rows", err=True)
    click.echo(
        "Bars of windows that are open there begin anew, with the ticks that are read from then on: those after\n"
        f"the offset that group {settings.group}-bars has committed, or from the beginning where there is none.",
        err=True,
    )
    try:
        if click.confirm("Delete this state?", err=True):
            return
    except click.Abort:  # nobody is there to answer
        click.echo(err=True)
        raise ConfigError("nothing was deleted", hint="say --yes to delete without being asked") from None
    raise ConfigError("nothing was deleted")
