"""Instruments from the rows that `state` describes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Final, TypeVar

import msgspec
import numpy as np

from schemas.codecs.spans import Ints
from schemas.errors import StateError
from schemas.fixed import parse_rendered
from schemas.trade import instrument
from streams.bars.book import Book, Series, series_of
from streams.bars.packs import no_marks
from streams.bars.replays import is_replayed
from streams.bars.rows import (
    VERSION,
    WIDTH,
    Clock,
    Mark,
    Names,
    Open,
    Past,
    Position,
    as_integer,
    from_bytes,
)
from streams.bars.state import (
    BLOCK,
    FLOOR,
    NAMES,
    OPEN,
    OPEN_IN,
    PAST,
    PAST_FROM,
    POSITION,
    REMEMBERED,
    WATERMARK,
    PastRow,
    StateLog,
)
from streams.bars.types import BarSpec, BarType, Late, feeders
from streams.bars.window import Window

T = TypeVar("T", bound=msgspec.Struct)
C = TypeVar("C", Names, Open, Past)

_envelope = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_MOST: Final = 2**63 - 1
_UNREADABLE: Final = (KeyError, ValueError, OverflowError, msgspec.DecodeError)


def restore(
    rows: Mapping[str, bytes], state: StateLog, spec: BarSpec, series: Sequence[Series]
) -> tuple[list[Book], list[Book]]:
    """The instruments in these rows, in the order of their numbers, and those that are to be written again.

    Which rows there are is entered into `state`; `series` are those of the bar types of `spec`, for the instruments
    to share. Raises StateError.
    """
    if not rows:
        return [], []
    restored = _Restored(rows, position_of(rows, state.log_id), state, spec, series)
    return restored.read(), restored.changed


def position_of(rows: Mapping[str, bytes], log_id: str) -> Position:
    """How far the state in these rows has come. Raises StateError, also where it is that of another log."""
    if POSITION not in rows:
        raise StateError(
            f"the state has {len(rows):,} rows, and not the one that says how far it has come",
            hint="was its topic deleted from, or not compacted alone (cleanup.policy)? "
            "`tidegate state reset` starts afresh",
        )
    position = _decode(Position, POSITION, rows[POSITION])
    try:
        position.check()
    except ValueError as error:
        raise _unreadable(POSITION, error) from None
    if log_id and position.log_id and position.log_id != log_id:
        raise StateError(
            f"the state ends at offset {position.offset} of a topic that is gone: id {position.log_id}, "
            f"now {log_id}; it was deleted and made anew",
            hint="what was open in it is lost with it: `tidegate state reset` starts the new topic afresh",
        )
    return position


class _Restored:
    """Rows on their way to instruments."""

    def __init__(
        self,
        rows: Mapping[str, bytes],
        position: Position,
        state: StateLog,
        spec: BarSpec,
        series: Sequence[Series],
    ) -> None:
        self._rows = rows
        self._position = position
        self._state = state
        self._books: list[Book] = []
        self.changed: list[Book] = []
        self._spec = spec
        self._series = series
        self._check_bar_types = cache(self._check)

    def read(self) -> list[Book]:
        """The instruments in all of them."""
        position, state = self._position, self._state
        names = range(-(-position.instruments // BLOCK))
        told = len(names) + sum(end - first for first, end in (position.open, position.past))
        if told > len(self._rows):
            raise StateError(f"the state lacks rows: it has {len(self._rows):,} of {told + 1:,}")
        counting = {f"{NAMES}|{number}" for number in names} | {POSITION}
        for kind, (first, end) in ((OPEN, position.open), (PAST, position.past)):
            counting.update(f"{kind}|{number}" for number in range(first, end))
            state.next[kind] = end
        for name in sorted(self._rows.keys() - counting):
            kind, _, number = name.partition("|")
            if kind not in {NAMES, OPEN, PAST} or not number.isdecimal():
                raise StateError(f"state row {name!r} is not one of Tidegate's")
            state.garbage.append(name)
        self._read_names(names)
        state.make_room(len(self._books))
        self._read_open(range(*position.open))
        self._read_past(range(*position.past))
        self._forget()
        state.position = position.offset
        state.named = position.instruments
        return self._books

    def _read_names(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            row = self._row(Names, f"{NAMES}|{number}")
            for symbol, venue in zip(row.symbols, row.venues, strict=True):
                if len(self._books) < self._position.instruments:
                    book = Book(instrument(venue, symbol), symbol, venue, self._series)
                    self._books.append(book)
        if len(self._books) < self._position.instruments:
            raise StateError(
                f"the state has {self._position.instruments:,} instruments, and the names of "
                f"{len(self._books):,}"
            )

    def _read_open(self, numbers: Iterable[int]) -> None:
        packs: list[tuple[int, str, Open]] = []
        known = self._state.rows
        for number in numbers:
            name = f"{OPEN}|{number}"
            pack = self._row(Open, name)
            packs.append((number, name, pack))
            clocks = from_bytes(pack.clocks, len(Clock._fields))
            slots = self._known(name, clocks[:, 0])
            known[slots, OPEN_IN] = number
            known[slots, WATERMARK] = clocks[:, 1]
            known[slots, FLOOR] = clocks[:, 3]
            known[slots, REMEMBERED] = clocks[:, 4]
            self._state.open.append((number, len(slots)))
            self._state.latest_ns = max(self._state.latest_ns, int(clocks[:, 1].max(initial=0)))
            for slot, watermark_ns, horizon_ns, floor_ns, _ in clocks.tolist():
                book = self._books[slot]
                book.watermark_ns, book.horizon_ns, book.floor_ns = watermark_ns, horizon_ns, floor_ns
        for number, name, pack in packs:
            bar_types = tuple(pack.windows.bar_types)
            windows: defaultdict[int, list[Window]] = defaultdict(list)
            here = set(np.flatnonzero(known[:, OPEN_IN] == number).tolist())
            for slot, window in self._windows(name, pack, as_integer, here.__contains__):
                windows[slot].append(window)
            if here:
                self._check_bar_types(name, bar_types)
            for slot, found in windows.items():
                try:
                    _reopen(self._books[slot], found, list(map(BarType.parse, bar_types)))
                except _UNREADABLE as error:
                    raise _unreadable(name, error) from None

    def _read_past(self, numbers: Iterable[int]) -> None:
        wanted = {series.name: series for series in self._series}
        known = self._state.rows
        marks = [no_marks()]
        texts: list[tuple[int, int, int | str]] = []
        for number in numbers:
            name = f"{PAST}|{number}"
            pack = self._row(Past, name)
            self._state.add_past(PastRow(number, pack.latest_ns, pack.items))
            self._state.latest_ns = max(self._state.latest_ns, pack.latest_ns)
            for slot, window in self._windows(name, pack, parse_rendered, self._is_known):
                book, series = self._books[slot], wanted.get(window.bar_type)
                if (
                    series is not None
                    and self._spec.late is not Late.DROP
                    and window.end_ns > book.earliest_ns(self._spec)
                ):
                    book.closed.put(series.key(window.start_ns), window)
            marks.append(from_bytes(pack.ids, len(Mark._fields)))
            texts += zip(pack.others_ns, pack.others_of, pack.others, strict=True)
            packed = from_bytes(pack.windows.packed, WIDTH)[:, 0]
            for some in (packed, marks[-1][:, 0], pack.windows.others_of, pack.others_of):
                slots = self._known(name, some)
                known[slots, PAST_FROM] = np.minimum(known[slots, PAST_FROM], number)
        if self._spec.dedupe_ns is not None:
            self._enter(np.concatenate(marks), self._spec.dedupe_ns)
        for mark_ns, slot, trade_id in sorted(texts, key=lambda text: text[0]):
            floor_ns, remembered_ns = known[slot, FLOOR], known[slot, REMEMBERED]
            if is_replayed(trade_id):
                counts = mark_ns >= min(floor_ns, remembered_ns)
            else:
                counts = self._spec.dedupe_ns is not None and mark_ns >= remembered_ns
            if counts:
                self._books[slot].seen.put(trade_id, mark_ns)
        for book in self._books:
            book.seen.save()

    def _enter(self, marks: Ints, dedupe_ns: int) -> None:
        """Enter trade ids that are numbers and of use; of one that counted again the last time holds."""
        known = self._state.rows[marks[:, 0]]
        since_ns = np.maximum(known[:, REMEMBERED], known[:, WATERMARK] - min(dedupe_ns, _MOST))
        marks = marks[marks[:, 2] >= since_ns][:, [0, 2, 1]]
        marks = marks[np.lexsort(marks.T[::-1])]  # by instrument, watermark and id
        marks = marks[np.append(True, (np.diff(marks, axis=0) != 0).any(axis=1))[: len(marks)]]  # each once
        bounds = [*np.flatnonzero(np.diff(marks[:, 0], prepend=-1)).tolist(), len(marks)]
        for begin, end in pairwise(bounds):
            seen, its = self._books[int(marks[begin, 0])].seen, marks[begin:end, :0:-1]
            if its[0, 0] >= 0 and (its[1:, 0] > its[:-1, 0]).all():
                seen.append(memoryview(its.tobytes()))
            else:
                for trade_id, mark_ns in its.tolist():
                    seen.put(trade_id, mark_ns)

    def _forget(self) -> None:
        """Have instruments written of which less is remembered now than what their rows say.

        Or else rows might be deleted of which they say that it is known what was in them.
        """
        known = self._state.rows[: len(self._books)]
        horizons_ns = np.array([book.horizon_ns for book in self._books], np.int64)
        forgotten = (known[:, FLOOR] < horizons_ns - min(self._spec.revisable_ns, _MOST)) | (
            known[:, REMEMBERED] < self._state.remembered_ns(known[:, WATERMARK])
        )
        self.changed = [self._books[slot] for slot in np.flatnonzero(forgotten).tolist()]

    def _windows(
        self, name: str, pack: Open | Past, number: Callable[[str, int], int], wanted: Callable[[int], bool]
    ) -> Iterable[tuple[int, Window]]:
        try:
            yield from pack.windows.each(wanted, number)
        except _UNREADABLE as error:
            raise _unreadable(name, error) from None

    def _row(self, kind: type[C], name: str) -> C:
        if name not in self._rows:
            raise StateError(f"the state lacks its row {name!r}")
        row = _decode(kind, name, self._rows[name])
        try:
            row.check()
        except ValueError as error:
            raise _unreadable(name, error) from None
        return row

    def _is_known(self, slot: int) -> bool:
        return 0 <= slot < len(self._books)

    def _known(self, name: str, numbers: Ints | list[int]) -> Ints:
        """They, if there are such instruments."""
        try:
            slots = np.array(numbers, np.int64)
        except OverflowError as error:
            raise _unreadable(name, error) from None
        if len(slots) and not 0 <= slots.min() <= slots.max() < len(self._books):
            raise _unreadable(name, ValueError(f"instrument {slots.max()} of {len(self._books)}"))
        return slots

    def _check(self, name: str, bar_types: tuple[str, ...]) -> None:
        added = [one.name for one in self._series if one.name not in bar_types]
        if added:
            raise StateError(
                f"the state knows bars of {', '.join(bar_types)}, not of {', '.join(added)} (row {name!r})",
                hint="bars of a new type need their ticks from the start: read the topic with a new group",
            )
        if len(bar_types) > len(self._series):
            _check_feeders(name, list(map(BarType.parse, bar_types)), self._spec)


def _check_feeders(name: str, bar_types: Sequence[BarType], spec: BarSpec) -> None:
    """Raises StateError where bars are made of others than before, of which some ticks are in them already."""
    before = feeders(tuple(bar_types))
    after = feeders(spec.bar_types)
    names = {bar_type.name: None if feeder is None else after[feeder][0].name for bar_type, feeder in after}
    for bar_type, feeder in before:
        was = feeder
        while was is not None and before[was][0].name not in names:
            was = before[was][1]
        # What the bars that are taken away hold passes on, and they were made of these.
        made_of = None if was is None else before[was][0].name
        if feeder is not None and bar_type.name in names and names[bar_type.name] != made_of:
            gone = before[feeder][0].name
            raise StateError(
                f"the state has {bar_type.name} bars made of {gone} ones, which are taken away, "
                f"and now they would be made of {names[bar_type.name]} ones, whose ticks they have in part "
                f"(row {name!r})",
                hint=f"name {gone} again, or take {bar_type.name} away, too, or read the topic with a new group",
            )


def _reopen(book: Book, windows: Iterable[Window], bar_types: Sequence[BarType]) -> None:
    """Enter open windows. What is in those of a bar type that was taken away passes on to those that it fed."""
    wanted = {series.name: series for series in book.series}
    if len(bar_types) == len(wanted):
        for window in windows:
            book.put(wanted[window.bar_type], window)
    else:
        _pass_on(book, windows, bar_types, wanted)
    for series, window in list(book.open_windows()):
        for fed in series.feeds:
            book.window(fed, window.start_ns)


def _pass_on(
    book: Book, windows: Iterable[Window], bar_types: Sequence[BarType], wanted: Mapping[str, Series]
) -> None:
    was = Book(book.name, book.symbol, book.venue, series_of(bar_types))
    before = {series.name: series for series in was.series}
    for window in windows:
        was.put(before[window.bar_type], window)
    for series in was.series:
        for window in [window for window in was.windows.values() if window.bar_type == series.name]:
            if series.name in wanted:
                book.put(wanted[series.name], window)
            else:
                for fed in series.feeds:
                    was.window(fed, window.start_ns).merge(window)


def _decode(kind: type[T], name: str, row: bytes) -> T:
    try:
        version, payload = _envelope.decode(row)
        if version == VERSION:
            return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(name, error) from None
    raise StateError(
        f"state row {name!r} has version {version}, this program reads {VERSION}",
        hint="it was written by another release: run that one, or read the topic with a new group",
    )


def _unreadable(name: str, error: Exception) -> StateError:
    return StateError(f"state row {name!r} cannot be read: {error}")
