"""Finding dead letters: those of a selection, and those at places."""

from __future__ import annotations

from collections.abc import Generator

import click

from schemas.errors import ConfigError
from streams.cli.progress import CountProgress
from streams.dead_letters import Buried, Selection, Where
from streams.settings import Settings
from streams.topics import Topics

#: A dead letter is dated by its worker, and put on its topic a moment later, maybe by another clock.
_SKEW_MS = 60_000


def dead_letters(settings: Settings, selection: Selection) -> Generator[Buried]:
    """Those that are there now, partition by partition; close it if you do not read it to its end."""
    from streams.reading import TopicReader  # loads the Kafka client, as --help need not

    with (
        TopicReader(settings, Topics(settings.topic_prefix).dead_letters) as reader,
        CountProgress("reading dead letters") as progress,
    ):
        partitions = reader.partitions
        if selection.partition is not None:
            if selection.partition not in partitions:
                raise ConfigError(f"{reader.topic} has no partition {selection.partition}")
            partitions = [selection.partition]
        since_ms = None if selection.since_ns is None else max(0, selection.since_ns // 10**6 - _SKEW_MS)
        for message in reader.read(partitions, since_ms, progress.update):
            buried = Buried.of(message)
            if selection.takes(buried):
                yield buried


def dead_letters_at(settings: Settings, places: tuple[str, ...]) -> list[Buried]:
    """The dead letters at these places; all of them, or an error."""
    topic = Topics(settings.topic_prefix).dead_letters
    try:
        wanted = dict.fromkeys(Where.parse(place, topic) for place in places)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="WHERE") from None

    from streams.reading import TopicReader

    with TopicReader(settings, topic) as reader:
        return [Buried.of(reader.at(where.partition, where.offset)) for where in wanted]
