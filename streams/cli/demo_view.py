"""What `tidegate demo` shows while it runs."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.bar import Bar

if TYPE_CHECKING:
    from streams.loop import Loop


class View:
    """What one sees: tables on a terminal, a line a second where output is piped."""

    def __init__(self, loop: Loop, silent: bool) -> None:
        self.note = ""
        self._loop = loop
        self._silent = silent
        self._recent: deque[Bar] = deque(maxlen=10)
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=10, transient=True)
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._silent:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def wrap(self, on_written: Any) -> Any:
        def written(bars: list[Bar]) -> None:
            self._recent.extend(bars)
            on_written(bars)

        return written

    def update(self, force: bool = False) -> None:
        if self._silent:
            return
        if self._console.is_terminal:
            self._live.update(Group(self._partitions(), Text(), self._bars(), Text(), self._queue()))
        elif force or time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            click.echo(self._line())

    def _line(self) -> str:
        loop, writer = self._loop, self._loop.store.writer
        flows: defaultdict[str, list[str]] = defaultdict(list)
        for partition in range(len(loop.lag())):
            held = loop.bars.throttle.held.get(partition)
            scale = held.decision.scale if held else 1.0
            flow = "open" if scale == 1 else f"at {scale:.0%}" if scale else "paused"
            flows[flow].append(str(partition))
        listed = [
            f"{' '.join(which) if flows.keys() - {flow} else 'all'} {flow}" for flow, which in flows.items()
        ]
        return "  ".join(
            [
                f"{time.monotonic() - loop.started:5.1f} s",
                f"ticks {loop.published:>7,}",
                f"lag {sum(loop.lag()):>6,}",
                f"bars {self._stored():>5,}",
                f"queue {writer.size:>3}/{writer.capacity} {writer.level.value:<4}",
                f"partitions: {', '.join(listed)}",
                f"({self.note})" if self.note else "",
            ]
        ).rstrip()

    def _stored(self) -> int:
        return sum(self._loop.stored().values())

    def _partitions(self) -> Table:
        table = Table("partition", "lag", "flow", "why", title="ticks", title_justify="left", box=None)
        held = self._loop.bars.throttle.held
        for partition, lag in enumerate(self._loop.lag()):
            if partition in held:
                decision, since = held[partition]
                flow = "[red]paused[/]" if decision.scale == 0 else f"[yellow]at {decision.scale:.0%}[/]"
                for_s = time.time() - since
                why = f"store {decision.coordinator_id} is {decision.reason.value}, for {for_s:.1f} s"
            else:
                flow, why = "[green]open[/]", ""
            table.add_row(str(partition), f"{lag:,}", flow, why)
        return table

    def _bars(self) -> Table:
        table = Table(title="bars stored last", title_justify="left", box=None)
        for name in ("instrument", "type", "start"):
            table.add_column(name)
        for name in ("open", "high", "low", "close", "volume", "trades"):
            table.add_column(name, justify="right")
        for bar in self._recent:
            start = time.strftime("%H:%M:%S", time.gmtime(bar.start_ns // 10**9))
            prices = (bar.open, bar.high, bar.low, bar.close)
            table.add_row(bar.instrument, bar.type, start, *prices, bar.volume, str(bar.trade_count))
        return table

    def _queue(self) -> Text:
        writer = self._loop.store.writer
        fill = min(1.0, writer.size / writer.capacity)
        color = {"ok": "green", "soft": "yellow", "hard": "red"}[writer.level.value]
        return Text.from_markup(
            f"store queue [{color}]{'█' * round(fill * 40):<40}[/] {writer.size}/{writer.capacity} "
            f"{writer.level.value}   {self.note}\n"
            f"{self._loop.published:,} ticks sent, {self._stored():,} bars stored"
        )
