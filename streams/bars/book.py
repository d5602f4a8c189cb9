"""The windows of one instrument, and its clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Final

from schemas.trade import Names, instrument
from streams.bars.memory import Memory
from streams.bars.replays import replays_from_ns
from streams.bars.seen import Seen
from streams.bars.types import BarSpec, BarType, feeders
from streams.bars.window import Window, empty

NEVER: Final = 2**63


class Series:
    """The open windows of one bar type.

    Ticks go into the finest ones only. A window that closes is merged into those that its series feeds: so an
    open coarse window lacks what is in the open finer ones of its `feeder`, and `Book.whole` has it all.
    """

    __slots__ = ("feeder", "feeds", "interval_ns", "name", "starts", "windows")

    def __init__(self, bar_type: BarType, feeder: Series | None) -> None:
        self.name = bar_type.name
        self.interval_ns = bar_type.interval_ns
        self.feeder = feeder
        self.feeds: list[Series] = []
        if feeder is not None:
            feeder.feeds.append(self)
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
        "closed",
        "floor_ns",
        "horizon_ns",
        "index",
        "name",
        "next_end_ns",
        "next_part",
        "offset",
        "parts",
        "roots",
        "seen",
        "series",
        "symbol",
        "venue",
        "watermark_ns",
    )

    def __init__(self, name: str, symbol: str, venue: str, bar_types: Sequence[BarType]) -> None:
        self.name = name
        self.symbol = symbol
        self.venue = venue
        self.series: list[Series] = []
        """From the finest to the coarsest."""
        for bar_type, feeder in feeders(tuple(bar_types)):
            self.series.append(Series(bar_type, None if feeder is None else self.series[feeder]))
        self.roots = [series for series in self.series if series.feeder is None]
        self.watermark_ns = 0
        self.horizon_ns = 0
        self.floor_ns = 0
        """What was forgotten before a restart: no tick before it can count, whatever the settings are now."""
        self.next_end_ns = NEVER
        """The earliest end of an open window."""
        self.offset = -1
        """With `index`, the position of the last tick that was looked at."""
        self.index = 0
        self.closed: Memory[tuple[str, int], Window] = Memory()
        """The windows that can still be revised, by bar type and start."""
        self.seen = Seen()
        self.parts: dict[int, int] = {}
        """The state rows that are written once, and the watermark after which each is of no use."""
        self.next_part = 0
        self.active_ns: int | None = None
        """When the last tick came, by the injected clock; None after a restart."""
        self.alarmed = False

    def window(self, series: Series, ts_ns: int) -> Window:
        """The open window that an instant falls into, made if need be, and so are those that it feeds."""
        start_ns = ts_ns - ts_ns % series.interval_ns
        window = series.windows.get(start_ns)
        if window is None:
            window = empty(series.name, start_ns, start_ns + series.interval_ns)
            self.put(series, window)
            for fed in series.feeds:
                self.window(fed, ts_ns)
        return window

    def take(self, series: Series, part: Window) -> None:
        """Let a window that was folded elsewhere count; it is the book's from now on."""
        window = series.windows.get(part.start_ns)
        if window is not None:
            window.merge(part)
            return
        part.bar_type = series.name
        self.put(series, part)
        for fed in series.feeds:
            self.window(fed, part.start_ns)

    def put(self, series: Series, window: Window) -> None:
        """Enter an open window."""
        series.windows[window.start_ns] = window
        heappush(series.starts, window.start_ns)
        if window.end_ns < self.next_end_ns:
            self.next_end_ns = window.end_ns

    def close(self) -> list[Window]:
        """Take out the open windows that end at or before the horizon, by bar type and ascending."""
        closed = []
        horizon_ns, next_end_ns = self.horizon_ns, NEVER
        for series in self.series:
            starts = series.starts
            if not starts:
                continue
            interval_ns = series.interval_ns
            end_ns = starts[0] + interval_ns
            if end_ns <= horizon_ns:
                windows, last_start_ns = series.windows, horizon_ns - interval_ns
                while starts and starts[0] <= last_start_ns:
                    window = windows.pop(heappop(starts))
                    for fed in series.feeds:
                        fed.windows[window.start_ns - window.start_ns % fed.interval_ns].merge(window)
                    closed.append(window)
                end_ns = starts[0] + interval_ns if starts else NEVER
            if end_ns < next_end_ns:
                next_end_ns = end_ns
        self.next_end_ns = next_end_ns
        return closed

    def advance(self, ts_ns: int, grace_ns: int) -> None:
        """Let the clock be at least this; the horizon follows."""
        if ts_ns > self.watermark_ns:
            self.watermark_ns = ts_ns
            if ts_ns - grace_ns > self.horizon_ns:
                self.horizon_ns = ts_ns - grace_ns

    def revise(
        self,
        ts_ns: int,
        price: int,
        size: int,
        trade_id: str | int | None,
        side: int,
        count: int,
        offset: int,
    ) -> list[Window]:
        """Let a late trade count in all its windows; gives those that were closed, or unknown.

        A coarse window gets it from the finer one that feeds it, where that has yet to be closed.
        """
        closed = []
        for series in self.series:
            start_ns = ts_ns - ts_ns % series.interval_ns
            end_ns = start_ns + series.interval_ns
            window = series.windows.get(start_ns)
            if end_ns > self.horizon_ns:
                window = window or self.window(series, ts_ns)
            else:
                window = window or self.closed.entries.get((series.name, start_ns))
                if window is None:
                    window = empty(series.name, start_ns, end_ns)
                else:
                    window.revision += 1
                closed.append(window)
            feeder = series.feeder
            if feeder is None or ts_ns - ts_ns % feeder.interval_ns not in feeder.windows:
                window.add(ts_ns, price, size, trade_id, side, count, offset)
        return closed

    def whole(self, series: Series, window: Window) -> Window:
        """An open window with what is still in the finer ones."""
        feeder = series.feeder
        if feeder is None:
            return window
        whole = replace(window)
        for part in feeder.windows.values():
            if whole.start_ns <= part.start_ns < whole.end_ns:
                whole.merge(self.whole(feeder, part))
        return whole

    def earliest_ns(self, spec: BarSpec) -> int:
        """The event time before which a tick cannot count: windows that ended there may be forgotten."""
        return max(self.floor_ns, self.horizon_ns - spec.revisable_ns)

    def retain(self, window: Window) -> None:
        """Remember a closed window."""
        self.closed.put((window.bar_type, window.start_ns), window)

    def forget(self, spec: BarSpec) -> None:
        """Drop what is of no use any more, where there is much."""
        if self.seen.is_full:
            self.seen.forget(self.watermark_ns - (spec.dedupe_ns or 0), replays_from_ns(self, spec))
        if len(self.closed.entries) > self.closed.room:
            self._forget_windows(spec)

    def _forget_windows(self, spec: BarSpec) -> None:
        earliest_ns = self.earliest_ns(spec)
        if next(iter(self.closed.entries.values())).end_ns > earliest_ns:
            self.closed.wait()
            return
        self.closed.keep({key: w for key, w in self.closed.entries.items() if w.end_ns > earliest_ns})

    def open_windows(self) -> Iterator[tuple[Series, Window]]:
        """Every open window."""
        for series in self.series:
            for window in series.windows.values():
                yield series, window


class Books(dict[Names, Book]):
    """Instruments by venue and symbol, made when they are asked for first. Two spellings of one are one book."""

    def __init__(self, by_name: dict[str, Book], bar_types: Sequence[BarType]) -> None:
        """`by_name` are those that are known; new ones are entered."""
        super().__init__()
        self._by_name = by_name
        self._bar_types = bar_types

    def __missing__(self, names: Names) -> Book:
        venue, symbol = names
        name = instrument(venue, symbol)
        book = self._by_name.get(name)
        if book is None:
            self._by_name[name] = book = Book(name, symbol, venue, self._bar_types)
        self[names] = book
        return book
