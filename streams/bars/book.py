"""The windows of one instrument, and its clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Final

from schemas.trade import Trade
from streams.bars.memory import Memory
from streams.bars.replays import is_replayed, replays_from_ns
from streams.bars.types import BarSpec, BarType
from streams.bars.window import Window

NEVER: Final = 2**63


class Series:
    """The open windows of one bar type."""

    __slots__ = ("interval_ns", "name", "starts", "windows")

    def __init__(self, bar_type: BarType) -> None:
        self.name = bar_type.name
        self.interval_ns = bar_type.interval_ns
        self.windows: dict[int, Window] = {}
        self.starts: list[int] = []
        """A heap of the keys of `windows`."""


class Book:
    """All that is known of one instrument.

    A window is closed when it ends at or before `horizon_ns`, and a tick before `horizon_ns` is late: so a
    tick in time never falls into a closed window. The horizon is the watermark less the grace.
    """

    __slots__ = (
        "active_ns",
        "alarmed",
        "batch",
        "closed",
        "current",
        "floor_ns",
        "from_ns",
        "horizon_ns",
        "index",
        "name",
        "next_end_ns",
        "next_part",
        "offset",
        "parts",
        "seen",
        "series",
        "symbol",
        "until_ns",
        "venue",
        "watermark_ns",
    )

    def __init__(self, name: str, symbol: str, venue: str, bar_types: Sequence[BarType]) -> None:
        self.name = name
        self.symbol = symbol
        self.venue = venue
        self.series = [Series(bar_type) for bar_type in bar_types]
        self.watermark_ns = 0
        self.horizon_ns = 0
        self.floor_ns = 0
        """What was forgotten before a restart: no tick before it can count, whatever the settings are now."""
        self.current: list[Window] = []
        """The windows of the last tick in time, one a bar type, and what they have in common:"""
        self.from_ns = self.until_ns = 0
        self.next_end_ns = NEVER
        """The earliest end of an open window."""
        self.offset = -1
        """With `index`, the position of the last tick that was looked at."""
        self.index = 0
        self.closed: Memory[tuple[str, int], Window] = Memory()
        """The windows that can still be revised, by bar type and start."""
        self.seen: Memory[str | int, int] = Memory()
        """What the watermark was when they counted, by trade id."""
        self.parts: dict[int, int] = {}
        """The state rows that are written once, and the watermark after which each is of no use."""
        self.next_part = 0
        self.active_ns: int | None = None
        """When the last tick came, by the injected clock; None after a restart."""
        self.alarmed = False
        self.batch = 0

    def turn(self, trade: Trade, offset: int) -> None:
        """Make current the windows that a trade in time falls into."""
        self.current = [self.window(series, trade, offset) for series in self.series]
        self.from_ns = max(window.start_ns for window in self.current)
        self.until_ns = min(window.end_ns for window in self.current)

    def window(self, series: Series, trade: Trade, offset: int) -> Window:
        """The open window that the trade falls into, made if need be."""
        start_ns = trade.ts_ns - trade.ts_ns % series.interval_ns
        window = series.windows.get(start_ns)
        if window is None:
            end_ns = start_ns + series.interval_ns
            window = Window(series.name, start_ns, end_ns, trade.price, offset)
            self.put(series, window)
        return window

    def put(self, series: Series, window: Window) -> None:
        """Enter an open window."""
        series.windows[window.start_ns] = window
        heappush(series.starts, window.start_ns)
        self.next_end_ns = min(self.next_end_ns, window.end_ns)

    def close(self) -> list[Window]:
        """Take out the open windows that end at or before the horizon, by bar type and ascending."""
        closed = []
        self.next_end_ns = NEVER
        for series in self.series:
            starts = series.starts
            last_start_ns = self.horizon_ns - series.interval_ns
            while starts and starts[0] <= last_start_ns:
                closed.append(series.windows.pop(heappop(starts)))
            if starts:
                self.next_end_ns = min(self.next_end_ns, starts[0] + series.interval_ns)
        return closed

    def earliest_ns(self, spec: BarSpec) -> int:
        """The event time before which a tick cannot count: windows that ended there may be forgotten."""
        return max(self.floor_ns, self.horizon_ns - spec.revisable_ns)

    def forget_trades(self, spec: BarSpec) -> None:
        """Drop the trade ids that no longer make a duplicate."""
        oldest_ns = self.watermark_ns - (spec.dedupe_ns or 0)
        replays_ns = replays_from_ns(self, spec)
        self.seen.keep(
            {
                key: seen_ns
                for key, seen_ns in self.seen.entries.items()
                if seen_ns >= oldest_ns or (seen_ns >= replays_ns and is_replayed(key))
            }
        )

    def forget_windows(self, spec: BarSpec) -> None:
        """Drop the closed windows that can no longer be revised."""
        earliest_ns = self.earliest_ns(spec)
        self.closed.keep({key: w for key, w in self.closed.entries.items() if w.end_ns > earliest_ns})

    def open_windows(self) -> Iterator[Window]:
        """Every open window."""
        for series in self.series:
            yield from series.windows.values()
