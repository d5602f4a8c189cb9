"""Instruments as rows of a compacted changelog, and back.

Each instrument has a head row under its name. What is remembered of the past, trade ids and closed windows,
gathers in the head until it is worth a part row, `NAME|NUMBER`, which is written once and never changed; the
head lists its parts. So a checkpoint writes what is new, however long the memory.

Parts are written before the head that lists them and deleted after one that does not. Wherever the writing is
cut off, the last head and its parts are therefore a whole state; parts that no head lists are rubbish.

The row without a name, written last, is the position of the partition: all rows contain what is at or before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from schemas.errors import StateError
from streams.bars.book import Book, Series, series_of
from streams.bars.replays import is_replayed
from streams.bars.rows import (
    VERSION,
    Head,
    Past,
    Position,
    from_bytes,
    is_packed,
    open_row,
    to_bytes,
    to_closed_window,
    to_open_window,
    written_again,
)
from streams.bars.seen import Unsaved
from streams.bars.types import BarSpec, BarType, Late, feeders
from streams.bars.window import Window

_FEW_WINDOWS = 16
_FEW_IDS = 128
_PART_ITEMS = 512  # keeps a row of the longest ids well below Kafka's 1 MB

#: The name of the row that holds the position of the partition.
POSITION = ""

T = TypeVar("T")


_encode = msgspec.msgpack.Encoder().encode
_envelope = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_head = msgspec.msgpack.Decoder(Head)
_past_row = msgspec.msgpack.Decoder(Past)
_position = msgspec.msgpack.Decoder(Position)


class Rows(NamedTuple):
    """Rows of windows that are not in a book."""

    open: list[msgspec.Raw]
    closed: list[msgspec.Raw]


def dump(
    books: Iterable[Book], held: Mapping[Book, Rows], spec: BarSpec, position: int
) -> tuple[dict[str, bytes | None], list[Book]]:
    """The rows to write for instruments, in this order; None deletes one.

    And those of which closed windows of `held` became parts. The rows contain all ticks at or before the offset
    `position`; `held` are windows beside those in the books.
    """
    rows: dict[str, bytes | None] = {}
    parted = []
    nothing = Rows([], [])
    bar_types = [bar_type.name for bar_type, _ in feeders(spec.bar_types)]
    for book in books:
        book.forget_ids(spec)
        its = held.get(book, nothing)
        recent = _dump_past(book, [*book.rows, *its.closed], bar_types, spec, rows)
        if its.closed and not recent.closed:
            parted.append(book)
        useless = [part for part, until_ns in book.parts.items() if until_ns < book.watermark_ns]
        for part in useless:
            del book.parts[part]
        head = Head(
            book.symbol,
            book.venue,
            bar_types,
            book.watermark_ns,
            book.horizon_ns,
            book.earliest_ns(spec),
            max(position, book.restored_offset),
            [*(open_row(window) for window in book.windows.values() if window.says_something), *its.open],
            recent,
            list(book.parts),
            book.next_part,
        )
        rows[book.name] = _encode((VERSION, head))
        for part in useless:
            rows[f"{book.name}|{part}"] = None
    return rows, parted


def _dump_past(
    book: Book,
    closed: list[msgspec.Raw],
    bar_types: list[str],
    spec: BarSpec,
    rows: dict[str, bytes | None],
) -> Past:
    """What belongs in the head, for it is little; much becomes parts, which are entered in `rows`."""
    seen = book.seen.unsaved()
    if len(seen.pairs) // 2 + len(seen.others) < _FEW_IDS and len(closed) < _FEW_WINDOWS:
        return Past([], closed, to_bytes(seen.pairs), seen.others, seen.others_ns)
    for past in _parts(closed, seen, bar_types):
        rows[f"{book.name}|{book.next_part}"] = _encode((VERSION, past))
        # What has closed ended at or before the horizon.
        book.parts[book.next_part] = _useful_until_ns(past, book.horizon_ns if past.closed else 0, spec)
        book.next_part += 1
    book.rows = []
    book.seen.save()
    return Past([], [], b"", [], [])


def load(rows: Mapping[str, bytes], spec: BarSpec, series: Sequence[Series]) -> tuple[list[Book], list[str]]:
    """The instruments in these rows, and the keys of rows that are of no use. Raises StateError.

    `series` are those of the bar types of `spec`, for the instruments to share.
    """
    heads: dict[str, bytes] = {}
    parts: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
    for key, row in rows.items():
        name, bar, number = key.rpartition("|")
        if not bar:
            heads[key] = row
        elif number.isdecimal():
            parts[name][int(number)] = row
        else:
            raise StateError(f"state row {key!r} is not one of Tidegate's")
    books = [_load_book(name, row, parts[name], spec, series) for name, row in heads.items()]
    return books, [f"{name}|{part}" for name, rest in parts.items() for part in rest]


def dump_position(offset: int, log_id: str) -> bytes:
    """The row of the position of a partition."""
    return _encode((VERSION, Position(offset, log_id)))


def load_position(row: bytes, log_id: str) -> int:
    """The offset in it. Raises StateError, also where it is one of another log."""
    position = _decode(_position, POSITION, row)
    if log_id and position.log_id and position.log_id != log_id:
        raise StateError(
            f"the state ends at offset {position.offset} of a topic that is gone: id {position.log_id}, "
            f"now {log_id}; it was deleted and made anew",
            hint="what was open in it is lost with it: `tidegate state reset` starts the new topic afresh",
        )
    return position.offset


def _load_book(
    name: str, row: bytes, parts: dict[int, bytes], spec: BarSpec, series: Sequence[Series]
) -> Book:
    """One instrument; takes the parts it lists out of `parts`."""
    head = _decode(_head, name, row)
    added = [bar_type.name for bar_type in spec.bar_types if bar_type.name not in head.bar_types]
    if added:
        raise StateError(
            f"the state of {name} knows bars of {', '.join(head.bar_types)}, not of {', '.join(added)}",
            hint="bars of a new type need their ticks from the start: read the topic with a new group",
        )
    bar_types = list(map(BarType.parse, head.bar_types))
    if len(bar_types) > len(spec.bar_types):
        _check_feeders(name, bar_types, spec)
    book = Book(name, head.symbol, head.venue, series)
    book.watermark_ns = head.watermark_ns
    book.horizon_ns = head.horizon_ns
    book.floor_ns = head.floor_ns
    book.restored_offset = head.offset
    book.next_part = head.next_part
    try:
        for part in head.parts:
            if part not in parts:
                raise StateError(f"the state of {name} lacks its row {name}|{part}")
            key = f"{name}|{part}"
            past = _decode(_past_row, key, parts.pop(part))
            closed = _recall(book, key, past, spec, list(map(BarType.parse, past.bar_types)))
            book.parts[part] = _useful_until_ns(past, max((w.end_ns for w in closed), default=0), spec)
        book.seen.save()
        closed = _recall(book, name, head.recent, spec, bar_types)
        if head.bar_types == [one.name for one in series]:
            # Of its own: what was read would keep all of the row it was read from.
            book.rows = [row.copy() for row in head.recent.closed]
        else:
            book.rows = list(map(written_again, closed))
        _reopen(book, [to_open_window(row, bar_types) for row in head.open], bar_types)
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        raise _unreadable(name, error) from None
    return book


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
                f"the state of {name} has {bar_type.name} bars made of {gone} ones, which are taken away, "
                f"and now they would be made of {names[bar_type.name]} ones, whose ticks they have in part",
                hint=f"name {gone} again, or take {bar_type.name} away, too, or read the topic with a new group",
            )


def _reopen(book: Book, windows: Iterable[Window], bar_types: Sequence[BarType]) -> None:
    """Enter open windows. What is in those of a bar type that was taken away passes on to those that it fed."""
    wanted = {series.name: series for series in book.series}
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
    for series, window in list(book.open_windows()):
        for fed in series.feeds:
            book.window(fed, window.start_ns)


def _recall(book: Book, key: str, past: Past, spec: BarSpec, bar_types: Sequence[BarType]) -> list[Window]:
    """Remember what is in the row of this key; gives the closed windows. Raises StateError."""
    try:
        past.check()
        closed = [to_closed_window(row, bar_types) for row in past.closed]
    except (ValueError, msgspec.DecodeError) as error:
        raise _unreadable(key, error) from None
    wanted = {series.name: series for series in book.series}
    if spec.late is not Late.DROP:
        for window in closed:
            if (series := wanted.get(window.bar_type)) is not None:
                book.closed.put(series.key(window.start_ns), window)
    if spec.dedupe_ns is not None:
        pairs = from_bytes(past.pairs)
        for trade_id, mark_ns in zip(pairs[::2], pairs[1::2], strict=True):
            book.seen.put(trade_id, mark_ns)
    for other, mark_ns in zip(past.others, past.others_ns, strict=True):
        if spec.dedupe_ns is not None or is_replayed(other):
            book.seen.put(other, mark_ns)
    return closed


def _decode(decoder: msgspec.msgpack.Decoder[T], key: str, row: bytes) -> T:
    try:
        version, payload = _envelope.decode(row)
        if version == VERSION:
            return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(key, error) from None
    raise StateError(
        f"state row {key!r} has version {version}, this program reads {VERSION}",
        hint="it was written by another release: run that one, or read the topic with a new group",
    )


def _unreadable(key: str, error: Exception) -> StateError:
    return StateError(f"state row {key!r} cannot be read: {error}")


def _useful_until_ns(past: Past, ended_ns: int, spec: BarSpec) -> int:
    """The watermark after which a part, whose windows have ended by then, says nothing that still counts."""
    windows_ns = ended_ns + spec.grace_ns + spec.revisable_ns
    return max(windows_ns, past.latest_mark_ns + spec.replayable_ns)


def _parts(closed: Sequence[msgspec.Raw], seen: Unsaved, bar_types: list[str]) -> Iterator[Past]:
    """Much of the past.

    An id that ascended may have counted again later, and whoever reads takes the last word of it: so the others
    come after all that ascend.
    """
    if not any(map(is_packed, closed)):
        bar_types = []
    for part in _slices(max(len(closed), len(seen.pairs) // 2)):
        pairs = seen.pairs[2 * part.start : 2 * part.stop]
        yield Past(bar_types, list(closed[part]), to_bytes(pairs), [], [])
    for part in _slices(len(seen.others)):
        yield Past([], [], b"", seen.others[part], seen.others_ns[part])


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _PART_ITEMS) for start in range(0, count, _PART_ITEMS))
