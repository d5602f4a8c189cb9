"""The windows of one instrument, and its clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Final

from msgspec import Raw

from schemas.trade import Names, instrument
from streams.bars.memory import Memory
from streams.bars.replays import replays_from_ns
from streams.bars.seen import Seen
from streams.bars.types import SECOND, BarSpec, BarType, feeders
from streams.bars.window import Window, empty

NEVER: Final = 2**63


class Series:
    """One of the bar types, the same for all instruments.

    Ticks go into windows of the finest ones only, the roots. A window that closes is merged into those that its
    series feeds: so an open coarse window lacks what is in the open finer ones of its `feeder`, and `Book.whole`
    has it all.
    """

    def __init__(self, number: int, bar_type: BarType, feeder: Series | None) -> None:
        self.number = number
        """Among all of them, from the finest to the coarsest. Windows begin and end at whole seconds, so the start
        of one plus this number, in nanoseconds, is a key of it among those of its instrument."""
        self.name = bar_type.name
        self.interval_ns = bar_type.interval_ns
        self.feeder = feeder
        self.feeds: list[Series] = []
        if feeder is not None:
            feeder.feeds.append(self)

    def key(self, ts_ns: int) -> int:
        """Of the window that an instant falls into."""
        return ts_ns - ts_ns % self.interval_ns + self.number


def series_of(bar_types: Sequence[BarType]) -> list[Series]:
    """From the finest to the coarsest."""
    made: list[Series] = []
    for number, (bar_type, feeder) in enumerate(feeders(tuple(bar_types))):
        made.append(Series(number, bar_type, None if feeder is None else made[feeder]))
    return made


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
        "ends",
        "floor_ns",
        "held",
        "horizon_ns",
        "name",
        "next_end_ns",
        "rows",
        "seen",
        "series",
        "slot",
        "symbol",
        "venue",
        "watermark_ns",
        "windows",
    )

    def __init__(self, name: str, symbol: str, venue: str, series: Sequence[Series]) -> None:
        self.name = name
        self.symbol = symbol
        self.venue = venue
        self.series = series
        self.windows: dict[int, Window] = {}
        """Those that are open, of all series, by `Series.key`."""
        self.ends: list[int] = []
        """A heap of their ends, each plus the number of its series."""
        self.watermark_ns = 0
        self.horizon_ns = 0
        self.floor_ns = 0
        """What was forgotten before a restart: no tick before it can count, whatever the settings are now."""
        self.next_end_ns = NEVER
        """The earliest end of an open window."""
        self.batch = 0
        """The number of the last batch that had ticks of it."""
        self.closed: Memory[int, Window] = Memory()
        """The windows that can still be revised, by `Series.key`."""
        self.seen = Seen()
        self.rows: list[Raw] = []
        """Windows that have closed, as the state has them, written when they were published and not saved yet."""
        self.active_ns: int | None = None
        """When the last tick came, by the injected clock; None after a restart."""
        self.alarmed = False
        self.held = False
        """Whether a `Board` has the clock, the newest trade ids, and the open windows that ticks go into."""
        self.slot = -1
        """Its number among all instruments: in the state, and in the tables of a `Board`."""

    def window(self, series: Series, ts_ns: int) -> Window:
        """The open window that an instant falls into, made if need be, and so are those that it feeds."""
        start_ns = ts_ns - ts_ns % series.interval_ns
        window = self.windows.get(start_ns + series.number)
        if window is None:
            window = empty(series.name, start_ns, start_ns + series.interval_ns)
            self.put(series, window)
            for fed in series.feeds:
                self.window(fed, ts_ns)
        return window

    def put(self, series: Series, window: Window) -> None:
        """Enter an open window."""
        self.windows[window.start_ns + series.number] = window
        end_ns = window.end_ns
        heappush(self.ends, end_ns + series.number)
        if end_ns < self.next_end_ns:
            self.next_end_ns = end_ns

    def close(self) -> list[tuple[int, Window]]:
        """Take out the open windows that end at or before the horizon, by their ends; each with its key."""
        closed = []
        windows, ends, all_series = self.windows, self.ends, self.series
        # Of windows that end at once the finer comes first, and is merged into the coarser before that closes.
        last = self.horizon_ns - self.horizon_ns % SECOND + len(all_series)
        while ends and ends[0] < last:
            end = heappop(ends)
            series = all_series[end % SECOND]
            key = end - series.interval_ns
            window = windows.pop(key)
            start_ns = window.start_ns
            for fed in series.feeds:
                windows[start_ns - start_ns % fed.interval_ns + fed.number].merge(window)
            closed.append((key, window))
        self.next_end_ns = ends[0] - ends[0] % SECOND if ends else NEVER
        return closed

    def revise(
        self,
        ts_ns: int,
        price: int,
        size: int,
        trade_id: str | int | None,
        side: int,
        count: int,
        offset: int,
    ) -> list[tuple[int, Window]]:
        """Let a late trade count in all its windows; gives those that were closed, or unknown, with their keys.

        A coarse window gets it from the finer one that feeds it, where that has yet to be closed.
        """
        closed = []
        for series in self.series:
            start_ns = ts_ns - ts_ns % series.interval_ns
            end_ns = start_ns + series.interval_ns
            if end_ns > self.horizon_ns:
                window = self.window(series, ts_ns)
            else:
                key = start_ns + series.number
                if known := self.closed.entries.get(key):
                    known.revision += 1
                window = known or empty(series.name, start_ns, end_ns)
                closed.append((key, window))
            feeder = series.feeder
            if feeder is None or feeder.key(ts_ns) not in self.windows:
                window.add(ts_ns, price, size, trade_id, side, count, offset)
        return closed

    def whole(self, series: Series, window: Window) -> Window:
        """An open window with what is still in the finer ones."""
        feeder = series.feeder
        if feeder is None:
            return window
        whole = replace(window)
        for key, part in self.windows.items():
            if key % SECOND == feeder.number and whole.start_ns <= part.start_ns < whole.end_ns:
                whole.merge(self.whole(feeder, part))
        return whole

    def earliest_ns(self, spec: BarSpec) -> int:
        """The event time before which a tick cannot count: windows that ended there may be forgotten."""
        return max(self.floor_ns, self.horizon_ns - spec.revisable_ns)

    def forget_ids(self, spec: BarSpec) -> None:
        """Drop the trade ids that are of no use any more, where there are many."""
        if self.seen.is_full:
            self.seen.forget(self.watermark_ns - (spec.dedupe_ns or 0), replays_from_ns(self, spec))

    def forget_windows(self, spec: BarSpec) -> None:
        """Drop the closed windows that cannot be revised any more."""
        earliest_ns = self.earliest_ns(spec)
        if next(iter(self.closed.entries.values())).end_ns > earliest_ns:
            self.closed.wait()
            return
        self.closed.keep({key: w for key, w in self.closed.entries.items() if w.end_ns > earliest_ns})

    def forget_old_windows(self, spec: BarSpec) -> None:
        """`forget_windows`, where there are many, or the last one is of no use any more; there is one at least.

        What closes on a `Board` is not among them: where the last one is of no use, no others may come.
        """
        closed = self.closed
        last = next(reversed(closed.entries.values()))
        if len(closed.entries) > closed.room or last.end_ns <= self.earliest_ns(spec):
            self.forget_windows(spec)

    def open_windows(self) -> Iterator[tuple[Series, Window]]:
        """Every open window, as they start, the finer first."""
        for key in sorted(self.windows):
            yield self.series[key % SECOND], self.windows[key]


class Books(dict[Names, Book]):
    """Instruments by venue and symbol, made when they are asked for first. Two spellings of one are one book."""

    def __init__(self, by_name: dict[str, Book], series: Sequence[Series]) -> None:
        """`by_name` are those that are known; new ones are entered."""
        super().__init__()
        self.numbered: list[Book] = []
        """All books, each where its `slot` says."""
        self._by_name = by_name
        self._series = series

    def __missing__(self, names: Names) -> Book:
        venue, symbol = names
        name = instrument(venue, symbol)
        book = self._by_name.get(name)
        if book is None:
            book = Book(name, symbol, venue, self._series)
            self.add(book)
        self[names] = book
        return book

    def add(self, book: Book) -> None:
        """Enter one that is new."""
        book.slot = len(self.numbered)
        self.numbered.append(book)
        self._by_name[book.name] = book
