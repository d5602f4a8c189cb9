"""The outcome as text, Markdown and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from chaos.judge import Outcome
from chaos.verdict import Moment, clock


def figures(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    differing = {
        f"{where}, {what}": sum((d.where, d.what) == (where, what) for d in outcome.verdict.differences)
        for where, what in sorted({(d.where, d.what) for d in outcome.verdict.differences})
    }
    return {
        "faults": len(outcome.timeline),
        "seconds": round(outcome.seconds, 1),
        "ticks": outcome.expected.ticks,
        "duplicates": outcome.expected.duplicates,
        "late": outcome.expected.late,
        "resent": outcome.resent,
        "garbage": outcome.garbage,
        "bars": len(outcome.expected.bars),
        "compared": outcome.compared,
        "unequal": len(outcome.verdict.differences),
        "differing": differing,
        "complaints": outcome.verdict.complaints,
        "bar_records": outcome.bars_published,
        "bar_offsets": outcome.bars_offsets,
        "bar_offsets_compacted": outcome.bars_compacted,
        "workers_started": outcome.starts,
        "exits": len(outcome.exits),
        "exits_of_their_own": sum(not e.meant for e in outcome.exits),
        "exits_unexcused": len(outcome.unexplained),
        "all": _row(outcome.timeline),
        "kinds": by_kind(outcome),
        "timeline": timeline(outcome),
    }


def by_kind(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Faults of each kind, and the seconds until bars flowed again."""
    kinds: defaultdict[str, list[Moment]] = defaultdict(list)
    for moment in outcome.timeline:
        kinds[moment.kind].append(moment)
    return {kind: _row(moments) for kind, moments in sorted(kinds.items())}


def _row(moments: Sequence[Moment]) -> dict[str, Any]:
    row: dict[str, Any] = {"faults": len(moments)}
    for name, every in (
        ("recovery", [m.recovered_s for m in moments]),
        ("mended", [m.mended_s for m in moments]),
    ):
        times = [seconds for seconds in every if seconds is not None]
        row[f"{name}_median_s"] = round(median(times), 1) if times else None
        row[f"{name}_max_s"] = round(max(times), 1) if times else None
    return row


def _rows(outcome: Outcome) -> list[tuple[str, ...]]:
    rows = [("fault", "times", "median s", "max s", "after mending, median s", "max s")]
    for kind, row in {**by_kind(outcome), "all": _row(outcome.timeline)}.items():
        rows.append((kind, *("" if value is None else str(value) for value in row.values())))
    return rows


def _facts(outcome: Outcome) -> list[str]:
    told = figures(outcome)
    compared = ", ".join(f"{count:,} in the {where}" for where, count in outcome.compared.items())
    compacted = f" ({told['bar_offsets_compacted']:,} compacted)" if outcome.bars_compacted else ""
    own = f"{told['exits_of_their_own']} of their own accord, {told['exits_unexcused']} that no fault excuses"
    took = f"{told['seconds']:,.0f} s"
    return [
        f"{told['ticks']:,} ticks ({told['duplicates']:,} duplicates, {told['late']:,} late)",
        f"{told['garbage']:,} records of garbage, {told['resent']:,} sent once more by their client, all in {took}",
        f"{told['bars']:,} bars expected, {compared} compared: {told['unequal']:,} unequal",
        f"{told['bar_records']:,} records in the bars topic, of {told['bar_offsets']:,} offsets{compacted}",
        f"{told['workers_started']} workers started, {told['exits']} exits: {own}",
    ]


def text(outcome: Outcome) -> str:
    """For a terminal."""
    rows = _rows(outcome)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    parts = [
        "from a fault to bars of newer ticks in the store, on every partition:",
        *table,
        "",
        *_facts(outcome),
    ]
    if not outcome.verdict.good:
        parts += [
            "",
            "WRONG:",
            *outcome.verdict.lines(outcome.timeline),
            "",
            "time line:",
            *timeline(outcome),
        ]
    return "\n".join(parts)


def timeline(outcome: Outcome) -> list[str]:
    """When each fault came, and when it was over."""
    return [
        f"{clock(m.began)} {m.what}, mended {clock(m.ended) if m.ended else 'never'}, "
        + (f"bars after {m.recovered_s:.1f} s" if m.recovered_s is not None else "no bars before the next")
        for m in outcome.timeline
    ]


def markdown(outcome: Outcome) -> str:
    """For a page."""
    head, *rows = _rows(outcome)
    table = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *(f"- {f}" for f in _facts(outcome))])
