"""Dead letters on their way back to the topics that they came from."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from schemas.dead_letter import Reason
from schemas.errors import BrokerError, TidegateError
from schemas.replay import Replay, headers_of_replay
from streams.broker import cluster_now
from streams.cli.account import print_account, rates, tell
from streams.cli.dlq_view import Row, as_row, print_rows
from streams.cli.publishing import Publisher, open_publisher
from streams.cli.stopping import Stop
from streams.dead_letters import Buried
from streams.settings import Settings
from streams.topics import Topics

#: Rows of a dry run that are shown to people.
_SHOWN = 50


def replay(
    settings: Settings, found: Iterator[Buried], *, to: str | None, dry_run: bool, as_json: bool
) -> None:
    """Replay these dead letters, or show what that would be, and tell what became of them."""
    run = _Run(settings, to, dry_run=dry_run)
    stop = Stop()
    with stop.on_signals():
        asyncio.run(run.replay(found, stop))
    if run.error is not None and not run.selected:
        raise run.error
    account = run.account(stop.requested)
    if dry_run and as_json:
        account["dead_letters"] = run.rows
    elif run.rows:
        print_rows(run.rows[:_SHOWN])
        if len(run.rows) > _SHOWN:
            click.echo(f"and {len(run.rows) - _SHOWN:,} more", err=True)
    print_account(account, as_json=as_json)
    run.tell()
    if run.error is not None:
        raise run.error
    if stop.requested:
        click.echo("tidegate: interrupted; what is counted above is published", err=True)
        raise click.exceptions.Exit(130)
    if run.refused:
        raise click.exceptions.Exit(1)


class _Run:
    """One replay. What cannot be replayed is told and counted; what stops all of it is kept in `error`."""

    def __init__(self, settings: Settings, to: str | None, *, dry_run: bool) -> None:
        self.error: TidegateError | None = None
        self.rows: list[Row] = []
        self.reasons: Counter[Reason] = Counter()
        self._settings = settings
        self._to = to
        self._dry_run = dry_run
        own = Topics(settings.topic_prefix)
        self._never = {own.dead_letters, own.state, own.feedback, own.rate}
        # Bars and dead letters name the source where the settings have one, not the topic.
        self._topics = {tick.source: tick.topic for tick in settings.ticks if tick.source}
        self._partitions: dict[str, int] = {}
        self._publishers: dict[str, Publisher] = {}
        self._seen: set[tuple[str, int, int, int]] = set()
        self.selected = self._repeated = self._refused = self._would = 0

    @property
    def refused(self) -> int:
        """Dead letters that could not be replayed."""
        return self._refused + sum(publisher.refused for publisher in self._publishers.values())

    async def replay(self, found: Iterator[Buried], stop: Stop) -> None:
        """Replay until there is no more, or a signal comes."""
        metadata = cluster_now(self._settings).topics
        self._partitions = {name: len(topic.partitions) for name, topic in metadata.items()}
        if self._to is not None and (problem := self._problem_of(self._to)):
            raise BrokerError(f"nothing was replayed: {problem}")
        try:
            for buried in stop.reading(found):
                await self._take(buried)
                if not self.selected % 100:
                    await asyncio.sleep(0)
        except TidegateError as exc:
            self.error = exc
        for publisher in self._publishers.values():
            try:
                await publisher.settle()
            except TidegateError as exc:
                self.error = self.error or exc
            finally:
                await publisher.close()

    async def _take(self, buried: Buried) -> None:
        self.selected += 1
        letter = buried.letter
        if letter is None:
            self._refuse(f"{buried.where}: {buried.problem}")
            return
        topic = self._to or self._topics.get(letter.topic, letter.topic)
        if problem := self._problem_of(topic, letter.partition):
            self._refuse(f"{buried.where}: {problem}")
            return
        # A tick that was replayed before and came back is there more than once.
        origin = (letter.topic, letter.partition, letter.offset, letter.index)
        if origin in self._seen:
            self._repeated += 1
            return
        self._seen.add(origin)
        self.reasons[letter.reason] += 1
        if self._dry_run:
            self._would += 1
            self.rows.append({**as_row(buried), "to": f"{topic}[{letter.partition}]"})
            return
        if topic not in self._publishers:
            self._publishers[topic] = await open_publisher(self._settings, topic)
        headers = headers_of_replay(buried.headers, Replay.of(letter))
        await self._publishers[topic].publish(
            buried.value, buried.key, buried.where, headers, letter.partition
        )

    def _problem_of(self, topic: str, partition: int = 0) -> str:
        if topic in self._never:
            return f"{topic} is Tidegate's own topic: ticks and bars are replayed, nothing else"
        if topic not in self._partitions:
            return f"broker {self._settings.broker} lacks topic {topic}"
        if partition >= self._partitions[topic]:
            return f"{topic} has no partition {partition}, on which the record was"
        return ""

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        tell(f"not replayed: {reason}", self._refused)

    def account(self, interrupted: bool) -> dict[str, Any]:
        """What became of the dead letters."""
        publishers = self._publishers.values()
        published = sum(publisher.published for publisher in publishers)
        seconds = max((publisher.seconds for publisher in publishers), default=0.0)
        done = {"would_replay": self._would} if self._dry_run else {"replayed": published}
        return {
            "selected": self.selected,
            **done,
            "repeated": self._repeated,
            "refused": self.refused,
            **({} if self._dry_run else rates(published, seconds)),
            "interrupted": interrupted,
        }

    def tell(self) -> None:
        """What people should expect of it."""
        if not self.selected:
            click.echo("no dead letters match", err=True)
        if self._repeated:
            click.echo(
                f"{self._repeated:,} were dead letters of ticks that are counted above already", err=True
            )
        if late := self.reasons[Reason.late]:
            click.echo(
                f"{late:,} were late: they revise their bars where those are still retained (`retain`), "
                "and come back as late where not",
                err=True,
            )
