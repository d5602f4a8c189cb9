"""A status as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from schemas.control import Control
from streams.cli.dlq_view import visible
from streams.cli.output import emit, new_table, print_table
from streams.cli.times import iso_ms
from streams.groups import Group
from streams.status import Coordinator, Status, TickPartition


def print_status(status: Status) -> None:
    """Print it to standard output, what is wrong last."""
    emit(f"{status.broker} at {iso_ms(status.at)}\n")
    emit(_group(status.bars, sum(one.lag for one in status.ticks), "ticks"))
    emit(_group(status.store, sum(status.bars_lag.values()), "bars"))
    for pause in status.pauses:
        emit(_pause(pause, status.at))
    if status.ticks:
        emit("\n")
        _print_ticks(status.ticks, status.at)
    if status.coordinators:
        emit("\n")
        _print_coordinators(status.coordinators)
    if status.problems:
        emit("\n" + "".join(f"{visible(problem)}\n" for problem in status.problems))


def _group(group: Group, lag: int, what: str) -> str:
    count = len(group.members)
    members = "no members" if not count else "1 member" if count == 1 else f"{count} members"
    state = ", rebalancing" if group.rebalancing else ""
    return f"group {group.name}: {members}{state}, {lag:,} {what} behind\n"


def _pause(pause: Control, now: float) -> str:
    what = pause.role if pause.partition is None else f"{pause.role} partition {pause.partition}"
    where = f" at {visible(pause.worker)}" if pause.worker else ""
    since = f"{iso_ms(pause.ts)} ({lasted(now - pause.ts)})"
    return f"{what}{where}: paused by operator {visible(pause.actor)} since {since}\n"


def _print_ticks(ticks: Sequence[TickPartition], now: float) -> None:
    names = ["ticks", "lag", "scale", "held since", "level", "by", "worker", "note"]
    if not any(one.note for one in ticks):
        names.remove("note")
    table = new_table(*names, right=("lag", "scale"))
    for one in ticks:
        hold = one.hold
        cells = {
            "ticks": f"{one.topic}[{one.partition}]",
            "lag": f"{one.lag:,}",
            "scale": f"{hold.scale:.4g}" if hold else "1",
            "held since": "-",
            "level": hold.reason.value if hold else "-",
            "by": (hold and hold.coordinator_id) or "-",
            "worker": one.owner.name if one.owner else "-",
            "note": one.note,
        }
        if hold and hold.since is not None:
            cells["held since"] = f"{iso_ms(hold.since)} ({lasted(now - hold.since)})"
        style = "bold" if hold and hold.scale < 1 else ""
        # As text, for a table takes brackets for colours.
        table.add_row(*(Text(visible(cells[name])) for name in names), style=style)
    print_table(table)


def _print_coordinators(found: Sequence[Coordinator]) -> None:
    numbers = ("queue", "bars/s", "dropped", "age")
    table = new_table("store worker", "partitions", "level", *numbers, right=numbers)
    for one in found:
        said = one.said
        table.add_row(
            Text(visible(said.coordinator_id)),
            ", ".join(map(str, one.partitions)),
            said.level.value,
            f"{said.queue_size:,}/{said.capacity:,}",
            "-" if said.drain_rate is None else f"{said.drain_rate:,.0f}",
            f"{one.dropped:,}",
            lasted(one.age_s),
        )
    print_table(table)


def lasted(seconds: float) -> str:
    """A length of time: 0.4 s, 12 s, 3 m 20 s, 5 h 10 m, 2 d 3 h."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, smaller, smaller_size in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller_size)} {smaller}"
    return f"{seconds:.0f} s"
