"""The figures as text, Markdown and JSON."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import confluent_kafka
import psutil

from bench.contenders import Lap
from bench.feed import PARTITIONS, Prefilled

MARKS = ("<!-- measured -->", "<!-- end of measured -->")

#: What the project asks of its worker, as ratios of the medians.
STOCK_TARGET, AIOKAFKA_TARGET = 25.0, 0.6

HEADINGS = ("", "ticks", "min", "median", "max", "CPU µs/tick", "x stock", "x aiokafka")


@dataclass
class Result:
    """The laps of one contender."""

    name: str
    ticks: int
    laps: list[Lap] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Ticks a second, ascending."""
        return sorted(lap.rate for lap in self.laps)

    @property
    def median(self) -> float:
        """Ticks a second."""
        return median(self.rates)

    @property
    def cpu_us(self) -> float:
        """CPU time of a tick, all threads of the process; the median."""
        return median(lap.cpu_seconds / lap.ticks * 1e6 for lap in self.laps)


@dataclass
class Report:
    """Everything that a reader needs to judge the figures."""

    broker: str
    feed: Prefilled
    results: list[Result]
    busy: float
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, str]:
        """The machine, the versions and the data."""
        return {
            "machine": f"{os.cpu_count()} cores, {_cpu_model()}, {psutil.virtual_memory().total >> 30} GiB, "
            f"for the broker and all clients; {self.busy:.0%} busy with other things before the first lap",
            "python": f"{platform.python_version()}, {platform.system()} {platform.release()}",
            "broker": f"Apache Kafka {self.broker}",
            "clients": f"aiokafka {version('aiokafka')}, faust-streaming {version('faust-streaming')}, "
            f"librdkafka {confluent_kafka.libversion()[0]}, msgspec {version('msgspec')}",
            "ticks": f"JSON of {self.feed.message_bytes:.0f} bytes, {self.feed.instruments:,} instruments, "
            f"{PARTITIONS} partitions, {self.feed.per_second:,} ticks a second of event time: "
            f"{self.feed.ticks_per_bar:.0f} in a 1s bar",
            "laps": f"{len(self.results[0].laps)} of each contender, in turns",
            "targets": f"Tidegate {STOCK_TARGET:g} x stock and {AIOKAFKA_TARGET:g} x raw aiokafka",
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The table, ticks a second."""
        medians = {result.name: result.median for result in self.results}
        return [
            (
                result.name,
                f"{result.ticks:,}",
                f"{result.rates[0]:,.0f}",
                f"{result.median:,.0f}",
                f"{result.rates[-1]:,.0f}",
                f"{result.cpu_us:.2f}",
                _ratio(result.median, medians.get("stock Faust agent")),
                _ratio(result.median, medians.get("raw aiokafka")),
            )
            for result in self.results
        ]

    def text(self) -> str:
        """For a terminal."""
        facts = [f"{name:<9}{fact}" for name, fact in self.facts().items()]
        rows = [HEADINGS, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [_line(row, widths) for row in rows]
        return "\n".join([*facts, "", *table, *([""] if self.notes else []), *self.notes])

    def markdown(self) -> str:
        """For docs/benchmarks.md."""
        rows = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *self.rows()]
        table = [f"| {' | '.join(row)} |" for row in rows]
        facts = [f"- {name}: {fact}" for name, fact in self.facts().items()]
        return "\n".join([*table, "", *facts, *(f"- {note}" for note in self.notes)])

    def figures(self) -> dict[str, Any]:
        """For programs."""
        results: list[dict[str, Any]] = [
            {
                "name": result.name,
                "ticks": result.ticks,
                "ticks_per_second": [round(lap.rate) for lap in result.laps],
                "median": round(result.median),
                "cpu_us_per_tick": round(result.cpu_us, 3),
            }
            for result in self.results
        ]
        return {**self.facts(), "results": results, "notes": self.notes}


def write_markdown(path: Path, tables: Iterable[str]) -> None:
    """Replace what stands between the marks of a page."""
    begin, end = MARKS
    page = path.read_text(encoding="utf-8")
    inside = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not inside.search(page):
        raise ValueError(f"{path} lacks {begin} and {end}")
    content = "\n\n".join([begin, *tables, end])
    path.write_text(inside.sub(lambda _: content, page), encoding="utf-8")


def _ratio(rate: float, other: float | None) -> str:
    return f"{rate / other:.2f}" if other else ""


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([name.strip().ljust(widths[0]), *figures])


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
