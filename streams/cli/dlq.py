"""``tidegate dlq``: what was refused, and why; and how it gets another try."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click

from schemas.dead_letter import Reason
from streams.cli.dlq_find import dead_letters, dead_letters_at
from streams.cli.dlq_view import NOT_OURS, Row, as_object, as_row, json_line, print_rows, whole
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit, emit_bytes, new_table, print_table
from streams.cli.times import Instant
from streams.dead_letters import Selection
from streams.settings import load_settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group("dlq")
def command() -> None:
    """List, show and replay dead letters: records that workers refused, with their bytes and the reason.

    \b
    Examples:
      tidegate dlq list --reason late --since 2024-08-08
      tidegate dlq show 'md.ticks.dlq.v1[0]@17'
      tidegate dlq replay --reason future --dry-run
    """


def selection_options(function: F) -> F:
    """The options that say which dead letters are meant."""
    for option in reversed(
        (
            click.option(
                "--reason",
                "reasons",
                multiple=True,
                type=click.Choice([reason.value for reason in Reason]),
                help="Only these reasons.  [may be repeated]",
            ),
            click.option("--topic", metavar="T", help="Only what came from this topic."),
            click.option("--partition", type=click.IntRange(0), metavar="P", help="Only this partition."),
            click.option("--since", "since_ns", type=Instant(), help="Refused at this time or later."),
            click.option("--until", "until_ns", type=Instant(), help="Refused before this time."),
        )
    ):
        function = option(function)
    return function


def selection_of(options: dict[str, Any]) -> Selection:
    """Takes the options of a selection out of all options."""
    since_ns, until_ns = options.pop("since_ns"), options.pop("until_ns")
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise click.UsageError("--since must be before --until, which is exclusive")
    reasons = frozenset(map(Reason, options.pop("reasons")))
    return Selection(reasons, options.pop("topic"), options.pop("partition"), since_ns, until_ns)


@command.command("list")
@selection_options
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="N",
    help="The newest N of these.",
)
@click.option("--all", "everything", is_flag=True, help="No limit.")
@click.option("--count", "counting", is_flag=True, help="Only how many there are of each reason.")
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_command(
    limit: int,
    everything: bool,
    counting: bool,
    broker: str | None,
    config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """List dead letters, the newest last: where they are, why they were refused, where they came from.

    A time is an ISO date or time, UTC where it names no zone, or ns since the epoch. What others put
    on the topic is listed as not Tidegate's. With --all --json they are printed as they are read,
    partition by partition.

    \b
    Examples:
      tidegate dlq list
      tidegate dlq list --reason future --reason late --partition 3
      tidegate dlq list --since 2024-08-08T12:00 --count
      tidegate dlq list --all --json | jq -r .detail
    """
    selection = selection_of(options)
    settings = load_settings(config, broker=broker)
    reasons: Counter[str] = Counter()
    again = 0
    # A heap of the newest; the place decides among equals.
    newest: list[tuple[tuple[int, int, int], Row]] = []
    with closing(dead_letters(settings, selection)) as found:
        for buried in found:
            letter = buried.letter
            reasons[letter.reason.value if letter else NOT_OURS] += 1
            again += letter is not None and letter.replayed is not None
            if counting:
                continue
            item = ((buried.when_ns or 0, buried.partition, buried.offset), as_row(buried))
            if everything and as_json:  # there may be more than memory holds
                emit(json_line(item[1]))
            elif everything or len(newest) < limit:
                heapq.heappush(newest, item)
            else:
                heapq.heappushpop(newest, item)
    rows = [row for _, row in sorted(newest, key=lambda item: item[0])]
    if counting:
        _print_counts(reasons, again, as_json=as_json)
    elif as_json:
        emit("".join(map(json_line, rows)))
    elif rows:
        print_rows(rows)
        shown = "" if len(rows) == reasons.total() else f"the newest {len(rows):,} of "
        counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        click.echo(
            f"{shown}{reasons.total():,}: {counts}" + (f"; {again:,} came back" * bool(again)), err=True
        )
    if not reasons:
        click.echo("no dead letters match", err=True)


def _print_counts(reasons: Counter[str], again: int, *, as_json: bool) -> None:
    if as_json:
        foreign = reasons.pop(NOT_OURS, 0)
        counts = {"total": reasons.total() + foreign, "reasons": dict(reasons.most_common())}
        emit(json.dumps({**counts, "not_tidegates": foreign, "came_back": again}) + "\n")
    elif reasons:
        table = new_table("reason", "count", right=("count",))
        for reason, count in reasons.most_common():
            table.add_row(reason, f"{count:,}")
        print_table(table)
        if again:
            click.echo(f"{again:,} of them came back from a replay", err=True)


@command.command("show")
@click.argument("where", metavar="WHERE")
@click.option("--raw", is_flag=True, help="Write the record's bytes, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the bytes in base64, too.")
@broker_option
@config_option
def show_command(where: str, raw: bool, as_json: bool, broker: str | None, config: Path | None) -> None:
    """Show one dead letter whole: why it was refused, its headers, its key and its bytes.

    WHERE is its place as `tidegate dlq list` prints it, or 0@17 for short. Bytes that are no text
    are dumped in hexadecimal.

    \b
    Examples:
      tidegate dlq show 'md.ticks.dlq.v1[0]@17'
      tidegate dlq show 0@17 --raw > record.bin
      tidegate dlq show 0@17 --json | jq -r .value
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json are two ways to print: choose one")
    settings = load_settings(config, broker=broker)
    (buried,) = dead_letters_at(settings, (where,))
    if raw:
        if buried.value is None:
            click.echo("the record has no value: it is a tombstone", err=True)
        emit_bytes(buried.value or b"")
    elif as_json:
        emit(json_line(as_object(buried)))
    else:
        emit(whole(buried))


@command.command("replay")
@click.argument("places", nargs=-1, metavar="[WHERE]...")
@selection_options
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@click.option("--to", metavar="T", help="Replay to this topic.  [default: the one each came from]")
@click.option("--dry-run", is_flag=True, help="Show what would be replayed, and replay nothing.")
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def replay_command(
    places: tuple[str, ...],
    everything: bool,
    to: str | None,
    dry_run: bool,
    broker: str | None,
    config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Give dead letters another try: publish their bytes again to the topic and partition they came from.

    Workers judge them anew: by the time of the replay where they were dated ahead of their receipt,
    and as a revision where their bar has been closed and is still retained, whatever `late` says. What
    is refused again comes back as a dead letter that names the first one's origin. A tick counts
    once, however often it is replayed; of a record with several trades only the refused one counts.
    Bars that the store refused go back to the bars topic.

    Say which: places (WHERE, as `tidegate dlq list` prints them), a selection, or --all. Exits with 1
    if something could not be replayed, with 130 if interrupted.

    \b
    Examples:
      tidegate dlq replay --reason future --since 2024-08-08T12:00 --dry-run
      tidegate dlq replay --reason future --since 2024-08-08T12:00
      tidegate dlq replay 'md.ticks.dlq.v1[0]@17' 'md.ticks.dlq.v1[3]@4'
      tidegate dlq replay --reason late --topic md.ticks.v1 --to md.late.v1
    """
    from streams.cli.dlq_replay import replay  # it needs the event loop and the producer, the others do not

    selection = selection_of(options)
    if sum((bool(places), everything, not selection.is_everything)) != 1:
        if places or everything:
            raise click.UsageError("places, a selection and --all are three ways to say which: choose one")
        raise click.UsageError("say which: WHERE, --reason, --topic, --partition, --since, --until or --all")
    settings = load_settings(config, broker=broker)
    found = iter(dead_letters_at(settings, places)) if places else dead_letters(settings, selection)
    replay(settings, found, to=to, dry_run=dry_run, as_json=as_json)
